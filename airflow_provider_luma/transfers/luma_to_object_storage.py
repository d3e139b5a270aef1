# SPDX-License-Identifier: Apache-2.0
"""Transfer the files of Luma tasks to object storage, because their URLs expire."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import msgspec
from airflow.providers.common.compat.sdk import Asset, AssetAlias, BaseOperator, ObjectStoragePath

from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.exceptions import LumaConfigError, LumaDownloadError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.outcomes import final_errors_fail_the_task
from airflow_provider_luma.task_ids import check_task_ids, parse_task_ids
from airflow_provider_luma.task_state import task_state_store
from airflow_provider_luma.templates import is_literal
from airflow_provider_luma.text import shorten_list
from airflow_provider_luma.validation import shown

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_luma.client.artifacts import Artifact
    from airflow_provider_luma.download.downloader import Downloader, FileFailure, FileRecord
    from airflow_provider_luma.download.file_store import FileStore
    from airflow_provider_luma.download.options import OnExisting

    _Records = dict[tuple[str, Artifact], FileRecord]

_MIB: Final = 1024 * 1024
_OPTIONS: Final = ("artifacts", "file_name", "on_existing", "max_bytes", "file_timeout", "max_concurrency")


class LumaToObjectStorageOperator(BaseOperator):
    """
    Download the files of completed tasks to S3, GCS, Azure, HDFS or a local folder: complete and verified.

    Each file is streamed in constant memory, checked against every length that its host announces and
    against its format (MP4, QuickTime or WebM; JPEG, PNG, WebP, AVIF, HEIC or GIF), and appears under its
    name only when it is complete. Broken downloads are resumed; a URL that its host refuses is replaced by a
    fresh one, and then by the next URL of the same video. A file that fails doesn't keep the others from
    being downloaded; the task then fails and names it.

    Downloads are free of charge, so give the task some retries: a retry keeps complete files. On Airflow 3.3
    and newer it knows the sizes and checksums of the files that previous tries have completed, and reads the
    files back to compare. Before 3.3, and for files of other runs, ``on_existing="skip"`` keeps a file with
    the size that its host announces and the right format. A *clear* of the task discards these records. A
    try removes the temporary files of a killed one.

    Files are downloaded by https from public addresses only, checked after each name's resolution and for
    each redirect, and the API key is never sent for them. The relay's own host is exempt; name others in the
    connection's ``allowed_artifact_hosts``.

    Returns one record per file, in the order of the ids and of *artifacts*: ``id``, ``artifact``, ``path``
    (for ``ObjectStoragePath``), ``bytes``, ``sha256``, ``content_type`` and ``seconds`` (0 for a file that
    was kept). If the task has outlets, their asset events carry the same records as ``extra["files"]``; an
    outlet that is an ``AssetAlias`` gets the destination as asset.

    :param luma_task_ids: A list of ids, one id, or a template that renders to either. (templated)
    :param destination: The folder for the files: an ``ObjectStoragePath`` or its text, such as
        ``s3://aws_default@bucket/videos``, ``gs://bucket/videos`` or ``file:///data/videos``. (templated)
    :param artifacts: Which files to download: any of ``video``, ``video_raw``, ``thumbnail``,
        ``last_frame``.
    :param file_name: The files' names, with the fields ``{id}``, ``{artifact}`` and ``{ext}``, which is
        detected from the file's bytes and begins with a dot. Slashes make folders. (templated)
    :param on_existing: What to do about a file that exists: ``skip`` it if it is complete and download it
        again if not, ``replace`` it, or ``fail`` before anything is downloaded.
    :param max_bytes: The largest file to accept, in bytes; 2 GiB by default.
    :param file_timeout: Seconds for one file with all its attempts; an hour by default.
    :param max_concurrency: How many files to download at a time.
    :param luma_conn_id: Id of the Airflow connection. (templated)
    """

    template_fields: Sequence[str] = ("luma_task_ids", "destination", "file_name", "luma_conn_id")
    ui_color = "#d8ecff"

    def __init__(
        self,
        *,
        luma_task_ids: Sequence[str] | str | XComArg,
        destination: ObjectStoragePath | str | XComArg,
        artifacts: Sequence[Artifact] = DownloadOptions.artifacts,
        file_name: str = DownloadOptions.file_name,
        on_existing: OnExisting = DownloadOptions.on_existing,
        max_bytes: int = DownloadOptions.max_bytes,
        file_timeout: float = DownloadOptions.file_timeout,
        max_concurrency: int = DownloadOptions.max_concurrency,
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
        self._options(file_name=file_name if is_literal(file_name) else DownloadOptions.file_name)
        if is_literal(self.destination):
            _check_destination(self.destination)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Download the files that are missing, and return the records of all files."""
        with final_errors_fail_the_task():
            ids = parse_task_ids(self.luma_task_ids)
            records, failures = self._download(context, ids)
            if failures:
                raise self._failed(failures, len(records))
        result: list[dict[str, Any]] = [
            msgspec.to_builtins(records[task_id, artifact])
            for task_id in ids
            for artifact in dict.fromkeys(self.artifacts)
        ]
        self._add_to_outlets(context, result)
        return result

    def on_kill(self) -> None:
        """Stop the downloads and remove incomplete files; a retry downloads only what is missing."""
        # Runs in a signal handler, so nothing here may wait for the interrupted code.
        if self._downloader is not None:
            self._downloader.interrupt()

    def _options(self, **changes: Any) -> DownloadOptions:
        return DownloadOptions(**({name: getattr(self, name) for name in _OPTIONS} | changes))

    def _download(self, context: Context, ids: Sequence[str]) -> tuple[_Records, list[FileFailure]]:
        # Imported here because they would slow down the parsing of each Dag.
        from airflow_provider_luma.download.downloader import FileFailure
        from airflow_provider_luma.transfers.kept_files import KeptFiles

        store = task_state_store(context, lost_is_absent=True)
        kept = KeptFiles(store, max_tries=context["ti"].max_tries)
        downloader = self._downloader = self._create_downloader(context, kept.recall())
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

    def _create_downloader(self, context: Context, known: Sequence[FileRecord] | None) -> Downloader:
        from airflow_provider_luma.download.downloader import Downloader
        from airflow_provider_luma.download.transport import Route

        hook = LumaHook(self.luma_conn_id)
        # A previous try has checked that there were no files, so the existing ones are its own.
        are_own = known is not None and self.on_existing == "fail"
        return Downloader(
            hook.client,
            self._store(context),
            Route.of(hook.settings),
            options=self._options(on_existing="skip" if are_own else self.on_existing),
            known=known or (),
            on_progress=self._log_progress,
        )

    def _store(self, context: Context) -> FileStore:
        from airflow_provider_luma.download.file_store import FileStore

        destination = _check_destination(self.destination)
        try:
            path = ObjectStoragePath(destination)
            fs = path.fs
        except (ValueError, ImportError) as error:
            raise LumaConfigError(
                f"destination must be a folder that Airflow can write to; got {destination!r} ({error}). "
                "Install the provider for it, such as apache-airflow-providers-amazon[s3fs] for s3://."
            ) from error
        instance = context["ti"]
        owner = f"{instance.dag_id}/{instance.run_id}/{instance.task_id}/{instance.map_index}"
        return FileStore(
            fs, path.path, label=destination, owner=hashlib.sha256(owner.encode()).hexdigest()[:16]
        )

    def _log_progress(self, task_id: str, artifact: str, received: int, announced: int | None) -> None:
        of = f" of {announced / _MIB:.0f}" if announced else ""
        self.log.info("%s of %s: %.0f%s MiB", artifact, task_id, received / _MIB, of)

    def _log_record(self, record: FileRecord) -> None:
        how = f"downloaded in {record.seconds:.1f} s" if record.seconds else "already complete"
        self.log.info("%s: %.1f MiB, %s", record.path, record.bytes / _MIB, how)

    def _failed(self, failures: Sequence[FileFailure], complete: int) -> LumaDownloadError:
        reasons = shorten_list([str(failure.error).rstrip(".") for failure in failures], 20, "; ")
        others = f" Complete in {self.destination}: {complete}; a retry keeps them." if complete else ""
        return LumaDownloadError(
            f"Files that could not be downloaded: {len(failures)} of {len(failures) + complete}. {reasons}."
            f"{others}",
            retryable=any(failure.error.retryable for failure in failures),
            task_ids=list(dict.fromkeys(failure.id for failure in failures)),
        )

    def _add_to_outlets(self, context: Context, records: Sequence[dict[str, Any]]) -> None:
        extra: dict[str, Any] = {"files": list(records)}
        events: Any = context["outlet_events"]
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                path = ObjectStoragePath(_check_destination(self.destination))
                events[outlet].add(Asset(uri=f"{path.protocol or 'file'}://{path.path}"), extra=extra)
            else:
                events[outlet].extra.update(extra)


def _check_destination(destination: object) -> str:
    # A relative path would depend on the folder in which a worker happens to run.
    if (
        not isinstance(destination, str)
        or destination != destination.strip()
        or not ("://" in destination or destination.startswith("/"))
    ):
        raise LumaConfigError(
            "destination must be a folder such as 's3://aws_default@bucket/videos' or 'file:///data/videos', "
            f"and no relative path; got {shown(destination)}."
        )
    return destination
