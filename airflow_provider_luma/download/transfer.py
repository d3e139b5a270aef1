# SPDX-License-Identifier: Apache-2.0
"""One file under way: what has come of it, where it goes, and what to ask its host for next."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Final, NamedTuple

from airflow_provider_luma.download.addresses import shown
from airflow_provider_luma.download.checksum import BackgroundSha256
from airflow_provider_luma.download.formats import HEAD_BYTES, Completeness, Format, Kind, recognise
from airflow_provider_luma.download.store import Partial
from airflow_provider_luma.exceptions import LumaDownloadError

_PROGRESS_SECONDS: Final = 5.0
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")

Progress = Callable[[int, int | None], None]
"""Is told every few seconds how many bytes have come, and how many were announced, if that is known."""


class BrokenTransferError(Exception):
    """
    The transfer broke in a way that may pass.

    :param retry_after: Seconds that the host asks to wait.
    """

    def __init__(self, reason: str, *, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Fetched(NamedTuple):
    """A file that was fetched whole."""

    name: str
    format: Format
    bytes: int
    sha256: str


class Transfer:
    """
    Takes the answers to a file's requests until the file is whole.

    :param kind: What the file must be.
    :param max_bytes: The largest file that is taken.
    :param create: Begins the file in its store, once its format is known.
    :param checksum: Hashes the file.
    :param progress: Is told how far it is.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        max_bytes: int,
        create: Callable[[Format], Partial],
        checksum: BackgroundSha256,
        progress: Progress | None = None,
    ) -> None:
        self._kind = kind
        self._max_bytes = max_bytes
        self._create = create
        self._checksum = checksum
        self._progress = progress
        self._progress_due = time.monotonic() + _PROGRESS_SECONDS
        self._partial: Partial | None = None
        self._start_over()

    def _start_over(self) -> None:
        self.discard()
        self._checksum.restart()
        self.received = 0
        self._total: int | None = None
        self._validator: str | None = None
        self._completeness: Completeness | None = None

    @property
    def standing(self) -> str:
        """How far it is, in words."""
        return f"{self.received} bytes" if self._total is None else f"{self.received} of {self._total} bytes"

    def request_headers(self) -> dict[str, str]:
        """Return how to ask for the file, or for its rest as long as it is still the same file."""
        if self.received and self._validator is not None:
            return {"Range": f"bytes={self.received}-", "If-Range": self._validator}
        return {}

    def receive(self, url: str, response: HTTPResponse) -> None:
        """
        Take an answer's body to its end.

        :param url: The link, for errors.
        :param response: An answer with status 200, 206 or 416.
        :raises BrokenTransferError: when the file is not whole after it.
        :raises LumaDownloadError: when the file is too large or isn't what it should be.
        """
        self._check_continuation(url, response)
        framed = response.length is not None or response.chunked
        # Short reads come only at the end of the body.
        while length := response.readinto(self._checksum.buffer()):
            if self.received + length > self._max_bytes:
                raise self._too_large(url, f"more than {self._max_bytes} bytes")
            if self._partial is None:
                if length < HEAD_BYTES and self._total not in (None, length):
                    break
                self._begin_file(url, response, bytes(self._checksum.buffer()[: min(length, HEAD_BYTES)]))
            self._keep(length)
        if self._total is not None and self.received != self._total:
            raise BrokenTransferError(f"the connection ended after {self.standing}")
        if self._partial is None:
            self._begin_file(url, response, b"")
        if not framed and not (self._completeness and self._completeness.proven):
            raise BrokenTransferError(f"the connection ended in mid-file, after {self.standing}")

    def commit(self) -> Fetched:
        """
        Let the whole file appear under its name.

        :raises LumaStorageError: when that fails.
        """
        partial, self._partial = self._partial, None
        assert partial is not None
        digest = self._checksum.hexdigest()
        partial.commit()
        return Fetched(partial.name, self._format, self.received, digest)

    def discard(self) -> None:
        """Remove what has come."""
        partial, self._partial = self._partial, None
        if partial is not None:
            partial.discard()

    def _check_continuation(self, url: str, response: HTTPResponse) -> None:
        """Make sure that the body begins where the bytes so far end, or else begin anew."""
        asked = bool(self.request_headers())
        if response.status == 206:
            start, total = parse_content_range(response)
            same = asked and start == self.received and _validator(response) in (None, self._validator)
            if same and (self._total is None or total in (None, self._total)):
                return
        elif response.status == 200:
            if self.received:
                self._start_over()
            self._total = response.length
            self._validator = _validator(response)
            if self._total is not None and self._total > self._max_bytes:
                raise self._too_large(url, f"{self._total} bytes")
            return
        self._start_over()
        raise BrokenTransferError("the host sent another part of the file than the one asked for")

    def _begin_file(self, url: str, response: HTTPResponse, head: bytes) -> None:
        found = recognise(head)
        if found is None or found.kind != self._kind:
            what = found.name if found else _described(head, response)
            raise LumaDownloadError(
                f"{shown(url)} sent {what} in place of a {self._kind}. Nothing of it was kept.",
                retryable=True,
            )
        self._format = found
        self._completeness = Completeness(found)
        self._partial = self._create(found)

    def _keep(self, length: int) -> None:
        assert self._partial is not None
        assert self._completeness is not None
        chunk = memoryview(self._checksum.buffer())[:length]
        self._checksum.update(length)
        self._partial.write(chunk)
        self._completeness.feed(chunk)
        self.received += length
        if self._progress is not None and time.monotonic() >= self._progress_due:
            self._progress_due = time.monotonic() + _PROGRESS_SECONDS
            self._progress(self.received, self._total)

    def _too_large(self, url: str, size: str) -> LumaDownloadError:
        return LumaDownloadError(
            f"{shown(url)} has {size}, but max_bytes allows {self._max_bytes}: raise it if you expect "
            "such files.",
            retryable=False,
        )


def parse_content_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """Return where an answer's part begins and how large the whole file is, as far as it says."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not found:
        return None, None
    start, total = found.groups()
    return int(start) if start else None, int(total) if total != "*" else None


def _validator(response: HTTPResponse) -> str | None:
    """Return what identifies this version of the file, if it does so byte for byte."""
    etag: str | None = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _described(head: bytes, response: HTTPResponse) -> str:
    if not head:
        return "an empty file"
    content_type = response.headers.get("Content-Type", "no type")
    beginning = head[:40].decode("ascii", "replace")
    return f"something declared as {content_type[:80]!r} that begins with {beginning!r}"
