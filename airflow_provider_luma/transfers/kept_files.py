# SPDX-License-Identifier: Apache-2.0
"""Remember completed downloads across retries."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final

import msgspec

from airflow_provider_luma.download.downloader import FileRecord
from airflow_provider_luma.state import MemoryStore, Pages

if TYPE_CHECKING:
    from airflow_provider_luma.state import StateStore

PAGE_SIZE: Final = 50
"""Records per page: some 20 KB, well below the 64 KB that Airflow recommends for a value of its store."""


class KeptFiles:
    """
    Keep the records of the files that a task instance has completed since its last clear.

    They are written a page at a time, so a killed try loses the records of its last page. Only speed depends
    on them.

    :param store: Where to keep them, or ``None`` where Airflow keeps nothing between tries.
    :param max_tries: The task instance's ``max_tries``: a clear raises it and a retry doesn't, so that a try
        finds only what was kept since the last clear.
    """

    def __init__(self, store: StateStore | None, *, max_tries: int) -> None:
        self._pages = Pages(store or MemoryStore(), "luma_files")
        self._max_tries = max_tries
        self._count = 0
        self._unwritten: list[FileRecord] = []

    def recall(self) -> list[FileRecord] | None:
        """
        Read what previous tries have kept.

        :return: Their records, or ``None`` if none of them has begun to keep files.
        """
        pages = list(takewhile(lambda page: page["run"] == self._max_tries, self._pages.read()))
        self._count = len(pages)
        files = [file for page in pages for file in page["files"]]
        return msgspec.convert(files, list[FileRecord]) if pages else None

    def begin(self) -> None:
        """Remember that this try begins to keep files."""
        self._write()

    def add(self, record: FileRecord) -> None:
        """Remember a file."""
        self._unwritten.append(record)
        if len(self._unwritten) >= PAGE_SIZE:
            self._write()

    def flush(self) -> None:
        """Write what isn't written yet."""
        if self._unwritten:
            self._write()

    def _write(self) -> None:
        self._pages.write(
            self._count, {"run": self._max_tries, "files": msgspec.to_builtins(self._unwritten)}
        )
        self._count += 1
        self._unwritten = []
