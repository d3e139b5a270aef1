# SPDX-License-Identifier: Apache-2.0
"""Find the metrics of Airflow core in each version of Airflow."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_luma.triggers import luma as trigger_module
from airflow_provider_luma.version_compat import airflow_stats


class Stats:
    """Stand in for the metrics class of Airflow before 3.3."""

    @staticmethod
    def incr(*arguments: Any, **tags: Any) -> None: ...

    gauge = timing = incr


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


FUNCTIONS = {"incr": Stats.incr, "gauge": Stats.incr, "timing": Stats.incr}


@pytest.mark.parametrize(
    ("core", "old", "where"),
    [
        (None, {"Stats": Stats}, "old"),
        ({"Stats": Stats}, {"Stats": object()}, "core class"),
        ({"Stats": object(), **FUNCTIONS}, {"Stats": Stats}, "core"),
        (FUNCTIONS, None, "core"),
        ({}, {"Stats": Stats}, "old"),
        ({}, {}, "nowhere"),
        (None, None, "nowhere"),
    ],
    ids=["3.1", "3.2", "3.3 and 3.4", "without the shim", "moved", "gone", "no modules"],
)
def test_they_are_found_by_what_is_there_and_not_by_version(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    core: dict[str, Any] | None,
    old: dict[str, Any] | None,
    where: str,
) -> None:
    modules = {"airflow.observability.stats": core, "airflow.stats": old}
    for name, members in modules.items():
        # None in sys.modules is an ImportError.
        made = None if members is None else module(name, **members)
        monkeypatch.setitem(sys.modules, name, made)

    found = airflow_stats()

    core_module = sys.modules["airflow.observability.stats"]
    assert found is {"old": Stats, "core class": Stats, "core": core_module, "nowhere": None}[where]
    assert ("No metrics are sent" in caplog.text) == (where == "nowhere")


def test_this_airflow_has_them() -> None:
    airflow_stats().incr("luma.test", 1, tags={"conn_id": "x"})


def test_a_wait_without_metrics_goes_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger_module, "airflow_stats", lambda: None)

    trigger_module._AirflowMeter("luma_default").incr("luma.poller.calls")


def test_metrics_that_fail_are_given_up_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Stats):
        @staticmethod
        def incr(*arguments: Any, **tags: Any) -> None:
            raise ZeroDivisionError("a bug of the backend")

    monkeypatch.setattr(trigger_module, "airflow_stats", lambda: Broken)
    meter = trigger_module._AirflowMeter("luma_default")

    for _ in range(3):
        meter.incr("luma.poller.calls")
        meter.timing("luma.poller.call_duration", 1.5)

    assert [record.message for record in caplog.records] == [
        "Metrics of connection luma_default are no longer sent."
    ]
    assert "a bug of the backend" in caplog.text
