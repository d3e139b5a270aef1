# SPDX-License-Identifier: Apache-2.0
"""Values that outlive a try of a task, and where they are kept."""

from __future__ import annotations

from typing import Any, Protocol


class StateStore(Protocol):
    """
    Keep values by key, across crashes.

    A write is whole or not there at all, and has happened when it returns. A read that fails raises: it
    never means that there is no value.
    """

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` when there is none."""

    def set(self, key: str, value: dict[str, Any]) -> None:
        """Write a value."""


class MemoryStore:
    """Keep values as long as the process lives, where Airflow has no store."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` when there is none."""
        return self._values.get(key)

    def set(self, key: str, value: dict[str, Any]) -> None:
        """Write a value."""
        self._values[key] = value
