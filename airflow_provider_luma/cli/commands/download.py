# SPDX-License-Identifier: Apache-2.0
"""``download``: download the artifacts of videos."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

import fsspec
import msgspec

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.inputs import find_relay, read_ids
from airflow_provider_luma.cli.output import Output
from airflow_provider_luma.download.downloader import Downloader, FileFailure
from airflow_provider_luma.download.file_store import FileStore
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.transport import Route
from airflow_provider_luma.exceptions import LumaConfigError

_MIB: Final = 1024 * 1024
_OPTIONS: Final = ("artifacts", "file_name", "on_existing", "max_bytes", "max_concurrency")


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Download the missing files and print the paths."""
    ids = read_ids(arguments.ids)
    given = {name: value for name in _OPTIONS if (value := getattr(arguments, name)) is not None}
    options = DownloadOptions(**given)
    files: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    with output.reserve_stdout():
        settings = find_relay(arguments.conn_id).settings
        store = _store(arguments.to, ids)
        with settings.client() as client:
            downloader = Downloader(
                client, store, Route.of(settings), options=options, on_progress=_progress_printer(output)
            )
            with closing(downloader.run(ids)) as outcomes:
                for outcome in outcomes:
                    if isinstance(outcome, FileFailure):
                        output.message(outcome.error, style="red")
                        failures.append(_failure_record(outcome))
                    else:
                        how = f"in {outcome.seconds:.1f} s" if outcome.seconds else "(already exists)"
                        output.message(f"{outcome.path}: {outcome.bytes / _MIB:.1f} MiB {how}")
                        files.append(msgspec.to_builtins(outcome))
    if output.as_json:
        output.json({"files": files, "failures": failures})
    else:
        output.lines([file["path"] for file in files])
    return Exit.TASKS_FAILED if failures else Exit.OK


def _failure_record(failure: FileFailure) -> dict[str, Any]:
    return {
        "id": failure.id,
        "artifact": failure.artifact,
        "reason": str(failure.error),
        "retryable": failure.error.retryable,
    }


def _store(folder: str, ids: Sequence[str]) -> FileStore:
    try:
        fs, root = fsspec.url_to_fs(folder)
    except (ValueError, ImportError) as error:
        raise LumaConfigError(
            f"--to must be a folder or a URL that fsspec supports; got {folder!r} ({error}). Install the "
            "package that fsspec needs for it, such as s3fs for s3://."
        ) from error
    # The same command removes the partial files of a killed one; those of other commands may be in use.
    owner = hashlib.sha256("\n".join([root, *sorted(ids)]).encode()).hexdigest()[:16]
    return FileStore(fs, root, label=folder, owner=owner)


def _progress_printer(output: Output) -> Any:
    def print_progress(task_id: str, artifact: str, received: int, announced: int | None) -> None:
        of = f" of {announced / _MIB:.0f}" if announced else ""
        output.message(f"{artifact} of {task_id}: {received / _MIB:.0f}{of} MiB")

    return print_progress
