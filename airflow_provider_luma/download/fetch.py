# SPDX-License-Identifier: Apache-2.0
"""Fetch files one by one: with patience when a transfer breaks, within limits of size and time."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import Final, Protocol

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from airflow_provider_luma.download.addresses import shown
from airflow_provider_luma.download.checksum import BackgroundSha256
from airflow_provider_luma.download.formats import Format, Kind
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.store import Partial
from airflow_provider_luma.download.transfer import (
    BrokenTransferError,
    Fetched,
    Progress,
    Transfer,
    parse_content_range,
)
from airflow_provider_luma.download.transport import FAULTS, Route, Transport
from airflow_provider_luma.exceptions import LumaDownloadError, LumaInterruptedError

_REFUSED: Final = (401, 403, 404, 410)
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
_MAX_RETRY_AFTER: Final = 60.0

AskLink = Callable[[], str]
"""Gives a link to the file. Called again, it asks the relay anew: the host has refused the last one."""


class _RefusedError(Exception):
    """The host refuses the link."""


class _Work(Protocol):
    """What is asked of a host until it succeeds."""

    received: int

    @property
    def standing(self) -> str: ...

    def request_headers(self) -> dict[str, str]: ...

    def receive(self, url: str, response: HTTPResponse) -> None: ...


class Fetcher:
    """
    Fetches files one after the other, on one thread. Keeps its connections from file to file.

    :param route: How hosts are reached.
    :param options: The bounds of each file.
    """

    def __init__(self, route: Route, options: DownloadOptions) -> None:
        self._options = options
        self._transport = Transport(route)
        self._checksum = BackgroundSha256()
        self._deadline: float | None = None
        self._interrupted = threading.Event()

    def close(self) -> None:
        """Close the connections and end the thread that hashes."""
        self._transport.close()
        self._checksum.close()

    def watch(self) -> None:
        """Break off what is being received when its time is over; to be called by another thread."""
        deadline = self._deadline
        if deadline is not None and time.monotonic() >= deadline:
            self._transport.abort()

    def interrupt(self) -> None:
        """Let what is being fetched, and whatever would come next, end at once; from any thread."""
        self._interrupted.set()
        self._transport.abort()

    def fetch(
        self,
        ask_link: AskLink,
        kind: Kind,
        create: Callable[[Format], Partial],
        progress: Progress | None = None,
    ) -> Fetched:
        """
        Fetch a file and commit it to its store.

        :param ask_link: Gives the link.
        :param kind: What the file must be.
        :param create: Begins the file in its store, once its format is known.
        :param progress: Is told how far it is.
        :raises LumaDownloadError: when the file can't be had or isn't what it should be.
        :raises LumaStorageError: when it can't be kept.
        :raises LumaInterruptedError: after :meth:`interrupt`.
        """
        transfer = Transfer(
            kind,
            max_bytes=self._options.max_bytes,
            create=create,
            checksum=self._checksum,
            progress=progress,
        )
        try:
            self._persist(ask_link, transfer)
            return transfer.commit()
        finally:
            transfer.discard()

    def announced_size(self, ask_link: AskLink) -> int | None:
        """
        Ask the host how large a file is: for one byte of it, because signed links allow no HEAD.

        :param ask_link: Gives the link.
        :return: The size in bytes, or None when the host doesn't tell.
        :raises LumaDownloadError: when the host can't be asked.
        """
        probe = _SizeProbe()
        self._persist(ask_link, probe)
        return probe.size

    def _persist(self, ask_link: AskLink, work: _Work) -> None:
        """Attempt until it succeeds, until it is hopeless, or until the time is over."""
        self._deadline = time.monotonic() + self._options.file_timeout
        try:
            url = ask_link()
            failures, furthest, refused_at = 0, 0, -1
            while True:
                self._check(url)
                try:
                    self._attempt(url, work)
                    return
                except _RefusedError as refusal:
                    if refused_at == work.received:
                        raise LumaDownloadError(
                            f"{shown(url)} answers {refusal} although the link is fresh from the relay: the "
                            "file is gone, or isn't there yet.",
                            retryable=True,
                        ) from None
                    refused_at = work.received
                    url = ask_link()
                except LumaDownloadError:
                    # What was broken off may look like anything.
                    self._check(url)
                    raise
                except ssl.SSLCertVerificationError as error:
                    raise LumaDownloadError(
                        f"The certificate of {shown(url)} is not accepted ({error.verify_message}): check "
                        "the connection's verify.",
                        retryable=False,
                    ) from error
                except (BrokenTransferError, *FAULTS) as error:
                    self._check(url)
                    if work.received > furthest:
                        furthest, failures = work.received, 0
                    failures += 1
                    if failures >= self._options.attempts:
                        raise LumaDownloadError(
                            f"{shown(url)} could not be fetched: {failures} attempts in a row broke, the "
                            f"last one at {work.standing} ({_reason(error)}).",
                            retryable=True,
                        ) from error
                    self._pause(failures, error)
        finally:
            self._deadline = None

    def _attempt(self, url: str, work: _Work) -> None:
        try:
            response = self._transport.get(url, work.request_headers())
            if response.status in (200, 206, 416):
                _check_encoding(url, response)
                work.receive(url, response)
        except BaseException:
            self._transport.drop()
            raise
        self._transport.finish(response)
        _check_status(url, response)

    def _pause(self, failures: int, error: Exception) -> None:
        options = self._options
        seconds = min(options.backoff_max, options.backoff * 2.0 ** (failures - 1))
        seconds = max(seconds * random.uniform(0.5, 1), getattr(error, "retry_after", 0.0))  # noqa: S311
        assert self._deadline is not None
        self._interrupted.wait(min(seconds, max(0.0, self._deadline - time.monotonic())))

    def _check(self, url: str) -> None:
        if self._interrupted.is_set():
            raise LumaInterruptedError("The download was stopped from outside.")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise LumaDownloadError(
                f"{shown(url)} was not there whole after {self._options.file_timeout:g} s: its host sends "
                "too slowly, or the time limit for a file is too short.",
                retryable=True,
            )


class _SizeProbe:
    """Asks for one byte and reads from the answer how many there are."""

    received = 0
    standing = "the question for its size"

    def __init__(self) -> None:
        self.size: int | None = None

    def request_headers(self) -> dict[str, str]:
        return {"Range": "bytes=0-0"}

    def receive(self, url: str, response: HTTPResponse) -> None:
        self.size = response.length if response.status == 200 else parse_content_range(response)[1]


def _check_encoding(url: str, response: HTTPResponse) -> None:
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        value = response.headers.get(name, plain)
        if value.strip().lower() != plain:
            raise LumaDownloadError(
                f"{shown(url)} is sent with {name} {value[:80]!r} though none was asked for. What it would "
                "unpack to can't be bounded, so it is refused.",
                retryable=False,
            )


def _check_status(url: str, response: HTTPResponse) -> None:
    status = response.status
    if status in (200, 206):
        return
    if status in _REFUSED:
        raise _RefusedError(f"HTTP {status}")
    if status in _PASSING:
        raise BrokenTransferError(f"HTTP {status}", retry_after=_retry_after(response))
    if status != 416:
        raise LumaDownloadError(f"{shown(url)} answers HTTP {status}.", retryable=status >= 500)


def _retry_after(response: HTTPResponse) -> float:
    try:
        seconds = Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    except InvalidHeader:
        return 0.0
    return min(_MAX_RETRY_AFTER, max(0.0, seconds))


def _reason(error: Exception) -> str:
    # A host may echo the link, signature and all, where http.client expects something else.
    if isinstance(error, HTTPException):
        return type(error).__name__
    return str(error)[:200] or type(error).__name__
