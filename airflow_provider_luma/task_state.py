# SPDX-License-Identifier: Apache-2.0
"""Keep state between the tries of a task, in Airflow's task state store (Airflow 3.3 and newer)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import conf

from airflow_provider_luma.exceptions import LumaAmbiguousSubmitError, LumaStorageError
from airflow_provider_luma.state import MemoryStore
from airflow_provider_luma.submitting.ledger import Ledger

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_luma.state import StateStore
    from airflow_provider_luma.submitting.ledger import OnClear, Try
    from airflow_provider_luma.submitting.submitter import OnAmbiguous

log = logging.getLogger(__name__)

_ABSENT: Final = object()


class _TaskStateStore:
    """Adapt Airflow's task state store, with one retention for all values."""

    def __init__(self, store: Any, *, lost_is_absent: bool, retention: timedelta) -> None:
        self._store = store
        self._lost_is_absent = lost_is_absent
        self._retention = retention

    def get(self, key: str) -> Any:
        value = self._store.get(key, _ABSENT)
        if value is None and not self._lost_is_absent:
            # A worker's storage backend returns None if Airflow knows the key and its object is gone.
            raise LumaStorageError(
                f"Airflow's task state store has lost the value of {key!r}: the database refers to it, but "
                "the storage behind [workers] state_store_backend doesn't have it. Restore that storage."
            )
        return None if value is _ABSENT else value

    def set(self, key: str, value: dict[str, Any]) -> None:
        self._store.set(key, value, retention=self._retention)


def task_state_store(
    context: Context, *, lost_is_absent: bool = False, retention: timedelta | None = None
) -> StateStore | None:
    """
    Return the store that outlives a try, or ``None`` on an Airflow without one.

    :param lost_is_absent: Whether a value that was written and is lost reads as ``None``, for state that only
        saves time. Otherwise reading it raises ``LumaStorageError``.
    :param retention: How long Airflow keeps the values. Default: as long as the task instance.
    """
    store = context.get("task_state_store")
    if store is None:
        return None
    if retention is None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        retention = NEVER_EXPIRE
    return _TaskStateStore(store, lost_is_absent=lost_is_absent, retention=retention)


def open_ledger(
    store: StateStore | None, *, current: Try, on_clear: OnClear, on_ambiguous: OnAmbiguous
) -> Ledger:
    """
    Open the ledger of a task's current run.

    :param store: The task's store; ``None`` remembers nothing of previous tries.
    :param on_ambiguous: Whether to submit what previous tries may have submitted.
    :raises LumaAmbiguousSubmitError: if it is unknown what they submitted and *on_ambiguous* is ``fail``.
    """
    if store is None:
        if on_clear == "resume":
            log.warning("on_clear='resume' needs Airflow 3.3, which keeps state between tries.")
        ledger = Ledger(MemoryStore(), current=current)
    else:
        if on_clear == "resume" and _is_emptied_on_success():
            log.warning(
                "[state_store] clear_on_success is on: Airflow forgets what this task submitted as soon as "
                "it succeeds, so a later clear can't resume it and fails. Switch it off to use "
                "on_clear='resume'."
            )
        ledger = Ledger(store, current=current, on_clear=on_clear)
    forgotten = _why_forgotten(store, on_clear) if ledger.is_empty and current.number > 1 else ""
    if forgotten and on_ambiguous == "fail":
        raise LumaAmbiguousSubmitError(
            f"{forgotten}, so it is unknown what the tries before try {current.number} of this task have "
            "submitted: it may be running and billed. Check their logs, which name every id, and the relay's "
            "task list or bill. To submit everything, perhaps again, set on_ambiguous='resubmit' and clear "
            "this task, or start a new Dag run."
        )
    if forgotten:
        log.warning("%s, so this try submits again what previous tries may have submitted.", forgotten)
    return ledger


def _why_forgotten(store: StateStore | None, on_clear: OnClear) -> str:
    """Return why an empty store doesn't mean that previous tries submitted nothing, or an empty text."""
    if store is None:
        # Any try but the first may follow a retry or a clear.
        return "This Airflow keeps no state between tries (3.3 does)"
    if on_clear == "resume" and _is_emptied_on_success():
        return "[state_store] clear_on_success is on, and the store is empty"
    if _may_lose_values():
        return "[state_store] backend isn't the database, and the store is empty"
    return ""


def _is_emptied_on_success() -> bool:
    """Return whether Airflow deletes a task's state as soon as the task succeeds."""
    return bool(conf.getboolean("state_store", "clear_on_success", fallback=False))


def _may_lose_values() -> bool:
    """Return whether the API server keeps state outside of the database, and may lose it unnoticed."""
    default = conf.get_default_value("state_store", "backend")
    return bool(conf.get("state_store", "backend", fallback=default) != default)
