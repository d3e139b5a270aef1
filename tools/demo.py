# SPDX-License-Identifier: Apache-2.0
"""
``make demo``: run the whole pipeline Dag in a real Airflow against the sandbox relay.

Everything lives in a temporary Airflow home, which is removed at the end. Only the videos stay, in the folder
that is given, or in ``demo-videos``.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from airflow_provider_luma.sandbox import LumaSandbox

ROOT = Path(__file__).parents[1]
DAG_FILE = ROOT / "example_dags" / "example_luma_download.py"

_RUN_DAG = """
import json, runpy, sys
from airflow.utils.db import initdb

initdb()
dag_file, result_file, folder = sys.argv[1:]
dag = runpy.run_path(dag_file)["dag"]
run = dag.test(run_conf={"folder": folder})
fetch, keep = run.get_task_instance("fetch"), run.get_task_instance("keep")
result = {
    "state": str(run.state),
    "tasks": [
        {
            "name": i.task_id,
            "index": i.map_index,
            "state": str(i.state),
            "start": i.start_date.timestamp() if i.start_date else float("inf"),
        }
        for i in run.get_task_instances()
    ],
    "records": fetch.xcom_pull(task_ids="fetch") if fetch.state == "success" else [],
    "files": keep.xcom_pull(task_ids="keep") if keep.state == "success" else [],
}
with open(result_file, "w") as file:
    json.dump(result, file)
"""


class Screen:
    """Prints whole lines, each with the seconds since the start."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        self.console.print(f"[{time.monotonic() - self._started:3.0f} s] {text}")

    def show(self, text: str = "") -> None:
        self.console.print(text)


def main(folder: str = "demo-videos") -> int:
    screen = Screen()
    target = Path(folder).resolve()
    with tempfile.TemporaryDirectory(prefix="luma-demo-") as home, LumaSandbox() as sandbox:
        screen.say(f"The sandbox relay listens at {sandbox.base_url}")
        log_path, result_path = Path(home) / "demo.log", Path(home) / "result.json"
        command = [sys.executable, "-c", _RUN_DAG, str(DAG_FILE), str(result_path), target.as_uri()]
        done = _run(screen, sandbox, f"Starting Airflow to run {DAG_FILE.stem}", command, log_path)
        result = json.loads(result_path.read_text()) if done else None
        if result is not None:
            _show(screen, sandbox, result)
        success = result is not None and result["state"] == "success"
        if not success:
            screen.show(log_path.read_text()[-6000:])
            screen.show("The demo failed; the end of its log stands above.")
    screen.say("Everything is stopped and removed, but for the files.")
    return 0 if success else 1


def _run(screen: Screen, sandbox: LumaSandbox, name: str, command: list[str], log_path: Path) -> bool:
    """Run a command in a process of its own and show the relay's tasks; return whether it worked."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")} | {
        "AIRFLOW_HOME": str(log_path.parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILE.parent),
        "AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection,
    }
    screen.say(name)
    shown = ""
    with (
        log_path.open("ab") as log,
        screen.console.status(name),
        subprocess.Popen(command, env=environment, cwd=log_path.parent, stdout=log, stderr=log) as process,
    ):
        try:
            while process.poll() is None:
                if (line := _states(sandbox)) != shown:
                    screen.say(line)
                    shown = line
                time.sleep(0.1)
        finally:
            process.kill()
    return process.returncode == 0


def _states(sandbox: LumaSandbox) -> str:
    states = Counter(task.state for task in sandbox.times())
    if not states:
        return ""
    relay = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"At the relay: {relay}; batch queries so far: {sandbox.count('batch')}"


def _show(screen: Screen, sandbox: LumaSandbox, result: dict[str, Any]) -> None:
    states = {task.id: task.state for task in sandbox.times()}
    screen.show("\nWhat the pipeline handed on through XCom:")
    for record in result["records"]:
        screen.show(f"\n  {record['id']}  {states[record['id']]}  {record['prompt']!r}")
        screen.show(f"  {record['video_url']}")
    screen.show("\nThe files on disk:\n")
    for file in result["files"]:
        path = Path(file["path"].removeprefix("file://"))
        screen.show(f"  {path}  {path.stat().st_size} bytes, SHA-256 {file['sha256'][:12]}…")
    screen.show("\nAirflow's tasks, in the order in which they ran:\n")
    starts: dict[str, float] = {}
    for task in result["tasks"]:
        starts[task["name"]] = min(task["start"], starts.get(task["name"], math.inf))
    for task in sorted(result["tasks"], key=lambda task: (starts[task["name"]], task["index"])):
        index = f"[{task['index']}]" if task["index"] >= 0 else ""
        screen.show(f"  {task['name']}{index}: {task['state']}")
    screen.show(f"\nThe Dag run: {result['state']}\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
