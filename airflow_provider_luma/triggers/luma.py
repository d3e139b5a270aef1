# SPDX-License-Identifier: Apache-2.0
"""The trigger behind deferred task instances: it waits for Luma tasks and reports, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec
from airflow.triggers.base import (
    BaseTrigger,
    TaskFailedEvent,
    TaskSkippedEvent,
    TaskSuccessEvent,
    TriggerEvent,
)

from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.task_ids import parse_task_ids
from airflow_provider_luma.version_compat import airflow_stats
from airflow_provider_luma.waiting.poller import follow_shared
from airflow_provider_luma.waiting.progress import Progress, Report, WaitPolicy
from airflow_provider_luma.waiting.time_limit import TimeLimit
from airflow_provider_luma.waiting.tracker import Tracker

log = logging.getLogger(__name__)

_ONE_HOUR: Final = TimeLimit(seconds=60 * 60)
_ARGUMENTS: Final = (
    *("luma_task_ids", "luma_conn_id", "poll_interval", "time_limit"),
    *("max_failed", "missing_polls", "progress", "end_states"),
)
_END_EVENTS: Final = {"success": TaskSuccessEvent, "failed": TaskFailedEvent, "skipped": TaskSkippedEvent}


class _AirflowMeter:
    """Sends the poller's measurements to Airflow's metrics, tagged with the connection."""

    def __init__(self, luma_conn_id: str) -> None:
        self._stats: Any = airflow_stats()
        self._tags = {"conn_id": luma_conn_id}

    def incr(self, name: str, count: int = 1) -> None:
        self._send("incr", name, count)

    def gauge(self, name: str, value: float) -> None:
        self._send("gauge", name, value)

    def timing(self, name: str, seconds: float) -> None:
        self._send("timing", name, timedelta(seconds=seconds))

    def _send(self, kind: str, name: str, value: Any) -> None:
        if self._stats is None:
            return
        try:
            getattr(self._stats, kind)(name, value, tags=self._tags)
        except Exception:
            # A metrics backend of the deployment may raise anything, and must not fail the wait.
            log.warning("Metrics of connection %s are no longer sent.", self._tags["conn_id"], exc_info=True)
            self._stats = None


class LumaTaskTrigger(BaseTrigger):
    """
    Wait until Luma tasks are in a terminal state, and fire one event.

    The event is a :class:`~airflow_provider_luma.waiting.progress.Report` as a dictionary, or the end of the
    task instance.

    All triggers of one triggerer that use the same connection share their polls. All arguments are JSON
    primitives and none is secret: they are stored in Airflow's database.

    :param luma_task_ids: The ids to wait for: a list, one id, or the text of a list. (templated, when the
        task starts from its trigger)
    :param luma_conn_id: Id of the Airflow connection; it is read in the triggerer.
    :param poll_interval: Seconds between polls; the first poll comes after one interval.
    :param time_limit: A :class:`~airflow_provider_luma.waiting.time_limit.TimeLimit`, or its fields as a
        dictionary. Default: an hour from now.
    :param max_failed: How many tasks may fail; ``None`` means any number.
    :param missing_polls: How many answers in a row may leave an id out before it counts as failed.
    :param progress: What was known when the task deferred, see
        :meth:`~airflow_provider_luma.waiting.progress.Progress.to_json`.
    :param end_states: The state (``success``, ``failed``, ``skipped``) to end the task instance in, by
        verdict. At a verdict that is not named, the task instance resumes in a worker.
    """

    timeout_after: datetime | None = None
    """Airflow's own timeout of the deferral: the triggerer sets it, to the same time after a restart."""

    def __init__(
        self,
        *,
        luma_task_ids: Sequence[str] | str,
        luma_conn_id: str = LumaHook.default_conn_name,
        poll_interval: float,
        time_limit: TimeLimit | Mapping[str, Any] = _ONE_HOUR,
        max_failed: int | None = 0,
        missing_polls: int = 3,
        progress: dict[str, Any] | None = None,
        end_states: dict[str, str] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.luma_task_ids = luma_task_ids if isinstance(luma_task_ids, str) else list(luma_task_ids)
        self.luma_conn_id = luma_conn_id
        self.poll_interval = poll_interval
        self.time_limit = msgspec.convert(time_limit, TimeLimit)
        self.max_failed = max_failed
        self.missing_polls = missing_polls
        self.progress = progress or {}
        self.end_states = end_states or {}
        self._tracker: Tracker | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that rebuild this trigger elsewhere."""
        arguments = {name: msgspec.to_builtins(getattr(self, name)) for name in _ARGUMENTS}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the one event."""
        try:
            report = await self._wait(parse_task_ids(self.luma_task_ids))
        except LumaConfigError as error:
            report = Report("refused", str(error), {}, timed_out_by=self.time_limit.name)
        yield self._event(report)

    async def on_kill(self) -> None:
        """Log what keeps running when a user ends the task instance (Airflow 3.3 and newer)."""
        open_ids = self._tracker.progress.open_ids if self._tracker else []
        if open_ids:
            self.log.warning(
                "Ended by a user while waiting. The relay can't cancel, so %d unfinished Luma tasks keep "
                "running and are billed: %s",
                len(open_ids),
                ", ".join(open_ids),
            )

    def _event(self, report: Report) -> TriggerEvent:
        payload = msgspec.to_builtins(report)
        end_state = self.end_states.get(report.verdict)
        if end_state is None:
            return TriggerEvent(payload)
        xcoms: dict[str, Any] = {"failed": report.failed}
        if end_state == "success":
            self.log.info("%s", report.message)
            xcoms["return_value"] = report.completed
        else:
            self.log.error("%s", report.message)
        event: TriggerEvent = _END_EVENTS[end_state](xcoms=xcoms)
        # A triggerer ends the task instance without it; dag.test() resumes in a worker, which needs it.
        event.payload = payload
        return event

    async def _wait(self, ids: Sequence[str]) -> Report:
        progress = Progress.from_json(ids, self.progress)
        policy = WaitPolicy(max_failed=self.max_failed, missing_polls=self.missing_polls)
        tracker = self._tracker = Tracker(progress, policy, self.log, last_summary=progress.summary())
        verdict = await follow_shared(
            self.luma_conn_id,
            partial(LumaHook.aget_settings, self.luma_conn_id),
            tracker,
            interval=self.poll_interval,
            deadline=self.time_limit.runs_out_at(self.timeout_after),
            meter=_AirflowMeter(self.luma_conn_id),
        )
        return tracker.report(verdict, limit=self.time_limit)
