# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_luma import retries
from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaBusyError,
    LumaConfigError,
    LumaError,
    LumaQuotaError,
    LumaTimeoutError,
)
from airflow_provider_luma.retries import LumaRetryPolicy
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS


def decide(error: BaseException, retry_delay: timedelta | None = None) -> tuple[str, timedelta | None]:
    """Return the decision about an error, or a stand-in on Airflows without retry policies."""
    if not AIRFLOW_V_3_3_PLUS:
        return "unknown here", None
    context: Any = None if retry_delay is None else {"task": SimpleNamespace(retry_delay=retry_delay)}
    decision = LumaRetryPolicy().evaluate(error, try_number=1, max_tries=3, context=context)
    return decision.action.value, decision.retry_delay


def expected(action: str, delay: timedelta | None = None) -> tuple[str, timedelta | None]:
    return (action, delay) if AIRFLOW_V_3_3_PLUS else ("unknown here", None)


def test_retry_after_becomes_the_delay() -> None:
    error = LumaBusyError("busy", status=429, retry_after=17.5)

    assert decide(error) == expected("retry", timedelta(seconds=17.5))


@pytest.mark.parametrize("retry_after", [3600.1, 7e9, 2.5e11, 1e300, float("inf")])
def test_a_delay_far_away_is_bounded_to_an_hour(retry_after: float) -> None:
    error = LumaBusyError("busy", status=429, retry_after=retry_after)

    assert decide(error, timedelta(minutes=5)) == expected("retry", timedelta(hours=1))


@pytest.mark.parametrize("retry_after", [-1e300, -1, 0, 17.5, 300, float("nan")])
def test_the_task_s_own_delay_is_never_undercut(retry_after: float) -> None:
    error = LumaBusyError("busy", status=429, retry_after=retry_after)

    assert decide(error, timedelta(minutes=5)) == expected("default")


def test_an_own_delay_of_more_than_an_hour_holds() -> None:
    error = LumaBusyError("busy", status=429, retry_after=1e12)

    assert decide(error, timedelta(days=2)) == expected("default")


@pytest.mark.parametrize("error", [LumaBusyError("busy", status=429), LumaTimeoutError("late")])
def test_without_it_the_task_s_own_delay_holds(error: LumaError) -> None:
    assert decide(error) == expected("default")


@pytest.mark.parametrize(
    "error",
    [
        LumaQuotaError("no money", status=403, retry_after=5),
        LumaAmbiguousSubmitError("unknown"),
        LumaConfigError("wrong"),
    ],
)
def test_what_no_retry_can_resolve_fails_at_once(error: LumaError) -> None:
    assert decide(error) == expected("fail")


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(1)])
def test_errors_of_others_are_left_to_the_task(error: BaseException) -> None:
    assert decide(error) == expected("default")


def test_it_can_be_stored_and_rebuilt() -> None:
    if AIRFLOW_V_3_3_PLUS:
        assert isinstance(LumaRetryPolicy.deserialize(LumaRetryPolicy().serialize()), LumaRetryPolicy)


def test_an_older_airflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "AIRFLOW_V_3_3_PLUS", False)
    with pytest.raises(LumaConfigError, match=r"needs Airflow 3\.3"):
        LumaRetryPolicy()
