# SPDX-License-Identifier: Apache-2.0
"""What the operators that buy videos have in common: sending once, remembering it, waiting if wanted."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    BaseOperator,
    conf,
)
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from airflow_provider_luma.client.artifacts import ArtifactRecord
from airflow_provider_luma.delays import delay_before_retry
from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaApiError,
    LumaConfigError,
    LumaConnectionError,
    LumaError,
    LumaInterruptedError,
    LumaMissingArtifactError,
    LumaTimeoutError,
    shorten_ids,
)
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.links.luma import LumaVideosLink
from airflow_provider_luma.outcomes import check_report, final_errors_fail_the_task, time_limit
from airflow_provider_luma.retries import LumaRetryPolicy
from airflow_provider_luma.state import MemoryStore
from airflow_provider_luma.submitting.ledger import Ledger, OnClear, Try
from airflow_provider_luma.submitting.submission import Submission
from airflow_provider_luma.submitting.submitter import OnAmbiguous, Stop, SubmitPolicy, Submitter
from airflow_provider_luma.task_state import is_emptied_on_success, may_lose_values, task_state_store
from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from airflow_provider_luma.validation import positive_seconds, shown
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_luma.waiting.progress import Progress, Report, WaitPolicy
from airflow_provider_luma.waiting.time_limit import TimeLimit
from airflow_provider_luma.waiting.tracker import Tracker, follow

if TYPE_CHECKING:
    from airflow.sdk import Context
    from tenacity import RetryCallState

_PUSH_EVERY: Final = 2.0
_MAX_TIMEOUT: Final = 366 * 86_400.0
"""Seconds: a longer wait than Luma tasks and their links ever last; much more overflows dates in Airflow."""


class LumaSubmitOperator(BaseOperator):
    """
    What the submit operators have in common, and no operator by itself.

    :class:`~airflow_provider_luma.operators.generate.LumaGenerateVideoOperator` describes its parameters.
    """

    ui_color = "#d9f2e6"
    operator_extra_links = (LumaVideosLink(),)

    def __init__(
        self,
        *,
        luma_conn_id: str = LumaHook.default_conn_name,
        on_ambiguous: OnAmbiguous = "fail",
        on_clear: OnClear = "restart",
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 15,
        timeout: float = 60 * 60,
        missing_polls: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if AIRFLOW_V_3_3_PLUS and self.retry_policy is None and "retry_policy" not in kwargs:
            self.retry_policy = LumaRetryPolicy()
        self.luma_conn_id = luma_conn_id
        self.on_ambiguous = on_ambiguous
        self.on_clear = on_clear
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.missing_polls = missing_polls
        self._killed = False
        self._stop: Stop | None = None
        self._submitter: Submitter | None = None
        self._check_arguments()

    @abstractmethod
    def _submissions(self) -> list[Submission]:
        """Return what to submit, checked."""

    @abstractmethod
    def _result(self, values: Sequence[Any]) -> Any:
        """Shape what this operator returns from one value per submitted submission."""

    def _submit_policy(self) -> SubmitPolicy:
        return SubmitPolicy(on_ambiguous=self.on_ambiguous)

    def _wait_policy(self, refused: int) -> WaitPolicy:
        return WaitPolicy(max_failed=0, missing_polls=self.missing_polls)

    def _check_arguments(self) -> None:
        """
        Refuse arguments that can't be right, before anything is sent.

        :raises LumaConfigError: naming the argument and its value.
        """
        self._submit_policy()
        self._wait_policy(0)
        if self.on_clear not in ("restart", "resume"):
            raise LumaConfigError(f"on_clear must be 'anew' or 'continue'; got {shown(self.on_clear)}.")
        positive_seconds("poll_interval", self.poll_interval)
        positive_seconds("timeout", self.timeout, most=_MAX_TIMEOUT)

    def execute(self, context: Context) -> Any:
        """Submit what was not submitted before; then wait, if wanted."""
        with self._ended(context), self._final_errors_fail_the_task(context):
            # Again, for pre_execute or a subclass may have set others.
            self._check_arguments()
            submissions = self._submissions()
            submitter = self._submit(context, submissions)
            ids = submitter.submitted_ids
            if not (self.wait_for_completion and ids):
                return self._result(ids)
            if self.deferrable:
                self._defer(context, ids, len(submitter.refused))
            return self._conclude(context, self._wait_here(ids, len(submitter.refused)))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """
        Come back from the triggerer. Submits nothing.

        :param event: The trigger's report.
        """
        with self._ended(context), self._final_errors_fail_the_task(context):
            return self._conclude(context, msgspec.convert(event, Report))

    def on_kill(self) -> None:
        """Send nothing more. The API has no cancel: what was submitted goes on and is billed."""
        # Runs in a signal handler: nothing here may wait for what it has interrupted. It may come before
        # there is anything to stop, and what begins afterwards must know of it.
        self._killed = True
        if self._stop is not None:
            self._stop.ask()
        if self._submitter is None:
            return
        ids = self._submitter.submitted_ids
        self.log.warning(
            "Stopped from outside: nothing more is submitted. The relay can't cancel, so %d submitted Luma "
            "tasks go on and are billed: %s. A retry goes on from there%s.",
            len(ids),
            ", ".join(ids) or "none",
            "" if AIRFLOW_V_3_3_PLUS else " on Airflow 3.3 and newer",
        )

    @contextmanager
    def _ended(self, context: Context) -> Iterator[None]:
        """Write down when this try is over and no retry follows, so that a clear differs from a retry."""
        try:
            yield
        except LumaInterruptedError:
            # It was stopped in mid-work: the next try continues it.
            raise
        except AirflowFailException:
            self._write_the_end(context)
            raise
        except (LumaError, AirflowException, AirflowTaskTimeout):
            if self._try(context).is_last:
                self._write_the_end(context)
            raise
        else:
            self._write_the_end(context)

    def _write_the_end(self, context: Context) -> None:
        store = task_state_store(context)
        if store is None or self._killed:
            return
        try:
            Ledger(store, current=self._try(context), on_clear=self.on_clear).end()
        except Exception:
            # The outcome of this try stands. Only a later clear will not buy everything again.
            self.log.warning(
                "The end of this try could not be written into Airflow's task state store, so a clear of "
                "this task will continue with what is submitted, as a retry does.",
                exc_info=True,
            )

    def _try(self, context: Context) -> Try:
        instance: Any = context["ti"]
        return Try(
            number=instance.try_number,
            max_tries=instance.max_tries,
            clears=getattr(context.get("dag_run"), "clear_number", None) or 0,
            retries=self.retries or 0,
        )

    @contextmanager
    def _final_errors_fail_the_task(self, context: Context) -> Iterator[None]:
        try:
            with final_errors_fail_the_task():
                yield
        except LumaError as error:
            if task_state_store(context) is not None or self.on_ambiguous == "resubmit":
                raise
            # Where nothing is kept between tries, a retry could only say that it knows nothing.
            raise AirflowFailException(str(error)) from error

    def _submit(self, context: Context, submissions: Sequence[Submission]) -> Submitter:
        hook = LumaHook(self.luma_conn_id)
        stop = self._stop = Stop()
        if self._killed:
            stop.ask()
        ledger = self._ledger(context)
        tasks: dict[str, dict[str, Any]] = {}
        # What is in Airflow's store is safe already. Otherwise this XCom is all that outlives the worker.
        push_every = 0.0 if task_state_store(context) is None else _PUSH_EVERY
        pushed_at = -inf

        def on_submitted(number: int, task_id: str, at: str) -> None:
            nonlocal pushed_at
            tasks[task_id] = {"index": number, "prompt": submissions[number].short_prompt, "submitted_at": at}
            if time.monotonic() - pushed_at >= push_every:
                self._push(context, luma_tasks=tasks)
                pushed_at = time.monotonic()

        def submit() -> Submitter:
            submitter = self._submitter = Submitter(
                hook.client,
                submissions,
                ledger=ledger,
                connection=f"{self.luma_conn_id} {hook.client.base_url}",
                policy=self._submit_policy(),
                on_submitted=on_submitted,
                stop=stop,
            )
            try:
                submitter.run()
            except BaseException:
                try:
                    self._push(context, luma_tasks=tasks, **self._refused(submitter, submissions))
                except Exception:
                    # Must not hide why submitting was broken off.
                    self.log.exception("What was submitted could not be pushed as XCom.")
                raise
            self._push(context, luma_tasks=tasks, **self._refused(submitter, submissions))
            return submitter

        self._push_link(context)
        return submit() if task_state_store(context) is not None else self._retried_here(submit, stop)

    def _retried_here(self, submit: Callable[[], Submitter], stop: Stop) -> Submitter:
        """
        Use the task's retries within this try, for what the relay could not take.

        For Airflows that keep nothing between tries: what is known is in this process.
        """

        def delay(state: RetryCallState) -> float:
            asked = getattr(state.outcome and state.outcome.exception(), "retry_after", None)
            return delay_before_retry(asked, own=self.retry_delay.total_seconds())

        def announce(state: RetryCallState) -> None:
            error = state.outcome and state.outcome.exception()
            self.log.warning("Trying again in %.0f s: %s", state.upcoming_sleep, error)

        return Retrying(
            retry=retry_if_exception(_can_be_retried_here),
            stop=stop_after_attempt(1 + (self.retries or 0)),
            wait=delay,
            before_sleep=announce,
            sleep=stop.pause,
            reraise=True,
        )(submit)

    def _refused(self, submitter: Submitter, submissions: Sequence[Submission]) -> dict[str, Any]:
        return {}

    def _ledger(self, context: Context) -> Ledger:
        current = self._try(context)
        store = task_state_store(context)
        if store is None:
            if self.on_clear == "resume":
                self.log.warning("on_clear='resume' needs Airflow 3.3: this one keeps nothing between tries.")
            # Neither a retry nor a clear can be excluded for any other try.
            if current.number > 1:
                self._know_nothing(current, "This Airflow keeps nothing between tries (3.3 does)")
            return Ledger(MemoryStore(), current=current)
        if self.on_clear == "resume" and is_emptied_on_success():
            self.log.warning(
                "[state_store] clear_on_success is on: Airflow forgets what this task submitted as soon as "
                "it succeeds, so a clear after that can't continue with it, and fails. Switch it off to use "
                "on_clear='resume'."
            )
        ledger = Ledger(store, current=current, on_clear=self.on_clear)
        if ledger.is_empty and current.number > 1:
            if self.on_clear == "resume" and is_emptied_on_success():
                self._know_nothing(current, "[state_store] clear_on_success is on, and nothing is kept")
            elif may_lose_values():
                self._know_nothing(current, "[state_store] backend isn't the database, and holds nothing")
        return ledger

    def _know_nothing(self, current: Try, reason: str) -> None:
        """
        Refuse to submit where earlier tries may have submitted, unless the user wants that.

        :param current: This try.
        :param reason: Why nothing is known of them.
        """
        if self.on_ambiguous == "resubmit":
            self.log.warning("%s: earlier tries may have submitted what this one submits.", reason)
            return
        raise LumaAmbiguousSubmitError(
            f"{reason}, so it is unknown what the tries before try {current.number} of this task have "
            "submitted: it may be running and billed. Look into their logs, which name every id, and into "
            "the relay's task list or bill. To submit everything, perhaps again, set on_ambiguous='resubmit' "
            "and clear this task; or start a new Dag run."
        )

    def _push(self, context: Context, **xcoms: Any) -> None:
        if self.do_xcom_push:
            for key, value in xcoms.items():
                context["ti"].xcom_push(key=key, value=value)

    def _push_link(self, context: Context) -> None:
        # Airflow does so when the task ends: too late for who wants to look on, and for a killed worker.
        link = self.operator_extra_links[0]
        # Airflow itself hands the instance on as its key.
        instance: Any = context["ti"]
        self._push(context, **{link.xcom_key: link.get_link(self, ti_key=instance)})

    def _defer(self, context: Context, ids: Sequence[str], refused: int) -> None:
        limit = time_limit(self, context, deadline=time.time() + self.timeout, timeout=self.timeout)
        policy = self._wait_policy(refused)
        self.defer(
            trigger=LumaTaskTrigger(
                luma_task_ids=ids,
                luma_conn_id=self.luma_conn_id,
                poll_interval=self.poll_interval,
                time_limit=limit,
                max_failed=policy.max_failed,
                missing_polls=policy.missing_polls,
                progress=Progress.of(ids, answered=True).to_json(),
            ),
            method_name="execute_complete",
            timeout=limit.defer_timeout,
        )

    def _wait_here(self, ids: Sequence[str], refused: int) -> Report:
        hook = LumaHook(self.luma_conn_id)
        # The submits have worked, so a refusal of the key is waited out.
        tracker = Tracker(Progress.of(ids, answered=True), self._wait_policy(refused), self.log)
        return follow(
            hook.client,
            tracker,
            interval=self.poll_interval,
            limit=TimeLimit(seconds=self.timeout),
            max_poll_failures=hook.settings.max_poll_failures,
            pause_first=True,
            stop=self._stop,
        )

    def _conclude(self, context: Context, report: Report) -> Any:
        self._push(context, failed=report.failed)
        check_report(report, timeout_error=LumaTimeoutError)
        self.log.info("%s", report.message)
        tasks = LumaHook(self.luma_conn_id).client.get_tasks(report.completed)
        if lost := [task_id for task_id in report.completed if task_id not in tasks]:
            raise LumaMissingArtifactError(
                f"The relay told {len(lost)} completed tasks and then left them out of an answer: "
                f"{shorten_ids(lost)}. A retry asks for them again, free of charge.",
                retryable=True,
                task_ids=lost,
            )
        return self._result([ArtifactRecord.of(tasks[task_id]).to_dict() for task_id in report.completed])


def _can_be_retried_here(error: BaseException) -> bool:
    return isinstance(error, LumaApiError | LumaConnectionError) and error.retryable
