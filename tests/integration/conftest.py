# SPDX-License-Identifier: Apache-2.0
"""A sandbox relay, a connection to it, and Dags that run on a real metadata database."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_luma.sandbox import LumaSandbox
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS
from tests.support.once import once_per_run
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk import DAG


MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "deferrable": False},
    "reschedule": {"mode": "reschedule", "deferrable": False},
    "deferrable": {"deferrable": True},
}


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments of a sensor that waits in one of the three ways."""
    return MODES[str(request.param)]


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """
    The relay's dialect, which nothing above the client can tell from the other.

    The client's tests run in both, and so does one test of each way to use it.
    """
    return getattr(request, "param", "envelope")


@pytest.fixture
def sandbox(dialect: str) -> Iterator[LumaSandbox]:
    with LumaSandbox(dialect=dialect, pending_seconds=0.1, processing_seconds=0.1) as sandbox:
        yield sandbox


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make ``luma_default`` point somewhere: ``connect(base_url, api_key, **extra)``."""

    def connect(base_url: str, api_key: str, **extra: Any) -> None:
        connection = {"conn_type": "luma", "host": base_url, "password": api_key, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", json.dumps(connection))

    return connect


@pytest.fixture
def connected(sandbox: LumaSandbox, connect: Callable[..., None]) -> LumaSandbox:
    """The sandbox behind ``luma_default``."""
    connect(sandbox.base_url, sandbox.api_key)
    return sandbox


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """An SQLite file with the tables of this Airflow and nothing in them, to be copied."""
    from airflow.utils.db import initdb

    def make(file: Path) -> None:
        initdb()
        copy_database(own_database(), file)

    return once_per_run(tmp_path_factory, worker_id, "airflow.db", make)


def own_database() -> Path:
    from airflow import settings
    from sqlalchemy.engine import make_url

    return Path(make_url(str(settings.SQL_ALCHEMY_CONN)).database or "")


def copy_database(source: Path, target: Path) -> None:
    """Copy what is committed, though either file may be in use."""
    with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)


@pytest.fixture(scope="session")
def metadata_database(new_database: Path) -> None:
    from airflow import settings
    from sqlalchemy import event

    Path(settings.DAGS_FOLDER).mkdir(exist_ok=True)
    copy_database(new_database, own_database())
    # SQLite would wait for the disk at each commit, to outlive a crash of the machine; this file needn't.
    event.listen(settings.engine, "connect", lambda file, _: file.execute("PRAGMA synchronous = OFF"))
    assert settings.engine is not None
    settings.engine.dispose()


class RunResult:
    """A finished Dag run and what its tasks left behind."""

    def __init__(self, dag_run: DagRun) -> None:
        self.state = str(dag_run.state)
        self.run_id = dag_run.run_id
        self._instances = {
            (instance.task_id, instance.map_index): instance for instance in dag_run.get_task_instances()
        }

    def task(self, task_id: str, map_index: int = -1) -> TaskInstance:
        return self._instances[task_id, map_index]

    def task_state(self, task_id: str, map_index: int = -1) -> str:
        return str(self.task(task_id, map_index).state)

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        instance = self.task(task_id, map_index)
        with create_session() as session:
            row = session.scalars(
                XComModel.get_many(
                    run_id=self.run_id,
                    key=key,
                    task_ids=task_id,
                    dag_ids=instance.dag_id,
                    map_indexes=map_index,
                )
            ).first()
            return None if row is None else XComModel.deserialize_value(row)


@pytest.fixture(scope="session")
def dag_test() -> Iterator[None]:
    """
    Mend ``dag.test()`` of Airflow 3.1 and 3.2, where it differs from what workers do.

    Before 3.3 it builds Airflow's API for each task, which takes seconds. In 3.1.0 the time of a rescheduled
    sensor's first try arrives as text, on which Airflow's own sensors break; a worker gets a time.
    """
    from airflow.sdk.execution_time import supervisor
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    from tests.support import execution_api

    execution_api.leave_out_old_versions()
    ask = RuntimeTaskInstance.get_first_reschedule_date

    def get_first_reschedule_date(self: Any, context: Any) -> Any:
        at = ask(self, context)
        return datetime.fromisoformat(at) if isinstance(at, str) else at

    with pytest.MonkeyPatch.context() as patch:
        if not AIRFLOW_V_3_3_PLUS:
            patch.setattr(supervisor, "in_process_api_server", cache(supervisor.in_process_api_server))
            patch.setattr(RuntimeTaskInstance, "get_first_reschedule_date", get_first_reschedule_date)
        yield


@pytest.fixture(scope="session")
def run_dag(metadata_database: None, dag_test: None) -> Callable[[DAG], RunResult]:
    """Run a Dag that exists in the test alone, with its triggers, to its end."""

    def run(dag: DAG, **run_arguments: Any) -> RunResult:
        from tests.support import dag_bags

        dag_bags.store(dag)
        return RunResult(dag.test(**run_arguments))

    return run


@pytest.fixture
def wait(run_dag: Callable[..., Any], connected: LumaSandbox, mode: dict[str, Any]) -> Callable[..., Any]:
    """Run a Dag of one sensor to its end: ``wait(ids, **arguments_of_the_sensor)``."""
    from airflow.sdk import DAG

    from airflow_provider_luma.sensors.luma import LumaTaskSensor

    def wait(ids: Any, *, dag_arguments: dict[str, Any] | None = None, **arguments: Any) -> Any:
        with DAG("sensor", schedule=None, **(dag_arguments or {})) as dag:
            LumaTaskSensor(
                task_id="wait",
                luma_task_ids=ids,
                **{
                    "poke_interval": 0.2,
                    "timeout": PATIENCE,
                    "retry_delay": timedelta(0),
                    **mode,
                    **arguments,
                },
            )
        return run_dag(dag)

    return wait


@pytest.fixture
def log_text(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Everything that was logged or printed since the last call."""
    caplog.set_level(logging.INFO)

    def text() -> str:
        captured = capsys.readouterr()
        logged = caplog.text
        caplog.clear()
        return logged + captured.out + captured.err

    return text
