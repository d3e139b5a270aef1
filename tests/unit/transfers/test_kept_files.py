# SPDX-License-Identifier: Apache-2.0
"""Tests of what a retry knows of the tries before it."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_luma.download.downloader import FileRecord
from airflow_provider_luma.transfers.kept_files import PAGE_SIZE, KeptFiles


class Memory:
    """A store that keeps JSON."""

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


def test_a_first_try_knows_nothing() -> None:
    assert KeptFiles(Memory(), run=0).recall() is None


def test_a_retry_knows_the_files_of_all_tries_before() -> None:
    memory = Memory()
    for start, count in ((0, 120), (120, 7)):
        kept = KeptFiles(memory, run=3)
        known = kept.recall()
        assert known == ([record(n) for n in range(start)] if start else None)
        kept.begin()
        for number in range(start, start + count):
            kept.add(record(number))
        kept.flush()

    assert KeptFiles(memory, run=3).recall() == [record(number) for number in range(127)]


def test_a_try_that_was_killed_before_its_first_file_has_begun_all_the_same() -> None:
    memory = Memory()
    KeptFiles(memory, run=0).begin()

    assert KeptFiles(memory, run=0).recall() == []


def test_what_a_killed_try_had_not_written_yet_is_not_known() -> None:
    memory = Memory()
    kept = KeptFiles(memory, run=0)
    kept.begin()
    for number in range(PAGE_SIZE + 1):
        kept.add(record(number))

    assert KeptFiles(memory, run=0).recall() == [record(number) for number in range(PAGE_SIZE)]


def test_a_clear_begins_anew_and_old_pages_stay_forgotten() -> None:
    memory = Memory()
    old = KeptFiles(memory, run=0)
    old.begin()
    for number in range(3 * PAGE_SIZE):
        old.add(record(number))
    cleared = KeptFiles(memory, run=1)
    assert cleared.recall() is None
    cleared.begin()
    cleared.add(record(7))
    cleared.flush()

    assert KeptFiles(memory, run=1).recall() == [record(7)]


def test_no_page_is_larger_than_airflow_likes() -> None:
    memory = Memory()
    kept = KeptFiles(memory, run=0)
    for number in range(PAGE_SIZE):
        kept.add(record(number))

    assert max(len(value) for value in memory.values.values()) < 32 * 1024


def test_without_a_store_nothing_is_kept() -> None:
    kept = KeptFiles(None, run=0)
    kept.begin()
    kept.add(record(1))
    kept.flush()

    assert KeptFiles(None, run=0).recall() is None
