# SPDX-License-Identifier: Apache-2.0
"""
What the provider adds to every ``airflow`` command: ``airflow version`` with and without it.

    python benchmarks/cli_startup.py [--rounds 15] [--environment VENV]

One environment with Airflow alone, built for the purpose, runs the command in turns: without the provider,
without it once more (what the difference is worth), and with it on the path. Beside that, what the provider
does at a start is timed within one process.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints" / "airflow-3.3.2.txt"
ARMS = ("without", "without, again", "with")

_OWN_PART = """
import argparse, statistics, sys, time
import airflow.cli.cli_parser
from airflow.cli.cli_parser import DefaultHelpParser, _add_command

def start():
    for name in [name for name in sys.modules if name.startswith("airflow_provider_luma")]:
        del sys.modules[name]
    begin = time.process_time()
    from airflow_provider_luma.get_provider_info import get_provider_info
    get_provider_info()
    from airflow_provider_luma.cli.definition import get_luma_cli_commands
    commands = get_luma_cli_commands()
    subparsers = DefaultHelpParser(prog="airflow").add_subparsers()
    for command in commands:
        _add_command(subparsers, command)
    return time.process_time() - begin

print(statistics.median(start() for _ in range(50)))
"""


class Cost(NamedTuple):
    """Seconds of one start."""

    cpu: float
    wall: float


def build_environment(folder: Path) -> Path:
    """Install what the provider needs, and not the provider."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run(
        ["uv", "pip", "install", "--quiet", "--python", folder, "--constraint", CONSTRAINTS, *requirements],
        check=True,
    )
    return folder


def run(environment: Path, path: Path, home: Path, *command: str) -> tuple[str, Cost]:
    """Run a Python command with a folder on its path; return what it printed and what it cost."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    variables |= {"PYTHONPATH": str(path), "AIRFLOW_HOME": str(home)}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    finished = subprocess.run(
        [environment / "bin" / "python", *command],
        env=variables,
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return finished.stdout, Cost(cpu, wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--environment", type=Path, help="one with Airflow and without the provider")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="luma-startup-") as folder:
        work = Path(folder)
        provider, nothing, home = work / "provider", work / "nothing", work / "home"
        for each in (nothing, home):
            each.mkdir()
        environment = (options.environment or build_environment(work / "venv")).absolute()
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--no-deps", "--target", provider, ROOT], check=True
        )
        paths = {"without": nothing, "without, again": nothing, "with": provider}

        listing = "airflow", "providers", "list", "--output", "plain"
        for arm, path in paths.items():
            there = "airflow-provider-luma" in run(environment, path, home, "-m", *listing)[0]
            assert there == (arm == "with"), f"{arm}: the provider is {'there' if there else 'not there'}"

        costs: dict[str, list[Cost]] = {arm: [] for arm in ARMS}
        for number in range(options.rounds):
            # The arms take turns in coming first, because the first of a round starts with colder caches.
            for arm in ARMS[number % len(ARMS) :] + ARMS[: number % len(ARMS)]:
                costs[arm].append(run(environment, paths[arm], home, "-m", "airflow", "version")[1])
            print(f"\r{number + 1}/{options.rounds} rounds", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        own = float(run(environment, provider, home, "-c", _OWN_PART)[0].splitlines()[-1])

    base = statistics.median(cost.cpu for cost in costs["without"])
    print(f"`airflow version`, medians of {options.rounds} runs in turns:\n")
    print("| provider | CPU s | CPU ratio | fastest, CPU s | wall s |")
    print("|---|---|---|---|---|")
    for arm in ARMS:
        cpu = [cost.cpu for cost in costs[arm]]
        wall = statistics.median(cost.wall for cost in costs[arm])
        middle = statistics.median(cpu)
        print(f"| {arm} | {middle:.3f} | {middle / base:.3f} | {min(cpu):.3f} | {wall:.3f} |")
    print(f"\nThe provider's own part of a start, within one process: {own * 1000:.1f} ms of CPU time")


if __name__ == "__main__":
    main()
