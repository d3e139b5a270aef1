# SPDX-License-Identifier: Apache-2.0
"""Download single files: resume broken downloads, within limits of size and time."""

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
from airflow_provider_luma.download.addresses import redacted
from airflow_provider_luma.download.checksum import BackgroundSha256
from airflow_provider_luma.download.file_store import PartialFile
from airflow_provider_luma.download.formats import Format, Kind
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.resumable import (
    BrokenDownloadError,
    DownloadedFile,
    FileLimitError,
    OnBytes,
    ResumableDownload,
    check_framing,
    content_range,
)
from airflow_provider_luma.download.transport import NETWORK_ERRORS, Route, Transport
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

_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)

GetUrls = Callable[[], Sequence[str]]
"""Return the URLs of a file, the preferred one first; fresh ones from the relay from the second call on."""


class _RefusedUrlError(LumaDownloadError):
    """The host refuses the URL, as hosts do when its signature has expired."""


class _Receiver(Protocol):
    """Make requests and receive their responses until one attempt succeeds."""

    received: int

    @property
    def position(self) -> str: ...

    def switch_to(self, url: str) -> None: ...

    def request_headers(self) -> dict[str, str]: ...

    def receive(self, url: str, response: HTTPResponse) -> None: ...


class Fetcher:
    """
    Download files one after the other, on one thread, and reuse connections from file to file.

    :param route: How to reach hosts.
    :param options: The limits of each file.
    """

    def __init__(self, route: Route, options: DownloadOptions) -> None:
        self._options = options
        self._transport = Transport(route, remaining=self._remaining)
        self._checksum = BackgroundSha256()
        self._deadline: float | None = None
        self._interrupted = threading.Event()

    def close(self) -> None:
        """Close the connections and stop the thread that hashes."""
        self._transport.close()
        self._checksum.close()

    def enforce_deadline(self) -> None:
        """Abort the current request if the file's time is up; for another thread to call regularly."""
        deadline = self._deadline
        if deadline is not None and time.monotonic() >= deadline:
            self._transport.abort()

    def interrupt(self) -> None:
        """Stop the current download and refuse further ones; from any thread."""
        self._interrupted.set()
        self._transport.abort()

    def download(
        self,
        get_urls: GetUrls,
        kind: Kind,
        create: Callable[[Format], PartialFile],
        on_bytes: OnBytes | None = None,
    ) -> DownloadedFile:
        """
        Download a file and commit it to its store.

        :param kind: What the file must be.
        :param create: Creates the file in its store, once its format is known.
        :raises LumaDownloadError: if the file can't be downloaded or isn't of the right kind.
        :raises LumaStorageError: if it can't be stored.
        :raises LumaInterruptedError: after :meth:`interrupt`.
        """
        receiver = ResumableDownload(
            kind, max_bytes=self._options.max_bytes, create=create, checksum=self._checksum, on_bytes=on_bytes
        )
        try:
            self._try_each_url(get_urls, receiver)
            return receiver.commit()
        finally:
            receiver.discard()

    def announced_size(self, get_urls: GetUrls) -> int | None:
        """
        Request one byte of a file to learn its size in bytes, or None; signed URLs don't allow HEAD.

        :raises LumaDownloadError: if the request fails.
        """
        probe = _SizeProbe()
        self._try_each_url(get_urls, probe)
        return probe.size

    def _try_each_url(self, get_urls: GetUrls, receiver: _Receiver) -> None:
        """Try one URL after the other until one of them succeeds or the time is up."""
        self._deadline = time.monotonic() + self._options.file_timeout
        try:
            candidates = _Candidates(get_urls)
            while (url := candidates.next()) is not None:
                receiver.switch_to(url)
                try:
                    self._try(url, receiver)
                    return
                except FileLimitError:
                    raise
                except LumaDownloadError as error:
                    candidates.reject(url, error, receiver.received)
            raise candidates.failure()
        finally:
            self._deadline = None

    def _try(self, url: str, receiver: _Receiver) -> None:
        """Repeat attempts until one succeeds, or until this URL is hopeless."""
        failures, furthest = 0, receiver.received
        while True:
            self._check_limits(url)
            try:
                self._attempt(url, receiver)
                return
            except LumaDownloadError:
                # An aborted response may look like anything.
                self._check_limits(url)
                raise
            except ssl.SSLCertVerificationError as error:
                raise _certificate_error(url, error) from error
            except (BrokenDownloadError, *NETWORK_ERRORS) as error:
                self._check_limits(url)
                if receiver.received > furthest:
                    furthest, failures = receiver.received, 0
                failures += 1
                if failures >= self._options.attempts:
                    raise LumaDownloadError(
                        f"{redacted(url)} could not be downloaded. Consecutive failed attempts: {failures}, "
                        f"the last one at {receiver.position} ({_reason(error)}).",
                        retryable=True,
                    ) from error
                self._back_off(failures, error)

    def _attempt(self, url: str, receiver: _Receiver) -> None:
        try:
            response = self._transport.get(url, receiver.request_headers())
            if response.status in (200, 206, 416):
                check_framing(url, response)
                receiver.receive(url, response)
        except BaseException:
            self._transport.drop()
            raise
        self._transport.finish(response)
        _check_status(url, response)

    def _back_off(self, failures: int, error: Exception) -> None:
        options = self._options
        seconds = min(options.backoff_max, options.backoff * 2.0 ** (failures - 1))
        seconds = max(seconds * random.uniform(0.5, 1), getattr(error, "retry_after", 0.0))  # noqa: S311
        self._interrupted.wait(min(seconds, max(0.0, self._remaining())))

    def _remaining(self) -> float:
        """Return the seconds that are left for the file; none after an interruption."""
        if self._interrupted.is_set():
            return 0.0
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _check_limits(self, url: str) -> None:
        if self._interrupted.is_set():
            raise LumaInterruptedError("The download was interrupted.")
        if self._remaining() <= 0:
            raise FileLimitError(
                f"{redacted(url)} was not complete after file_timeout, {self._options.file_timeout:g} s: its "
                "host is too slow, or the limit too low.",
                retryable=True,
            )


class _Candidates:
    """
    Yield the URLs of one file in their order, and remember why each failed.

    When a host refuses a URL, the relay is queried for fresh ones: once, and again only if more of the file
    has arrived since. A URL that comes back unchanged is left out, unless there is no other.
    """

    def __init__(self, get_urls: GetUrls) -> None:
        self._get_urls = get_urls
        self._waiting = list(get_urls())
        self._failures: dict[str, LumaDownloadError] = {}
        self._refreshed_at = -1
        self._refresh_error: LumaError | None = None

    def next(self) -> str | None:
        """Return the URL to try next, or None if there is none left."""
        return self._waiting.pop(0) if self._waiting else None

    def reject(self, url: str, error: LumaDownloadError, received: int) -> None:
        """Give up a URL, for this reason and after this many bytes."""
        self._failures[url] = error
        if isinstance(error, _RefusedUrlError) and received > self._refreshed_at:
            self._refreshed_at = received
            self._refresh()
        if self._waiting:
            log.warning("%s Trying another URL of the file.", error)

    def _refresh(self) -> None:
        try:
            fresh = self._get_urls()
        except (LumaMissingArtifactError, LumaApiError, LumaConnectionError) as error:
            self._refresh_error = error
            return
        refused = [url for url in fresh if isinstance(self._failures.get(url), _RefusedUrlError)]
        self._waiting = [url for url in fresh if url not in self._failures] or refused[:1]

    def failure(self) -> LumaError:
        """Return why none of the URLs worked."""
        if isinstance(self._refresh_error, LumaMissingArtifactError):
            return self._refresh_error
        # A signed URL and its fresh form are shown alike.
        failures = {str(error): error for error in self._failures.values()}
        reasons = list(failures)
        if self._refresh_error is not None:
            reasons.append(f"The relay returned no fresh URL: {self._refresh_error}")
        if len(failures) == 1 and len(reasons) == 1:
            return next(iter(failures.values()))
        message = f"None of the file's URLs can be used. {' '.join(reasons)}"
        if all(isinstance(error, LumaUnsafeLinkError) for error in failures.values()):
            return LumaUnsafeLinkError(message)
        return LumaDownloadError(message, retryable=any(error.retryable for error in failures.values()))


class _SizeProbe:
    """Request one byte, and read the size of the whole file from the response."""

    received = 0
    position = "the request for its size"

    def __init__(self) -> None:
        self.size: int | None = None

    def switch_to(self, url: str) -> None:
        """Do nothing: no response depends on an earlier one."""

    def request_headers(self) -> dict[str, str]:
        return {"Range": "bytes=0-0"}

    def receive(self, url: str, response: HTTPResponse) -> None:
        self.size = response.length if response.status == 200 else content_range(response).total


def _check_status(url: str, response: HTTPResponse) -> None:
    status = response.status
    if status in (200, 206, 416):
        return
    if status in _TRANSIENT:
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        raise BrokenDownloadError(f"HTTP {status}", retry_after=min(retry_after or 0.0, MAX_RETRY_AFTER))
    returned = f"{redacted(url)} returned HTTP {status}"
    if status == 401 or "WWW-Authenticate" in response.headers:
        raise _RefusedUrlError(
            f"{returned} although the relay has just issued the URL: its host requires credentials. The API "
            "key is only for the relay's API and never sent for a file; ask the relay's operator for URLs "
            "that work without it.",
            retryable=True,
        )
    if 400 <= status < 500:
        # Hosts differ in which of these they return for an expired signature.
        raise _RefusedUrlError(
            f"{returned} although the relay has just issued the URL: the file is gone or doesn't exist yet.",
            retryable=True,
        )
    raise LumaDownloadError(f"{returned}.", retryable=status >= 500)


def _certificate_error(url: str, error: ssl.SSLCertVerificationError) -> LumaDownloadError:
    return LumaDownloadError(
        f"The certificate of {redacted(url)} was rejected ({clean_text(error.verify_message)}): check the "
        "connection's verify.",
        retryable=False,
    )


def _reason(error: Exception) -> str:
    # A host may echo the URL, signature and all, where http.client expects something else.
    if isinstance(error, HTTPException):
        return type(error).__name__
    return clean_text(str(error)) or type(error).__name__
