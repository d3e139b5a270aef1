# SPDX-License-Identifier: Apache-2.0
"""Submit once, remember it across tries, and wait if wanted: the base of the submit operators."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

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
    LumaApiError,
    LumaConfigError,
    LumaConnectionError,
    LumaError,
    LumaInterruptedError,
    LumaMissingArtifactError,
    LumaTimeoutError,
)
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.links.luma import LumaVideosLink
from airflow_provider_luma.outcomes import check_report, final_errors_fail_the_task, time_limit
from airflow_provider_luma.retries import LumaRetryPolicy
from airflow_provider_luma.submitting.ledger import Ledger, OnClear, Try
from airflow_provider_luma.submitting.submission import Submission
from airflow_provider_luma.submitting.submitter import OnAmbiguous, Stop, SubmitPolicy, Submitter
from airflow_provider_luma.task_state import open_ledger, task_state_store
from airflow_provider_luma.text import shorten_list
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
"""Seconds: longer than Luma tasks and their URLs last. A much longer timeout overflows dates in Airflow."""


class LumaSubmitOperator(BaseOperator):
    """
    Base of the submit operators.

    :class:`~airflow_provider_luma.operators.generate.LumaGenerateVideoOperator` describes its parameters.

    :raises LumaConfigError: if an argument can't be right.
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
        """Return what to submit, and check it."""

    @abstractmethod
    def _result(self, values: Sequence[Any]) -> Any:
        """Return the operator's result, given one value per submitted request."""

    def _submit_policy(self) -> SubmitPolicy:
        return SubmitPolicy(on_ambiguous=self.on_ambiguous)

    def _wait_policy(self, refused: int) -> WaitPolicy:
        return WaitPolicy(max_failed=0, missing_polls=self.missing_polls)

    @final
    def _check_arguments(self) -> None:
        """
        Check the arguments of the base class.

        :raises LumaConfigError: naming the argument and its value.
        """
        SubmitPolicy(on_ambiguous=self.on_ambiguous)
        WaitPolicy(missing_polls=self.missing_polls)
        if self.on_clear not in ("restart", "resume"):
            raise LumaConfigError(f"on_clear must be 'restart' or 'resume'; got {shown(self.on_clear)}.")
        positive_seconds("poll_interval", self.poll_interval)
        positive_seconds("timeout", self.timeout, most=_MAX_TIMEOUT)

    def execute(self, context: Context) -> Any:
        """Submit what previous tries have not; then wait, if wanted."""
        with self._ended(context), self._final_errors_fail_the_task(context):
            # Again, because pre_execute or a subclass may have set others.
            self._check_arguments()
            policy = self._submit_policy()
            submitter = self._submit(context, self._submissions(), policy)
            ids = submitter.submitted_ids
            if not (self.wait_for_completion and ids):
                return self._result(ids)
            if self.deferrable:
                self._defer(context, ids, len(submitter.refused))
            return self._conclude(context, self._wait_here(ids, len(submitter.refused)))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """
        Resume after the triggerer's wait. Submits nothing.

        :param event: The trigger's report.
        """
        with self._ended(context), self._final_errors_fail_the_task(context):
            return self._conclude(context, msgspec.convert(event, Report))

    def on_kill(self) -> None:
        """Send nothing more. The API has no cancel: what was submitted keeps running and is billed."""
        # This runs in a signal handler, so it must not wait for what the signal has interrupted. It may run
        # before there is anything to stop, so what starts later must see it.
        self._killed = True
        if self._stop is not None:
            self._stop.ask()
        if self._submitter is None:
            return
        ids = self._submitter.submitted_ids
        self.log.warning(
            "The task was killed: nothing more is submitted. The relay has no cancel, so %d submitted Luma "
            "tasks keep running and are billed: %s.%s",
            len(ids),
            ", ".join(ids) or "none",
            " A retry resumes from there." if AIRFLOW_V_3_3_PLUS else "",
        )

    @contextmanager
    def _ended(self, context: Context) -> Iterator[None]:
        """Write the end of this try if no retry follows, so that a later clear isn't taken for a retry."""
        try:
            yield
        except LumaInterruptedError:
            # The next try resumes what this one could not complete, even after a clear.
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
            # The outcome of this try stands. Without a written end, a later clear resumes this run.
            self.log.warning(
                "The end of this try could not be written to Airflow's task state store, so a clear of this "
                "task will resume what was submitted, as a retry does.",
                exc_info=True,
            )

    def _try(self, context: Context) -> Try:
        instance: Any = context["ti"]
        return Try(number=instance.try_number, max_tries=instance.max_tries)

    @contextmanager
    def _final_errors_fail_the_task(self, context: Context) -> Iterator[None]:
        try:
            with final_errors_fail_the_task():
                yield
        except LumaError as error:
            if task_state_store(context) is not None or self.on_ambiguous == "resubmit":
                raise
            # Without a store, a retry could only fail because it doesn't know what this try has submitted.
            raise AirflowFailException(str(error)) from error

    def _submit(self, context: Context, submissions: Sequence[Submission], policy: SubmitPolicy) -> Submitter:
        hook = LumaHook(self.luma_conn_id)
        stop = self._stop = Stop()
        if self._killed:
            stop.ask()
        store = task_state_store(context)
        ledger = open_ledger(
            store, current=self._try(context), on_clear=self.on_clear, on_ambiguous=self.on_ambiguous
        )
        # Ids in Airflow's store are safe. Without it, this XCom is all that outlives a killed worker.
        push_every = 0.0 if store is None else _PUSH_EVERY
        tasks = _SubmittedTasks(submissions, partial(self._push, context), every=push_every)

        def submit() -> Submitter:
            submitter = self._submitter = Submitter(
                hook.client,
                submissions,
                ledger=ledger,
                connection=f"{self.luma_conn_id} {hook.client.base_url}",
                policy=policy,
                on_submitted=tasks.add,
                stop=stop,
            )
            try:
                submitter.run()
            except BaseException:
                try:
                    self._push(context, luma_tasks=tasks.by_id, **self._refused(submitter, submissions))
                except Exception:
                    # It must not hide why submitting failed.
                    self.log.exception("The submitted ids could not be pushed as an XCom.")
                raise
            self._push(context, luma_tasks=tasks.by_id, **self._refused(submitter, submissions))
            return submitter

        self._push_link(context)
        return submit() if store is not None else self._retried_here(submit, stop)

    def _retried_here(self, submit: Callable[[], Submitter], stop: Stop) -> Submitter:
        """
        Retry passing refusals within this try, as often as the task's ``retries`` allows.

        This is for an Airflow without a store, where only this process knows what was submitted.
        """

        def delay(state: RetryCallState) -> float:
            retry_after = getattr(state.outcome and state.outcome.exception(), "retry_after", None)
            return delay_before_retry(retry_after, own=self.retry_delay.total_seconds())

        def announce(state: RetryCallState) -> None:
            error = state.outcome and state.outcome.exception()
            self.log.warning("Retrying in %.0f s: %s", state.upcoming_sleep, error)

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

    def _push(self, context: Context, **xcoms: Any) -> None:
        if self.do_xcom_push:
            for key, value in xcoms.items():
                context["ti"].xcom_push(key=key, value=value)

    def _push_link(self, context: Context) -> None:
        # Airflow pushes extra links only when the task ends; push now so that the link works while the task
        # runs and after a crash.
        link = self.operator_extra_links[0]
        # Airflow itself passes the task instance as its key.
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
                f"The relay reported {len(lost)} tasks as completed and then left them out of an answer: "
                f"{shorten_list(lost)}. A retry queries them again, free of charge.",
                retryable=True,
                task_ids=lost,
            )
        return self._result([ArtifactRecord.of(tasks[task_id]).to_dict() for task_id in report.completed])


class _SubmittedTasks:
    """Push the XCom ``luma_tasks`` while ids become known, not more often than every so many seconds."""

    def __init__(self, submissions: Sequence[Submission], push: Callable[..., None], *, every: float) -> None:
        self.by_id: dict[str, dict[str, Any]] = {}
        self._submissions, self._push, self._every = submissions, push, every
        self._pushed_at = -inf

    def add(self, number: int, task_id: str, at: str) -> None:
        prompt = self._submissions[number].short_prompt
        self.by_id[task_id] = {"index": number, "prompt": prompt, "submitted_at": at}
        if time.monotonic() - self._pushed_at >= self._every:
            self._push(luma_tasks=self.by_id)
            self._pushed_at = time.monotonic()


def _can_be_retried_here(error: BaseException) -> bool:
    return isinstance(error, LumaApiError | LumaConnectionError) and error.retryable
