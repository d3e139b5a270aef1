# SPDX-License-Identifier: Apache-2.0
"""Map the result of a wait to the exception that Airflow expects, and find a deferral's time limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_luma.exceptions import LumaError, LumaUnavailableError
from airflow_provider_luma.waiting.time_limit import TimeLimit

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_provider_luma.waiting.progress import Report

DEFER_GRACE = timedelta(minutes=2)
"""A trigger ends at its deadline and says why; Airflow's own timeout is for one that doesn't."""


def time_limit(
    operator: BaseOperator, context: Context | None = None, *, timeout: float, deadline: float | None = None
) -> TimeLimit:
    """
    Return the limit that ends a deferral: Airflow applies no ``execution_timeout`` of its own meanwhile.

    :param context: Its context; ``None`` when it starts in the triggerer, which alone knows the deadline.
    :param timeout: The task's own timeout, in seconds.
    :param deadline: When that runs out, in seconds since the epoch.
    """
    grace = DEFER_GRACE.total_seconds()
    limit = TimeLimit(seconds=timeout, deadline=deadline, grace=grace)
    if operator.execution_timeout is None:
        return limit
    seconds = operator.execution_timeout.total_seconds()
    if context is not None and deadline is not None:
        end = context["ti"].start_date.timestamp() + seconds
        by_execution = TimeLimit(seconds=seconds, name="execution_timeout", deadline=end, grace=grace)
        return by_execution if end < deadline else limit
    # Airflow ends this deferral at the execution_timeout in any case.
    if seconds < timeout:
        return TimeLimit(seconds=seconds, name="execution_timeout")
    return TimeLimit(seconds=timeout, grace=min(grace, seconds - timeout))


def check_report(report: Report, *, timeout_error: type[Exception]) -> None:
    """
    Raise the exception that Airflow expects, unless the verdict is ``done``.

    :param timeout_error: What to raise when the task's own ``timeout`` ran out.
    :raises AirflowFailException: when no retry can help.
    :raises AirflowTaskTimeout: when the ``execution_timeout`` ran out; may be retried.
    :raises LumaUnavailableError: when too many polls in a row failed; may be retried.
    """
    match report.verdict:
        case "done":
            return
        case "timed_out" if report.timed_out_by == "execution_timeout":
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
    Fail the task at once, without its retries, when an error says that no retry can help.

    :raises AirflowFailException: in place of a :class:`LumaError` that is not retryable.
    """
    try:
        yield
    except LumaError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error
