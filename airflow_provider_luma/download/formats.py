# SPDX-License-Identifier: Apache-2.0
"""
Detect a file's format from its bytes, and whether the file is complete.

The ``filetype`` library distinguishes the formats: unlike ``puremagic`` it reads an MP4's compatible brands
and not only its first twelve bytes. MP4 brands that it doesn't know are added here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import filetype
from filetype.types import Type, image, isobmff, video

Kind = Literal["video", "image"]

HEAD_BYTES: Final = 4096
"""How much of a file's beginning :func:`detect_format` reads."""


class Format(NamedTuple):
    """Describe how files of a format are named and declared."""

    name: str
    kind: Kind
    content_type: str
    extension: str


MP4: Final = Format("MP4", "video", "video/mp4", ".mp4")
MOV: Final = Format("QuickTime", "video", "video/quicktime", ".mov")
WEBM: Final = Format("WebM", "video", "video/webm", ".webm")
JPEG: Final = Format("JPEG", "image", "image/jpeg", ".jpg")
PNG: Final = Format("PNG", "image", "image/png", ".png")
WEBP: Final = Format("WebP", "image", "image/webp", ".webp")
AVIF: Final = Format("AVIF", "image", "image/avif", ".avif")
HEIC: Final = Format("HEIC", "image", "image/heic", ".heic")
GIF: Final = Format("GIF", "image", "image/gif", ".gif")
FORMATS: Final = (MP4, MOV, WEBM, JPEG, PNG, WEBP, AVIF, HEIC, GIF)

_BOXED_VIDEOS: Final = (MP4, MOV)
_BOXED_IMAGES: Final = (AVIF, HEIC)
_INDEXES: Final = (b"moov", b"moof", b"meta")
_ENDLESS: Final = 1 << 64
_WEBM_CLUSTER: Final = b"\x1f\x43\xb6\x75"


class _Brands(isobmff.IsoBmff):  # type: ignore[misc]
    """Match files of the ISO base media family by their own or compatible brands."""

    def __init__(self, format_: Format, *brands: str) -> None:
        super().__init__(mime=format_.content_type, extension=format_.extension.lstrip("."))
        self._brands = frozenset(brands)

    def match(self, buf: bytearray) -> bool:
        if not self._is_isobmff(buf):
            return False
        major, _, compatible = self._get_ftyp(buf)
        return not self._brands.isdisjoint((major, *compatible))


class _Gif(Type):  # type: ignore[misc]
    """Match GIF files by their whole signature; filetype reads only its first three letters."""

    def __init__(self) -> None:
        super().__init__(mime=GIF.content_type, extension="gif")

    def match(self, buf: bytearray) -> bool:
        return buf.startswith((b"GIF87a", b"GIF89a"))


# MP4 files, such as fragmented ones, may name none of the brands that filetype knows.
_MODERN_MP4: Final = (
    *("iso2", "iso3", "iso4", "iso5", "iso6", "iso7", "iso8", "iso9", "isoa", "isob", "isoc"),
    *("avc1", "dash", "M4V ", "M4VH", "M4VP", "mp71", "MSNV", "hvc1", "hev1", "av01"),
)
# The order matters: an AVIF image also names MP4's brands, so that images go first.
_MATCHERS: Final = (
    _Brands(AVIF, "avif", "avis"),
    _Brands(HEIC, "heic", "heix", "heim", "heis", "hevc", "hevx"),
    video.Mov(),
    video.Mp4(),
    _Brands(MP4, *_MODERN_MP4),
    video.Webm(),
    image.Jpeg(),
    image.Png(),
    image.Webp(),
    _Gif(),
)


def detect_format(head: bytes) -> Format | None:
    """
    Detect a file's format from its first :data:`HEAD_BYTES` or more, or from all of it.

    :return: The format, or None for anything that no artifact has.
    """
    found = filetype.match(bytearray(head), _MATCHERS)
    mime = getattr(found, "mime", None)
    return next((format_ for format_ in FORMATS if format_.content_type == mime), None)


class Inspection(NamedTuple):
    """Describe a stored file. ``complete`` is whether its own structure proves its end."""

    format: Format
    bytes: int
    sha256: str
    complete: bool


def inspect(pieces: Iterable[bytes], kind: Kind) -> Inspection | None:
    """
    Read a whole file and describe it; return None if it isn't of that kind.

    :param pieces: Its bytes; each piece but the last has at least :data:`HEAD_BYTES`.
    """
    checksum, size = hashlib.sha256(), 0
    format_: Format | None = None
    completeness: Completeness | None = None
    for piece in pieces:
        if format_ is None or completeness is None:
            format_ = detect_format(piece[:HEAD_BYTES])
            if format_ is None or format_.kind != kind:
                return None
            completeness = Completeness(format_)
        completeness.feed(piece)
        checksum.update(piece)
        size += len(piece)
    if format_ is None or completeness is None or completeness.lacks_media:
        return None
    return Inspection(format_, size, checksum.hexdigest(), completeness.proven)


class Completeness:
    """
    Follow a file's structure to decide whether the file is complete.

    Needed only where HTTP doesn't say so: for bodies that simply end with the connection.
    """

    _TAILS: Final = {JPEG: b"\xff\xd9", PNG: b"\x00\x00\x00\x00IEND\xaeB`\x82", GIF: b"\x00;"}

    def __init__(self, format_: Format) -> None:
        self._format = format_
        self._size = 0
        self._tail = b""
        self._riff_size = -1
        self._boxes = _Boxes() if format_ in (*_BOXED_VIDEOS, *_BOXED_IMAGES) else None
        self._cluster = False

    def feed(self, chunk: bytes | memoryview) -> None:
        """Process the file's next bytes."""
        if self._boxes is not None:
            self._boxes.feed(chunk)
            return
        if self._format is WEBM and not self._cluster:
            self._cluster = _WEBM_CLUSTER in self._tail + bytes(chunk)
        if self._size < 8 and self._format is WEBP:
            head = self._tail + bytes(chunk[:8])
            if len(head) >= 8:
                self._riff_size = struct.unpack_from("<I", head, 4)[0] + 8
        self._size += len(chunk)
        self._tail = (self._tail + bytes(chunk[-16:]))[-16:]

    @property
    def lacks_media(self) -> bool:
        """Whether this is a video without any media data so far."""
        if self._format is WEBM:
            return not self._cluster
        return self._format in _BOXED_VIDEOS and self._boxes is not None and not self._boxes.media

    @property
    def proven(self) -> bool:
        """Whether the file is certainly complete."""
        if self._boxes is not None:
            index = b"moov" if self._format in _BOXED_VIDEOS else b"meta"
            return self._boxes.whole and self._boxes.media and index in self._boxes.seen
        if self._format is WEBP:
            return self._size == self._riff_size
        tail = self._TAILS.get(self._format)
        return tail is not None and self._tail.endswith(tail)


class _Boxes:
    """Walk the top-level boxes of an ISO base media file (ISO/IEC 14496-12)."""

    def __init__(self) -> None:
        self._skip = 0
        self._header = b""
        self._broken = False
        self._last = b""
        self.seen: set[bytes] = set()
        self.media = False

    @property
    def whole(self) -> bool:
        """Whether the last box is complete, and none must follow."""
        if self._broken or self._skip or self._header:
            return False
        # A fragmented video may continue after each fragment; only their index is certainly the last box.
        return b"moof" not in self.seen or self._last == b"mfra"

    def feed(self, chunk: bytes | memoryview) -> None:
        position = self._skip_content(len(chunk))
        while position < len(chunk) and not self._broken:
            wanted = 16 if self._header[:4] == b"\x00\x00\x00\x01" else 8
            taken = bytes(chunk[position : position + wanted - len(self._header)])
            self._header += taken
            position += len(taken)
            if len(self._header) < wanted or (wanted == 8 and self._header[:4] == b"\x00\x00\x00\x01"):
                continue
            size = int.from_bytes(self._header[8:16] if wanted == 16 else self._header[:4], "big")
            if wanted == 8 and size == 0:
                # It extends to the end of the file, which doesn't prove where that is.
                size = _ENDLESS
            self._broken = size < wanted
            self._last = self._header[4:8]
            if self._last in _INDEXES:
                self.seen.add(self._last)
            self._header = b""
            self._skip = max(0, size - wanted)
            position += self._skip_content(len(chunk) - position)

    def _skip_content(self, length: int) -> int:
        """Skip as much of the box's content as has arrived."""
        step = min(self._skip, length)
        self._skip -= step
        self.media = self.media or (step > 0 and self._last == b"mdat")
        return step
