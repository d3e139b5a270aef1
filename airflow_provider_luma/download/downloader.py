# SPDX-License-Identifier: Apache-2.0
"""Download the files of many tasks, several at a time, with a bounded number of URLs and bytes in memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final, NamedTuple

import msgspec

from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.artifacts import Artifact, artifact_urls, missing_artifacts
from airflow_provider_luma.client.models import LumaTask
from airflow_provider_luma.download.fetcher import Fetcher
from airflow_provider_luma.download.file_store import FileStore, PartialFile
from airflow_provider_luma.download.formats import FORMATS, Format, Inspection, Kind, inspect
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.resumable import DownloadedFile
from airflow_provider_luma.download.transport import Route
from airflow_provider_luma.exceptions import (
    LumaDownloadError,
    LumaFileExistsError,
    LumaInterruptedError,
    LumaMissingArtifactError,
)
from airflow_provider_luma.text import shorten_list

log = logging.getLogger(__name__)

OnProgress = Callable[[str, Artifact, int, int | None], None]
"""Called every few seconds with a task's id, the artifact, the bytes received and the bytes announced."""

_KINDS: Final[Mapping[Artifact, Kind]] = {
    "video": "video",
    "video_raw": "video",
    "thumbnail": "image",
    "last_frame": "image",
}
_DEADLINE_CHECK_SECONDS: Final = 0.2


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    Describe a file in the store.

    :param id: The Luma task's id.
    :param artifact: Which of the task's files it is.
    :param path: Where it is.
    :param bytes: Its size.
    :param sha256: Its checksum, in hexadecimal.
    :param content_type: Its media type, detected from its bytes.
    :param seconds: How long the download took; 0 if the file was already complete.
    """

    id: str
    artifact: Artifact
    path: str
    bytes: int
    sha256: str
    content_type: str
    seconds: float


class FileFailure(NamedTuple):
    """Say which file could not be downloaded, and why."""

    id: str
    artifact: Artifact
    error: LumaDownloadError | LumaMissingArtifactError


class _UrlSource:
    """Return the URLs of one file: first those at hand, then fresh ones, because they expire."""

    def __init__(
        self, client: LumaClient, task_id: str, artifact: Artifact, urls: tuple[str, ...] = ()
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._artifact: Artifact = artifact
        self._urls = urls

    def __call__(self) -> tuple[str, ...]:
        urls, self._urls = self._urls, ()
        if not urls:
            tasks = self._client.get_tasks([self._task_id])
            urls = _urls_of(tasks.get(self._task_id), self._task_id, self._artifact)
        return urls


def _urls_of(task: LumaTask | None, task_id: str, artifact: Artifact) -> tuple[str, ...]:
    """Return the URLs of a file, the preferred one first; raise ``LumaMissingArtifactError`` without one."""
    if missing := missing_artifacts(task, [artifact]):
        raise LumaMissingArtifactError(
            f"The {artifact} of Luma task {task_id} can't be downloaded: {missing.reason}.",
            retryable=missing.retryable,
            task_ids=[task_id],
        )
    return artifact_urls(task, artifact)


class _Item(NamedTuple):
    """Name a file to download, the source of its URLs, and its record of an earlier try."""

    task_id: str
    artifact: Artifact
    urls: _UrlSource
    known: FileRecord | None


class Downloader:
    """
    Download the files of Luma tasks. Can be used once.

    The relay is queried for URLs in small batches just before they are used, and once more for a file whose
    host refuses its URL.

    :param client: Queries the relay for URLs.
    :param store: Stores the files.
    :param route: How to reach artifact hosts.
    :param options: Which files to download, how to name them, and within what bounds.
    :param known: Records of an earlier try. Files that still match theirs, checksum included, are kept
        whatever ``on_existing`` says.
    :param on_progress: Called with the progress of large files, from several threads.
    """

    def __init__(
        self,
        client: LumaClient,
        store: FileStore,
        route: Route,
        *,
        options: DownloadOptions | None = None,
        known: Sequence[FileRecord] = (),
        on_progress: OnProgress | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._route = route
        self._options = options or DownloadOptions()
        self._artifacts: Sequence[Artifact] = tuple(dict.fromkeys(self._options.artifacts))
        self._known = {(record.id, record.artifact): record for record in known}
        self._on_progress = on_progress
        self._local = threading.local()
        self._fetchers: list[Fetcher] = []
        self._is_checked = False
        self._is_stopped = False

    def check(self, ids: Sequence[str]) -> None:
        """
        Prepare the store and, with ``on_existing="fail"``, check that none of the files exists.

        :param ids: Ids of tasks, each once.
        :raises LumaFileExistsError: if a file exists and ``on_existing`` is ``fail``.
        :raises LumaStorageError: if the store can't be used.
        """
        self._store.prepare()
        if self._options.on_existing == "fail":
            files = [(task_id, artifact) for task_id in ids for artifact in self._artifacts]
            unknown = [file for file in files if file not in self._known]
            with ThreadPoolExecutor(self._options.max_concurrency) as pool:
                existing = [found for found in pool.map(lambda file: self._find(*file), unknown) if found]
            if existing:
                paths = [self._store.path(name) for name, _ in existing]
                raise LumaFileExistsError(
                    f"Files that already exist: {len(paths)} of {len(files)} ({shorten_list(paths)}). Remove "
                    "them, or choose another destination or on_existing='skip' or 'replace'."
                )
        self._is_checked = True

    def run(self, ids: Sequence[str]) -> Generator[FileRecord | FileFailure, None, None]:
        """
        Download the files of these tasks, and yield an outcome as soon as a file has one.

        A file that fails doesn't keep the others from being downloaded. Calls :meth:`check` first unless the
        caller has.

        :param ids: Ids of tasks, each once.
        :return: A record or a failure for each file. Closing the iterator stops all downloads and removes
            incomplete files.
        :raises LumaFileExistsError: as :meth:`check` does.
        :raises LumaStorageError: if the store fails; that stops all downloads.
        :raises LumaInterruptedError: after :meth:`interrupt`.
        :raises LumaError: if querying the relay for URLs fails.
        """
        # Read the CA bundle now, so that an unreadable one fails before a thread needs it.
        _ = self._route.tls
        if not self._is_checked:
            self.check(ids)
        with self._workers() as pool:
            pending: set[Future[FileRecord | FileFailure]] = set()
            for item in self._items(ids):
                if isinstance(item, FileFailure):
                    yield item
                    continue
                # One file waits for each that is downloaded, so that no worker idles while the caller logs.
                if len(pending) >= 2 * self._options.max_concurrency:
                    yield from _take_completed(pending)
                pending.add(pool.submit(self._process, item))
            while pending:
                yield from _take_completed(pending)

    def interrupt(self) -> None:
        """Stop all downloads; from any thread, and from a signal handler because it takes no lock."""
        self._is_stopped = True

    @contextmanager
    def _workers(self) -> Iterator[ThreadPoolExecutor]:
        has_ended = threading.Event()
        pool = ThreadPoolExecutor(self._options.max_concurrency, thread_name_prefix="luma-download")
        watch = threading.Thread(target=self._watch, args=(has_ended,), name="luma-download-watch")
        watch.start()
        try:
            yield pool
        finally:
            self._is_stopped = True
            for fetcher in self._fetchers:
                fetcher.interrupt()
            pool.shutdown(wait=True, cancel_futures=True)
            has_ended.set()
            watch.join()
            for fetcher in self._fetchers:
                fetcher.close()

    def _watch(self, has_ended: threading.Event) -> None:
        """Enforce the time limit of each file: sockets have timeouts only between two bytes."""
        while not has_ended.wait(_DEADLINE_CHECK_SECONDS):
            for fetcher in list(self._fetchers):
                if self._is_stopped:
                    fetcher.interrupt()
                else:
                    fetcher.enforce_deadline()

    def _check_stopped(self) -> None:
        if self._is_stopped:
            raise LumaInterruptedError("The downloads were interrupted.")

    def _fetcher(self) -> Fetcher:
        """Return this thread's fetcher."""
        self._check_stopped()
        fetcher: Fetcher | None = getattr(self._local, "fetcher", None)
        if fetcher is None:
            fetcher = self._local.fetcher = Fetcher(self._route, self._options)
            self._fetchers.append(fetcher)
        return fetcher

    def _items(self, ids: Sequence[str]) -> Iterator[_Item | FileFailure]:
        """Query the relay for URLs, a batch at a time and no sooner than they are needed."""
        size = 2 * self._options.max_concurrency
        for start in range(0, len(ids), size):
            batch = ids[start : start + size]
            unknown = [
                task_id
                for task_id in batch
                if any((task_id, artifact) not in self._known for artifact in self._artifacts)
            ]
            tasks = self._client.get_tasks(unknown) if unknown else {}
            for task_id in batch:
                for artifact in self._artifacts:
                    known = self._known.get((task_id, artifact))
                    try:
                        urls = () if known else _urls_of(tasks.get(task_id), task_id, artifact)
                    except LumaMissingArtifactError as error:
                        yield FileFailure(task_id, artifact, error)
                    else:
                        source = _UrlSource(self._client, task_id, artifact, urls)
                        yield _Item(task_id, artifact, source, known)

    def _find(self, task_id: str, artifact: Artifact) -> tuple[str, int] | None:
        """Return the name and size of a task's existing file, whose extension depends on its format."""
        formats = [format_ for format_ in FORMATS if format_.kind == _KINDS[artifact]]
        for name in dict.fromkeys(self._name(task_id, artifact, format_) for format_ in formats):
            size = self._store.size(name)
            if size is not None:
                return name, size
        return None

    def _name(self, task_id: str, artifact: Artifact, format_: Format) -> str:
        return self._options.name(task_id=task_id, artifact=artifact, extension=format_.extension)

    def _process(self, item: _Item) -> FileRecord | FileFailure:
        """Produce the outcome of one file; runs in a worker thread."""
        try:
            fetcher = self._fetcher()
            return self._reuse(fetcher, item) or self._download(fetcher, item)
        except (LumaDownloadError, LumaMissingArtifactError) as error:
            error.task_ids = (item.task_id,)
            return FileFailure(item.task_id, item.artifact, error)

    def _download(self, fetcher: Fetcher, item: _Item) -> FileRecord:
        def create(format_: Format) -> PartialFile:
            return self._store.create(self._name(item.task_id, item.artifact, format_))

        def on_bytes(received: int, announced: int | None) -> None:
            if self._on_progress is not None:
                self._on_progress(item.task_id, item.artifact, received, announced)

        started = time.monotonic()
        file = fetcher.download(item.urls, _KINDS[item.artifact], create, on_bytes)
        return self._record(item, file.name, file, seconds=round(time.monotonic() - started, 3))

    def _reuse(self, fetcher: Fetcher, item: _Item) -> FileRecord | None:
        """Return the record of a file that exists and is complete."""
        if item.known is None and self._options.on_existing != "skip":
            return None
        existing = self._find(item.task_id, item.artifact)
        if existing is None:
            return None
        name, size = existing
        expected = item.known.bytes if item.known else fetcher.announced_size(item.urls)
        if expected in (None, size):
            found = inspect(self._read(name), _KINDS[item.artifact])
            if found is not None and (
                found.sha256 == item.known.sha256 if item.known else expected is not None or found.complete
            ):
                return self._record(item, name, found, seconds=0.0)
        log.warning("%s is incomplete or another file: downloading it again.", self._store.path(name))
        return None

    def _read(self, name: str) -> Iterator[bytes]:
        for piece in self._store.read(name):
            self._check_stopped()
            yield piece

    def _record(
        self, item: _Item, name: str, file: DownloadedFile | Inspection, *, seconds: float
    ) -> FileRecord:
        return FileRecord(
            id=item.task_id,
            artifact=item.artifact,
            path=self._store.path(name),
            bytes=file.bytes,
            sha256=file.sha256,
            content_type=file.format.content_type,
            seconds=seconds,
        )


def _take_completed(pending: set[Future[FileRecord | FileFailure]]) -> Iterator[FileRecord | FileFailure]:
    """Wait for at least one future, remove those that are completed, and yield their results."""
    completed, _ = wait(pending, return_when=FIRST_COMPLETED)
    pending -= completed
    for future in completed:
        yield future.result()
