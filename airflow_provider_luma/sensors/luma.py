# SPDX-License-Identifier: Apache-2.0
"""Wait until Luma videos are there."""

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
from airflow_provider_luma.outcomes import (
    DEFER_GRACE,
    TimedOutBy,
    check_report,
    final_errors_fail_the_task,
    time_limit,
)
from airflow_provider_luma.task_ids import (
    check_task_ids,
    parse_task_ids,
)
from airflow_provider_luma.templates import is_resolvable_without_a_worker
from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_luma.waiting.progress import Progress, Report, WaitPolicy
from airflow_provider_luma.waiting.tracker import Tracker

if TYPE_CHECKING:
    from airflow.sdk import Context

_MEMORY_KEY = "luma_progress"
_XCOM_BACKEND = "airflow.sdk.execution_time.xcom.BaseXCom"


class LumaTaskSensor(BaseSensorOperator):
    """
    Wait until all given Luma tasks are completed and their videos are there.

    One poll asks for up to a hundred ids (the connection's ``batch_size``). Asking is free of charge, so a
    retry or a clear of this task costs nothing: it only asks again.

    All three ways of waiting come to the same end with the same messages: ``mode="poke"`` holds a
    worker slot, ``mode="reschedule"`` starts a worker for every poll, ``deferrable=True`` polls once and
    then waits in the triggerer.

    Returns the ids of the completed tasks in input order, and pushes ``failed``, the reasons by id, as an
    XCom of its own. An empty list of ids succeeds at once with ``[]``.

    The task fails without retries when more than ``max_failed`` tasks failed, when the time is over, and
    when the relay refuses the very first poll (a wrong key, say); ``soft_fail`` skips it instead. After a
    poll that worked, any failing answer is waited out, up to 20 polls in a row; then the task fails and may
    be retried.

    :param luma_task_ids: A list of ids, one id, or a template that renders to either. (templated)
    :param luma_conn_id: Id of the Airflow connection. (templated)
    :param max_failed: How many tasks may fail before this one does; ``None`` means any number.
    :param missing_polls: How many answers in a row may leave an id out, or tell it completed without a
        video, before it counts as failed. Relays don't know an id in the first seconds after its submit.
    :param deferrable: Whether to wait in the triggerer instead of a worker. Default: Airflow's
        ``[operators] default_deferrable``.
    :param end_from_trigger: Let the trigger end the task, so that no second worker is started for it. Needs
        ``deferrable=True``. Refused together with ``outlets``, ``do_xcom_push=False``, ``post_execute`` and
        a custom XCom backend, which only a worker serves. A failure still goes through a worker when the
        task has retries, because only a worker can tell Airflow not to use them.
    :param start_from_trigger: Let the task start in the triggerer, so that no first worker is started either
        (Airflow 3.3 and newer; older ones start in a worker, and say so). Needs ``deferrable=True``, and ids
        and a connection id that are literal or templates of ``params``, ``dag_run`` and the run's dates: a
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
        luma_task_ids: Sequence[str] | str,
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
        WaitPolicy(max_failed=max_failed, missing_polls=missing_polls)  # checks them
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
        needs = "end_from_trigger=True ends the task in the triggerer, where "
        if not self.deferrable:
            raise LumaConfigError("end_from_trigger=True needs deferrable=True.")
        if self.outlets:
            raise LumaConfigError(f"{needs}no asset event is emitted: drop outlets={self.outlets!r}, or it.")
        if not self.do_xcom_push:
            raise LumaConfigError(f"{needs}XComs are always pushed: drop do_xcom_push=False, or it.")
        if self._post_execute_hook is not None:
            raise LumaConfigError(f"{needs}post_execute is not called: drop post_execute, or it.")
        backend = conf.get("core", "xcom_backend", fallback=_XCOM_BACKEND)
        if backend != _XCOM_BACKEND:
            raise LumaConfigError(f"{needs}the XCom backend {backend!r} is not used: drop end_from_trigger.")

    def _start_from_trigger(self) -> None:
        if not self.deferrable:
            raise LumaConfigError("start_from_trigger=True needs deferrable=True.")
        for name, given in (
            ("pre_execute", self._pre_execute_hook),
            ("on_execute_callback", self.on_execute_callback),
        ):
            if given:
                raise LumaConfigError(
                    f"start_from_trigger=True starts the task in the triggerer, where {name} is not called: "
                    f"drop {name}, or it."
                )
        for name in ("luma_task_ids", "luma_conn_id"):
            value = getattr(self, name)
            if not is_resolvable_without_a_worker(value):
                raise LumaConfigError(
                    f"start_from_trigger=True can't take {name}={value!r}: a triggerer can't resolve another "
                    "task's output, and templates of params and dag_run alone. Give one of these, or literal "
                    "values, or drop start_from_trigger."
                )
        if not AIRFLOW_V_3_3_PLUS:
            self.log.warning("start_from_trigger needs Airflow 3.3: this task starts in a worker.")
            return
        timeout, limit, grace = self.timeout, "timeout", DEFER_GRACE.total_seconds()
        if self.execution_timeout is not None:
            # Airflow ends the deferral at it in any case.
            seconds = self.execution_timeout.total_seconds()
            if seconds < timeout:
                timeout, limit = seconds, "execution_timeout"
            grace = min(grace, seconds - timeout)
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{LumaTaskTrigger.__module__}.{LumaTaskTrigger.__qualname__}",
            trigger_kwargs={
                "luma_task_ids": self.luma_task_ids,
                "luma_conn_id": self.luma_conn_id,
                "poll_interval": self.poke_interval,
                "timeout": timeout,
                "grace": grace,
                "waited": f"the {limit} of {timeout:g} s",
                "timed_out_by": limit,
                "max_failed": self.max_failed,
                "missing_polls": self.missing_polls,
                "end_states": self._end_states(limit),
            },
            next_method="execute_complete",
            timeout=timedelta(seconds=timeout + grace),
        )

    def _end_states(self, timed_out_by: str) -> dict[str, str]:
        """With which state the trigger ends this task, by verdict; at others a worker goes on."""
        if not self.end_from_trigger:
            return {}
        states = {"done": "success"}
        if self.soft_fail or self.never_fail:
            states |= dict.fromkeys(("failed", "timed_out", "refused"), "skipped")
        elif not self.retries:
            # With retries left, Airflow would use them at a failure that comes from a trigger.
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
        """Poll until the tasks have come to their end; when deferrable, poll once and defer."""
        first_reschedule = context["ti"].get_first_reschedule_date(context) if self.reschedule else None
        self._started = first_reschedule.timestamp() if first_reschedule else time.time()
        return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """
        Ask the relay once.

        :return: Not done, or done with the ids of the completed tasks.
        """
        with final_errors_fail_the_task():
            if self._tracker is None:
                self._tracker = self._recall(context)
            tracker = self._tracker
            try:
                tracker.tolerate_poll_failures(self.hook.settings.max_poll_failures)
                client = self.hook.client
            except LumaError as error:
                tracker.take_error(error)
            except AirflowNotFoundException as error:
                # Airflow says the same while its API server or a secrets backend is out of reach.
                if not tracker.progress.answered:
                    raise
                conn_id = self.luma_conn_id
                tracker.take_error(LumaUnavailableError(f"Connection {conn_id!r} can't be read: {error}"))
            else:
                tracker.poll(client)
            verdict = tracker.verdict(timed_out=time.time() >= self._deadline)
            if verdict == "waiting":
                if self.deferrable:
                    self._defer(context, tracker.progress)
                self._remember(context, tracker)
                return PokeReturnValue(is_done=False)
            report = tracker.report(verdict, waited=f"the timeout of {self.timeout:g} s")
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, report))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[str]:
        """
        Come back from the triggerer.

        :param event: The trigger's report.
        """
        try:
            with final_errors_fail_the_task():
                return self._conclude(context, msgspec.convert(event, Report), event["timed_out_by"])
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
        # The last poll comes when the time is over, not up to an interval later.
        return min(seconds, max(0.0, self._deadline - time.time()))

    def _defer(self, context: Context, progress: Progress) -> None:
        limit = time_limit(self, context, deadline=self._deadline, timeout=self.timeout)
        self.defer(
            trigger=LumaTaskTrigger(
                luma_task_ids=progress.ids,
                luma_conn_id=self.luma_conn_id,
                poll_interval=self.poke_interval,
                deadline=limit.deadline,
                waited=limit.waited,
                timed_out_by=limit.timed_out_by,
                max_failed=self.max_failed,
                missing_polls=self.missing_polls,
                progress=progress.to_json(),
                end_states=self._end_states(limit.timed_out_by),
            ),
            method_name="execute_complete",
            timeout=limit.defer_timeout,
        )

    def _conclude(self, context: Context, report: Report, timed_out_by: TimedOutBy = "timeout") -> list[str]:
        if self.do_xcom_push:
            context["ti"].xcom_push(key="failed", value=report.failed)
        check_report(report, timed_out_by=timed_out_by, timeout_error=AirflowSensorTimeout)
        self.log.info("%s", report.message)
        return report.completed

    def _recall(self, context: Context) -> Tracker:
        """Begin, or go on from the poll before when this one runs in a new process."""
        ids = parse_task_ids(self.luma_task_ids)
        policy = WaitPolicy(max_failed=self.max_failed, missing_polls=self.missing_polls)
        polls = context.get("task_reschedule_count", 0) if self.reschedule else 0
        store: Any = context.get("task_state_store")
        if polls and store is None:
            self.log.info(
                "This Airflow keeps nothing between rescheduled polls: an id that is missing now counts as "
                "missing in all %d polls before (Airflow 3.3 or deferrable=True count exactly).",
                polls,
            )
            return Tracker(Progress.presumed_missing(ids, polls), policy, self.log)
        memory = (store.get(_MEMORY_KEY) or {}) if polls else {}
        if memory.get("try_number") != context["ti"].try_number:
            # A memory that was lost is no reason to give up at one answer that would otherwise pass.
            lost = bool(polls) and not memory
            return Tracker(Progress.of(ids, answered=lost), policy, self.log)
        return Tracker(Progress.from_json(ids, memory["progress"]), policy, self.log, said=memory["said"])

    def _remember(self, context: Context, tracker: Tracker) -> None:
        store: Any = context.get("task_state_store") if self.reschedule else None
        if store is not None:
            memory = {
                "try_number": context["ti"].try_number,
                "said": tracker.said,
                "progress": tracker.progress.to_json(),
            }
            store.set(_MEMORY_KEY, memory, retention=timedelta(seconds=self.timeout) + timedelta(days=1))
