# SPDX-License-Identifier: Apache-2.0
"""One file under way: what has come of it, where it goes, and what to ask its host for next."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Final, NamedTuple

from airflow_provider_luma.download.addresses import same_place, shown
from airflow_provider_luma.download.checksum import BackgroundSha256
from airflow_provider_luma.download.file_store import Partial
from airflow_provider_luma.download.formats import HEAD_BYTES, Completeness, Format, Kind, recognise
from airflow_provider_luma.exceptions import LumaDownloadError
from airflow_provider_luma.text import clean_text

_PROGRESS_SECONDS: Final = 5.0
# Python refuses to read thousands of digits, and no file has as many bytes as 19 digits can tell.
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_CONTENT_RANGE: Final = re.compile(
    r"bytes +(?:(?P<start>[0-9]{1,18})-(?P<end>[0-9]{1,18})|\*)/(?:(?P<total>[0-9]{1,18})|\*)",
    re.ASCII | re.IGNORECASE,
)
# What may be sent back as it came: no control characters, and short enough for a request's headers.
_STRONG_ETAG: Final = re.compile(r'(?!W/)"?[\x21\x23-\x7e\x80-\xff]{1,512}"?')
_DATE: Final = re.compile(r"[A-Za-z0-9 ,:+-]{1,64}", re.ASCII)
_NAMES: Final[dict[Kind, str]] = {"video": "a video", "image": "an image"}

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


class FileError(LumaDownloadError):
    """The file can't be kept, under whatever link: it is too large, or its time is over."""


class ContentRange(NamedTuple):
    """Which part of a file an answer holds; ``stop`` is the first byte after it. None where it isn't said."""

    start: int | None = None
    stop: int | None = None
    total: int | None = None


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
        self._url = ""
        # The size that was last announced for a version of the file; it outlives starting over.
        self._announced: tuple[str | None, int] | None = None
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

    def follow(self, url: str) -> None:
        """
        Take what comes next from this link.

        The bytes of two files are never mixed: unless the link leads to the same place and the host vouches
        for the same bytes there, with a strong ETag, all starts over.
        """
        vouched = self._validator is not None and _STRONG_ETAG.fullmatch(self._validator)
        if url != self._url and not (vouched and same_place(url, self._url)):
            self._start_over()
            self._announced = None
        self._url = url

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
        coming = self._expects(url, response)
        # Short reads come only at the end of the body.
        while coming and (length := response.readinto(self._checksum.buffer())):
            if self.received + length > self._max_bytes:
                raise self._too_large(url, f"more than {self._max_bytes} bytes")
            if self._partial is None:
                if length < HEAD_BYTES and self._total not in (None, length):
                    break
                self._begin_file(url, response, bytes(self._checksum.buffer()[: min(length, HEAD_BYTES)]))
            self._keep(length)
        self._check_end(url, response)

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

    def _expects(self, url: str, response: HTTPResponse) -> bool:
        """
        Make sure that the body begins where the bytes so far end, or else start over.

        :return: False when there is nothing to come, because the file has ended there.
        """
        if response.status == 200:
            if self.received:
                self._start_over()
            self._total = response.length
            self._validator = _validator(response)
        else:
            part = content_range(response)
            if not self._continues(response, part):
                self._start_over()
                raise BrokenTransferError("the host sent another part of the file than the one asked for")
            self._total = part.total if self._total is None else self._total
            self._validator = self._validator or _validator(response)
        if self._total is not None and self._total > self._max_bytes:
            raise self._too_large(url, f"{self._total} bytes")
        if self._total is not None and (self._announced is None or self._announced[0] != self._validator):
            self._announced = self._validator, self._total
        return response.status != 416

    def _continues(self, response: HTTPResponse, part: ContentRange) -> bool:
        """Whether an answer holds the next bytes of the same file, or says that there are none."""
        if self.received and _validator(response) not in (None, self._validator):
            return False
        if self._total is not None and part.total not in (None, self._total):
            return False
        if response.status == 416:
            return self.received > 0 and part.total == self.received
        return part.start == self.received and (self.received == 0 or bool(self.request_headers()))

    def _check_end(self, url: str, response: HTTPResponse) -> None:
        """Make sure that the body, and the file with it, has come to its end."""
        if self._total is not None and self.received > self._total:
            standing = self.standing
            self._start_over()
            raise BrokenTransferError(f"the host sent more than it announced: {standing}")
        if self._total is not None and self.received != self._total:
            raise BrokenTransferError(f"the connection ended after {self.standing}")
        # A part of a file of unknown size may come whole without being the last one.
        framed = response.status == 200 and response.chunked
        if self._partial is None:
            if self._total is None and not framed:
                # Headers that break off look like an answer without a length and without a body.
                raise BrokenTransferError("the connection ended before the first byte of the file")
            self._begin_file(url, response, b"")
        assert self._completeness is not None
        if not (self._total is not None or framed or self._completeness.proven):
            raise BrokenTransferError(f"the connection ended in mid-file, after {self.standing}")
        version, size = self._announced or (None, self.received)
        self._announced = self._validator, self.received
        if version == self._validator and size != self.received:
            raise BrokenTransferError(f"it has {self.received} bytes, but was announced with {size} before")
        if self._completeness.hollow:
            raise LumaDownloadError(
                f"{shown(url)} sent {self._format.name} without a single picture in place of a video. "
                "Nothing of it was kept.",
                retryable=True,
            )

    def _begin_file(self, url: str, response: HTTPResponse, head: bytes) -> None:
        found = recognise(head)
        if found is None or found.kind != self._kind:
            what = found.name if found else _described(head, response)
            raise LumaDownloadError(
                f"{shown(url)} sent {what} in place of {_NAMES[self._kind]}. Nothing of it was kept.",
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

    def _too_large(self, url: str, size: str) -> FileError:
        return FileError(
            f"{shown(url)} has {size}, but max_bytes allows {self._max_bytes}: raise it if you expect "
            "such files.",
            retryable=False,
        )


def content_range(response: HTTPResponse) -> ContentRange:
    """Return what an answer's ``Content-Range`` says; nothing when it is illegible or contradicts itself."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not found:
        return ContentRange()
    start, end, total = (int(digits) if digits else None for digits in found.group("start", "end", "total"))
    stop = None if end is None else end + 1
    if start is not None and stop is not None and not start < stop <= (stop if total is None else total):
        return ContentRange()
    return ContentRange(start, stop, total)


def check_framing(url: str, response: HTTPResponse) -> None:
    """
    Make sure that it is certain where an answer's body ends, and that it is not packed.

    :raises LumaDownloadError: when it isn't.
    """
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        value = response.headers.get(name, plain)
        if value.strip().lower() != plain:
            raise LumaDownloadError(
                f"{shown(url)} is sent with {name} {clean_text(value, 80)!r} though none was asked for. What "
                "it would unpack to can't be bounded, so it is refused.",
                retryable=False,
            )
    lengths = {value.strip() for value in response.headers.get_all("Content-Length", [])}
    legible = all(_LENGTH.fullmatch(length) for length in lengths)
    if not response.chunked and (len(lengths) > 1 or not legible):
        raise LumaDownloadError(
            f"{shown(url)} is sent with Content-Length {clean_text(', '.join(sorted(lengths)), 80)!r}: "
            "where it would end is uncertain, so it is refused.",
            retryable=True,
        )


def _validator(response: HTTPResponse) -> str | None:
    """Return what identifies this version of the file, if it does so byte for byte and can be sent back."""
    etag = response.headers.get("ETag", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    date = response.headers.get("Last-Modified", "").strip()
    return date if _DATE.fullmatch(date) else None


def _described(head: bytes, response: HTTPResponse) -> str:
    if not head:
        return "an empty file"
    content_type = clean_text(response.headers.get("Content-Type", "no type"), 80)
    beginning = clean_text(head[:40].decode("ascii", "replace"))
    return f"something declared as {content_type!r} that begins with {beginning!r}"
