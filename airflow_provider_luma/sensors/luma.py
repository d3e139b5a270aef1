# SPDX-License-Identifier: Apache-2.0
"""Wait until Luma videos are completed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_luma.delays import delay_before_retry
from airflow_provider_luma.exceptions import LumaConfigError, LumaError, LumaUnavailableError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.links.luma import LumaVideosLink
from airflow_provider_luma.outcomes import check_report, final_errors_fail_the_task, time_limit
from airflow_provider_luma.task_ids import check_task_ids, parse_task_ids
from airflow_provider_luma.task_state import task_state_store
from airflow_provider_luma.templates import is_resolvable_without_a_worker
from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_luma.waiting.progress import Progress, Report, WaitPolicy
from airflow_provider_luma.waiting.time_limit import TimedOutBy, TimeLimit
from airflow_provider_luma.waiting.tracker import Tracker

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_luma.state import StateStore

_MEMORY_KEY = "luma_progress"
_XCOM_BACKEND = "airflow.sdk.execution_time.xcom.BaseXCom"


class LumaTaskSensor(BaseSensorOperator):
    """
    Wait until all given Luma tasks are completed and their videos are there.

    One call polls up to a hundred ids (the connection's ``batch_size``). Polls are free of charge, so a
    retry or a clear of this task costs nothing: it only polls again.

    All three ways of waiting have the same outcomes and messages: ``mode="poke"`` holds a worker slot,
    ``mode="reschedule"`` starts a worker for every poll, ``deferrable=True`` polls once and then waits in the
    triggerer.

    Returns the ids of the completed tasks in input order, and pushes ``failed``, the reasons by id, as an
    XCom of its own. An empty list of ids succeeds at once with ``[]``.

    The task instance fails without retries when more than ``max_failed`` Luma tasks failed, when ``timeout``
    has run out, and when the relay refuses the very first poll (a wrong key, say); ``soft_fail`` skips it
    instead. After a poll that worked, any failing answer is waited out, up to 20 polls in a row; then the
    task instance fails and may be retried.

    :param luma_task_ids: A list of ids, one id, or a template that renders to either. (templated)
    :param luma_conn_id: Id of the Airflow connection. (templated)
    :param max_failed: How many tasks may fail before this one does; ``None`` means any number.
    :param missing_polls: How many answers in a row may leave an id out, or report it as completed without a
        video, before it counts as failed. Relays don't know an id in the first seconds after its submit.
    :param deferrable: Whether to wait in the triggerer instead of a worker. Default: Airflow's
        ``[operators] default_deferrable``.
    :param end_from_trigger: End the task instance in the triggerer, without a second worker. Needs
        ``deferrable=True``. Refused together with ``outlets``, ``do_xcom_push=False``, ``post_execute`` and a
        custom XCom backend, which only a worker serves. With retries, a failure still resumes in a worker:
        only a worker can keep Airflow from using them.
    :param start_from_trigger: Start the task instance in the triggerer, without a first worker (Airflow 3.3
        and newer; older ones log a warning and start in a worker). Needs ``deferrable=True``, and ids and a
        connection id that are literal or templates of ``params``, ``dag_run`` and the run's dates: a
        triggerer can't resolve another task's output. Refused together with ``pre_execute`` and
        ``on_execute_callback``, which only a worker serves. A mapped task starts in a worker all the same.
    :param poke_interval: Seconds between polls. Relays move a task's state about every 15 seconds.
    :param timeout: Seconds to wait in all. Default: one hour.
    """

    template_fields: Sequence[str] = ("luma_task_ids", "luma_conn_id")
    ui_color = "#e3e8ff"
    operator_extra_links = (LumaVideosLink(),)

    def __init__(
        self,
        *,
        luma_task_ids: Sequence[str | XComArg] | str | XComArg,
        luma_conn_id: str = LumaHook.default_conn_name,
        max_failed: int | None = 0,
        missing_polls: int = 3,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        end_from_trigger: bool = False,
        start_from_trigger: bool = False,
        poke_interval: timedelta | float = 15,
        timeout: timedelta | float = 60 * 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        check_task_ids(luma_task_ids)
        WaitPolicy(max_failed=max_failed, missing_polls=missing_polls)  # Refuses wrong values.
        self.luma_task_ids = luma_task_ids
        self.luma_conn_id = luma_conn_id
        self.max_failed = max_failed
        self.missing_polls = missing_polls
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger
        if end_from_trigger:
            self._check_end_from_trigger()
        if start_from_trigger:
            self._start_from_trigger()

        self._tracker: Tracker | None = None
        self._started: float | None = None

    def _check_end_from_trigger(self) -> None:
        if not self.deferrable:
            raise LumaConfigError("end_from_trigger=True needs deferrable=True.")
        backend = conf.get("core", "xcom_backend", fallback=_XCOM_BACKEND)
        for is_set, problem in (
            (self.outlets, f"no asset event is emitted: drop outlets={self.outlets!r}, or it."),
            (not self.do_xcom_push, "XComs are always pushed: drop do_xcom_push=False, or it."),
            (self._post_execute_hook, "post_execute is not called: drop post_execute, or it."),
            (backend != _XCOM_BACKEND, f"the XCom backend {backend!r} is not used: drop end_from_trigger."),
        ):
            if is_set:
                raise LumaConfigError(
                    f"end_from_trigger=True ends the task in the triggerer, where {problem}"
                )

    def _start_from_trigger(self) -> None:
        if not self.deferrable:
            raise LumaConfigError("start_from_trigger=True needs deferrable=True.")
        hooks = {"pre_execute": self._pre_execute_hook, "on_execute_callback": self.on_execute_callback}
        for name, hook in hooks.items():
            if hook:
                raise LumaConfigError(
                    f"start_from_trigger=True starts the task in the triggerer, where {name} is not called: "
                    f"drop {name}, or it."
                )
        for name in ("luma_task_ids", "luma_conn_id"):
            value = getattr(self, name)
            if not is_resolvable_without_a_worker(value):
                raise LumaConfigError(
                    f"start_from_trigger=True can't take {name}={value!r}: a triggerer can't resolve another "
                    "task's output. Use literal values or templates of params and dag_run, or drop "
                    "start_from_trigger."
                )
        if not AIRFLOW_V_3_3_PLUS:
            self.log.warning("start_from_trigger needs Airflow 3.3: this task starts in a worker.")
            return
        limit = time_limit(self, timeout=self.timeout)
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{LumaTaskTrigger.__module__}.{LumaTaskTrigger.__qualname__}",
            trigger_kwargs={"luma_task_ids": self.luma_task_ids, **self._trigger_arguments(limit)},
            next_method="execute_complete",
            timeout=limit.defer_timeout,
        )

    def _trigger_arguments(self, limit: TimeLimit) -> dict[str, Any]:
        return {
            "luma_conn_id": self.luma_conn_id,
            "poll_interval": self.poke_interval,
            "time_limit": msgspec.to_builtins(limit),
            "max_failed": self.max_failed,
            "missing_polls": self.missing_polls,
            "end_states": self._end_states(limit.name),
        }

    def _end_states(self, timed_out_by: TimedOutBy) -> dict[str, str]:
        """Return the state that the trigger ends this task instance in, by verdict."""
        if not self.end_from_trigger:
            return {}
        states = {"done": "success"}
        if self.soft_fail or self.never_fail:
            states |= dict.fromkeys(("failed", "timed_out", "refused"), "skipped")
        elif not self.retries:
            # Airflow would use retries that are left at a failure that comes from a trigger.
            states |= dict.fromkeys(("failed", "timed_out", "refused"), "failed")
        if timed_out_by == "execution_timeout":
            # Unlike the sensor's own timeout, this one may be retried.
            states.pop("timed_out", None)
        return states

    @cached_property
    def hook(self) -> LumaHook:
        """The hook of this task's connection."""
        return LumaHook(self.luma_conn_id)

    def execute(self, context: Context) -> Any:
        """Poll until the tasks are in a terminal state; when deferrable, poll once and defer."""
        first_reschedule = context["ti"].get_first_reschedule_date(context) if self.reschedule else None
        self._started = first_reschedule.timestamp() if first_reschedule else time.time()
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """
        Poll the relay once.

        :return: Not done, or done with the ids of the completed tasks.
        """
        with final_errors_fail_the_task():
            if self._tracker is None:
                self._tracker = self._recall(context)
            tracker = self._tracker
            try:
                max_poll_failures, client = self.hook.settings.max_poll_failures, self.hook.client
            except LumaError as error:
                tracker.on_error(error)
            except AirflowNotFoundException as error:
                # Airflow raises the same while its API server or a secrets backend is out of reach.
                if not tracker.progress.answered:
                    raise
                conn_id = self.luma_conn_id
                tracker.on_error(LumaUnavailableError(f"Connection {conn_id!r} can't be read: {error}"))
            else:
                tracker.poll(client, max_poll_failures=max_poll_failures)
            verdict = tracker.verdict(timed_out=time.time() >= self._deadline)
            if verdict == "waiting":
                if self.deferrable:
                    self._defer(context, tracker.progress)
                self._remember(context, tracker)
                return PokeReturnValue(is_done=False)
            report = tracker.report(verdict, limit=TimeLimit(seconds=self.timeout))
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, report))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[str]:
        """
        Resume after the trigger's event.

        :param event: The trigger's report.
        """
        try:
            with final_errors_fail_the_task():
                return self._conclude(context, msgspec.convert(event, Report))
        except LumaError as error:
            if self.never_fail:
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise

    @property
    def _deadline(self) -> float:
        return (self._started or time.time()) + self.timeout

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        asked = self._tracker.retry_after if self._tracker is not None else None
        seconds = delay_before_retry(asked, own=super()._get_next_poke_interval(*args, **kwargs))
        # The last poll comes when the timeout runs out, not up to an interval later.
        return min(seconds, max(0.0, self._deadline - time.time()))

    def _defer(self, context: Context, progress: Progress) -> None:
        limit = time_limit(self, context, deadline=self._deadline, timeout=self.timeout)
        self.defer(
            trigger=LumaTaskTrigger(
                luma_task_ids=progress.ids, progress=progress.to_json(), **self._trigger_arguments(limit)
            ),
            method_name="execute_complete",
            timeout=limit.defer_timeout,
        )

    def _conclude(self, context: Context, report: Report) -> list[str]:
        if self.do_xcom_push:
            context["ti"].xcom_push(key="failed", value=report.failed)
        check_report(report, timeout_error=AirflowSensorTimeout)
        self.log.info("%s", report.message)
        return report.completed

    def _recall(self, context: Context) -> Tracker:
        """Begin, or continue the poll before when this one runs in a new process."""
        ids = parse_task_ids(self.luma_task_ids)
        policy = WaitPolicy(max_failed=self.max_failed, missing_polls=self.missing_polls)
        polls = context.get("task_reschedule_count", 0) if self.reschedule else 0
        store = self._store(context)
        if polls and store is None:
            self.log.info(
                "This Airflow stores nothing between rescheduled polls: an id that is missing now counts as "
                "missing in all %d polls before. Airflow 3.3 or deferrable=True count exactly.",
                polls,
            )
            return Tracker(Progress.presumed_missing(ids, polls), policy, self.log)
        memory = (store.get(_MEMORY_KEY) or {}) if store is not None and polls else {}
        if memory.get("try_number") != context["ti"].try_number:
            # When the memory is lost, a refusal must not end a wait whose earlier polls may have worked.
            lost = bool(polls) and not memory
            return Tracker(Progress.of(ids, answered=lost), policy, self.log)
        progress = Progress.from_json(ids, memory["progress"])
        return Tracker(progress, policy, self.log, last_summary=memory["last_summary"])

    def _remember(self, context: Context, tracker: Tracker) -> None:
        store = self._store(context)
        if store is not None:
            memory = {
                "try_number": context["ti"].try_number,
                "last_summary": tracker.last_summary,
                "progress": tracker.progress.to_json(),
            }
            store.set(_MEMORY_KEY, memory)

    def _store(self, context: Context) -> StateStore | None:
        if not self.reschedule:
            return None
        retention = timedelta(seconds=self.timeout) + timedelta(days=1)
        return task_state_store(context, lost_is_absent=True, retention=retention)
