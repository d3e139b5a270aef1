# SPDX-License-Identifier: Apache-2.0
"""Tests of remembering completed downloads across retries."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_luma.download.downloader import FileRecord
from airflow_provider_luma.transfers.kept_files import PAGE_SIZE, KeptFiles


class Memory:
    """Keep values as JSON, like Airflow's store."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str) -> Any:
        value = self.values.get(key)
        return None if value is None else json.loads(value)

    def set(self, key: str, value: dict[str, Any]) -> None:
        self.values[key] = json.dumps(value)


def record(number: int) -> FileRecord:
    return FileRecord(
        id=f"3d824e24-889b-4964-8848-{number:012}",
        artifact="video",
        path=f"s3://bucket/videos/3d824e24-889b-4964-8848-{number:012}_video.mp4",
        bytes=5_000_000,
        sha256="8" * 64,
        content_type="video/mp4",
        seconds=1.234,
    )


def test_a_first_try_recalls_nothing() -> None:
    assert KeptFiles(Memory(), max_tries=0).recall() is None


def test_a_retry_recalls_the_files_of_all_previous_tries() -> None:
    memory = Memory()
    for start, count in ((0, 120), (120, 7)):
        kept = KeptFiles(memory, max_tries=3)
        known = kept.recall()
        assert known == ([record(n) for n in range(start)] if start else None)
        kept.begin()
        for number in range(start, start + count):
            kept.add(record(number))
        kept.flush()

    assert KeptFiles(memory, max_tries=3).recall() == [record(number) for number in range(127)]


def test_a_try_that_was_killed_before_its_first_file_has_still_begun() -> None:
    memory = Memory()
    KeptFiles(memory, max_tries=0).begin()

    assert KeptFiles(memory, max_tries=0).recall() == []


def test_unwritten_records_of_a_killed_try_are_lost() -> None:
    memory = Memory()
    kept = KeptFiles(memory, max_tries=0)
    kept.begin()
    for number in range(PAGE_SIZE + 1):
        kept.add(record(number))

    assert KeptFiles(memory, max_tries=0).recall() == [record(number) for number in range(PAGE_SIZE)]


def test_a_clear_discards_all_old_pages() -> None:
    memory = Memory()
    old = KeptFiles(memory, max_tries=0)
    old.begin()
    for number in range(3 * PAGE_SIZE):
        old.add(record(number))
    cleared = KeptFiles(memory, max_tries=1)
    assert cleared.recall() is None
    cleared.begin()
    cleared.add(record(7))
    cleared.flush()

    assert KeptFiles(memory, max_tries=1).recall() == [record(7)]


def test_pages_stay_below_the_size_that_airflow_recommends() -> None:
    memory = Memory()
    kept = KeptFiles(memory, max_tries=0)
    for number in range(PAGE_SIZE):
        kept.add(record(number))

    assert max(len(value) for value in memory.values.values()) < 32 * 1024


def test_without_a_store_nothing_is_kept() -> None:
    kept = KeptFiles(None, max_tries=0)
    kept.begin()
    kept.add(record(1))
    kept.flush()

    assert KeptFiles(None, max_tries=0).recall() is None
