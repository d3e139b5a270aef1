# SPDX-License-Identifier: Apache-2.0
"""Tests of hashing in the background."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import pytest

from airflow_provider_luma.download.checksum import BackgroundSha256


@pytest.fixture
def checksum() -> Iterator[BackgroundSha256]:
    checksum = BackgroundSha256()
    yield checksum
    checksum.close()


def feed(checksum: BackgroundSha256, body: bytes, step: int) -> None:
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        checksum.buffer()[: len(piece)] = piece
        checksum.update(len(piece))


@pytest.mark.parametrize("step", [1000, 256 * 1024])
def test_the_digest_is_that_of_all_bytes_in_their_order(checksum: BackgroundSha256, step: int) -> None:
    body = bytes(range(256)) * 4000

    feed(checksum, body, step)

    assert checksum.hexdigest() == hashlib.sha256(body).hexdigest()


def test_it_can_be_restarted(checksum: BackgroundSha256) -> None:
    feed(checksum, b"x" * 100_000, 1000)
    checksum.buffer()

    checksum.restart()
    feed(checksum, b"abc", 3)

    assert checksum.hexdigest() == hashlib.sha256(b"abc").hexdigest()


def test_a_buffer_belongs_to_the_caller_until_it_is_passed_on(checksum: BackgroundSha256) -> None:
    buffer = checksum.buffer()

    assert checksum.buffer() is buffer
    assert checksum.hexdigest() == hashlib.sha256().hexdigest()
    assert checksum.buffer() is buffer


def test_closing_stops_the_thread() -> None:
    before = threading.active_count()
    checksum = BackgroundSha256()
    assert threading.active_count() == before + 1

    checksum.close()

    assert threading.active_count() == before
