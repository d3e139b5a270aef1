# SPDX-License-Identifier: Apache-2.0
"""Workers of a live Airflow are killed while they submit; what the sandbox has billed decides."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.support.live_airflow import LiveAirflow

DAGS = """
from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_luma.operators.generate import LumaGenerateVideoOperator, LumaGenerateVideosOperator
from airflow_provider_luma.sensors.luma import LumaTaskSensor

RETRIED = {"retries": 2, "retry_delay": timedelta(seconds=1)}
with DAG("list", schedule=None, params={"prompts": []}, default_args=RETRIED):
    submit = LumaGenerateVideosOperator(
        task_id="submit",
        requests="[{% for prompt in params.prompts %}{{ ',' if loop.index0 }}"
        "{\\"prompt\\": {{ prompt | tojson }}}{% endfor %}]",
        submit_interval=4,
    )
    LumaTaskSensor(task_id="wait", luma_task_ids=submit.output, poke_interval=1)

with DAG("one", schedule=None, params={"prompt": ""}, default_args=RETRIED):
    LumaGenerateVideoOperator(task_id="submit", prompt="{{ params.prompt }}")

with DAG("deferred", schedule=None, params={"prompt": ""}):
    LumaGenerateVideoOperator(
        task_id="submit",
        prompt="{{ params.prompt }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=5,
    )

with DAG("mapped", schedule=None, params={"prompt": ""}):
    LumaGenerateVideoOperator.partial(task_id="submit").expand(prompt=["a good prompt", "a nsfw prompt"])
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox(pending_seconds=0.5, processing_seconds=0.5) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, sandbox: LumaSandbox) -> Iterator[LiveAirflow]:
    folder = tmp_path_factory.mktemp("dags")
    (folder / "paid_once.py").write_text(DAGS)
    env = {
        "AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection,
        # How soon a scheduler and its workers that vanished with their machine are missed.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
    }
    with LiveAirflow(folder, env=env) as airflow:
        yield airflow


def billed_ids(sandbox: LumaSandbox, prompts: list[str]) -> dict[str, list[str]]:
    """Ids by prompt."""
    return {
        prompt: [generation.id for generation in sandbox.generations if generation.prompt == prompt]
        for prompt in prompts
    }


def pushed(airflow: LiveAirflow, dag_id: str, run_id: str) -> dict[str, Any]:
    try:
        value = airflow.xcom(dag_id, run_id, "submit", key="luma_tasks")
    except LookupError:
        return {}
    return dict(json.loads(value) if isinstance(value, str) else value)


def begin(airflow: LiveAirflow, sandbox: LumaSandbox, prompts: list[str], run_id: str) -> int:
    """Begin a list, wait until two ids are pushed and no submit is in progress; return the worker's pid."""
    airflow.trigger("list", conf={"prompts": prompts}, run_id=run_id)
    airflow.wait_until(lambda: len(pushed(airflow, "list", run_id)) == 2, "two ids in the XCom")
    assert [len(ids) for ids in billed_ids(sandbox, prompts).values()] == [1, 1, 0, 0]
    return int(airflow.task("list", run_id, "submit")["pid"])


def check_finished(airflow: LiveAirflow, sandbox: LumaSandbox, prompts: list[str], run_id: str) -> None:
    assert airflow.wait_for_run("list", run_id) == "success"
    billed = billed_ids(sandbox, prompts)
    assert [len(ids) for ids in billed.values()] == [1, 1, 1, 1]
    assert airflow.xcom("list", run_id, "submit") == [billed[prompt][0] for prompt in prompts]
    assert airflow.task("list", run_id, "submit")["try_number"] == 2
    log = airflow.task_log("list", run_id, "submit", try_number=2)
    assert "of 4 requests 2 were submitted, 0 were refused, 2 are left." in log


def test_a_second_try_finishes_the_list_of_a_killed_worker(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    prompts = [f"killed in mid-list {number}" for number in range(4)]
    pid = begin(airflow, sandbox, prompts, "killed")

    os.kill(pid, signal.SIGKILL)

    check_finished(airflow, sandbox, prompts, "killed")


def test_a_second_try_finishes_the_list_of_a_lost_machine(airflow: LiveAirflow, sandbox: LumaSandbox) -> None:
    prompts = [f"lost with its machine {number}" for number in range(4)]
    begin(airflow, sandbox, prompts, "lost")

    airflow.restart("scheduler")

    check_finished(airflow, sandbox, prompts, "lost")


def test_a_worker_killed_during_a_submit_leaves_an_unknown_outcome(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    prompt = "killed during a submit"
    sandbox.fail_when("submit", faults.hang(), containing=prompt, accepted=True)
    airflow.trigger("one", conf={"prompt": prompt}, run_id="hanging")
    airflow.wait_until(lambda: bool(billed_ids(sandbox, [prompt])[prompt]), "the relay to accept the request")

    os.kill(airflow.task("one", "hanging", "submit")["pid"], signal.SIGKILL)

    assert airflow.wait_for_run("one", "hanging") == "failed"
    assert len(billed_ids(sandbox, [prompt])[prompt]) == 1
    # Of three tries, the second says that it can't know, and the third isn't used.
    assert airflow.task("one", "hanging", "submit")["try_number"] == 2
    path = "/dags/one/dagRuns/hanging/taskInstances/submit/logs/2"
    log = airflow.api("GET", path, params={"full_content": "true"}).text
    assert f"interrupted during a submit: request 0 (video '{prompt}'), about to be sent at 20" in log
    assert "It is unknown whether the relay accepted it: it may be running and billed." in log


def test_only_a_clear_of_the_submit_task_submits_again(airflow: LiveAirflow, sandbox: LumaSandbox) -> None:
    prompts = ["cleared 0"]
    airflow.trigger("list", conf={"prompts": prompts}, run_id="cleared")
    assert airflow.wait_for_run("list", "cleared") == "success"
    (first,) = billed_ids(sandbox, prompts)["cleared 0"]

    airflow.clear("list", "cleared", "wait")
    assert airflow.wait_for_run("list", "cleared") == "success"
    assert billed_ids(sandbox, prompts)["cleared 0"] == [first]

    airflow.clear("list", "cleared", "submit", "wait")
    airflow.wait_until(
        lambda: len(billed_ids(sandbox, prompts)["cleared 0"]) == 2, "the video to be billed again"
    )
    assert airflow.wait_for_run("list", "cleared") == "success"

    assert Counter(len(ids) for ids in billed_ids(sandbox, prompts).values()) == {2: 1}
    second = billed_ids(sandbox, prompts)["cleared 0"][1]
    assert airflow.xcom("list", "cleared", "submit") == [second]
    log = airflow.task_log("list", "cleared", "submit", try_number=2)
    assert "This task was cleared, so everything is submitted again. 1 Luma tasks of the previous run" in log
    assert first in log


def check_schedulers_log(airflow: LiveAirflow, before: str) -> None:
    news = airflow.output("scheduler").removeprefix(before)
    assert "Traceback" not in news, news


def test_a_clear_of_a_running_submit_task_resumes_what_was_submitted(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    # The supervisor of the try that was cleared logs a traceback of its own, as for any cleared running task.
    prompts = [f"cleared while running {number}" for number in range(4)]
    begin(airflow, sandbox, prompts, "cleared-running")

    airflow.clear("list", "cleared-running", "submit")

    check_finished(airflow, sandbox, prompts, "cleared-running")


def test_a_clear_of_a_deferred_submit_task_waits_for_the_same_video(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    before = airflow.output("scheduler")
    prompt = "cleared while deferred"
    held = True

    def is_held(call: Any) -> bool:
        return held and bool(set(call.ids) & set(billed_ids(sandbox, [prompt])[prompt]))

    sandbox.fail_when("batch", faults.too_many_requests(), is_held)
    airflow.trigger("deferred", conf={"prompt": prompt}, run_id="cleared-deferred")
    airflow.wait_for_task("deferred", "cleared-deferred", "submit", states={"deferred"})
    (task_id,) = billed_ids(sandbox, [prompt])[prompt]

    airflow.clear("deferred", "cleared-deferred", "submit")

    def second_try_is_deferred() -> bool:
        task = airflow.task("deferred", "cleared-deferred", "submit")
        return (task["state"], task["try_number"]) == ("deferred", 2)

    airflow.wait_until(second_try_is_deferred, "the second try to wait")
    held = False
    assert airflow.wait_for_run("deferred", "cleared-deferred") == "success"
    assert billed_ids(sandbox, [prompt])[prompt] == [task_id]
    assert airflow.xcom("deferred", "cleared-deferred", "submit")["id"] == task_id

    airflow.clear("deferred", "cleared-deferred", "submit")
    airflow.wait_until(
        lambda: len(billed_ids(sandbox, [prompt])[prompt]) == 2, "a clear after the end to submit again"
    )
    assert airflow.wait_for_run("deferred", "cleared-deferred") == "success"
    assert len(billed_ids(sandbox, [prompt])[prompt]) == 2
    check_schedulers_log(airflow, before)


def test_a_retry_date_far_away_is_bounded_and_stops_no_scheduler(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    before = airflow.output("scheduler")
    year_9999 = 253_400_000_000 - time.time()
    busy = faults.too_many_requests(retry_after=year_9999, http_date=True)
    sandbox.fail_when("submit", busy, containing="busy for ages")
    airflow.trigger("one", conf={"prompt": "busy for ages"}, run_id="busy")
    airflow.wait_for_task("one", "busy", "submit", states={"up_for_retry"})

    with sqlite3.connect(airflow.home / "airflow.db") as database:
        ((delay,),) = database.execute(
            "SELECT retry_delay_override FROM task_instance WHERE run_id = 'busy'"
        ).fetchall()
    assert delay is None or delay <= 3600
    # The scheduler has looked at the waiting task more than once when another run is through.
    airflow.trigger("one", conf={"prompt": "not busy"}, run_id="not-busy")
    assert airflow.wait_for_run("one", "not-busy") == "success"
    assert airflow.task("one", "busy", "submit")["state"] == "up_for_retry"
    check_schedulers_log(airflow, before)


def test_ending_a_deferred_task_logs_what_keeps_running(airflow: LiveAirflow, sandbox: LumaSandbox) -> None:
    prompt = "ended by a user"
    airflow.trigger("deferred", conf={"prompt": prompt}, run_id="ended")
    airflow.wait_until(lambda: bool(billed_ids(sandbox, [prompt])[prompt]), "the relay to accept the request")
    (task_id,) = billed_ids(sandbox, [prompt])[prompt]
    sandbox.fail_when("batch", faults.too_many_requests(), ids=[task_id])
    airflow.wait_for_task("deferred", "ended", "submit", states={"deferred"})
    airflow.wait_until(lambda: any(task_id in call.ids for call in sandbox.calls), "the trigger to poll")

    path = "/dags/deferred/dagRuns/ended/taskInstances/submit"
    assert airflow.api("PATCH", path, json={"new_state": "failed"}).ok

    def log() -> bool:
        return f"keep running and are billed: {task_id}" in airflow.task_log("deferred", "ended", "submit")

    airflow.wait_until(log, "the trigger to log what keeps running")


def test_the_link_to_the_videos_is_shown_for_good_failed_and_mapped_tasks(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    airflow.trigger("mapped", run_id="linked")
    airflow.wait_for_run("mapped", "linked")
    states = {task["map_index"]: task["state"] for task in airflow.tasks("mapped", "linked")}
    assert states == {0: "success", 1: "failed"}

    for map_index in states:
        path = "/dags/mapped/dagRuns/linked/taskInstances/submit/links"
        links = airflow.api("GET", path, params={"map_index": map_index}).json()["extra_links"]
        page = f"{airflow.base_url}/dags/mapped/runs/linked/tasks/submit/mapped/{map_index}"
        assert links == {"Luma videos": f"{page}/plugin/luma"}
