# SPDX-License-Identifier: Apache-2.0
"""Receive one file in as many responses as it takes, and know which bytes to request next."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Final, NamedTuple

from airflow_provider_luma.download.addresses import is_same_location, redacted
from airflow_provider_luma.download.checksum import BackgroundSha256
from airflow_provider_luma.download.file_store import PartialFile
from airflow_provider_luma.download.formats import HEAD_BYTES, Completeness, Format, Kind, detect_format
from airflow_provider_luma.exceptions import LumaDownloadError
from airflow_provider_luma.text import clean_text

_PROGRESS_SECONDS: Final = 5.0
# Python refuses to read thousands of digits, and no file has more bytes than 18 digits can count.
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_CONTENT_RANGE: Final = re.compile(
    r"bytes +(?:(?P<start>[0-9]{1,18})-(?P<end>[0-9]{1,18})|\*)/(?:(?P<total>[0-9]{1,18})|\*)",
    re.ASCII | re.IGNORECASE,
)
# What is safe to send back unchanged: no control characters, and short enough for a request's headers.
_STRONG_ETAG: Final = re.compile(r'(?!W/)"?[\x21\x23-\x7e\x80-\xff]{1,512}"?')
_DATE: Final = re.compile(r"[A-Za-z0-9 ,:+-]{1,64}", re.ASCII)
_NAMES: Final[dict[Kind, str]] = {"video": "a video", "image": "an image"}

OnBytes = Callable[[int, int | None], None]
"""Called every few seconds with the bytes received and, if the host announced it, their total."""


class BrokenDownloadError(Exception):
    """
    A response broke off or was refused in a way that another attempt may overcome.

    :param retry_after: Seconds that the host asks to wait.
    """

    def __init__(self, reason: str, *, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class FileLimitError(LumaDownloadError):
    """The file exceeds a limit of size or time, so that no other URL of it can help."""


class ContentRange(NamedTuple):
    """Hold a ``Content-Range``; ``stop`` is the first byte after the part. None stands for unknown."""

    start: int | None = None
    stop: int | None = None
    total: int | None = None


class DownloadedFile(NamedTuple):
    """Describe a file that was downloaded completely."""

    name: str
    format: Format
    bytes: int
    sha256: str


class ResumableDownload:
    """
    Receive responses until the file is complete.

    :param kind: What the file must be.
    :param max_bytes: The largest file to accept.
    :param create: Creates the file in its store, once its format is known.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        max_bytes: int,
        create: Callable[[Format], PartialFile],
        checksum: BackgroundSha256,
        on_bytes: OnBytes | None = None,
    ) -> None:
        self._kind = kind
        self._max_bytes = max_bytes
        self._create = create
        self._checksum = checksum
        self._on_bytes = on_bytes
        self._progress_due = time.monotonic() + _PROGRESS_SECONDS
        self._partial: PartialFile | None = None
        self._url = ""
        # The size that was last announced for a version of the file; it outlives a restart.
        self._announced: tuple[str | None, int] | None = None
        self._restart()

    def _restart(self) -> None:
        self.discard()
        self._checksum.restart()
        self.received = 0
        self._total: int | None = None
        self._validator: str | None = None
        self._completeness: Completeness | None = None

    @property
    def position(self) -> str:
        """Return how much has been received, in words."""
        return f"{self.received} bytes" if self._total is None else f"{self.received} of {self._total} bytes"

    def switch_to(self, url: str) -> None:
        """
        Receive the following responses from this URL.

        The bytes of two files are never mixed: the download restarts unless the URL has the same location
        and a strong ETag guarantees the same bytes there.
        """
        is_guaranteed = self._validator is not None and _STRONG_ETAG.fullmatch(self._validator)
        if url != self._url and not (is_guaranteed and is_same_location(url, self._url)):
            self._restart()
            self._announced = None
        self._url = url

    def request_headers(self) -> dict[str, str]:
        """Return the headers that request the file, or the rest of it if it is still the same file."""
        if self.received and self._validator is not None:
            return {"Range": f"bytes={self.received}-", "If-Range": self._validator}
        return {}

    def receive(self, url: str, response: HTTPResponse) -> None:
        """
        Receive the whole body of a response with status 200, 206 or 416.

        :raises BrokenDownloadError: if the file is not complete after it.
        :raises LumaDownloadError: if the file is too large or isn't of the right kind.
        """
        has_body = self._accept_headers(url, response)
        # A short read means the end of the body.
        while has_body and (length := response.readinto(self._checksum.buffer())):
            if self.received + length > self._max_bytes:
                raise self._too_large(url, f"more than {self._max_bytes} bytes")
            if self._partial is None:
                if length < HEAD_BYTES and self._total not in (None, length):
                    break
                self._create_file(url, response, bytes(self._checksum.buffer()[: min(length, HEAD_BYTES)]))
            self._append(length)
        self._check_complete(url, response)

    def commit(self) -> DownloadedFile:
        """Make the complete file appear under its name."""
        partial, self._partial = self._partial, None
        assert partial is not None
        digest = self._checksum.hexdigest()
        partial.commit()
        return DownloadedFile(partial.name, self._format, self.received, digest)

    def discard(self) -> None:
        """Remove what has been received."""
        partial, self._partial = self._partial, None
        if partial is not None:
            partial.discard()

    def _accept_headers(self, url: str, response: HTTPResponse) -> bool:
        """
        Check that the body starts where the received bytes end, or restart.

        :return: False if there is nothing to read, because the file ends there.
        """
        if response.status == 200:
            if self.received:
                self._restart()
            self._total = response.length
            self._validator = _validator(response)
        else:
            part = content_range(response)
            if not self._is_continuation(response, part):
                self._restart()
                raise BrokenDownloadError("the host returned another part of the file than was requested")
            self._total = part.total if self._total is None else self._total
            self._validator = self._validator or _validator(response)
        if self._total is not None and self._total > self._max_bytes:
            raise self._too_large(url, f"{self._total} bytes")
        if self._total is not None and (self._announced is None or self._announced[0] != self._validator):
            self._announced = self._validator, self._total
        return response.status != 416

    def _is_continuation(self, response: HTTPResponse, part: ContentRange) -> bool:
        """Return whether a response holds the next bytes of the same file, or says that there are none."""
        if self.received and _validator(response) not in (None, self._validator):
            return False
        if self._total is not None and part.total not in (None, self._total):
            return False
        if response.status == 416:
            return self.received > 0 and part.total == self.received
        return part.start == self.received and (self.received == 0 or bool(self.request_headers()))

    def _check_complete(self, url: str, response: HTTPResponse) -> None:
        """Check that the body has ended, and the file with it."""
        if self._total is not None and self.received > self._total:
            position = self.position
            self._restart()
            raise BrokenDownloadError(f"the host returned more than it announced: {position}")
        if self._total is not None and self.received != self._total:
            raise BrokenDownloadError(f"the connection ended after {self.position}")
        # A part of a file of unknown size may arrive complete without being the last one.
        framed = response.status == 200 and response.chunked
        if self._partial is None:
            if self._total is None and not framed:
                # Truncated headers look like a response without a length and without a body.
                raise BrokenDownloadError("the connection ended before the first byte of the file")
            self._create_file(url, response, b"")
        assert self._completeness is not None
        if not (self._total is not None or framed or self._completeness.proven):
            raise BrokenDownloadError(f"the connection ended mid-file, after {self.position}")
        version, size = self._announced or (None, self.received)
        self._announced = self._validator, self.received
        if version == self._validator and size != self.received:
            raise BrokenDownloadError(f"it has {self.received} bytes, but {size} were announced before")
        if self._completeness.lacks_media:
            raise self._wrong_content(url, f"{self._format.name} without media data")

    def _create_file(self, url: str, response: HTTPResponse, head: bytes) -> None:
        found = detect_format(head)
        if found is None or found.kind != self._kind:
            raise self._wrong_content(url, found.name if found else _describe(head, response))
        self._format = found
        self._completeness = Completeness(found)
        self._partial = self._create(found)

    def _append(self, length: int) -> None:
        assert self._partial is not None
        assert self._completeness is not None
        chunk = memoryview(self._checksum.buffer())[:length]
        self._checksum.update(length)
        self._partial.write(chunk)
        self._completeness.feed(chunk)
        self.received += length
        if self._on_bytes is not None and time.monotonic() >= self._progress_due:
            self._progress_due = time.monotonic() + _PROGRESS_SECONDS
            self._on_bytes(self.received, self._total)

    def _too_large(self, url: str, size: str) -> FileLimitError:
        return FileLimitError(
            f"{redacted(url)} has {size}, but max_bytes allows {self._max_bytes}: raise it if you expect "
            "such files.",
            retryable=False,
        )

    def _wrong_content(self, url: str, what: str) -> LumaDownloadError:
        return LumaDownloadError(
            f"{redacted(url)} returned {what} instead of {_NAMES[self._kind]}. Nothing of it was kept.",
            retryable=True,
        )


def content_range(response: HTTPResponse) -> ContentRange:
    """Parse a response's ``Content-Range``; all parts are None if it is malformed or contradicts itself."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not found:
        return ContentRange()
    start, end, total = (int(digits) if digits else None for digits in found.group("start", "end", "total"))
    stop = None if end is None else end + 1
    if start is not None and stop is not None and not start < stop <= (stop if total is None else total):
        return ContentRange()
    return ContentRange(start, stop, total)


def check_framing(url: str, response: HTTPResponse) -> None:
    """Raise ``LumaDownloadError`` unless a response's body has a definite end and is not compressed."""
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        value = response.headers.get(name, plain)
        if value.strip().lower() != plain:
            raise LumaDownloadError(
                f"{redacted(url)} has {name} {clean_text(value, 80)!r}, which was not requested. It is "
                "refused because its decompressed size has no bound.",
                retryable=False,
            )
    lengths = {value.strip() for value in response.headers.get_all("Content-Length", [])}
    are_legible = all(_LENGTH.fullmatch(length) for length in lengths)
    if not response.chunked and (len(lengths) > 1 or not are_legible):
        raise LumaDownloadError(
            f"{redacted(url)} has Content-Length {clean_text(', '.join(sorted(lengths)), 80)!r}. It is "
            "refused because its end is uncertain.",
            retryable=True,
        )


def _validator(response: HTTPResponse) -> str | None:
    """Return what identifies this version of the file byte for byte, if it is safe to send back."""
    etag = response.headers.get("ETag", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    date = response.headers.get("Last-Modified", "").strip()
    return date if _DATE.fullmatch(date) else None


def _describe(head: bytes, response: HTTPResponse) -> str:
    if not head:
        return "an empty file"
    content_type = clean_text(response.headers.get("Content-Type", "no type"), 80)
    beginning = clean_text(head[:40].decode("ascii", "replace"))
    return f"data of the declared type {content_type!r} that begins with {beginning!r}"
