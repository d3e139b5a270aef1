# SPDX-License-Identifier: Apache-2.0
"""The starter that all other system tests stand on. The tests share one Airflow and run in order."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest
import requests

from tests.support.live_airflow import COMPONENTS, LiveAirflow
from tests.support.patience import PATIENCE

DAG = """
from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("greet", schedule=None):

    @task
    def greet(params: dict) -> str:
        return f"Hello {params['name']}"

    greet()
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    folder = tmp_path_factory.mktemp("dags")
    (folder / "greet.py").write_text(DAG)
    with pytest.MonkeyPatch.context() as callers_own:
        callers_own.setenv("AIRFLOW__CORE__DAGS_FOLDER", "/nowhere")
        with LiveAirflow(folder, users={"admin": "admin", "vera": "viewer"}) as airflow:
            yield airflow


def test_a_dag_runs_and_its_xcom_can_be_read(airflow: LiveAirflow) -> None:
    run_id = airflow.trigger("greet", conf={"name": "Airflow"})

    assert airflow.wait_for_run("greet", run_id) == "success"
    assert airflow.xcom("greet", run_id, "greet") == "Hello Airflow"
    assert [task["state"] for task in airflow.tasks("greet", run_id)] == ["success"]
    with pytest.raises(LookupError, match="no XCom 'absent'"):
        airflow.xcom("greet", run_id, "greet", key="absent")


def test_users_have_the_roles_that_were_asked_for(airflow: LiveAirflow) -> None:
    assert airflow.api("GET", "/dags", user="vera").status_code == 200
    assert airflow.api("POST", "/dags/greet/dagRuns", user="vera", json={}).status_code == 403
    assert airflow.api("GET", "/dags", user=None).status_code == 401


def test_a_killed_component_is_gone_with_its_children_and_comes_back(airflow: LiveAirflow) -> None:
    before = airflow.pids("scheduler")
    airflow.kill("scheduler")

    assert not [pid for pid in before if psutil.pid_exists(pid)]

    airflow.start("scheduler")
    run_id = airflow.trigger("greet", conf={"name": "again"})

    assert airflow.wait_for_run("greet", run_id) == "success"
    assert not set(before) & set(airflow.pids("scheduler"))


def test_nothing_is_left_after_closing(airflow: LiveAirflow) -> None:
    pids = airflow.pids()
    assert len(pids) >= len(COMPONENTS)

    airflow.close()

    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not airflow.home.exists()
    with pytest.raises(requests.ConnectionError):
        requests.get(airflow.base_url, timeout=PATIENCE)
