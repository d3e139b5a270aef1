# SPDX-License-Identifier: Apache-2.0
"""
What importing the sensor adds to every parse of a Dag file, beside Airflow's own HTTP sensor.

    python benchmarks/import_cost.py [--rounds 15]

Each measurement is a new Python process that first imports airflow.sdk with BaseSensorOperator, which
every Dag file with a sensor pays anyway, and then the module in question. CPU time of the process, so
that other load on the machine matters little; files are in the page cache after a first, uncounted round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

OURS = "airflow_provider_luma.sensors.luma"
THEIRS = "airflow.providers.http.sensors.http"
MODULES = (
    OURS,
    THEIRS,
    "airflow_provider_luma.operators.artifacts",
    "airflow_provider_luma.client",
)
ROOT = Path(__file__).parents[1]

CHILD = """
import json, sys, time
import airflow.sdk
from airflow.sdk import BaseSensorOperator

modules, started = len(sys.modules), time.process_time()
__import__(sys.argv[1])
print(json.dumps([time.process_time() - started, len(sys.modules) - modules, started]))
"""


def measure(module: str, home: str) -> tuple[float, int, float]:
    """Return the CPU seconds and modules that *module* adds, and the CPU seconds before it."""
    environment = os.environ | {"AIRFLOW_HOME": home, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [sys.executable, "-c", CHILD, module], env=environment, check=True, capture_output=True, text=True
    )
    added, modules, before = json.loads(finished.stdout.splitlines()[-1])
    return added, modules, before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often each module is imported")
    arguments = parser.parse_args()
    if importlib.util.find_spec("airflow.providers.http") is None:
        sys.exit("The HTTP provider is missing: run  pip install apache-airflow-providers-http")

    runs: dict[str, list[tuple[float, int, float]]] = {module: [] for module in MODULES}
    with tempfile.TemporaryDirectory() as home:
        for number in range(arguments.rounds + 1):
            for module in MODULES:
                run = measure(module, home)
                if number:
                    runs[module].append(run)

    base = statistics.median(before for module in runs.values() for _, _, before in module)
    ours = statistics.median(added for added, _, _ in runs[OURS])
    print(
        f"airflow.sdk with BaseSensorOperator: {base * 1000:.0f} ms of CPU time; on top of it, median of "
        f"{arguments.rounds} processes\n"
    )
    print("| module | best ms | median ms | modules | median, our sensor = 1 |")
    print("|---|---:|---:|---:|---:|")
    for module, measured in runs.items():
        added = [seconds for seconds, _, _ in measured]
        median = statistics.median(added)
        print(
            f"| {module} | {min(added) * 1000:.1f} | {median * 1000:.1f} | {measured[0][1]} | "
            f"{median / ours:.2f} |"
        )


if __name__ == "__main__":
    main()
