# SPDX-License-Identifier: Apache-2.0
"""Keep the files of Luma tasks: links expire, files in one's own storage don't."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import msgspec
from airflow.providers.common.compat.sdk import Asset, AssetAlias, BaseOperator, ObjectStoragePath

from airflow_provider_luma.download.options import DEFAULT_FILE_NAME, DownloadOptions
from airflow_provider_luma.exceptions import LumaConfigError, LumaDownloadError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.outcomes import final_errors_fail_the_task
from airflow_provider_luma.task_ids import check_task_ids, parse_task_ids
from airflow_provider_luma.task_state import task_state_store
from airflow_provider_luma.templates import is_literal

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_luma.client.artifacts import Artifact
    from airflow_provider_luma.download.downloader import Downloader, FileFailure, FileRecord
    from airflow_provider_luma.download.file_store import FileStore
    from airflow_provider_luma.download.options import OnExisting

    _Records = dict[tuple[str, Artifact], FileRecord]

_MIB: Final = 1024 * 1024
_NAMED_FAILURES: Final = 20


class LumaToObjectStorageOperator(BaseOperator):
    """
    Download the files of completed tasks to S3, GCS, Azure, HDFS or a local folder: whole and verified.

    Each file is streamed in constant memory, checked against every length that its host announces and
    against what it must be (MP4, QuickTime or WebM; JPEG, PNG, WebP, AVIF, HEIC or GIF), and appears under
    its name only when it is whole. Broken transfers are resumed; a link that its host refuses is replaced by
    a fresh one, and after that by the next link to the same video. One file that can't be had doesn't keep
    the others from being fetched; the task then fails and names it.

    Downloads are free of charge, so give the task some retries: a retry keeps what is whole already. On
    Airflow 3.3 and newer it knows the sizes and checksums of the files that the try before has kept, and
    reads them back to compare. Before 3.3, and for files of other runs, ``on_existing="skip"`` keeps a file
    that has the size that its host announces and the right format. A *clear* of the task forgets what it
    knew. Temporary files of a killed try are removed by the next one.

    Artifacts come by https from public addresses only, checked after each name's resolution and for each
    redirect, and never get the API key. The relay's own host is exempt; others are named in the connection's
    ``allowed_artifact_hosts``.

    Returns one record per file, in the order of the ids and of *artifacts*: ``id``, ``artifact``, ``path``
    (for ``ObjectStoragePath``), ``bytes``, ``sha256``, ``content_type`` and ``seconds`` (0 for a file that
    was there). If the task has outlets, their asset events carry the same records as
    ``extra["files"]``; an outlet that is an ``AssetAlias`` gets the destination as asset.

    :param luma_task_ids: A list of ids, one id, or a template that renders to either. (templated)
    :param destination: The folder to keep the files in: an ``ObjectStoragePath`` or its text, such as
        ``s3://aws_default@bucket/videos``, ``gs://bucket/videos`` or ``file:///data/videos``. (templated)
    :param artifacts: Which files to keep: any of ``video``, ``video_raw``, ``thumbnail``, ``last_frame``.
    :param file_name: The files' names, with the fields ``{id}``, ``{artifact}`` and ``{ext}``, which is
        told by the file's bytes and begins with a dot. Slashes make folders. (templated)
    :param on_existing: What to do about a file that is there already: ``skip`` it if it is whole and fetch
        it again if it isn't, ``replace`` it, or ``fail`` before anything is fetched.
    :param max_bytes: The largest file that is taken, in bytes; 2 GiB by default.
    :param file_timeout: Seconds that one file may take with all its retries; an hour by default.
    :param max_concurrency: How many files are fetched at a time.
    :param luma_conn_id: Id of the Airflow connection. (templated)
    """

    template_fields: Sequence[str] = ("luma_task_ids", "destination", "file_name", "luma_conn_id")
    ui_color = "#d8ecff"

    def __init__(
        self,
        *,
        luma_task_ids: Sequence[str] | str,
        destination: ObjectStoragePath | str,
        artifacts: Sequence[Artifact] = ("video",),
        file_name: str = DEFAULT_FILE_NAME,
        on_existing: OnExisting = "skip",
        max_bytes: int = 2048 * _MIB,
        file_timeout: float = 60 * 60,
        max_concurrency: int = 8,
        luma_conn_id: str = LumaHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.luma_task_ids = luma_task_ids
        # A path object can't be rendered as a template.
        self.destination = str(destination) if isinstance(destination, ObjectStoragePath) else destination
        self.artifacts = artifacts
        self.file_name = file_name
        self.on_existing = on_existing
        self.max_bytes = max_bytes
        self.file_timeout = file_timeout
        self.max_concurrency = max_concurrency
        self.luma_conn_id = luma_conn_id
        self._downloader: Downloader | None = None
        check_task_ids(luma_task_ids)
        self._options(file_name=file_name if is_literal(file_name) else DEFAULT_FILE_NAME)
        if is_literal(self.destination):
            _check_destination(self.destination)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Download what isn't there yet, and return the records of all files."""
        with final_errors_fail_the_task():
            ids = parse_task_ids(self.luma_task_ids)
            records, failures = self._download(context, ids)
            if failures:
                raise self._failed(failures, len(records))
        # Airflow keeps a file's record in the order in which users look for it.
        ordered = [
            records[task_id, artifact] for task_id in ids for artifact in dict.fromkeys(self.artifacts)
        ]
        result: list[dict[str, Any]] = [msgspec.to_builtins(record) for record in ordered]
        self._tell_outlets(context, result)
        return result

    def on_kill(self) -> None:
        """End the downloads and remove what is incomplete; a retry resumes with what isn't there."""
        # Runs in a signal handler: nothing here may wait for what it has interrupted.
        if self._downloader is not None:
            self._downloader.interrupt()

    def _options(self, **changes: Any) -> DownloadOptions:
        arguments: dict[str, Any] = {
            "artifacts": self.artifacts,
            "file_name": self.file_name,
            "on_existing": self.on_existing,
            "max_bytes": self.max_bytes,
            "file_timeout": self.file_timeout,
            "max_concurrency": self.max_concurrency,
        }
        return DownloadOptions(**(arguments | changes))

    def _download(self, context: Context, ids: Sequence[str]) -> tuple[_Records, list[FileFailure]]:
        # Here and not above, because they would cost every Dag that is parsed.
        from airflow_provider_luma.download.downloader import Downloader, FileFailure
        from airflow_provider_luma.download.transport import Route
        from airflow_provider_luma.transfers.kept_files import KeptFiles

        hook = LumaHook(self.luma_conn_id)
        # A clear raises max_tries; a retry doesn't.
        kept = KeptFiles(task_state_store(context, lost_is_absent=True), run=context["ti"].max_tries)
        known = kept.recall()
        # An earlier try has looked and found nothing, so what is there now is its own.
        own = known is not None and self.on_existing == "fail"
        downloader = self._downloader = Downloader(
            hook.client,
            self._store(context),
            Route.of(hook.settings),
            options=self._options(on_existing="skip" if own else self.on_existing),
            known=known or (),
            on_progress=self._log_progress,
        )
        downloader.check(ids)
        kept.begin()
        records: _Records = {}
        failures: list[FileFailure] = []
        try:
            with closing(downloader.run(ids)) as outcomes:
                for outcome in outcomes:
                    if isinstance(outcome, FileFailure):
                        self.log.error("%s", outcome.error)
                        failures.append(outcome)
                    else:
                        self._log_record(outcome)
                        records[outcome.id, outcome.artifact] = outcome
                        kept.add(outcome)
        finally:
            kept.flush()
        return records, failures

    def _store(self, context: Context) -> FileStore:
        from airflow_provider_luma.download.file_store import FileStore

        _check_destination(self.destination)
        try:
            path = ObjectStoragePath(self.destination)
            fs = path.fs
        except (ValueError, ImportError) as error:
            raise LumaConfigError(
                f"destination is {self.destination!r}, which this Airflow can't write to ({error}): install "
                "the provider for it, such as apache-airflow-providers-amazon[s3fs] for s3://."
            ) from error
        instance = context["ti"]
        owner = f"{instance.dag_id}/{instance.run_id}/{instance.task_id}/{instance.map_index}"
        return FileStore(
            fs, path.path, label=self.destination, owner=hashlib.sha256(owner.encode()).hexdigest()[:16]
        )

    def _log_progress(self, task_id: str, artifact: str, received: int, announced: int | None) -> None:
        if announced:
            self.log.info(
                "%s of %s: %.0f of %.0f MiB (%d %%)",
                artifact,
                task_id,
                received / _MIB,
                announced / _MIB,
                100 * received // announced,
            )
        else:
            self.log.info("%s of %s: %.0f MiB so far", artifact, task_id, received / _MIB)

    def _log_record(self, record: FileRecord) -> None:
        if record.seconds:
            self.log.info("Kept %s: %.1f MiB in %.1f s", record.path, record.bytes / _MIB, record.seconds)
        else:
            self.log.info("%s was there already: %.1f MiB, whole", record.path, record.bytes / _MIB)

    def _failed(self, failures: Sequence[FileFailure], kept: int) -> LumaDownloadError:
        from airflow_provider_luma.download.downloader import counted

        named = " ".join(str(failure.error) for failure in failures[:_NAMED_FAILURES])
        more = f" And {len(failures) - _NAMED_FAILURES} more." if len(failures) > _NAMED_FAILURES else ""
        others = {0: "", 1: f" The other one is in {self.destination}, and a retry doesn't fetch it again."}
        several = f" The others are in {self.destination}, and a retry doesn't fetch them again."
        return LumaDownloadError(
            f"{counted(len(failures), len(failures) + kept)} could not be kept. {named}{more}"
            f"{others.get(kept, several)}",
            retryable=any(failure.error.retryable for failure in failures),
            task_ids=list(dict.fromkeys(failure.id for failure in failures)),
        )

    def _tell_outlets(self, context: Context, records: Sequence[dict[str, Any]]) -> None:
        extra: dict[str, Any] = {"files": list(records)}
        events: Any = context["outlet_events"]
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                path = ObjectStoragePath(self.destination)
                events[outlet].add(Asset(uri=f"{path.protocol or 'file'}://{path.path}"), extra=extra)
            else:
                events[outlet].extra.update(extra)


def _check_destination(destination: object) -> None:
    right = "right is a folder such as 's3://aws_default@bucket/videos' or 'file:///data/videos'"
    if not isinstance(destination, str) or not destination.strip() or destination != destination.strip():
        raise LumaConfigError(f"destination is {destination!r}: {right}.")
    if "://" not in destination and not destination.startswith("/"):
        raise LumaConfigError(
            f"destination is {destination!r}, a path relative to wherever a worker runs: {right}."
        )
