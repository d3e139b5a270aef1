# SPDX-License-Identifier: Apache-2.0
"""
Fifty deferred sensors in one triggerer, which is killed while they wait: nothing is lost, and they share
their polls before and after. Beside them: sensors that start and end in the triggerer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_luma.sandbox import LumaSandbox, RecordedCall, TaskScript
from tests.support.live_airflow import LiveAirflow

SENSORS = 50
# Longer than a worker needs to tell the scheduler that it has deferred its task.
INTERVAL = 6
LIMIT = 100
IDS = [[f"task-{sensor}-{number}" for number in range(2)] for sensor in range(SENSORS)]

DAGS = f"""
from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_luma.sensors.luma import LumaTaskSensor

WAIT = {{"deferrable": True, "poke_interval": {INTERVAL}}}
FROM_TRIGGER = {{**WAIT, "start_from_trigger": True, "end_from_trigger": True}}

with DAG("fifty", schedule=None):
    LumaTaskSensor.partial(task_id="wait", **WAIT).expand(luma_task_ids={IDS!r})

with DAG("flags", schedule=None, params={{"ids": []}}):
    LumaTaskSensor(task_id="literal", luma_task_ids={IDS[0]!r}, **FROM_TRIGGER)
    LumaTaskSensor(task_id="params", luma_task_ids="{{{{ params.ids }}}}", **FROM_TRIGGER)
    LumaTaskSensor(task_id="conf", luma_task_ids="{{{{ dag_run.conf['ids'] }}}}", **FROM_TRIGGER)
    LumaTaskSensor(task_id="start", luma_task_ids={IDS[1]!r}, **WAIT, start_from_trigger=True)
    LumaTaskSensor(task_id="end", luma_task_ids={IDS[2]!r}, **WAIT, end_from_trigger=True)
    LumaTaskSensor.partial(task_id="mapped", **FROM_TRIGGER).expand(luma_task_ids={IDS[:2]!r})
    LumaTaskSensor(task_id="fails", luma_task_ids=["bad"], **FROM_TRIGGER)
    LumaTaskSensor(task_id="fails_retried", luma_task_ids=["bad"], **FROM_TRIGGER, retries=3)
    LumaTaskSensor(task_id="skips", luma_task_ids=["bad"], **FROM_TRIGGER, soft_fail=True)

with DAG("limited", schedule=None):
    LumaTaskSensor(task_id="wait", luma_task_ids=["never"], **FROM_TRIGGER, timeout={LIMIT})
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox() as sandbox:
        sandbox.add_tasks(TaskScript(id=id_, completes_after=36_000) for ids in IDS for id_ in ids)
        sandbox.add_tasks(
            [
                TaskScript(id="bad", fails_after=36_000, fails_with="moderated"),
                TaskScript(id="never", state="processing"),
            ]
        )
        yield sandbox


@pytest.fixture(scope="module")
def airflow(sandbox: LumaSandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    folder = tmp_path_factory.mktemp("dags")
    (folder / "waiting.py").write_text(DAGS)
    with LiveAirflow(folder, env={"AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection}) as airflow:
        yield airflow


def states(airflow: LiveAirflow, dag_id: str, run_id: str) -> Counter[str]:
    return Counter(task["state"] for task in airflow.tasks(dag_id, run_id))


def shared_polls(airflow: LiveAirflow, sandbox: LumaSandbox, rounds: int) -> list[RecordedCall]:
    """Wait until all ids have been polled so many times, and return the calls."""
    before = sandbox.count("batch")

    def calls() -> list[RecordedCall] | None:
        made = sandbox.calls[before:]
        asked = Counter(task_id for call in made for task_id in call.ids)
        return made if all(asked[task_id] >= rounds for ids in IDS for task_id in ids) else None

    return airflow.wait_until(calls, f"{rounds} polls of all ids")


def share(calls: list[RecordedCall]) -> bool:
    """
    Return whether no round had more calls than its ids need: two, for a hundred ids and those of the flags.

    Only calls for the sensors that have ids of their own count: each round polls all of these ids once. The
    calls may begin and end in the middle of a round.
    """
    own = {task_id for ids in IDS[4:] for task_id in ids}
    of_own = [call for call in calls if own.intersection(call.ids)]
    rounds = max(Counter(task_id for call in of_own for task_id in call.ids if task_id in own).values())
    return len(of_own) <= 2 * (rounds + 1)


def test_nothing_is_lost_when_the_triggerer_is_killed_and_polls_are_shared(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    fifty = airflow.trigger("fifty")
    airflow.wait_until(
        lambda: states(airflow, "fifty", fifty) == {"deferred": SENSORS}, "all sensors to be deferred", 600
    )
    flags = airflow.trigger("flags", conf={"ids": IDS[3]})
    limited = airflow.trigger("limited")
    airflow.wait_until(lambda: states(airflow, "flags", flags) == {"deferred": 10}, "the flags' sensors", 300)
    airflow.wait_until(lambda: states(airflow, "limited", limited) == {"deferred": 1}, "the limited sensor")
    limited_since = time.monotonic()

    # Each waits for a round of its own after joining; from then on they share one call per round.
    shared_polls(airflow, sandbox, rounds=1)
    before = shared_polls(airflow, sandbox, rounds=6)
    airflow.kill("triggerer")
    restarted_at = time.monotonic()
    airflow.start("triggerer")
    restarted = shared_polls(airflow, sandbox, rounds=1)
    after = shared_polls(airflow, sandbox, rounds=3)
    sandbox.advance(40_000)

    assert airflow.wait_for_run("fifty", fifty, timeout=600) == "success"
    tasks = airflow.tasks("fifty", fifty)
    assert {task["try_number"] for task in tasks} == {1}
    assert [airflow.xcom("fifty", fifty, "wait", map_index=number) for number in range(SENSORS)] == IDS
    assert share(before)
    assert share(after)
    # Those that join the new triggerer at about the same time share their first round already.
    assert max(len(call.ids) for call in restarted) > max(map(len, IDS))
    assert sandbox.count("submit") == 0

    airflow.wait_for_run("flags", flags, timeout=300)
    check_flags(airflow, flags)
    airflow.wait_for_run("limited", limited, timeout=300)
    check_limited(airflow, limited)
    # The deadline did not move with the triggerer: a wait that began again would have made more polls. Four
    # may come besides those at each interval: the first two, before it is in step, the last, and a fencepost.
    polls = [call for call in sandbox.calls if "never" in call.ids and call.monotonic > restarted_at]
    assert len(polls) <= max(0, limited_since + LIMIT - restarted_at) / INTERVAL + 4


def check_flags(airflow: LiveAirflow, run_id: str) -> None:
    tasks: dict[tuple[str, int], Any] = {
        (task["task_id"], task["map_index"]): task for task in airflow.tasks("flags", run_id)
    }
    expected = {
        "literal": ("success", IDS[0]),
        "params": ("success", IDS[3]),
        "conf": ("success", IDS[3]),
        "start": ("success", IDS[1]),
        "end": ("success", IDS[2]),
        "fails": ("failed", {"bad": "moderated"}),
        "fails_retried": ("failed", {"bad": "moderated"}),
        "skips": ("skipped", {"bad": "moderated"}),
    }
    for task_id, (state, value) in expected.items():
        task = tasks.pop((task_id, -1))
        assert (task_id, task["state"], task["try_number"]) == (task_id, state, 1)
        key = "return_value" if state == "success" else "failed"
        assert airflow.xcom("flags", run_id, task_id, key=key) == value
        # Only a worker has a process; a failure with retries left goes through one, to use none of them.
        in_a_worker = task_id in ("start", "end", "fails_retried")
        assert (task_id, task["pid"] is not None) == (task_id, in_a_worker)
    for (task_id, map_index), task in tasks.items():
        assert (task_id, task["state"]) == ("mapped", "success")
        assert airflow.xcom("flags", run_id, task_id, map_index=map_index) == IDS[map_index]


def check_limited(airflow: LiveAirflow, run_id: str) -> None:
    task = airflow.task("limited", run_id, "wait")
    assert task["state"] == "failed"
    assert f"not finished after the timeout of {LIMIT} s" in airflow.task_log("limited", run_id, "wait")
