# SPDX-License-Identifier: Apache-2.0
"""Decide about retries by the relay's answer (Airflow 3.3 and newer)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.delays import delay_before_retry
from airflow_provider_luma.exceptions import LumaApiError, LumaConfigError, LumaError
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS

if TYPE_CHECKING or AIRFLOW_V_3_3_PLUS:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

    if TYPE_CHECKING:
        from airflow.sdk import Context
else:
    RetryPolicy = object


class LumaRetryPolicy(RetryPolicy):
    """
    Retry a failed task no sooner than the relay asks; fail at once if no retry can help.

    The relay's ``Retry-After`` becomes the delay before the next try if it is longer than the task's
    ``retry_delay``, up to an hour; otherwise ``retry_delay`` applies, with its exponential backoff. Errors
    of other packages are left to the task's ``retries``. The submit operators use this policy by default.

    .. code-block:: python

        LumaFetchArtifactsOperator(..., retries=3, retry_policy=LumaRetryPolicy())

    :raises LumaConfigError: on an Airflow older than 3.3, which has no retry policies.
    """

    def __init__(self) -> None:
        if not AIRFLOW_V_3_3_PLUS:
            raise LumaConfigError(
                "LumaRetryPolicy needs Airflow 3.3 or newer: leave retry_policy out on older ones."
            )

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """
        Decide about a failure, in the worker.

        :param exception: What failed the task.
        :param try_number: The number of the try.
        :param max_tries: How many tries there are.
        :param context: The task's context.
        """
        if not isinstance(exception, LumaError):
            return RetryDecision.default()
        if not exception.retryable:
            return RetryDecision.fail("A retry can't resolve this error.")
        own = _retry_delay(context)
        retry_after = exception.retry_after if isinstance(exception, LumaApiError) else None
        delay = delay_before_retry(retry_after, own=own)
        if delay <= own:
            return RetryDecision.default()
        return RetryDecision.retry(timedelta(seconds=delay), "The relay asked for this delay.")

    def serialize(self) -> dict[str, Any]:
        """Return the policy's settings: it has none."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> LumaRetryPolicy:
        """
        Rebuild the policy.

        :param data: What :meth:`serialize` returned.
        """
        return cls()


def _retry_delay(context: Context | None) -> float:
    """Return the task's own delay before a retry, in seconds."""
    delay = getattr(context.get("task"), "retry_delay", None) if context else None
    return delay.total_seconds() if isinstance(delay, timedelta) else 0.0
