# SPDX-License-Identifier: Apache-2.0
"""
Remember submits, so that a crash, a retry or a timeout never buys one twice.

The order is: write the intent, send, write the outcome. An intent without an outcome means that the relay
may have taken the job; nothing can find that out, and so it is never sent again by itself.

Each try of the Airflow task writes under keys of its own and reads those of the tries before it. So a try
whose worker was given up for dead and is still alive can't overwrite what its successor has written.

The entries of a try are kept in pages, in the order of their intents: hundreds of them cost few reads, and
what one write carries doesn't grow with their number. The first page says how many there are, so that a page
that is lost isn't taken for one that was never written.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from airflow_provider_luma.exceptions import LumaStorageError
from airflow_provider_luma.state import StateStore
from airflow_provider_luma.text import shorten

OnClear = Literal["restart", "resume"]

PAGE_SIZE: Final = 25
"""Entries a page; a page of refusals in Chinese stays below the 64 KB that Airflow likes a value to have."""

_REASON_LENGTH: Final = 300


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One submit.

    :param at: When it was about to be sent, ISO 8601.
    :param task_id: The Luma task that it made.
    :param refused: Why the relay refused it for good.
    """

    at: str
    task_id: str | None = None
    refused: str | None = None

    @property
    def unclear(self) -> bool:
        """Whether it is unknown if the relay took it."""
        return self.task_id is None and self.refused is None


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """
    One try of an Airflow task, as far as Airflow describes it.

    :param number: Its number, from 1. It grows with each retry and with each clear.
    :param max_tries: How many retries Airflow counts for the task instance. A clear changes it.
    :param clears: How often tasks of the Dag run were cleared.
    :param retries: The task's ``retries``, as this try's version of the Dag has them.
    """

    number: int = 1
    max_tries: int = 0
    clears: int = 0
    retries: int = 0

    @property
    def is_last(self) -> bool:
        """Whether Airflow grants no retry after it."""
        return self.number > self.max_tries

    def was_cleared_after(self, ended: Try) -> bool:
        """
        Return whether this try certainly comes from a clear, and not from a retry of a try that had ended.

        A retry can follow an ended try as well: the worker may die before it reports the end, or a
        ``post_execute`` may fail.

        :param ended: The try before this one, which came to its end.
        """
        if self.max_tries != ended.max_tries or ended.is_last:
            return True
        # A clear sets max_tries to the number of the ended try plus retries, which is no change if `retries`
        # was lowered to just that in the Dag. Then only the Dag run's own count shows the clear.
        return self.clears != ended.clears and self.max_tries == ended.number + self.retries


class _Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What is written at once.

    :param entries: Submits of this try, by key.
    :param begins: On the first page of a try that began a run: how it did so.
    :param count: On the first page: how many pages there are at least.
    """

    entries: dict[str, Entry]
    begins: OnClear | None = None
    count: int = 1


class Ledger:
    """
    The submits of one run of one Airflow task.

    All retries belong to the same run, and so does a try that follows on one that never came to its end:
    whose worker was killed, or that was cleared while it ran or was deferred. Only a clear of an ended task
    begins a new run.

    :param store: Where it is kept.
    :param current: The try that uses it.
    :param on_clear: Whether a new run begins ``restart``, or continues with what the run before has submitted
        and sends only what has no id.
    :raises LumaStorageError: when the store has lost something that was written.
    """

    def __init__(self, store: StateStore, *, current: Try, on_clear: OnClear = "restart") -> None:
        self._store = store
        self._current = current
        self.on_clear = on_clear
        self._pages: list[dict[str, Entry]] = []
        self._begins: OnClear | None = None
        self._before: dict[str, Entry] = {}
        self.cleared: dict[str, Entry] = {}
        """What the run before has left behind, if this one begins with nothing after a clear."""
        self.is_empty = False
        """Whether the store holds nothing of any try."""
        self._open()

    @property
    def entries(self) -> dict[str, Entry]:
        """What is known of this run's submits, by key, in the order of their intents."""
        entries = dict(self._before)
        for page in self._pages:
            entries |= page
        return entries

    def intend(self, key: str, at: str) -> None:
        """Write that a submit is about to be sent."""
        number = self._find(key)
        if number is None:
            is_room = self._pages and len(self._pages[-1]) < PAGE_SIZE
            number = len(self._pages) - 1 if is_room else len(self._pages)
        page = self._pages[number] if number < len(self._pages) else {}
        self._write(number, {**page, key: Entry(at=at)})

    def submitted(self, key: str, task_id: str) -> None:
        """Write the id that an intended submit has made."""
        self._change(key, task_id=task_id)

    def refused(self, key: str, reason: str) -> None:
        """Write that the relay refused an intended submit for good."""
        self._change(key, refused=shorten(reason, _REASON_LENGTH))

    def forget(self, key: str) -> None:
        """Remove an intent of this try: the relay certainly did not take the job; it may be sent again."""
        number = self._find(key)
        if number is not None:
            page = self._pages[number]
            self._write(number, {other: entry for other, entry in page.items() if other != key})

    def end(self) -> None:
        """Write that this try came to its end and that Airflow won't retry it."""
        if not self._pages:
            self._write(0, {})
        # Under a key of its own: Airflow refuses the writes of a try that has a successor, but can't undo
        # that its object storage backend has replaced the file of an older key before it asked.
        self._store.set(_end_key(self._current.number), msgspec.to_builtins(self._current))

    def _open(self) -> None:
        found = self._read_run()
        self.is_empty = not found
        own = found.pop(self._current.number, None)
        for number in sorted(found):
            self._before = _known_at(self._before, found[number][0].begins)
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
        """Read this try and those before it, back to the one that began with nothing."""
        found: dict[int, list[_Page]] = {}
        for number in range(self._current.number, 0, -1):
            if pages := self._read_try(number):
                found[number] = pages
                if pages[0].begins == "restart":
                    return found
        if found:
            raise _lost(f"what the tries before try {min(found)} wrote")
        return found

    def _read_try(self, number: int) -> list[_Page]:
        pages: list[_Page] = []
        while (value := self._store.get(_page_key(number, len(pages)))) is not None:
            pages.append(msgspec.convert(value, _Page))
        if pages and len(pages) < pages[0].count:
            raise _lost(f"page {len(pages)} of what try {number} wrote")
        return pages

    def _follow(self, last: int) -> None:
        """Find out whether this try continues the run of the last one, or begins a new run."""
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
        self._before = _known_at(self._before, begins)

    def _change(self, key: str, **outcome: str) -> None:
        number = self._find(key)
        if number is None:
            raise KeyError(f"nothing was intended under {key!r}")
        page = self._pages[number]
        self._write(number, {**page, key: msgspec.structs.replace(page[key], **outcome)})

    def _find(self, key: str) -> int | None:
        return next((number for number, page in enumerate(self._pages) if key in page), None)

    def _write(self, number: int, entries: dict[str, Entry]) -> None:
        page = _Page(entries=entries)
        if number == 0:
            page = _Page(entries=entries, begins=self._begins, count=max(1, len(self._pages)))
        self._store.set(_page_key(self._current.number, number), msgspec.to_builtins(page))
        if number < len(self._pages):
            self._pages[number] = entries
            return
        self._pages.append(entries)
        if number:
            # Not before the page is there: a count of pages that were never written would stop every retry.
            self._write(0, self._pages[0])


def _known_at(before: dict[str, Entry], begins: OnClear | None) -> dict[str, Entry]:
    """Return what a try knows that began a run in this way, or none."""
    if begins == "restart":
        return {}
    if begins == "resume":
        # What the relay refused is sent again after a clear: the money may have been topped up.
        return {key: entry for key, entry in before.items() if entry.refused is None}
    return before


def _page_key(number: int, page: int) -> str:
    return f"luma_submits_{number}_{page}"


def _end_key(number: int) -> str:
    return f"luma_submits_{number}_end"


def _lost(what: str) -> LumaStorageError:
    return LumaStorageError(
        f"Airflow's task state store has lost {what}, so it is unknown what was submitted, and nothing more "
        "is. Look into the logs of the earlier tries, which name every id, and restore the store; or run "
        "what is missing in a new Dag run."
    )
