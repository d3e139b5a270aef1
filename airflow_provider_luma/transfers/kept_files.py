# SPDX-License-Identifier: Apache-2.0
"""What a retry knows of the files that the tries before it have kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from airflow_provider_luma.download.downloader import FileRecord

if TYPE_CHECKING:
    from airflow_provider_luma.state import StateStore

PAGE_SIZE: Final = 50
"""Records a page: some 20 KB. Airflow likes a value of its store to stay below 64 KB."""


class KeptFiles:
    """
    The records of files that one run of a task has kept.

    They are written a page at a time. What a killed try had not written yet is not known; nothing but speed
    depends on it.

    :param store: Where they are kept, or ``None`` where nothing outlives a try.
    :param run: Which run of the task it is: retries belong to the same run, a clear begins a new one.
    """

    def __init__(self, store: StateStore | None, *, run: int) -> None:
        self._store = store
        self._run = run
        self._page = 0
        self._unwritten: list[FileRecord] = []

    def recall(self) -> list[FileRecord] | None:
        """
        Read what earlier tries have kept.

        :return: Their records, or None when none of them has come to its beginning.
        """
        records: list[FileRecord] = []
        while (page := self._read()) is not None:
            records += msgspec.convert(page["files"], list[FileRecord])
            self._page += 1
        return records if self._page else None

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

    def _read(self) -> dict[str, Any] | None:
        page: dict[str, Any] | None = None if self._store is None else self._store.get(self._key)
        return page if page is not None and page["run"] == self._run else None

    def _write(self) -> None:
        if self._store is not None:
            files = msgspec.to_builtins(self._unwritten)
            self._store.set(self._key, {"run": self._run, "files": files})
        self._page += 1
        self._unwritten = []

    @property
    def _key(self) -> str:
        return f"luma_files_{self._page}"
