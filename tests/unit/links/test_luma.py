# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_luma.links import luma as module
from airflow_provider_luma.links.luma import GALLERY_ROUTE, LumaVideosLink
from airflow_provider_luma.operators.generate import (
    LumaExtendVideoOperator,
    LumaGenerateVideoOperator,
    LumaGenerateVideosOperator,
)
from airflow_provider_luma.plugins.gallery import TASK_ROUTE
from airflow_provider_luma.sensors.luma import LumaTaskSensor


@dataclass
class Key:
    """The fields of a task instance's key that the link reads."""

    dag_id: str = "my_dag"
    task_id: str = "my_group.my_task"
    run_id: str = "manual__2026-01-02T03:04:05+00:00"
    map_index: int = -1


def link(base_url: str, monkeypatch: pytest.MonkeyPatch, **key: Any) -> str:
    monkeypatch.setattr(module, "conf", _Conf(base_url))
    return LumaVideosLink().get_link(None, ti_key=Key(**key))  # type: ignore[arg-type]


class _Conf:
    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def get(self, section: str, option: str, *, fallback: str) -> str:
        assert (section, option) == ("api", "base_url")
        return self._base_url or fallback


def test_it_leads_to_the_gallery_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert link("https://airflow.example/", monkeypatch) == (
        "https://airflow.example/dags/my_dag/runs/manual__2026-01-02T03%3A04%3A05%2B00%3A00"
        "/tasks/my_group.my_task/plugin/luma"
    )


def test_it_leads_to_the_gallery_of_one_mapped_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    assert link("https://airflow.example", monkeypatch, map_index=0).endswith(
        "/tasks/my_group.my_task/mapped/0/plugin/luma"
    )


def test_a_path_prefix_of_airflow_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert link("https://example.com/airflow/", monkeypatch).startswith("https://example.com/airflow/dags/")


def test_without_a_base_url_it_is_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    assert link("", monkeypatch).startswith("/dags/my_dag/")


def test_ids_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    url = link("https://airflow.example", monkeypatch, dag_id="a/../b", run_id="x?y#z", task_id="t&u")

    assert url == "https://airflow.example/dags/a%2F..%2Fb/runs/x%3Fy%23z/tasks/t%26u/plugin/luma"


def test_the_plugin_uses_the_same_route() -> None:
    assert GALLERY_ROUTE == TASK_ROUTE


@pytest.mark.parametrize(
    "operator",
    [LumaGenerateVideoOperator, LumaGenerateVideosOperator, LumaExtendVideoOperator, LumaTaskSensor],
)
def test_submit_operators_and_the_sensor_have_it(operator: type[Any]) -> None:
    assert [type(shown) for shown in operator.operator_extra_links] == [LumaVideosLink]
