# SPDX-License-Identifier: Apache-2.0
"""Every example Dag, as it stands, against the sandbox."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_luma.operators.base import LumaSubmitOperator
from airflow_provider_luma.sandbox import LumaSandbox
from airflow_provider_luma.sensors.luma import LumaTaskSensor
from tests.support import dag_bags

FILES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))

#: This one needs a store that speaks S3, and runs in test_transfer_s3.py.
ELSEWHERE = "example_luma_to_s3"

#: What the examples wait for unless a run names other ids.
DOCUMENTED_ID = "4665a07c-7641-4809-a133-10786201bb56"


def load(file: Path) -> DAG:
    bag = dag_bags.load(file)
    assert (bag.import_errors, bag.captured_warnings) == ({}, {})
    (dag,) = bag.dags.values()
    return dag


def hurry(dag: DAG) -> DAG:
    """The sandbox's videos take no minutes."""
    for operator in dag.task_dict.values():
        if isinstance(operator, LumaTaskSensor):
            operator.poke_interval = 0.3
        if isinstance(operator, LumaSubmitOperator):
            operator.poll_interval = 0.3
            operator.pause = 0
    return dag


@pytest.fixture
def relay(connected: LumaSandbox) -> LumaSandbox:
    connected.add_task(DOCUMENTED_ID, completes_after=0.5)
    return connected


def test_there_are_examples() -> None:
    assert {file.stem for file in FILES} >= {"example_luma_pipeline", "example_luma_wait"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEachExample:
    @pytest.mark.every_airflow
    def test_it_is_parsed_without_network_connection_or_warning(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, metadata_database: None
    ) -> None:
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise AssertionError(f"parsing {file.name} wants to connect to {args}")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT", raising=False)

        dag = load(file)

        assert dag.dag_id == file.stem
        assert dag.doc_md
        assert dag.schedule is None, "an example must not spend money by itself"
        assert "luma" in dag.tags


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.stem != ELSEWHERE], ids=lambda file: file.stem
)
@pytest.mark.every_airflow
def test_it_runs_to_success(file: Path, run_dag: Callable[..., Any], relay: LumaSandbox) -> None:
    run = run_dag(hurry(load(file)))

    assert run.state == "success"
    assert relay.count("unknown") == 0


def test_the_pipeline_passes_each_url_to_a_mapped_task(
    run_dag: Callable[..., Any], relay: LumaSandbox
) -> None:
    prompts = ["a first video", "a second video"]
    dag = hurry(load(next(file for file in FILES if file.stem == "example_luma_pipeline")))

    run = run_dag(dag, run_conf={"prompts": prompts})

    records = run.xcom("fetch")
    assert [generation.prompt for generation in relay.generations] == prompts
    assert [record["id"] for record in records] == [generation.id for generation in relay.generations]
    assert [record["prompt"] for record in records] == prompts
    published = [run.xcom("publish", map_index=index) for index in range(2)]
    assert published == [record["video_url"] for record in records]
    assert all(published)


def test_the_smallest_example_shows_the_urls(
    run_dag: Callable[..., Any], relay: LumaSandbox, log_text: Callable[[], str]
) -> None:
    ids = [relay.add_task(completes_after=0.5), relay.add_task(state="completed")]
    dag = hurry(load(next(file for file in FILES if file.stem == "example_luma_wait")))

    run = run_dag(dag, run_conf={"luma_task_ids": ids})

    assert run.xcom("wait") == ids
    text = log_text()
    assert all(f"{record['id']} {record['video_url']}" in text for record in run.xcom("fetch"))


def test_the_list_of_twenty_returns_eighteen_and_names_the_refused(
    run_dag: Callable[..., Any], relay: LumaSandbox, log_text: Callable[[], str]
) -> None:
    dag = hurry(load(next(file for file in FILES if file.stem == "example_luma_generate_list")))

    run = run_dag(dag)

    assert len(run.xcom("videos")) == len(relay.generations) == 18
    assert [one["index"] for one in run.xcom("videos", "refused")] == [3, 14]
    text = log_text()
    assert all(f"{record['id']} {record['video_url']}" in text for record in run.xcom("videos"))
    assert text.count("refused: a ") == 2


def test_the_extension_continues_the_first_video(run_dag: Callable[..., Any], relay: LumaSandbox) -> None:
    dag = hurry(load(next(file for file in FILES if file.stem == "example_luma_extend")))

    run = run_dag(dag)

    first, second = relay.generations
    assert second.parent == first.id
    assert [record["id"] for record in run.xcom("fetch")] == [first.id, second.id]
