# SPDX-License-Identifier: Apache-2.0
"""What Airflow makes of sensors that start or end in the triggerer: stored, rendered and mapped."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent

from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.sandbox import LumaSandbox
from airflow_provider_luma.sensors.luma import LumaTaskSensor
from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from tests.support.patience import PATIENCE

FLAGS = {"deferrable": True, "start_from_trigger": True, "end_from_trigger": True}


@pytest.fixture
def dialect() -> str:
    return "bare"


def dag_of(**arguments: Any) -> DAG:
    with DAG("from_trigger", schedule=None, params={"ids": ["p1", "p2"], "conn": "luma_default"}) as dag:
        LumaTaskSensor(task_id="wait", **{"poke_interval": 0.2, "timeout": PATIENCE, **FLAGS, **arguments})
    return dag


def started_in_triggerer(dag: DAG, conf: dict[str, Any] | None = None) -> LumaTaskTrigger:
    """The trigger as a triggerer makes it of the stored Dag, its templates rendered."""
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.serialization.decoders import smart_decode_trigger_kwargs

    stored = DagSerialization.to_dict(dag)
    start = DagSerialization.from_dict(stored).get_task("wait").start_trigger_args
    assert start is not None
    assert start.timeout is not None
    assert start.trigger_kwargs is not None
    kwargs = smart_decode_trigger_kwargs(start.trigger_kwargs)
    now = datetime.now(UTC)
    trigger = LumaTaskTrigger(**kwargs)
    instance = TaskInstanceDTO(
        id=uuid.uuid4(),
        task_id="wait",
        dag_id=dag.dag_id,
        run_id="run",
        try_number=1,
        dag_version_id=uuid.uuid4(),
        map_index=-1,
        hostname="",
        queue="default",
        pool_slots=1,
        priority_weight=1,
    )
    run = {
        "dag_id": dag.dag_id,
        "run_id": "run",
        "run_after": now,
        "logical_date": None,
        "data_interval_start": None,
        "data_interval_end": None,
        "run_type": "manual",
        "state": "running",
        "start_date": now,
        "end_date": None,
        "partition_key": None,
        "conf": conf or {},
        "consumed_asset_events": [],
    }
    task_instance = TriggerRunner.create_runtime_ti(instance, stored, run)
    trigger.task_instance = task_instance  # type: ignore[assignment]
    trigger.timeout_after = now + start.timeout
    trigger.render_template_fields(context=task_instance.get_template_context())
    return trigger


def event_of(trigger: LumaTaskTrigger) -> TriggerEvent:
    async def main() -> TriggerEvent:
        return await anext(aiter(trigger.run()))

    return asyncio.run(main())


class TestStoredDag:
    @pytest.mark.parametrize("ids", [["a", "b"], "{{ params.ids }}"])
    def test_it_is_the_same_from_parse_to_parse(self, ids: Any) -> None:
        stored = [DagSerialization.to_dict(dag_of(luma_task_ids=ids)) for _ in range(2)]

        assert stored[0] == stored[1]

    def test_airflows_own_timeout_comes_later_than_the_triggers(self) -> None:
        trigger = started_in_triggerer(dag_of(luma_task_ids=["a"], timeout=60))

        assert trigger.timeout_after is not None
        own = trigger.timeout_after.timestamp()
        assert own - trigger.time_limit.runs_out_at(trigger.timeout_after) == 120

    @pytest.mark.parametrize(
        ("seconds", "limit", "grace"),
        [
            (20, ("execution_timeout", 20), 0),
            (70, ("timeout", 60), 10),
            (600, ("timeout", 60), 120),
        ],
    )
    def test_an_execution_timeout_that_is_over_sooner_counts(
        self, seconds: float, limit: tuple[str, float], grace: float
    ) -> None:
        dag = dag_of(luma_task_ids=["a"], timeout=60, execution_timeout=timedelta(seconds=seconds))

        start = dag.get_task("wait").start_trigger_args
        arguments = (start and start.trigger_kwargs) or {}
        given = arguments["time_limit"]
        assert (given["name"], given["seconds"], given["grace"]) == (*limit, grace)
        assert ("timed_out" in arguments["end_states"]) == (seconds > 60)


class TestRendering:
    @pytest.mark.parametrize(
        ("ids", "conf", "rendered"),
        [
            (["a", "b"], {}, ["a", "b"]),
            ("{{ params.ids }}", {}, "['p1', 'p2']"),
            ("{{ params.ids | tojson }}", {"ids": ["c1"]}, '["c1"]'),
            ("{{ dag_run.conf['ids'] }}", {"ids": ["c1", "c2"]}, "['c1', 'c2']"),
            (["{{ params.ids[1] }}", "b"], {}, ["p2", "b"]),
            ("{% for id in params.ids %}{{ id }}{% if not loop.last %}-{% endif %}{% endfor %}", {}, "p1-p2"),
            ("{{ run_id }}", {}, "run"),
        ],
    )
    def test_templates_of_the_run_are_rendered_in_the_triggerer(
        self, ids: Any, conf: dict[str, Any], rendered: Any
    ) -> None:
        assert started_in_triggerer(dag_of(luma_task_ids=ids), conf).luma_task_ids == rendered

    def test_the_connection_id_as_well(self) -> None:
        dag = dag_of(luma_task_ids=["a"], luma_conn_id="{{ params.conn }}")

        assert started_in_triggerer(dag, {"conn": "other"}).luma_conn_id == "other"

    @pytest.mark.parametrize(
        "arguments",
        [
            {"luma_task_ids": "{{ ti.xcom_pull('submit') }}"},
            {"luma_task_ids": "{{ task_instance.xcom_pull('submit') }}"},
            {"luma_task_ids": "{{ var.value.ids }}"},
            {"luma_task_ids": "{{ conn.luma_default.password }}"},
            {"luma_task_ids": ["a", "{% set x = ti %}{{ x.xcom_pull('submit') }}"]},
            {"luma_task_ids": ["a"], "luma_conn_id": "{{ var.value.conn }}"},
        ],
        ids=str,
    )
    def test_what_only_a_worker_can_render_is_refused(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(LumaConfigError, match="triggerer can't resolve"):
            dag_of(**arguments)

    def test_another_tasks_output_is_refused(self) -> None:
        with DAG("from_trigger", schedule=None):
            output = LumaTaskSensor(task_id="first", luma_task_ids=["a"]).output
            for task_id, ids in (("one", output), ("two", [output])):
                arguments: dict[str, Any] = {"luma_task_ids": ids, **FLAGS}
                with pytest.raises(LumaConfigError, match="another task's output"):
                    LumaTaskSensor(task_id=task_id, **arguments)

    def test_a_template_that_can_not_be_read_is_named(self) -> None:
        with pytest.raises(LumaConfigError, match="can't be parsed"):
            dag_of(luma_task_ids="{{ params.ids")

    @pytest.mark.parametrize("argument", ["pre_execute", "on_execute_callback"])
    def test_what_only_a_worker_calls_is_refused(self, argument: str) -> None:
        with pytest.raises(LumaConfigError, match=argument):
            dag_of(luma_task_ids=["a"], **{argument: print})


class TestMapping:
    def test_a_mapped_task_starts_in_a_worker(self) -> None:
        with DAG("from_trigger", schedule=None) as dag:
            LumaTaskSensor.partial(task_id="wait", **FLAGS).expand(luma_task_ids=["a", "b"])

        stored = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("wait")

        assert stored.start_trigger_args is None


class TestEvents:
    """From the stored Dag to the event, against a relay."""

    def test_success_carries_the_ids(self, connected: LumaSandbox) -> None:
        good, bad = connected.add_task(completes_after=0), connected.add_task(fails_with="no")
        dag = dag_of(luma_task_ids="{{ dag_run.conf['ids'] }}", max_failed=1)

        event = event_of(started_in_triggerer(dag, {"ids": [good, bad]}))

        assert isinstance(event, TaskSuccessEvent)
        assert event.xcoms == {"return_value": [good], "failed": {bad: "no"}}

    @pytest.mark.parametrize(
        ("arguments", "kind"),
        [
            ({}, TaskFailedEvent),
            ({"soft_fail": True}, TaskSkippedEvent),
            ({"never_fail": True}, TaskSkippedEvent),
            ({"retries": 1}, TriggerEvent),
            ({"retries": 1, "soft_fail": True}, TaskSkippedEvent),
            ({"end_from_trigger": False}, TriggerEvent),
        ],
        ids=str,
    )
    def test_failure_ends_the_task_where_no_retry_would_follow(
        self, connected: LumaSandbox, arguments: dict[str, Any], kind: type[TriggerEvent]
    ) -> None:
        dag = dag_of(luma_task_ids=[connected.add_task(fails_with="no")], **arguments)

        assert type(event_of(started_in_triggerer(dag))) is kind

    def test_a_timeout_ends_it_too(self, connected: LumaSandbox) -> None:
        dag = dag_of(luma_task_ids=[connected.add_task(state="processing")], timeout=1)

        assert type(event_of(started_in_triggerer(dag))) is TaskFailedEvent

    def test_a_relay_out_of_reach_goes_through_a_worker_that_may_retry(
        self, connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect("http://127.0.0.1:9", connected.api_key, max_poll_failures=2)

        event = event_of(started_in_triggerer(dag_of(luma_task_ids=["a"])))

        assert type(event) is TriggerEvent
        assert event.payload["verdict"] == "unreachable"

    @pytest.mark.parametrize("rendered", ["", "None", "../x"])
    def test_ids_that_render_to_none_fail_the_task_and_say_so(
        self, connected: LumaSandbox, rendered: str, log_text: Callable[[], str]
    ) -> None:
        dag = dag_of(luma_task_ids="{{ dag_run.conf['ids'] }}")

        event = event_of(started_in_triggerer(dag, {"ids": rendered}))

        assert type(event) is TaskFailedEvent
        assert "luma_task_ids" in log_text()


def test_the_task_instance_of_a_triggerer_knows_no_start() -> None:
    """Why the deadline is reckoned from Airflow's own timeout."""
    trigger = started_in_triggerer(dag_of(luma_task_ids=["a"]))

    assert getattr(trigger.task_instance, "start_date", None) is None
    assert not isinstance(trigger.task_instance, SimpleNamespace)
