# SPDX-License-Identifier: Apache-2.0
"""
What a hundred waiting sensors cost a live Airflow with scheduler, triggerer and LocalExecutor.

    python -m benchmarks.waiting_live [--sensors 100] [--interval 15] [--completes-after 180]

One Airflow runs one Dag per mode, one after the other: as many mapped sensors with one Luma id each. All Luma
tasks are completed at the same time after the start of the Dag run. Airflow's own event log counts the worker
processes; CPU time is that of all its processes and their children, and in a row of its own without the time
that an idle Airflow takes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_luma.sandbox import SandboxProcess, TaskScript
from tests.support.live_airflow import LiveAirflow

MODES = {
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
    "end_from_trigger": {"deferrable": True, "end_from_trigger": True},
}

DAG = """
from airflow.sdk import DAG

from airflow_provider_luma.sensors.luma import LumaTaskSensor

for mode, arguments in {modes!r}.items():
    with DAG(mode, schedule=None, max_active_tasks={sensors}):
        LumaTaskSensor.partial(task_id="wait", poke_interval={interval}, **arguments).expand(
            luma_task_ids=[f"{{mode}}-{{number}}" for number in range({sensors})]
        )
"""


def cpu_seconds(airflow: LiveAirflow) -> float:
    """Return the CPU time of all processes of this Airflow, and of their children that have ended."""
    total = 0.0
    for pid in airflow.pids():
        try:
            total += sum(psutil.Process(pid).cpu_times()[:4])
        except psutil.NoSuchProcess:
            # Its time has been added to its parent's.
            continue
    return total


def worker_starts(airflow: LiveAirflow, dag_id: str) -> int:
    answer = airflow.api("GET", "/eventLogs", params={"dag_id": dag_id, "event": "running", "limit": 1})
    return int(answer.json()["total_entries"])


def run_mode(
    airflow: LiveAirflow, sandbox: SandboxProcess, mode: str, sensors: int, completes_after: float
) -> dict[str, Any]:
    airflow.wait_until(lambda: airflow.api("GET", f"/dags/{mode}").ok, f"Dag {mode} to be parsed", 300)
    calls, cpu, begin = sandbox.count("batch"), cpu_seconds(airflow), time.monotonic()
    sandbox.add_tasks(
        TaskScript(id=f"{mode}-{number}", completes_after=completes_after) for number in range(sensors)
    )
    state = airflow.wait_for_run(mode, airflow.trigger(mode), timeout=3600)
    if state != "success":
        raise SystemExit(f"The run of {mode} is {state}.")
    return {
        "wall": time.monotonic() - begin,
        "cpu": cpu_seconds(airflow) - cpu,
        "starts": worker_starts(airflow, mode),
        "calls": sandbox.count("batch") - calls,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sensors", type=int, default=100)
    parser.add_argument("--interval", type=float, default=15, help="seconds between polls")
    parser.add_argument("--completes-after", type=float, default=180, help="seconds from the run's start")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    arguments = parser.parse_args()
    modes = {mode: MODES[mode] for mode in arguments.modes}
    with tempfile.TemporaryDirectory() as folder, SandboxProcess(max_records=1) as sandbox:
        dag = DAG.format(modes=modes, sensors=arguments.sensors, interval=arguments.interval)
        (Path(folder) / "waiting.py").write_text(dag)
        environment = {
            "AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection,
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(arguments.sensors),
        }
        with LiveAirflow(Path(folder), env=environment) as airflow:
            # Parsing and start-up are over by then.
            time.sleep(20)
            before, begin = cpu_seconds(airflow), time.monotonic()
            time.sleep(30)
            idle = (cpu_seconds(airflow) - before) / (time.monotonic() - begin)
            results = {}
            for mode in modes:
                results[mode] = run_mode(airflow, sandbox, mode, arguments.sensors, arguments.completes_after)
                print(f"{mode}: done", file=sys.stderr)
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("worker processes started", lambda r: f"{r['starts']}"),
        ("wall time", lambda r: f"{r['wall']:.0f} s"),
        ("CPU, all Airflow processes", lambda r: f"{r['cpu']:.0f} s"),
        ("… above idling as long", lambda r: f"{r['cpu'] - idle * r['wall']:.0f} s"),
        ("HTTP calls to the relay", lambda r: f"{r['calls']}"),
    ]
    print("| | " + " | ".join(results) + " |")
    print("|---|" + "---:|" * len(results))
    for name, show in rows:
        print(f"| {name} | " + " | ".join(show(result) for result in results.values()) + " |")
    print(f"\nIdle, it takes {idle * 100:.0f} % of a core.")


if __name__ == "__main__":
    main()
