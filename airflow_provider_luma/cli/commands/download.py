# SPDX-License-Identifier: Apache-2.0
"""``download``: keep the files of videos."""

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
    """Download what isn't there yet, and print the paths."""
    ids = read_ids(arguments.ids)
    given = {name: value for name in _OPTIONS if (value := getattr(arguments, name)) is not None}
    options = DownloadOptions(**given)
    files: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    with output.alone_on_stdout():
        settings = find_relay(arguments.conn_id).settings
        store = _store(arguments.to, ids)
        with settings.client() as client:
            downloader = Downloader(
                client, store, Route.of(settings), options=options, on_progress=_tell_progress(output)
            )
            with closing(downloader.run(ids)) as outcomes:
                for outcome in outcomes:
                    if isinstance(outcome, FileFailure):
                        output.say(outcome.error, style="red")
                        failures.append(
                            {
                                "id": outcome.id,
                                "artifact": outcome.artifact,
                                "reason": str(outcome.error),
                                "retryable": outcome.error.retryable,
                            }
                        )
                        continue
                    how = f"in {outcome.seconds:.1f} s" if outcome.seconds else "there already"
                    output.say(f"{outcome.path}: {outcome.bytes / _MIB:.1f} MiB {how}")
                    files.append(msgspec.to_builtins(outcome))
    if output.as_json:
        output.json({"files": files, "failures": failures})
    else:
        output.lines([file["path"] for file in files])
    return Exit.TASKS_FAILED if failures else Exit.OK


def _store(folder: str, ids: Sequence[str]) -> FileStore:
    try:
        fs, root = fsspec.url_to_fs(folder)
    except (ValueError, ImportError) as error:
        raise LumaConfigError(
            f"--to is {folder!r}, which can't be written to here ({error}): give a local folder, or install "
            "what fsspec needs for it, such as s3fs for s3://."
        ) from error
    # Only who runs the same command again removes what a killed one has left, and nobody else's.
    owner = hashlib.sha256("\n".join([root, *sorted(ids)]).encode()).hexdigest()[:16]
    return FileStore(fs, root, label=folder, owner=owner)


def _tell_progress(output: Output) -> Any:
    def tell(task_id: str, artifact: str, received: int, announced: int | None) -> None:
        of = f" of {announced / _MIB:.0f}" if announced else ""
        output.say(f"{artifact} of {task_id}: {received / _MIB:.0f}{of} MiB")

    return tell
