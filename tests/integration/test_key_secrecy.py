# SPDX-License-Identifier: Apache-2.0
"""
The API key stays out of everything that Airflow keeps: files, log lines, and every row of its database.

Airflow's own masking of secrets is switched off for this, and so is the encryption of trigger rows: what is
found or not found is the provider's doing.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
API_KEY = "sk-7f3a91c5e0d24b68-never-to-be-seen"
PROMPT = "a zeppelin over zanzibar"

# Runs the pipeline Dag once for each scenario: a name, the faults before it, and changes of its sensor.
PROGRAM = """
import json, os, runpy, sys, urllib.request

from tests.support import execution_api

execution_api.leave_out_old_versions()
dag_file, sandbox_url, prompt, scenarios = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])

def steer(method, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(sandbox_url + "/sandbox/faults", data, method=method)
    urllib.request.urlopen(request).close()

states = {}
for scenario in scenarios:
    steer("DELETE")
    for fault in scenario["faults"]:
        steer("POST", fault)
    dag = runpy.run_path(dag_file)["dag"]
    sensor = dag.task_dict["wait"]
    for name, value in {"poke_interval": 0.3, **scenario["sensor"]}.items():
        setattr(sensor, name, value)
    run = dag.test(run_conf={"prompts": [prompt + ": " + scenario["name"]]})
    states[scenario["name"]] = str(run.state)

from airflow_provider_luma.hooks.luma import LumaHook

hook = LumaHook()
print(hook.settings, hook.client, vars(hook.client), hook.test_connection())
print("STATES", json.dumps(states))
"""


def as_json(fault: faults.Fault) -> dict[str, Any]:
    """Return a fault as the sandbox's HTTP interface takes it."""
    builtins: dict[str, Any] = msgspec.to_builtins(fault)
    return builtins


def quoting(status: int) -> dict[str, Any]:
    """The fault of a relay that answers with the key."""
    message = {"error": {"message": f"not with {API_KEY} (request id: {API_KEY})", "code": API_KEY}}
    return as_json(
        faults.answer(status, json.dumps(message), headers={"x-request-id": "quoting"}, name="quoting")
    )


def quoting_page(status: int) -> dict[str, Any]:
    """The fault of an edge proxy whose page shows the key, which hides what the relay behind it did."""
    page = f"<html><body>Bad gateway for Bearer {API_KEY}</body></html>"
    return as_json(faults.answer(status, page, content_type="text/html", name="quoting page"))


NOTHING_YET = {"call": "batch", "fault": as_json(faults.answer(200, "[]"))}


def scenario(name: str, *played: dict[str, Any], **sensor: Any) -> dict[str, Any]:
    """A run of the Dag whose first poll finds nothing yet, unless a fault comes first."""
    first = [] if any(fault.get("first") for fault in played) else [NOTHING_YET]
    played = tuple({key: value for key, value in fault.items() if key != "first"} for fault in played)
    return {"name": name, "faults": [*first, *played], "sensor": sensor}


SCENARIOS = [
    scenario("success"),
    scenario("reschedule", deferrable=False, mode="reschedule"),
    scenario("submit refused", {"call": "submit", "fault": quoting(401)}),
    scenario("submit ambiguous", {"call": "submit", "fault": quoting_page(502), "accepted": True}),
    scenario("refused at once", {"call": "batch", "fault": quoting(401), "times": None, "first": True}),
    scenario("refused in a worker", {"call": "batch", "fault": quoting(403)}, deferrable=False),
    scenario("refused in the triggerer", {"call": "batch", "fault": quoting(401)}),
    scenario("broken for a while", {"call": "batch", "fault": quoting(500)}),
]

#: What Airflow itself logs at this level when a task names what to mask.
MASKING = b"msg=MaskSecret("


@pytest.fixture
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox(api_key=API_KEY, pending_seconds=0, processing_seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def home(sandbox: LumaSandbox, tmp_path: Path, new_database: Path) -> Path:
    """An Airflow home in which all scenarios have run."""
    home = tmp_path
    log = home / "logs" / "run.log"
    log.parent.mkdir()
    shutil.copy(new_database, home / "airflow.db")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__HIDE_SENSITIVE_VAR_CONN_FIELDS": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
    }
    dag_file = ROOT / "example_dags" / "example_luma_pipeline.py"
    with log.open("wb") as file:
        finished = subprocess.run(
            [sys.executable, "-c", PROGRAM, dag_file, sandbox.root_url, PROMPT, json.dumps(SCENARIOS)],
            env=environment,
            cwd=home,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=len(SCENARIOS) * PATIENCE,
        )
    assert finished.returncode == 0, log.read_text()[-5000:]
    return home


def files_with(home: Path, text: str) -> set[str]:
    """The files with a line that holds the text."""
    return {
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file()
        for line in path.read_bytes().splitlines()
        if text.encode() in line and MASKING not in line
    }


def tables_with(home: Path, text: str) -> set[str]:
    """The tables of the metadata database with a row that holds the text in any column."""
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert len(tables) > 30
        return {
            table
            for table in tables
            for row in database.execute(f'SELECT * FROM "{table}"')  # noqa: S608
            if any(_holds(value, text) for value in row)
        }


def states(home: Path) -> dict[str, str]:
    """How each scenario's run ended."""
    lines = (home / "logs" / "run.log").read_text().splitlines()
    states: dict[str, str] = json.loads(
        next(line for line in lines if line.startswith("STATES")).removeprefix("STATES")
    )
    return states


def _holds(value: object, text: str) -> bool:
    return text.encode() in value if isinstance(value, bytes) else text in str(value)


def test_the_key_is_nowhere(home: Path, sandbox: LumaSandbox) -> None:
    # Each scenario ended in the state that it is for, with the key.
    assert states(home) == {
        "success": "success",
        "reschedule": "success",
        "submit refused": "failed",
        "submit ambiguous": "failed",
        "refused at once": "failed",
        "refused in a worker": "success",
        "refused in the triggerer": "success",
        "broken for a while": "success",
    }
    assert all(call.headers["authorization"] == f"Bearer {API_KEY}" for call in sandbox.calls)

    # The search finds what is there.
    deferred, rescheduled = [generation.id for generation in sandbox.generations[:2]]
    assert files_with(home, PROMPT) == {"airflow.db", "logs/run.log"}
    assert tables_with(home, PROMPT) == {"dag_run", "rendered_task_instance_fields", "xcom"}
    kept_ids = {"rendered_task_instance_fields", "task_state_store", "xcom"}
    assert tables_with(home, rescheduled) == kept_ids
    assert tables_with(home, deferred) == {*kept_ids, "trigger"}

    # And it doesn't find the key.
    assert files_with(home, API_KEY) == set()
    assert tables_with(home, API_KEY) == set()
