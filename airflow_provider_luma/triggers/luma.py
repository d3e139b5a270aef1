# SPDX-License-Identifier: Apache-2.0
"""The trigger behind deferred Luma tasks: it waits and reports, and nothing else."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
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
from airflow_provider_luma.waiting.poller import shared_poll
from airflow_provider_luma.waiting.progress import Progress, Report, WaitPolicy
from airflow_provider_luma.waiting.schedule import PollResult
from airflow_provider_luma.waiting.tracker import Tracker

log = logging.getLogger(__name__)

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
            # A metrics backend that the deployment has chosen may raise anything; no wait may end by it.
            log.warning("Metrics of connection %s are no longer sent.", self._tags["conn_id"], exc_info=True)
            self._stats = None


class LumaTaskTrigger(BaseTrigger):
    """
    Wait until Luma tasks have come to their end, and fire one event: a
    :class:`~airflow_provider_luma.waiting.progress.Report` as a dictionary, or the end of the Airflow task.

    All triggers of one triggerer that use the same connection share their polls. All arguments are JSON
    primitives and none is secret: they are stored in Airflow's database.

    :param luma_task_ids: The ids to wait for: a list, one id, or the text of a list. (templated, when the
        task starts from its trigger)
    :param luma_conn_id: Id of the Airflow connection; it is read in the triggerer.
    :param poll_interval: Seconds between polls; the first poll comes after one interval.
    :param deadline: When to give up, in seconds since the epoch: a trigger moves between processes. ``None``
        when the task starts from its trigger: then it is *grace* before Airflow's own timeout.
    :param timeout: Seconds to wait when there is neither.
    :param grace: Seconds by which Airflow's own timeout of the deferral is later than the deadline.
    :param waited: What has run out at the deadline, for the message.
    :param timed_out_by: Which of the task's time limits the deadline stands for: ``timeout`` or
        ``execution_timeout``. The event tells it to the worker that goes on.
    :param max_failed: How many tasks may fail; ``None`` means any number.
    :param missing_polls: How many answers in a row may leave an id out before it counts as failed.
    :param progress: What was known when the task deferred, see
        :meth:`~airflow_provider_luma.waiting.progress.Progress.to_json`.
    :param end_states: With which state (``success``, ``failed``, ``skipped``) to end the Airflow task, by
        verdict. At a verdict that is not named the task goes on in a worker.
    """

    def __init__(
        self,
        *,
        luma_task_ids: Sequence[str] | str,
        luma_conn_id: str = LumaHook.default_conn_name,
        poll_interval: float,
        deadline: float | None = None,
        timeout: float = 60 * 60,
        grace: float = 0.0,
        waited: str = "the timeout",
        timed_out_by: str = "timeout",
        max_failed: int | None = 0,
        missing_polls: int = 3,
        progress: dict[str, Any] | None = None,
        end_states: dict[str, str] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.luma_task_ids = luma_task_ids if isinstance(luma_task_ids, str) else list(luma_task_ids)
        self.luma_conn_id = luma_conn_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.timeout = timeout
        self.grace = grace
        self.waited = waited
        self.timed_out_by = timed_out_by
        self.max_failed = max_failed
        self.missing_polls = missing_polls
        self.progress = progress or {}
        self.end_states = end_states or {}
        self._tracker: Tracker | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the arguments that rebuild this trigger elsewhere."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "luma_task_ids": self.luma_task_ids,
                "luma_conn_id": self.luma_conn_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "timeout": self.timeout,
                "grace": self.grace,
                "waited": self.waited,
                "timed_out_by": self.timed_out_by,
                "max_failed": self.max_failed,
                "missing_polls": self.missing_polls,
                "progress": self.progress,
                "end_states": self.end_states,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the one event."""
        try:
            report = await self._wait(parse_task_ids(self.luma_task_ids))
        except LumaConfigError as error:
            report = Report("refused", str(error), {})
        yield self._event(report)

    async def on_kill(self) -> None:
        """Say what goes on when a user ends the task (Airflow 3.3 and newer): the API has no cancel."""
        open_ids = self._tracker.progress.open_ids if self._tracker else []
        if open_ids:
            self.log.warning(
                "Ended by a user while waiting. The relay can't cancel, so %d unfinished Luma tasks go on "
                "and are billed: %s",
                len(open_ids),
                ", ".join(open_ids),
            )

    def _event(self, report: Report) -> TriggerEvent:
        payload = msgspec.to_builtins(report) | {"timed_out_by": self.timed_out_by}
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
        # A triggerer ends the task without it; dag.test() doesn't, and goes on in a worker.
        event.payload = payload
        return event

    def _give_up_at(self) -> float:
        if self.deadline is not None:
            return self.deadline
        # The triggerer sets it, to the same time after a restart; it knows no start of the task.
        timeout_after: datetime | None = getattr(self, "timeout_after", None)
        if timeout_after is None:
            return time.time() + self.timeout
        if timeout_after.tzinfo is None:
            timeout_after = timeout_after.replace(tzinfo=UTC)
        return timeout_after.timestamp() - self.grace

    async def _wait(self, ids: Sequence[str]) -> Report:
        deadline = self._give_up_at()
        tracker = self._tracker = Tracker(
            Progress.from_json(ids, self.progress),
            WaitPolicy(max_failed=self.max_failed, missing_polls=self.missing_polls),
            self.log,
        )
        tracker.said = tracker.progress.summary()
        verdict = tracker.verdict(timed_out=False)

        def take(answer: PollResult | None) -> Sequence[str]:
            nonlocal verdict
            tracker.tolerate_poll_failures(subscription.poller.max_poll_failures)
            if answer is not None:
                tracker.take(
                    answer.tasks,
                    asked=answer.asked,
                    error=answer.error,
                    answered=subscription.poller.proven,
                )
            verdict = tracker.verdict(timed_out=subscription.timed_out)
            return tracker.progress.open_ids if verdict == "waiting" else ()

        if tracker.progress.open_ids:
            with shared_poll(
                self.luma_conn_id,
                partial(LumaHook.aget_settings, self.luma_conn_id),
                tracker.progress.open_ids,
                take,
                interval=self.poll_interval,
                deadline=deadline,
                meter=_AirflowMeter(self.luma_conn_id),
                answered=tracker.progress.answered,
            ) as subscription:
                self.log.info(
                    "Waiting for Luma tasks together with %d others: %s",
                    subscription.poller.waiters - 1,
                    tracker.said,
                )
                await subscription.end()
        return tracker.report(verdict, waited=self.waited)
