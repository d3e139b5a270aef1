# SPDX-License-Identifier: Apache-2.0
"""What a task can keep for its next try: Airflow's task state store, which came with 3.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


class StateStore(Protocol):
    """A place that survives a crash. A read that fails raises: it never means "nothing there"."""

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` when there is none."""

    def set(self, key: str, value: dict[str, Any]) -> None:
        """Write a value; it is there whole when this returns."""


class _TaskStateStore:
    """Airflow's task state store, with values that stay as long as the task instance does."""

    def __init__(self, store: Any) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        self._store = store
        self._retention: timedelta = NEVER_EXPIRE

    def get(self, key: str) -> Any:
        return self._store.get(key)

    def set(self, key: str, value: dict[str, Any]) -> None:
        self._store.set(key, value, retention=self._retention)


def task_state_store(context: Context) -> StateStore | None:
    """Return what outlives a try, or ``None`` on an Airflow that has nothing of the kind."""
    store = context.get("task_state_store")
    return None if store is None else _TaskStateStore(store)
