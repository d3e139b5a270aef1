# SPDX-License-Identifier: Apache-2.0
"""
Remember submits, so that no crash, retry or timeout is billed twice.

The order is: write the intent, send, write the outcome. An intent without an outcome means that the relay may
have accepted the request. The relay has no way to find out, so such a request is never sent again by itself.

Each try of the Airflow task writes under keys of its own and reads those of previous tries. A worker that
Airflow wrongly took for dead can therefore not overwrite what its successor has written.

A try keeps its entries in pages, in the order of their intents. The first page holds the number of pages, so
that a lost page isn't taken for one that was never written.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from airflow_provider_luma.exceptions import LumaStorageError
from airflow_provider_luma.state import Pages, StateStore
from airflow_provider_luma.text import shorten

OnClear = Literal["restart", "resume"]

PAGE_SIZE: Final = 25
"""Entries per page: refusals in Chinese stay below the 64 KB that Airflow recommends for a value."""

_REASON_LENGTH: Final = 300


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Record one submit.

    :param at: When it was about to be sent, ISO 8601.
    :param task_id: Id of the Luma task that it created.
    :param refused: Why the relay refused it for good.
    """

    at: str
    task_id: str | None = None
    refused: str | None = None

    @property
    def has_unknown_outcome(self) -> bool:
        """Whether the relay may or may not have accepted it."""
        return self.task_id is None and self.refused is None


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """
    Describe one try of an Airflow task, as far as Airflow does.

    :param number: Its number, from 1. It grows with each retry and with each clear.
    :param max_tries: How many retries Airflow counts for the task instance. A clear changes it.
    """

    number: int = 1
    max_tries: int = 0

    @property
    def is_last(self) -> bool:
        """Whether Airflow grants no retry after it."""
        return self.number > self.max_tries

    def was_cleared_after(self, ended: Try) -> bool:
        """
        Return whether this try certainly follows a clear, and not a retry of a try that had ended.

        A retry can follow an ended try as well: the worker may die before it reports the end, or a
        ``post_execute`` may fail. A clear sets ``max_tries`` to the number of the ended try plus ``retries``.
        That is no change if ``retries`` was lowered to just that in the Dag, and nothing else that a worker
        can see is certain then; what isn't certain counts as a retry, which never submits twice.

        :param ended: The previous try, which has written its end.
        """
        return self.max_tries != ended.max_tries or ended.is_last


class _Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Hold what one write carries.

    :param entries: Submits of this try, by key.
    :param begins: On the first page of a try that began a run: how it did so.
    :param count: On the first page: how many pages there are at least.
    """

    entries: dict[str, Entry]
    begins: OnClear | None = None
    count: int = 1


class Ledger:
    """
    Keep the submits of one run of one Airflow task.

    All retries belong to the same run. So does a try after one that has written no end, because its worker
    was killed or because it was cleared while it ran or was deferred. Only a clear of an ended task begins a
    new run.

    :param store: Where to keep them.
    :param current: The try that uses the ledger.
    :param on_clear: Whether a new run begins empty (``restart``), or keeps what the previous run has
        submitted and sends only what has no id (``resume``).
    :raises LumaStorageError: if the store has lost something that was written.
    """

    def __init__(self, store: StateStore, *, current: Try, on_clear: OnClear = "restart") -> None:
        self._store = store
        self._current = current
        self.on_clear = on_clear
        self._pages: list[dict[str, Entry]] = []
        self._begins: OnClear | None = None
        self._before: dict[str, Entry] = {}
        self.cleared: dict[str, Entry] = {}
        """Entries of the previous run, if this one began empty after a clear."""
        self.is_empty = False
        """Whether the store holds nothing of any try."""
        self._open()

    @property
    def entries(self) -> dict[str, Entry]:
        """Return this run's entries by key, in the order of their intents."""
        entries = dict(self._before)
        for page in self._pages:
            entries |= page
        return entries

    def intend(self, key: str, at: str) -> None:
        """Write that a request is about to be sent."""
        number = self._find(key)
        if number is None:
            has_room = self._pages and len(self._pages[-1]) < PAGE_SIZE
            number = len(self._pages) - 1 if has_room else len(self._pages)
        page = self._pages[number] if number < len(self._pages) else {}
        self._write(number, {**page, key: Entry(at=at)})

    def submitted(self, key: str, task_id: str) -> None:
        """Write the id of the Luma task that a submit has created."""
        self._change(key, task_id=task_id)

    def refused(self, key: str, reason: str) -> None:
        """Write that the relay refused a request for good."""
        self._change(key, refused=shorten(reason, _REASON_LENGTH))

    def forget(self, key: str) -> None:
        """Remove an intent of this try, because the relay certainly didn't accept the request."""
        number = self._find(key)
        if number is not None:
            page = self._pages[number]
            self._write(number, {other: entry for other, entry in page.items() if other != key})

    def end(self) -> None:
        """Write that this try has ended and that Airflow won't retry it."""
        if not self._pages:
            self._write(0, {})
        # Under a key of its own: Airflow refuses writes of a try that has a successor, but only after its
        # object storage backend may have replaced the file of an existing key.
        self._store.set(_end_key(self._current.number), msgspec.to_builtins(self._current))

    def _open(self) -> None:
        found = self._read_run()
        self.is_empty = not found
        own = found.pop(self._current.number, None)
        for number in sorted(found):
            self._before = _carried_over(self._before, found[number][0].begins)
            for page in found[number]:
                self._before |= page.entries
        if own:
            self._begin(own[0].begins)
            self._pages = [page.entries for page in own]
        elif found:
            self._follow(max(found))
        else:
            self._begins = "restart"

    def _read_run(self) -> dict[int, list[_Page]]:
        """Read this try and previous ones, back to the one that began empty."""
        found: dict[int, list[_Page]] = {}
        for number in range(self._current.number, 0, -1):
            if pages := self._read_try(number):
                found[number] = pages
                if pages[0].begins == "restart":
                    return found
        if found:
            raise _lost(f"everything that tries before try {min(found)} wrote")
        return found

    def _read_try(self, number: int) -> list[_Page]:
        pages = [msgspec.convert(page, _Page) for page in self._pages_of(number).read()]
        if pages and len(pages) < pages[0].count:
            raise _lost(f"page {len(pages)} of what try {number} wrote")
        return pages

    def _pages_of(self, number: int) -> Pages:
        return Pages(self._store, f"luma_submits_{number}")

    def _follow(self, last: int) -> None:
        """Find out whether this try continues the run of the last one or begins a new run."""
        value = self._store.get(_end_key(last))
        if value is None:
            return
        if not self._current.was_cleared_after(msgspec.convert(value, Try)):
            # Without a page of this try, the run would still count as ended if this worker were killed.
            self._write(0, {})
        elif self.on_clear == "resume":
            self._begin("resume")
            self._write(0, {})
        else:
            self.cleared = self._before
            self._begin("restart")

    def _begin(self, begins: OnClear | None) -> None:
        self._begins = begins
        self._before = _carried_over(self._before, begins)

    def _change(self, key: str, **outcome: str) -> None:
        number = self._find(key)
        if number is None:
            raise KeyError(f"The ledger has no intent under {key!r}.")
        page = self._pages[number]
        self._write(number, {**page, key: msgspec.structs.replace(page[key], **outcome)})

    def _find(self, key: str) -> int | None:
        return next((number for number, page in enumerate(self._pages) if key in page), None)

    def _write(self, number: int, entries: dict[str, Entry]) -> None:
        page = _Page(entries=entries)
        if number == 0:
            page = _Page(entries=entries, begins=self._begins, count=max(1, len(self._pages)))
        self._pages_of(self._current.number).write(number, msgspec.to_builtins(page))
        if number < len(self._pages):
            self._pages[number] = entries
            return
        self._pages.append(entries)
        if number:
            # Only after the page exists: a count of pages that were never written would stop every retry.
            self._write(0, self._pages[0])


def _carried_over(before: dict[str, Entry], begins: OnClear | None) -> dict[str, Entry]:
    """Return what a try keeps of the entries before it, by how it began a run (``None``: it didn't)."""
    if begins == "restart":
        return {}
    if begins == "resume":
        # A clear sends refused requests again, because the account may have been topped up.
        return {key: entry for key, entry in before.items() if entry.refused is None}
    return before


def _end_key(number: int) -> str:
    return f"luma_submits_{number}_end"


def _lost(what: str) -> LumaStorageError:
    return LumaStorageError(
        f"Airflow's task state store has lost {what}, so it is unknown what was submitted. Nothing more is "
        "submitted. Restore the store, or find the ids in the logs of previous tries and submit what is "
        "missing in a new Dag run."
    )
