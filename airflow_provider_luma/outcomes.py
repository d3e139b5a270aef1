# SPDX-License-Identifier: Apache-2.0
"""From the end of a waiting to what Airflow does about it; and how long a deferred task may wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_luma.exceptions import LumaError, LumaUnavailableError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_provider_luma.waiting.progress import Report

TimedOutBy = Literal["timeout", "execution_timeout"]

DEFER_GRACE = timedelta(minutes=2)
"""A trigger ends by itself at its deadline, and says why; Airflow's own timeout is for one that doesn't."""


class TimeLimit(NamedTuple):
    """
    When a deferred task has to come to its end.

    :param deadline: Seconds since the epoch.
    :param waited: What runs out then, for messages.
    :param timed_out_by: Which of the task's time limits it is.
    """

    deadline: float
    waited: str
    timed_out_by: TimedOutBy

    @property
    def defer_timeout(self) -> timedelta:
        """What to give Airflow as the deferral's own timeout."""
        return timedelta(seconds=max(0.0, self.deadline - time.time())) + DEFER_GRACE


def time_limit(operator: BaseOperator, context: Context, *, deadline: float, timeout: float) -> TimeLimit:
    """
    Find which limit ends a deferral: Airflow applies no ``execution_timeout`` of its own meanwhile.

    :param operator: The task.
    :param context: Its context.
    :param deadline: When its *timeout* runs out, in seconds since the epoch.
    :param timeout: The whole of it, in seconds, for messages.
    """
    if operator.execution_timeout is not None:
        end = (context["ti"].start_date + operator.execution_timeout).timestamp()
        if end < deadline:
            seconds = operator.execution_timeout.total_seconds()
            return TimeLimit(end, f"the execution_timeout of {seconds:g} s", "execution_timeout")
    return TimeLimit(deadline, f"the timeout of {timeout:g} s", "timeout")


def check_report(report: Report, *, timed_out_by: TimedOutBy, timeout_error: type[Exception]) -> None:
    """
    Raise what Airflow understands, unless the waiting has come to its good end.

    :param report: How it ended.
    :param timed_out_by: Which time limit its deadline stood for.
    :param timeout_error: What to raise when the task's own ``timeout`` is over.
    :raises AirflowFailException: when no retry can help.
    :raises AirflowTaskTimeout: when the ``execution_timeout`` is over; may be retried.
    :raises LumaUnavailableError: when the relay could not be asked; may be retried.
    """
    match report.verdict:
        case "done":
            return
        case "timed_out" if timed_out_by == "execution_timeout":
            raise AirflowTaskTimeout(report.message)
        case "timed_out":
            raise timeout_error(report.message)
        case "unreachable":
            raise LumaUnavailableError(report.message)
        case _:
            raise AirflowFailException(report.message)


@contextmanager
def final_errors_fail_the_task() -> Iterator[None]:
    """
    Let an error that no retry can mend fail the task at once, without using up its retries.

    :raises AirflowFailException: in place of a :class:`LumaError` that is not retryable.
    """
    try:
        yield
    except LumaError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error
