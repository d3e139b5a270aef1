# SPDX-License-Identifier: Apache-2.0
"""
Compare downloads from the sandbox with curl: one large file, and many files with ``xargs -P8 curl``.

    python benchmarks/download.py [--rounds 5] [--folder DIR]

Ours is the whole path of the transfer operator below Airflow: URLs from the relay, checks of addresses,
formats and lengths, SHA-256, temporary names and renames; curl only writes what it receives. Ours and curl
take turns, and the order of a pair changes with each round. Each of our downloads runs in a new process,
which reports its own wall time, CPU time and memory: its peak above what it held, everything imported, at
the start.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from airflow_provider_luma.sandbox import SandboxProcess, TaskScript

MIB = 1024 * 1024

OURS = """
import json, resource, sys, time
from fsspec.implementations.local import LocalFileSystem
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.download.downloader import Downloader, FileRecord
from airflow_provider_luma.download.file_store import FileStore
from airflow_provider_luma.download.transport import Route

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

host, key, folder = sys.argv[1:]
ids = json.load(sys.stdin)
settings = RelaySettings.from_fields(host=host, password=key)
with settings.client() as client:
    store = FileStore(LocalFileSystem(), folder, label=folder, owner="benchmark")
    downloader = Downloader(client, store, Route.of(settings))
    with open("/proc/self/clear_refs", "w") as clear_refs:
        clear_refs.write("5")  # Reset the peak to what is held now.
    idle, cpu, started = memory("VmRSS"), time.process_time(), time.perf_counter()
    records = list(downloader.run(ids))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
assert all(isinstance(record, FileRecord) for record in records)
print(json.dumps([seconds, cpu, memory("VmHWM") - idle, sum(record.bytes for record in records)]))
"""


class Run(NamedTuple):
    """Hold what a download took: seconds of wall and CPU time, and bytes of memory if known."""

    wall: float
    cpu: float
    memory: int | None = None


class Case(NamedTuple):
    """Hold the files to download, and the name of curl's way to do so."""

    name: str
    rival: str
    ids: list[str]
    file_bytes: int

    @property
    def total(self) -> int:
        return len(self.ids) * self.file_bytes


def ours(case: Case, sandbox: SandboxProcess, folder: Path) -> Run:
    done = subprocess.run(
        [sys.executable, "-c", OURS, sandbox.base_url, sandbox.api_key, str(folder)],
        input=json.dumps(case.ids),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    wall, cpu, memory, total = json.loads(done.stdout)
    assert total == case.total
    return Run(wall, cpu, memory)


def curl(case: Case, sandbox: SandboxProcess, folder: Path) -> Run:
    lines = [f"-o {folder}/{task_id} {sandbox.root_url}/media/{task_id}/video.mp4" for task_id in case.ids]
    command = ["curl", "-sf", *lines[0].split()]
    if len(lines) > 1:
        command = ["xargs", "-P8", "-L1", "curl", "-sf"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, input="\n".join(lines), text=True, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert sum(path.stat().st_size for path in folder.iterdir()) == case.total
    return Run(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(
    run: Callable[[Case, SandboxProcess, Path], Run], case: Case, sandbox: SandboxProcess, root: Path
) -> Run:
    folder = root / "files"
    folder.mkdir()
    try:
        return run(case, sandbox, folder)
    finally:
        shutil.rmtree(folder)
        # Otherwise writing these files to the disk would count as the next download's time.
        os.sync()


def compare(case: Case, sandbox: SandboxProcess, root: Path, rounds: int) -> None:
    pairs: list[tuple[Run, Run]] = []
    for number in range(rounds):
        print(f"\r{case.name}: round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        order = (ours, curl) if number % 2 else (curl, ours)
        measured = {run.__name__: measure(run, case, sandbox, root) for run in order}
        pairs.append((measured["ours"], measured["curl"]))
    print("\r\033[K", end="", file=sys.stderr)
    ratios = sorted(theirs.wall / mine.wall for mine, theirs in pairs)
    for name, runs in (("ours, with SHA-256", [p[0] for p in pairs]), (case.rival, [p[1] for p in pairs])):
        walls = [run.wall for run in runs]
        memories = [run.memory for run in runs if run.memory is not None]
        row = (
            case.name,
            name,
            f"{case.total / MIB / statistics.median(walls):,.0f}",
            f"{case.total / MIB / min(walls):,.0f}",
            f"{statistics.median(run.cpu for run in runs):.2f}",
            f"{max(memories) / MIB:.1f}" if memories else "",
        )
        print(f"| {' | '.join(row)} |")
    print(
        f"| | **ours ÷ curl** | **{statistics.median(ratios):.2f}** (rounds: "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}) | | | |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="where to write and remove files; default: a temporary folder"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, SandboxProcess() as sandbox:

        def files(count: int, size: int) -> list[str]:
            return sandbox.add_tasks([TaskScript(state="completed", video_bytes=size)] * count)

        print("| files | downloader | median MiB/s | best MiB/s | median CPU s | memory, MiB above idle |")
        print("|---|---|---:|---:|---:|---:|")
        for case in (
            Case("1 × 1 GiB", "`curl`", files(1, 1024 * MIB), 1024 * MIB),
            Case("500 × 5 MiB", "`xargs -P8 curl`", files(500, 5 * MIB), 5 * MIB),
        ):
            compare(case, sandbox, Path(folder), options.rounds)


if __name__ == "__main__":
    main()
