# SPDX-License-Identifier: Apache-2.0
"""Define how values are kept across the tries of a task."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, Protocol


class StateStore(Protocol):
    """
    Keep values by key, across crashes.

    A write is atomic and has happened when it returns. A read that fails raises: it never means that there
    is no value.
    """

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` if there is none."""

    def set(self, key: str, value: dict[str, Any]) -> None:
        """Write a value."""


class MemoryStore:
    """Keep values for the life of the process, where Airflow has no store."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` if there is none."""
        return self._values.get(key)

    def set(self, key: str, value: dict[str, Any]) -> None:
        """Write a value."""
        self._values[key] = value


class Pages:
    """
    Split what grows into numbered values, so that each write stays small and a read takes few calls.

    :param store: Where to keep them.
    :param prefix: What their keys begin with; the page's number follows.
    """

    def __init__(self, store: StateStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the pages in order, up to the first number that has none."""
        for number in count():
            if (page := self._store.get(f"{self._prefix}_{number}")) is None:
                return
            yield page

    def write(self, number: int, page: dict[str, Any]) -> None:
        """Write the page of this number, in place of an earlier one."""
        self._store.set(f"{self._prefix}_{number}", page)
