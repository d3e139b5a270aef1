# SPDX-License-Identifier: Apache-2.0
"""
What is remembered of submits, so that a crash, a retry or a timeout never buys one twice.

The order is: write the intent, send, write the outcome. An intent without an outcome means that the relay
may have taken the job; nobody can tell, and so it is never sent again by itself.

Entries are kept in pages, in the order of their intents: hundreds of them cost few reads, and what one write
carries doesn't grow with their number.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol

import msgspec

from airflow_provider_luma.submitting.request import shorten

OnClear = Literal["anew", "continue"]

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
        """Whether nobody can tell if the relay took it."""
        return self.task_id is None and self.refused is None


class Store(Protocol):
    """
    A place that survives a crash.

    A write is whole or not there at all, and has happened when it returns. A read that fails must raise: it
    never means "nothing there".
    """

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` when there is none."""

    def set(self, key: str, value: dict[str, Any]) -> None:
        """Write a value."""


class _Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What is written at once.

    :param book: Which book it belongs to: pages of older ones may lie behind the last of the newest.
    :param runs: On the first page, the runs that the book is for.
    """

    book: int
    entries: dict[str, Entry]
    runs: list[int] = []


class Ledger:
    """
    The submits of one run of one Airflow task. A retry belongs to the same run, a clear begins a new one.

    :param store: Where it is kept.
    :param run: The run.
    :param on_clear: Whether a new run begins ``anew``, or goes on with what the run before has submitted.
    """

    def __init__(self, store: Store, *, run: int, on_clear: OnClear = "anew") -> None:
        self._store = store
        pages = self._read()
        self._runs = pages[0].runs if pages else [run]
        self._book = pages[0].book if pages else 0
        self._pages = [page.entries for page in pages]
        self.cleared: dict[str, Entry] = {}
        """What the run before has left behind, if this one begins anew after a clear."""
        if run in self._runs:
            return
        if on_clear == "continue":
            self._runs = [*self._runs, run]
            self._write(0, self._pages[0])
        else:
            self.cleared = self.entries
            self._runs, self._book, self._pages = [run], self._book + 1, []

    @property
    def entries(self) -> dict[str, Entry]:
        """What is known of this run's submits, by key, in the order of their intents."""
        return {key: entry for page in self._pages for key, entry in page.items()}

    def intend(self, key: str, at: str) -> None:
        """Write that a submit is about to be sent."""
        number = self._find(key)
        if number is None:
            if not self._pages or len(self._pages[-1]) >= PAGE_SIZE:
                self._pages.append({})
            number = len(self._pages) - 1
        self._write(number, {**self._pages[number], key: Entry(at=at)})

    def submitted(self, key: str, task_id: str) -> None:
        """Write the id that an intended submit has made."""
        self._change(key, task_id=task_id)

    def refused(self, key: str, reason: str) -> None:
        """Write that the relay refused an intended submit for good."""
        self._change(key, refused=shorten(reason, _REASON_LENGTH))

    def forget(self, key: str) -> None:
        """Remove an intent: the relay certainly did not take the job, and it may be sent again."""
        number = self._find(key)
        if number is not None:
            page = self._pages[number]
            self._write(number, {other: entry for other, entry in page.items() if other != key})

    def _change(self, key: str, **outcome: str) -> None:
        number = self._find(key)
        if number is None:
            raise KeyError(f"nothing was intended under {key!r}")
        page = self._pages[number]
        self._write(number, {**page, key: msgspec.structs.replace(page[key], **outcome)})

    def _find(self, key: str) -> int | None:
        return next((number for number, page in enumerate(self._pages) if key in page), None)

    def _read(self) -> list[_Page]:
        pages: list[_Page] = []
        while (value := self._store.get(_key(len(pages)))) is not None:
            page = msgspec.convert(value, _Page)
            if pages and page.book != pages[0].book:
                break
            pages.append(page)
        return pages

    def _write(self, number: int, entries: dict[str, Entry]) -> None:
        page = _Page(book=self._book, entries=entries, runs=[] if number else self._runs)
        self._store.set(_key(number), msgspec.to_builtins(page))
        self._pages[number] = entries


class MemoryStore:
    """A store that lasts as long as the process, where nothing better is there."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` when there is none."""
        return self._values.get(key)

    def set(self, key: str, value: dict[str, Any]) -> None:
        """Write a value."""
        self._values[key] = value


def _key(number: int) -> str:
    return f"luma_submits_{number}"
