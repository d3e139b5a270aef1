# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from airflow_provider_luma.waiting.time_limit import TimeLimit


def test_a_deadline_stands() -> None:
    assert TimeLimit(seconds=5, deadline=17.5).runs_out_at(datetime.now(UTC)) == 17.5


@pytest.mark.parametrize("zone", [UTC, None])
def test_without_a_deadline_airflows_own_timeout_sets_it(zone: timezone | None) -> None:
    timeout_after = datetime.fromtimestamp(1125, UTC).replace(tzinfo=zone)

    assert TimeLimit(seconds=5, grace=120).runs_out_at(timeout_after) == 1005


def test_without_either_the_time_counts_from_now() -> None:
    before = time.time()

    assert before + 5 <= TimeLimit(seconds=5).runs_out_at(None) <= time.time() + 5


def test_airflows_own_timeout_comes_a_grace_later() -> None:
    assert TimeLimit(seconds=5, grace=120).defer_timeout == timedelta(seconds=125)
    assert TimeLimit(seconds=5, deadline=0, grace=120).defer_timeout == timedelta(seconds=120)


def test_a_message_names_the_parameter_and_its_value() -> None:
    assert str(TimeLimit(seconds=3600.0, name="execution_timeout")) == "the execution_timeout of 3600 s"
