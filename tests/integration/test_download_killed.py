# SPDX-License-Identifier: Apache-2.0
"""Test processes killed during a download: no part of a file under its name, and no leftovers in the end."""

from __future__ import annotations

import contextlib
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.sandbox import LumaSandbox, faults
from airflow_provider_luma.sandbox.media_host import media_file
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
SIZE = 3_000_000
# The same run in each process.
AT = datetime(2026, 1, 1, tzinfo=UTC)

# The same owner in each process, as for the tries of one Airflow task.
DOWNLOAD = """
import sys
from fsspec.implementations.local import LocalFileSystem
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.download.downloader import Downloader, FileFailure
from airflow_provider_luma.download.file_store import FileStore
from airflow_provider_luma.download.transport import Route

host, key, folder, *ids = sys.argv[1:]
settings = RelaySettings.from_fields(host=host, password=key)
store = FileStore(LocalFileSystem(), folder, label=folder, owner="task")
print("ready", flush=True)
outcomes = list(Downloader(settings.client(), store, Route.of(settings)).run(ids))
sys.exit(any(isinstance(outcome, FileFailure) for outcome in outcomes))
"""

DAG_FILE = """
from airflow.sdk import DAG
from airflow_provider_luma.transfers.luma_to_object_storage import LumaToObjectStorageOperator

with DAG("killed", schedule=None, params={"ids": [], "folder": ""}) as dag:
    LumaToObjectStorageOperator(
        task_id="keep", luma_task_ids="{{ params.ids }}", destination="file://{{ params.folder }}"
    )
"""

RUN_DAG = """
import runpy, sys
from datetime import datetime

root, folder, dag_file, at, *ids = sys.argv[1:]
at = datetime.fromisoformat(at)
dag = runpy.run_path(dag_file)["dag"]
# At the end of the path, so that the installed package is imported.
sys.path.append(root)
from tests.support import dag_bags, execution_api
execution_api.leave_out_old_versions()
dag_bags.store(dag)
run = dag.test(run_after=at, logical_date=at, run_conf={"ids": ids, "folder": folder})
print(run.run_id)
sys.exit(str(run.state) != "success")
"""


@pytest.fixture
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox(video_bytes=SIZE) as sandbox:
        yield sandbox


def true_bytes(task_id: str) -> bytes:
    return b"".join(bytes(piece) for piece in media_file(task_id, "video.mp4", SIZE).slices(0, SIZE))


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if not path.name.startswith(".")]


def temporary(folder: Path) -> list[Path]:
    found = []
    for path in folder.glob(".*"):
        # It may be renamed to its final name at this moment.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size:
                found.append(path)
    return found


def has_kept(folder: Path, number: int) -> bool:
    """Whether this many files are complete while others are being written."""
    return len(kept(folder)) >= number and bool(temporary(folder))


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "the process exited by itself"
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def assert_all_complete(folder: Path, ids: list[str]) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{task_id}_video.mp4" for task_id in ids)
    for task_id in ids:
        assert (folder / f"{task_id}_video.mp4").read_bytes() == true_bytes(task_id)


@pytest.mark.every_airflow
def test_a_retry_after_a_kill_ends_with_complete_files_and_no_leftovers(
    sandbox: LumaSandbox,
    connect: Callable[..., None],
    run_dag: Callable[..., Any],
    tmp_path: Path,
    new_database: Path,
) -> None:
    ids = [sandbox.add_task(state="completed") for _ in range(6)]
    folder, home, dag_file = tmp_path / "videos", tmp_path / "home", tmp_path / "home" / "dags" / "killed.py"
    dag_file.parent.mkdir(parents=True)
    dag_file.write_text(DAG_FILE)
    shutil.copy(new_database, home / "airflow.db")
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dag_file.parent),
        "AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection,
    }
    command = [sys.executable, "-c", RUN_DAG, str(ROOT), str(folder), str(dag_file), str(AT), *ids]
    sandbox.fail_when("media", faults.stall(0.9), ids=ids[4:])

    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as first:
        wait_for(lambda: len(kept(folder)) == 4 and len(temporary(folder)) == 2, first)
        kill(first)
    inodes = {path.name: path.stat().st_ino for path in kept(folder)}
    assert len(temporary(folder)) == 2
    sandbox.clear_faults()
    connect(sandbox.base_url, sandbox.api_key)
    dag = runpy.run_path(str(dag_file))["dag"]
    second = run_dag(dag, run_after=AT, logical_date=AT, run_conf={"ids": ids, "folder": str(folder)})

    assert second.state == "success"
    assert_all_complete(folder, ids)
    # Complete files were kept.
    assert inodes.items() <= {path.name: path.stat().st_ino for path in kept(folder)}.items()


def test_kills_at_random_moments_never_leave_a_part_under_a_files_name(
    sandbox: LumaSandbox, tmp_path: Path
) -> None:
    ids = [sandbox.add_task(state="completed") for _ in range(30)]
    folder = tmp_path / "videos"
    command = [sys.executable, "-c", DOWNLOAD, sandbox.base_url, sandbox.api_key, str(folder), *ids]
    moments = random.Random(5)  # noqa: S311 - no secret
    left = 0
    for _ in range(6):
        missing = [task_id for task_id in ids if not (folder / f"{task_id}_video.mp4").exists()]
        let_through = moments.randrange(1, 5)
        # The other downloads stall, so that the process can't exit before it is killed.
        sandbox.clear_faults()
        sandbox.fail_when("media", faults.stall(moments.uniform(0.1, 0.9)), ids=missing[let_through:])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            wait_for(partial(has_kept, folder, len(ids) - len(missing) + let_through), process)
            kill(process)
        left += len(temporary(folder))
        for path in kept(folder):
            assert path.read_bytes() == true_bytes(path.name.removesuffix("_video.mp4"))

    assert left > 0
    sandbox.clear_faults()
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert_all_complete(folder, ids)
