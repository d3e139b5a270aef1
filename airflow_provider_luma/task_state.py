# SPDX-License-Identifier: Apache-2.0
"""What a task can keep for its next try: Airflow's task state store, which came with 3.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import conf

from airflow_provider_luma.exceptions import LumaStorageError

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_luma.state import StateStore


_ABSENT: Final = object()


class _TaskStateStore:
    """Airflow's task state store, with one retention for all values."""

    def __init__(self, store: Any, *, lost_is_absent: bool, retention: timedelta | None) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        self._store = store
        self._lost_is_absent = lost_is_absent
        self._retention: timedelta = NEVER_EXPIRE if retention is None else retention

    def get(self, key: str) -> Any:
        value = self._store.get(key, _ABSENT)
        if value is None and not self._lost_is_absent:
            # A worker's storage backend answers so when Airflow knows the key and its object is gone.
            raise LumaStorageError(
                f"Airflow's task state store has lost the value of {key!r}: the database refers to it, and "
                "the storage behind [workers] state_store_backend doesn't hold it. Restore that storage."
            )
        return None if value is _ABSENT else value

    def set(self, key: str, value: dict[str, Any]) -> None:
        self._store.set(key, value, retention=self._retention)


def task_state_store(
    context: Context, *, lost_is_absent: bool = False, retention: timedelta | None = None
) -> StateStore | None:
    """
    Return what outlives a try, or ``None`` on an Airflow that has nothing of the kind.

    :param context: The task's context.
    :param lost_is_absent: Whether a value that was written and is lost reads as ``None``, for what is kept
        for speed alone. Otherwise reading it raises ``LumaStorageError``.
    :param retention: How long Airflow keeps the values. Default: as long as the task instance.
    """
    store = context.get("task_state_store")
    if store is None:
        return None
    return _TaskStateStore(store, lost_is_absent=lost_is_absent, retention=retention)


def is_emptied_on_success() -> bool:
    """Whether Airflow removes what a task kept as soon as the task succeeds."""
    return bool(conf.getboolean("state_store", "clear_on_success", fallback=False))


def may_lose_values() -> bool:
    """Whether the API server keeps values elsewhere than in the database, and could lose them unnoticed."""
    default = conf.get_default_value("state_store", "backend")
    return bool(conf.get("state_store", "backend", fallback=default) != default)
