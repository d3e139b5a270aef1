# SPDX-License-Identifier: Apache-2.0
"""Keep the files of many tasks, several at a time, with a bounded number of links and bytes in memory."""

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
from airflow_provider_luma.client.artifacts import Artifact
from airflow_provider_luma.download.fetcher import Fetcher
from airflow_provider_luma.download.file_store import FileStore, Partial
from airflow_provider_luma.download.formats import FORMATS, Format, Kind, inspect
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.transport import Route
from airflow_provider_luma.download.urls import UrlSource, urls_to_download
from airflow_provider_luma.exceptions import (
    LumaDownloadError,
    LumaFileExistsError,
    LumaInterruptedError,
    LumaMissingArtifactError,
)
from airflow_provider_luma.text import shorten_list

log = logging.getLogger(__name__)

OnProgress = Callable[[str, Artifact, int, int | None], None]
"""Is told a task's id, the artifact, the bytes that have come and the bytes announced, every few seconds."""

_KINDS: Final[Mapping[str, Kind]] = {
    "video": "video",
    "video_raw": "video",
    "thumbnail": "image",
    "last_frame": "image",
}
_WATCH_SECONDS: Final = 0.2


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    A kept file.

    :param id: The Luma task's id.
    :param artifact: Which of the task's files it is.
    :param path: Where it is.
    :param bytes: Its size.
    :param sha256: Its checksum, in hexadecimal.
    :param content_type: Its media type, by its own bytes.
    :param seconds: How long the download took; 0 when the file was whole already.
    """

    id: str
    artifact: Artifact
    path: str
    bytes: int
    sha256: str
    content_type: str
    seconds: float


def counted(some: int, of: int) -> str:
    """Say how many of all files are meant."""
    return f"{some} of {of} {'file' if of == 1 else 'files'}"


class FileFailure(NamedTuple):
    """A file that could not be kept, and why."""

    id: str
    artifact: Artifact
    error: LumaDownloadError | LumaMissingArtifactError


class Downloader:
    """
    Keeps the files of Luma tasks. To be used once.

    Links are asked for in small portions just before they are used, and once more for a file whose host
    refuses its link.

    :param client: Asks the relay for links.
    :param store: Keeps the files.
    :param route: How artifact hosts are reached.
    :param options: Which files are kept, how they are named, and within what bounds.
    :param known: Records of an earlier try. Files that still match theirs, checksum included, are kept
        whatever ``on_existing`` says.
    :param on_progress: Is told how far large files are, from several threads.
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
        self._checked = False
        self._stopped = False

    def check(self, ids: Sequence[str]) -> None:
        """
        Prepare the store, and with ``on_existing="fail"`` make sure that none of the files is there.

        :param ids: Ids of tasks, each once.
        :raises LumaFileExistsError: when a file is there already and ``on_existing`` is ``fail``.
        :raises LumaStorageError: when the store can't be used.
        """
        self._store.prepare()
        if self._options.on_existing == "fail":
            files = [(task_id, artifact) for task_id in ids for artifact in self._artifacts]
            unknown = [file for file in files if file not in self._known]
            with ThreadPoolExecutor(self._options.max_concurrency) as pool:
                there = pool.map(lambda file: self._find(*file), unknown)
                found = [self._store.path(name_and_size[0]) for name_and_size in there if name_and_size]
            if found:
                verb, them = ("is", "it") if len(found) == 1 else ("are", "them")
                raise LumaFileExistsError(
                    f"{counted(len(found), len(files))} {verb} there already: {shorten_list(found)}. Remove "
                    f"{them}, or choose another destination or on_existing='skip' or 'replace'."
                )
        self._checked = True

    def run(self, ids: Sequence[str]) -> Generator[FileRecord | FileFailure, None, None]:
        """
        Keep the files of these tasks, and tell of each as it is done.

        A file that can't be had doesn't keep the others from being fetched. Calls :meth:`check` unless that
        was done.

        :param ids: Ids of tasks, each once.
        :return: A record or a failure for each file, in the order in which they are done. Closing the
            iterator ends all downloads and removes what is incomplete.
        :raises LumaFileExistsError: as :meth:`check` does.
        :raises LumaStorageError: when the store fails; that ends all downloads.
        :raises LumaInterruptedError: after :meth:`interrupt`.
        :raises LumaError: when the relay can't be asked for links.
        """
        # Before any thread needs it.
        _ = self._route.tls
        if not self._checked:
            self.check(ids)
        with self._workers() as pool:
            pending: set[Future[FileRecord | FileFailure]] = set()
            for job in self._jobs(ids):
                # One waits for each that is fetched, so that no worker is idle while its owner logs.
                if len(pending) >= 2 * self._options.max_concurrency:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
                if isinstance(job, FileFailure):
                    yield job
                else:
                    pending.add(pool.submit(self._keep, job))
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()

    def interrupt(self) -> None:
        """End all downloads; from any thread, and from a signal handler because it takes no lock."""
        self._stopped = True

    @contextmanager
    def _workers(self) -> Iterator[ThreadPoolExecutor]:
        finished = threading.Event()
        pool = ThreadPoolExecutor(self._options.max_concurrency, thread_name_prefix="luma-download")
        watch = threading.Thread(target=self._watch, args=(finished,), name="luma-download-watch")
        watch.start()
        try:
            yield pool
        finally:
            self._stopped = True
            for fetcher in self._fetchers:
                fetcher.interrupt()
            pool.shutdown(wait=True, cancel_futures=True)
            finished.set()
            watch.join()
            for fetcher in self._fetchers:
                fetcher.close()

    def _watch(self, finished: threading.Event) -> None:
        """Sockets know timeouts between two bytes only: here the time of a whole file comes to its end."""
        while not finished.wait(_WATCH_SECONDS):
            for fetcher in list(self._fetchers):
                if self._stopped:
                    fetcher.interrupt()
                else:
                    fetcher.watch()

    def _fetcher(self) -> Fetcher:
        """Return this thread's fetcher."""
        if self._stopped:
            raise LumaInterruptedError("The downloads were stopped from outside.")
        fetcher: Fetcher | None = getattr(self._local, "fetcher", None)
        if fetcher is None:
            fetcher = self._local.fetcher = Fetcher(self._route, self._options)
            self._fetchers.append(fetcher)
        return fetcher

    def _jobs(self, ids: Sequence[str]) -> Iterator[_Job | FileFailure]:
        """Ask for links, a portion at a time and no sooner than they are needed."""
        portion = 2 * self._options.max_concurrency
        for start in range(0, len(ids), portion):
            part = ids[start : start + portion]
            asked = [
                task_id
                for task_id in part
                if any((task_id, artifact) not in self._known for artifact in self._artifacts)
            ]
            tasks = self._client.get_tasks(asked) if asked else {}
            for task_id in part:
                for artifact in self._artifacts:
                    known = self._known.get((task_id, artifact))
                    try:
                        at_hand = () if known else urls_to_download(tasks.get(task_id), task_id, artifact)
                    except LumaMissingArtifactError as error:
                        yield FileFailure(task_id, artifact, error)
                    else:
                        links = UrlSource(self._client, task_id, artifact, at_hand)
                        yield _Job(task_id, artifact, links, known)

    def _find(self, task_id: str, artifact: Artifact) -> tuple[str, int] | None:
        """Look for a task's file, whose extension depends on what format it came in."""
        formats = [format_ for format_ in FORMATS if format_.kind == _KINDS[artifact]]
        for name in dict.fromkeys(self._name(task_id, artifact, format_) for format_ in formats):
            size = self._store.size(name)
            if size is not None:
                return name, size
        return None

    def _name(self, task_id: str, artifact: Artifact, format_: Format) -> str:
        return self._options.name(task_id=task_id, artifact=artifact, extension=format_.extension)

    def _keep(self, job: _Job) -> FileRecord | FileFailure:
        """Keep one file; runs in a worker thread."""
        try:
            fetcher = self._fetcher()
            return self._kept_already(fetcher, job) or self._fetch(fetcher, job)
        except (LumaDownloadError, LumaMissingArtifactError) as error:
            error.task_ids = (job.task_id,)
            return FileFailure(job.task_id, job.artifact, error)

    def _fetch(self, fetcher: Fetcher, job: _Job) -> FileRecord:
        def create(format_: Format) -> Partial:
            return self._store.create(self._name(job.task_id, job.artifact, format_))

        def progress(received: int, announced: int | None) -> None:
            if self._on_progress is not None:
                self._on_progress(job.task_id, job.artifact, received, announced)

        started = time.monotonic()
        fetched = fetcher.fetch(job.links, _KINDS[job.artifact], create, progress)
        return FileRecord(
            id=job.task_id,
            artifact=job.artifact,
            path=self._store.path(fetched.name),
            bytes=fetched.bytes,
            sha256=fetched.sha256,
            content_type=fetched.format.content_type,
            seconds=round(time.monotonic() - started, 3),
        )

    def _kept_already(self, fetcher: Fetcher, job: _Job) -> FileRecord | None:
        """Return the record of a file that is there and whole."""
        if job.known is None and self._options.on_existing != "skip":
            return None
        there = self._find(job.task_id, job.artifact)
        if there is None:
            return None
        name, size = there
        path = self._store.path(name)
        expected = job.known.bytes if job.known else fetcher.announced_size(job.links)
        if expected in (None, size):
            found = inspect(self._pieces(name), _KINDS[job.artifact])
            if found is not None and (
                found.sha256 == job.known.sha256 if job.known else expected is not None or found.complete
            ):
                return FileRecord(
                    id=job.task_id,
                    artifact=job.artifact,
                    path=path,
                    bytes=found.bytes,
                    sha256=found.sha256,
                    content_type=found.format.content_type,
                    seconds=0.0,
                )
        log.warning("%s is not whole, or is another file: it is fetched again.", path)
        return None

    def _pieces(self, name: str) -> Iterator[bytes]:
        for piece in self._store.pieces(name):
            if self._stopped:
                raise LumaInterruptedError("The downloads were stopped from outside.")
            yield piece


class _Job(NamedTuple):
    """A file to keep, where its links come from, and what an earlier try knew of it."""

    task_id: str
    artifact: Artifact
    links: UrlSource
    known: FileRecord | None
