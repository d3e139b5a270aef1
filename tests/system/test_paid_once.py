# SPDX-License-Identifier: Apache-2.0
"""Workers of a live Airflow are killed while they submit; what the sandbox has sold is the judge."""

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
    buy = LumaGenerateVideosOperator(
        task_id="buy",
        requests="[{% for prompt in params.prompts %}{{ ',' if loop.index0 }}"
        "{\\"prompt\\": {{ prompt | tojson }}}{% endfor %}]",
        submit_interval=4,
    )
    LumaTaskSensor(task_id="wait", luma_task_ids=buy.output, poke_interval=1)

with DAG("one", schedule=None, params={"prompt": ""}, default_args=RETRIED):
    LumaGenerateVideoOperator(task_id="buy", prompt="{{ params.prompt }}")

with DAG("deferred", schedule=None, params={"prompt": ""}):
    LumaGenerateVideoOperator(
        task_id="buy",
        prompt="{{ params.prompt }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=5,
    )

with DAG("mapped", schedule=None, params={"prompt": ""}):
    LumaGenerateVideoOperator.partial(task_id="buy").expand(prompt=["a good prompt", "a nsfw prompt"])
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


def sold(sandbox: LumaSandbox, prompts: list[str]) -> dict[str, list[str]]:
    """Ids by prompt."""
    return {
        prompt: [bought.id for bought in sandbox.generations if bought.prompt == prompt] for prompt in prompts
    }


def told(airflow: LiveAirflow, dag_id: str, run_id: str) -> dict[str, Any]:
    try:
        value = airflow.xcom(dag_id, run_id, "buy", key="luma_tasks")
    except LookupError:
        return {}
    return dict(json.loads(value) if isinstance(value, str) else value)


def begin(airflow: LiveAirflow, sandbox: LumaSandbox, prompts: list[str], run_id: str) -> int:
    """Begin a list, wait until two ids are booked and nothing is on its way; return the worker's pid."""
    airflow.trigger("list", conf={"prompts": prompts}, run_id=run_id)
    airflow.wait_until(lambda: len(told(airflow, "list", run_id)) == 2, "two ids in the XCom")
    assert [len(ids) for ids in sold(sandbox, prompts).values()] == [1, 1, 0, 0]
    return int(airflow.task("list", run_id, "buy")["pid"])


def check_finished(airflow: LiveAirflow, sandbox: LumaSandbox, prompts: list[str], run_id: str) -> None:
    assert airflow.wait_for_run("list", run_id) == "success"
    bought = sold(sandbox, prompts)
    assert [len(ids) for ids in bought.values()] == [1, 1, 1, 1]
    assert airflow.xcom("list", run_id, "buy") == [bought[prompt][0] for prompt in prompts]
    assert airflow.task("list", run_id, "buy")["try_number"] == 2
    log = airflow.task_log("list", run_id, "buy", try_number=2)
    assert "Going on from an earlier try: of 4 requests 2 are submitted, 0 refused, 2 to be sent." in log


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


def test_a_worker_killed_while_the_relay_takes_the_job_ends_as_ambiguous(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    prompt = "killed under way"
    sandbox.fail_when("submit", faults.hang(), containing=prompt, accepted=True)
    airflow.trigger("one", conf={"prompt": prompt}, run_id="hanging")
    airflow.wait_until(lambda: bool(sold(sandbox, [prompt])[prompt]), "the relay to take the job")

    os.kill(airflow.task("one", "hanging", "buy")["pid"], signal.SIGKILL)

    assert airflow.wait_for_run("one", "hanging") == "failed"
    assert len(sold(sandbox, [prompt])[prompt]) == 1
    # Of three tries, the second says that it can't know, and the third isn't used.
    assert airflow.task("one", "hanging", "buy")["try_number"] == 2
    path = "/dags/one/dagRuns/hanging/taskInstances/buy/logs/2"
    log = airflow.api("GET", path, params={"full_content": "true"}).text
    assert f"broke off in mid-submit: request 0 (video '{prompt}'), about to be sent at 20" in log
    assert "It is unknown whether the relay took it: it may be running and billed." in log


def test_only_a_clear_of_the_submit_task_buys_anew(airflow: LiveAirflow, sandbox: LumaSandbox) -> None:
    prompts = ["cleared 0"]
    airflow.trigger("list", conf={"prompts": prompts}, run_id="cleared")
    assert airflow.wait_for_run("list", "cleared") == "success"
    (first,) = sold(sandbox, prompts)["cleared 0"]

    airflow.clear("list", "cleared", "wait")
    assert airflow.wait_for_run("list", "cleared") == "success"
    assert sold(sandbox, prompts)["cleared 0"] == [first]

    airflow.clear("list", "cleared", "buy", "wait")
    airflow.wait_until(lambda: len(sold(sandbox, prompts)["cleared 0"]) == 2, "the video to be bought anew")
    assert airflow.wait_for_run("list", "cleared") == "success"

    assert Counter(len(ids) for ids in sold(sandbox, prompts).values()) == {2: 1}
    second = sold(sandbox, prompts)["cleared 0"][1]
    assert airflow.xcom("list", "cleared", "buy") == [second]
    log = airflow.task_log("list", "cleared", "buy", try_number=2)
    assert "This task was cleared, so everything is submitted anew. 1 Luma tasks of the time before" in log
    assert first in log


def check_schedulers_log(airflow: LiveAirflow, before: str) -> None:
    news = airflow.output("scheduler").removeprefix(before)
    assert "Traceback" not in news, news


def test_a_clear_of_a_running_submit_task_goes_on_with_what_was_bought(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    # The supervisor of the try that was cleared logs a traceback of its own, as for any cleared running task.
    prompts = [f"cleared while running {number}" for number in range(4)]
    begin(airflow, sandbox, prompts, "cleared-running")

    airflow.clear("list", "cleared-running", "buy")

    check_finished(airflow, sandbox, prompts, "cleared-running")


def test_a_clear_of_a_deferred_submit_task_waits_for_the_same_video(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    before = airflow.output("scheduler")
    prompt = "cleared while deferred"
    held = True

    def is_held(call: Any) -> bool:
        return held and bool(set(call.ids) & set(sold(sandbox, [prompt])[prompt]))

    sandbox.fail_when("batch", faults.too_many_requests(), is_held)
    airflow.trigger("deferred", conf={"prompt": prompt}, run_id="cleared-deferred")
    airflow.wait_for_task("deferred", "cleared-deferred", "buy", states={"deferred"})
    (task_id,) = sold(sandbox, [prompt])[prompt]

    airflow.clear("deferred", "cleared-deferred", "buy")

    def second_try_is_deferred() -> bool:
        task = airflow.task("deferred", "cleared-deferred", "buy")
        return (task["state"], task["try_number"]) == ("deferred", 2)

    airflow.wait_until(second_try_is_deferred, "the second try to wait")
    held = False
    assert airflow.wait_for_run("deferred", "cleared-deferred") == "success"
    assert sold(sandbox, [prompt])[prompt] == [task_id]
    assert airflow.xcom("deferred", "cleared-deferred", "buy")["id"] == task_id

    airflow.clear("deferred", "cleared-deferred", "buy")
    airflow.wait_until(lambda: len(sold(sandbox, [prompt])[prompt]) == 2, "a clear after the end to buy anew")
    assert airflow.wait_for_run("deferred", "cleared-deferred") == "success"
    assert len(sold(sandbox, [prompt])[prompt]) == 2
    check_schedulers_log(airflow, before)


def test_a_retry_date_far_away_is_bounded_and_stops_no_scheduler(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    before = airflow.output("scheduler")
    year_9999 = 253_400_000_000 - time.time()
    busy = faults.too_many_requests(retry_after=year_9999, http_date=True)
    sandbox.fail_when("submit", busy, containing="busy for ages")
    airflow.trigger("one", conf={"prompt": "busy for ages"}, run_id="busy")
    airflow.wait_for_task("one", "busy", "buy", states={"up_for_retry"})

    with sqlite3.connect(airflow.home / "airflow.db") as database:
        ((delay,),) = database.execute(
            "SELECT retry_delay_override FROM task_instance WHERE run_id = 'busy'"
        ).fetchall()
    assert delay is None or delay <= 3600
    # The scheduler has looked at the waiting task more than once when another run is through.
    airflow.trigger("one", conf={"prompt": "not busy"}, run_id="not-busy")
    assert airflow.wait_for_run("one", "not-busy") == "success"
    assert airflow.task("one", "busy", "buy")["state"] == "up_for_retry"
    check_schedulers_log(airflow, before)


def test_ending_a_deferred_task_tells_what_goes_on(airflow: LiveAirflow, sandbox: LumaSandbox) -> None:
    prompt = "ended by a user"
    airflow.trigger("deferred", conf={"prompt": prompt}, run_id="ended")
    airflow.wait_until(lambda: bool(sold(sandbox, [prompt])[prompt]), "the relay to take the job")
    (task_id,) = sold(sandbox, [prompt])[prompt]
    sandbox.fail_when("batch", faults.too_many_requests(), ids=[task_id])
    airflow.wait_for_task("deferred", "ended", "buy", states={"deferred"})
    airflow.wait_until(lambda: any(task_id in call.ids for call in sandbox.calls), "the trigger to poll")

    path = "/dags/deferred/dagRuns/ended/taskInstances/buy"
    assert airflow.api("PATCH", path, json={"new_state": "failed"}).ok

    def log() -> bool:
        return f"go on and are billed: {task_id}" in airflow.task_log("deferred", "ended", "buy")

    airflow.wait_until(log, "the trigger to tell what goes on")


def test_the_link_to_the_videos_is_shown_for_good_failed_and_mapped_tasks(
    airflow: LiveAirflow, sandbox: LumaSandbox
) -> None:
    airflow.trigger("mapped", run_id="linked")
    airflow.wait_for_run("mapped", "linked")
    states = {task["map_index"]: task["state"] for task in airflow.tasks("mapped", "linked")}
    assert states == {0: "success", 1: "failed"}

    for map_index in states:
        path = "/dags/mapped/dagRuns/linked/taskInstances/buy/links"
        links = airflow.api("GET", path, params={"map_index": map_index}).json()["extra_links"]
        page = f"{airflow.base_url}/dags/mapped/runs/linked/tasks/buy/mapped/{map_index}"
        assert links == {"Luma videos": f"{page}/plugin/luma"}
