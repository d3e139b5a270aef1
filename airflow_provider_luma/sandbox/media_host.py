# SPDX-License-Identifier: Apache-2.0
"""
The host that keeps the files: their bytes, the part that a request gets, and the URLs that expire.

Videos are samples of three seconds. A video of a given size is a sample followed by an MP4 ``free`` box of
filler, so that players still play it.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import random
import re
import secrets
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple
from urllib.parse import parse_qs

FileName = Literal["video.mp4", "thumbnail.jpg", "last_frame.jpg"]
CONTENT_TYPES: dict[str, str] = {
    "video.mp4": "video/mp4",
    "thumbnail.jpg": "image/jpeg",
    "last_frame.jpg": "image/jpeg",
}
WIDTH, HEIGHT, DURATION = 640, 352, 3.0

_SAMPLES = 3
_SUFFIXES = {"video.mp4": ".mp4", "thumbnail.jpg": "_thumbnail.jpg", "last_frame.jpg": "_last_frame.jpg"}
_CHUNK = 256 * 1024
_PATTERN_SIZE = 1024 * 1024 + 7
_FREE_BOX = struct.Struct(">I4sQ")
_LAST_MODIFIED = "Sun, 22 Dec 2024 13:38:40 GMT"
_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")


@cache
def _sample(number: int, name: FileName) -> bytes:
    return files(__package__).joinpath("media", f"sample_{number}{_SUFFIXES[name]}").read_bytes()


@cache
def _pattern() -> memoryview:
    """Return filler that doesn't compress, twice, so that a chunk may start anywhere in the first copy."""
    return memoryview(random.Random(1).randbytes(_PATTERN_SIZE) * 2)  # noqa: S311 - no secret


class MediaFile(NamedTuple):
    """One file: a head that is kept in memory and filler that is made as it is sent."""

    head: bytes
    size: int
    phase: int
    etag: str
    content_type: str

    def slices(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """Yield the bytes from ``start`` to before ``stop``, in pieces."""
        if start < len(self.head):
            yield self.head[start:stop]
            start = len(self.head)
        pattern = _pattern()
        while start < stop:
            length = min(_CHUNK, stop - start)
            offset = (start + self.phase) % _PATTERN_SIZE
            yield pattern[offset : offset + length]
            start += length


def check_video_bytes(size: int) -> None:
    """Refuse a size that doesn't hold every sample, with a ``ValueError`` that names the smallest."""
    smallest = max(len(_sample(number, "video.mp4")) for number in range(1, _SAMPLES + 1)) + _FREE_BOX.size
    if size < smallest:
        raise ValueError(f"video_bytes must be at least {smallest}, the size of the sample; got {size!r}.")


def media_file(task_id: str, name: FileName, video_bytes: int | None = None) -> MediaFile:
    """
    Return a task's file; the same task always has the same bytes.

    :param video_bytes: Size of a video. None for the bare sample.
    :raises ValueError: ``video_bytes`` is too small for the sample.
    """
    fingerprint = zlib.crc32(task_id.encode())
    head = _sample(fingerprint % _SAMPLES + 1, name)
    size = len(head)
    if name == "video.mp4" and video_bytes is not None:
        check_video_bytes(video_bytes)
        head += _FREE_BOX.pack(1, b"free", video_bytes - len(head))
        size = video_bytes
    etag = f'"{fingerprint:08x}-{size:x}-{len(name):x}"'
    return MediaFile(head, size, fingerprint % _PATTERN_SIZE, etag, CONTENT_TYPES[name])


class MediaAnswer(NamedTuple):
    """The bytes of a file that a request gets, with status and headers."""

    status: int
    headers: dict[str, str]
    start: int
    stop: int


def media_answer(
    file: MediaFile,
    request_headers: Mapping[str, str],
    *,
    ranges: bool = True,
    etag: str | None = None,
    total_off: int = 0,
) -> MediaAnswer:
    """
    Answer a GET or HEAD (RFC 9110: one byte range, ``If-Range``, ``If-None-Match``).

    :param request_headers: Headers with lower-case names.
    :param ranges: False to behave like a host that ignores ranges.
    :param etag: ETag instead of the file's own.
    :param total_off: Bytes by which the total in a Content-Range differs from the file's size.
    """
    total = max(0, file.size + total_off)
    etag = etag or file.etag
    headers = {
        "content-type": file.content_type,
        "etag": etag,
        "last-modified": _LAST_MODIFIED,
        "access-control-allow-origin": "*",
        "accept-ranges": "bytes" if ranges else "none",
    }
    if request_headers.get("if-none-match") in (etag, "*"):
        return MediaAnswer(304, headers, 0, 0)
    if_range = request_headers.get("if-range")
    requested = _RANGE.match(request_headers.get("range", ""))
    if requested and requested.groups() != ("", "") and ranges and if_range in (None, etag, _LAST_MODIFIED):
        first, last = requested.groups()
        start = int(first) if first else max(0, file.size - int(last))
        stop = min(file.size, int(last) + 1) if first and last else file.size
        if start >= file.size or start >= stop:
            headers["content-range"] = f"bytes */{total}"
            return MediaAnswer(416, headers, 0, 0)
        headers["content-range"] = f"bytes {start}-{stop - 1}/{total}"
        return MediaAnswer(206, headers, start, stop)
    return MediaAnswer(200, headers, 0, file.size)


class FileUrls:
    """
    Make the URLs of tasks' files and check whether one is still valid.

    :param now: Returns the wall-clock epoch.
    :param expire_after: Seconds for which a URL is valid. None: without end.
    :param uses: How often a URL may be used. None: without limit.
    """

    def __init__(
        self,
        base_url: str,
        now: Callable[[], float],
        *,
        expire_after: float | None = None,
        uses: int | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._now = now
        self._expire_after = expire_after
        self._uses = uses
        self._signed = expire_after is not None or uses is not None
        self._secret = secrets.token_bytes(16)
        self._serial = itertools.count(1)
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def url(self, task_id: str, name: FileName) -> str:
        """Return a URL of a file; a new one at each call when URLs expire."""
        path = f"/media/{task_id}/{name}"
        if not self._signed:
            return f"{self._base_url}{path}"
        expires = "never" if self._expire_after is None else f"{self._now() + self._expire_after:.3f}"
        serial = next(self._serial)
        return f"{self._base_url}{path}?exp={expires}&n={serial}&sig={self._sign(path, expires, str(serial))}"

    def is_valid(self, path: str, query: str, *, use: bool) -> bool:
        """Return whether a URL is valid; ``use`` counts this as one of its uses."""
        if not self._signed:
            return True
        given = parse_qs(query)
        expires, serial, signature = (given.get(key, [""])[0] for key in ("exp", "n", "sig"))
        if not hmac.compare_digest(signature.encode(), self._sign(path, expires, serial).encode()):
            return False
        if expires != "never" and self._now() >= float(expires):
            return False
        if self._uses is None or not use:
            return True
        with self._lock:
            self._used[signature] += 1
            return self._used[signature] <= self._uses

    def _sign(self, path: str, expires: str, serial: str) -> str:
        message = f"{path}|{expires}|{serial}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:32]
