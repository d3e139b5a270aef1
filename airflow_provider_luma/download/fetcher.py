# SPDX-License-Identifier: Apache-2.0
"""Fetch files one by one: with patience when a transfer breaks, within limits of size and time."""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse
from typing import Final, Protocol

from airflow_provider_luma.delays import MAX_RETRY_AFTER, parse_retry_after
from airflow_provider_luma.download.addresses import shown
from airflow_provider_luma.download.checksum import BackgroundSha256
from airflow_provider_luma.download.file_store import Partial
from airflow_provider_luma.download.formats import Format, Kind
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.resumable import (
    BrokenTransferError,
    Fetched,
    FileError,
    Progress,
    Transfer,
    check_framing,
    content_range,
)
from airflow_provider_luma.download.transport import FAULTS, Route, Transport
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaConnectionError,
    LumaDownloadError,
    LumaError,
    LumaInterruptedError,
    LumaMissingArtifactError,
    LumaUnsafeLinkError,
)
from airflow_provider_luma.text import clean_text

log = logging.getLogger(__name__)

_PASSING: Final = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)

AskLinks = Callable[[], Sequence[str]]
"""Gives the links to a file, the preferred one first. Called again, it asks the relay for fresh ones."""


class _RefusedError(LumaDownloadError):
    """The host refuses the link, as hosts do when its signature has expired."""


class _Work(Protocol):
    """What is asked of a host until it succeeds."""

    received: int

    @property
    def standing(self) -> str: ...

    def follow(self, url: str) -> None: ...

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
        self._transport = Transport(route, remaining=self._remaining)
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
        ask_links: AskLinks,
        kind: Kind,
        create: Callable[[Format], Partial],
        progress: Progress | None = None,
    ) -> Fetched:
        """
        Fetch a file and commit it to its store.

        :param ask_links: Gives the links.
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
            self._persist(ask_links, transfer)
            return transfer.commit()
        finally:
            transfer.discard()

    def announced_size(self, ask_links: AskLinks) -> int | None:
        """
        Ask the host how large a file is: for one byte of it, because signed links allow no HEAD.

        :param ask_links: Gives the links.
        :return: The size in bytes, or None when the host doesn't tell.
        :raises LumaDownloadError: when the host can't be asked.
        """
        probe = _SizeProbe()
        self._persist(ask_links, probe)
        return probe.size

    def _persist(self, ask_links: AskLinks, work: _Work) -> None:
        """Try one link after the other until one of them gives the file or the time is over."""
        self._deadline = time.monotonic() + self._options.file_timeout
        try:
            links = _Links(ask_links)
            while (url := links.next()) is not None:
                work.follow(url)
                try:
                    self._try(url, work)
                    return
                except FileError:
                    raise
                except LumaDownloadError as error:
                    links.give_up(url, error, work.received)
            raise links.failure()
        finally:
            self._deadline = None

    def _try(self, url: str, work: _Work) -> None:
        """Attempt until it succeeds, or until this link is hopeless."""
        failures, furthest = 0, work.received
        while True:
            self._check(url)
            try:
                self._attempt(url, work)
                return
            except LumaDownloadError:
                # What was broken off may look like anything.
                self._check(url)
                raise
            except ssl.SSLCertVerificationError as error:
                raise LumaDownloadError(
                    f"The certificate of {shown(url)} is not accepted ({clean_text(error.verify_message)}): "
                    "check the connection's verify.",
                    retryable=False,
                ) from error
            except (BrokenTransferError, *FAULTS) as error:
                self._check(url)
                if work.received > furthest:
                    furthest, failures = work.received, 0
                failures += 1
                if failures >= self._options.attempts:
                    raise LumaDownloadError(
                        f"{shown(url)} could not be fetched: {_attempts(failures)} broke, the last one at "
                        f"{work.standing} ({_reason(error)}).",
                        retryable=True,
                    ) from error
                self._pause(failures, error)

    def _attempt(self, url: str, work: _Work) -> None:
        try:
            response = self._transport.get(url, work.request_headers())
            if response.status in (200, 206, 416):
                check_framing(url, response)
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
        self._interrupted.wait(min(seconds, max(0.0, self._remaining())))

    def _remaining(self) -> float:
        """Return the seconds that are left for the file; none after an interruption."""
        if self._interrupted.is_set():
            return 0.0
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _check(self, url: str) -> None:
        if self._interrupted.is_set():
            raise LumaInterruptedError("The download was stopped from outside.")
        if self._remaining() <= 0:
            raise FileError(
                f"{shown(url)} was not there whole after {self._options.file_timeout:g} s: its host sends "
                "too slowly, or the time limit for a file is too short.",
                retryable=True,
            )


class _Links:
    """
    The links to one file in their order, and what was wrong with those that were tried.

    When a host refuses a link, the relay is asked for fresh ones: once, and again only if more of the file
    has come since. A link that comes back unchanged is left out, unless there is no other.

    :param ask: Gives the links.
    """

    def __init__(self, ask: AskLinks) -> None:
        self._ask = ask
        self._waiting = list(ask())
        self._failures: dict[str, LumaDownloadError] = {}
        self._refreshed_at = -1
        self._no_fresh: LumaError | None = None

    def next(self) -> str | None:
        """Return the link to try next, or None when there is none left."""
        return self._waiting.pop(0) if self._waiting else None

    def give_up(self, url: str, error: LumaDownloadError, received: int) -> None:
        """Leave a link, for this reason and after so many bytes."""
        self._failures[url] = error
        if isinstance(error, _RefusedError) and received > self._refreshed_at:
            self._refreshed_at = received
            self._refresh()
        if self._waiting:
            log.warning("%s Another link to the file is tried.", error)

    def _refresh(self) -> None:
        try:
            fresh = self._ask()
        except (LumaMissingArtifactError, LumaApiError, LumaConnectionError) as error:
            self._no_fresh = error
            return
        refused = [url for url in fresh if isinstance(self._failures.get(url), _RefusedError)]
        self._waiting = [url for url in fresh if url not in self._failures] or refused[:1]

    def failure(self) -> LumaError:
        """Return why none of the links gave the file."""
        if isinstance(self._no_fresh, LumaMissingArtifactError):
            return self._no_fresh
        # A signed link and its fresh form read the same.
        failures = {str(error): error for error in self._failures.values()}
        reasons = list(failures)
        if self._no_fresh is not None:
            reasons.append(f"The relay gave no fresh link: {self._no_fresh}")
        if len(failures) == 1 and len(reasons) == 1:
            return next(iter(failures.values()))
        message = f"None of the links to the file can be used. {' '.join(reasons)}"
        if all(isinstance(error, LumaUnsafeLinkError) for error in failures.values()):
            return LumaUnsafeLinkError(message)
        return LumaDownloadError(message, retryable=any(error.retryable for error in failures.values()))


class _SizeProbe:
    """Asks for one byte and reads from the answer how many there are."""

    received = 0
    standing = "the question for its size"

    def __init__(self) -> None:
        self.size: int | None = None

    def follow(self, url: str) -> None:
        """Need nothing from the links before."""

    def request_headers(self) -> dict[str, str]:
        return {"Range": "bytes=0-0"}

    def receive(self, url: str, response: HTTPResponse) -> None:
        self.size = response.length if response.status == 200 else content_range(response).total


def _check_status(url: str, response: HTTPResponse) -> None:
    status = response.status
    if status in (200, 206, 416):
        return
    if status in _PASSING:
        asked = parse_retry_after(response.headers.get("Retry-After"))
        raise BrokenTransferError(f"HTTP {status}", retry_after=min(asked or 0.0, MAX_RETRY_AFTER))
    answer = f"{shown(url)} answers HTTP {status}"
    if status == 401 or "WWW-Authenticate" in response.headers:
        raise _RefusedError(
            f"{answer} although the link is fresh from the relay: its host wants credentials. The API key "
            "goes to the relay's API alone and is never sent for a file, so ask the relay's operator for "
            "links that work without a key.",
            retryable=True,
        )
    if 400 <= status < 500:
        # Stores differ in which of these they answer to a signature that has expired.
        raise _RefusedError(
            f"{answer} although the link is fresh from the relay: the file is gone, or isn't there yet.",
            retryable=True,
        )
    raise LumaDownloadError(f"{answer}.", retryable=status >= 500)


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts in a row"


def _reason(error: Exception) -> str:
    # A host may echo the link, signature and all, where http.client expects something else.
    if isinstance(error, HTTPException):
        return type(error).__name__
    return clean_text(str(error)) or type(error).__name__
