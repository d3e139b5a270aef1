# SPDX-License-Identifier: Apache-2.0
"""Tests of detecting formats and complete files."""

from __future__ import annotations

import hashlib
import struct
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.download.formats import (
    AVIF,
    GIF,
    HEAD_BYTES,
    HEIC,
    JPEG,
    MOV,
    MP4,
    PNG,
    WEBM,
    WEBP,
    Completeness,
    Format,
    detect_format,
    inspect,
)

SAMPLES = files("airflow_provider_luma.sandbox") / "media"
VIDEO = (SAMPLES / "sample_1.mp4").read_bytes()
PHOTO = (SAMPLES / "sample_1_thumbnail.jpg").read_bytes()


def box(kind: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    return box(b"ftyp", major + b"\0\0\0\0" + b"".join(compatible))


def png() -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 17 + b"\0\0\0\0IEND\xaeB`\x82"


def webp() -> bytes:
    return b"RIFF" + struct.pack("<I", 24) + b"WEBPVP8 " + b"\0" * 16


class TestDetecting:
    def test_real_files_are_detected(self) -> None:
        assert detect_format(VIDEO[:HEAD_BYTES]) == MP4
        assert detect_format(PHOTO[:HEAD_BYTES]) == JPEG

    @pytest.mark.parametrize(
        ("head", "format_"),
        [
            (ftyp(b"isom", b"isom", b"avc1"), MP4),
            (ftyp(b"mp42", b"mp42", b"isom"), MP4),
            (ftyp(b"iso5", b"iso5", b"iso6"), MP4),
            (ftyp(b"iso6", b"dash"), MP4),
            (ftyp(b"avc1"), MP4),
            (ftyp(b"M4V ", b"M4V "), MP4),
            (ftyp(b"qt  ", b"qt  "), MOV),
            (b"\x1a\x45\xdf\xa3" + b"\x42\x82\x84webm" + b"\0" * 20, WEBM),
            (png(), PNG),
            (webp(), WEBP),
            (ftyp(b"avif", b"mif1", b"isom"), AVIF),
            (ftyp(b"avis", b"msf1", b"iso8"), AVIF),
            (ftyp(b"mif1", b"avif", b"miaf"), AVIF),
            (ftyp(b"heic", b"mif1", b"isom"), HEIC),
            (ftyp(b"mif1", b"heix"), HEIC),
            (b"GIF89a" + b"\0" * 20, GIF),
            (b"GIF87a" + b"\0" * 20, GIF),
        ],
    )
    def test_a_format_is_detected_from_its_beginning(self, head: bytes, format_: Format) -> None:
        assert detect_format(head + b"\0" * 64) == format_

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"\0",
            b"<!doctype html><html><body>ftypisom</body></html>",
            b'{"error": {"message": "expired"}}',
            b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
            b"\0\0\0\x18moovisom",
            b"\xff\xff\xff\xffftypisom\0\0\0\0isom",
            b"\0\0\0\0ftypisom",
            ftyp(b"crx ", b"crx "),
            b"GIF: what is it?" + b"\0" * 20,
            b"PK\x03\x04" + b"\0" * 40,
            b"\x1f\x8b\x08" + b"\0" * 40,
            b"\x89PNX\r\n\x1a\n",
            b"RIFF\0\0\0\0WAVEfmt ",
        ],
    )
    def test_other_files_have_no_format(self, head: bytes) -> None:
        assert detect_format(head) is None

    @given(st.binary(max_size=200))
    def test_arbitrary_bytes_raise_nothing(self, head: bytes) -> None:
        detect_format(head)
        detect_format(b"\0\0\0\x20ftyp" + head)


class TestCompleteness:
    WHOLE = (
        (MP4, VIDEO),
        (MP4, VIDEO + struct.pack(">I4sQ", 1, b"free", 16 + 1000) + b"x" * 1000),
        (MOV, ftyp(b"qt  ") + box(b"mdat", b"x" * 50) + box(b"moov", b"y" * 20)),
        (JPEG, PHOTO),
        (PNG, png()),
        (WEBP, webp()),
        (GIF, b"GIF89a" + b"x" * 50 + b"\0;"),
        (AVIF, ftyp(b"avif") + box(b"meta", b"x" * 20) + box(b"mdat", b"y" * 50)),
        (
            MP4,
            ftyp(b"iso5") + box(b"moov") + box(b"moof") + box(b"mdat", b"x" * 50) + box(b"mfra", b"y" * 40),
        ),
    )

    @pytest.mark.parametrize(("format_", "body"), WHOLE)
    @pytest.mark.parametrize("pieces", [1, 2, 50, 1000])
    def test_a_complete_file_is_proven_however_it_is_split(
        self, format_: Format, body: bytes, pieces: int
    ) -> None:
        step = max(1, len(body) // pieces)
        completeness = Completeness(format_)
        for start in range(0, len(body), step):
            completeness.feed(memoryview(body)[start : start + step])

        assert completeness.proven

    @pytest.mark.parametrize(("format_", "body"), WHOLE)
    @pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
    def test_a_part_of_a_file_is_not_proven(self, format_: Format, body: bytes, kept: float) -> None:
        completeness = Completeness(format_)
        completeness.feed(body[: int(len(body) * kept)])

        assert not completeness.proven

    @pytest.mark.parametrize(
        "body",
        [
            ftyp(b"isom") + box(b"mdat", b"x" * 50),
            ftyp(b"isom") + box(b"moov") + struct.pack(">I4s", 0, b"mdat") + b"x" * 50,
            ftyp(b"isom") + box(b"moov") + struct.pack(">I4s", 5, b"mdat") + b"x" * 50,
            ftyp(b"isom") + box(b"moov") + b"\0\0\0",
            ftyp(b"isom") + box(b"moov") + struct.pack(">I4sQ", 1, b"mdat", 15),
            ftyp(b"isom") + box(b"moov") + struct.pack(">I4s", 1, b"mdat"),
            ftyp(b"isom") + box(b"moov"),
            ftyp(b"isom") + box(b"moov") + box(b"mdat"),
            ftyp(b"isom") + box(b"moov") + box(b"moof") + box(b"mdat", b"x" * 50),
            ftyp(b"isom") + box(b"meta") + box(b"mdat", b"x" * 50),
        ],
        ids=[
            "no moov",
            "to the end",
            "too small a box",
            "odd bytes",
            "too small a long box",
            "half a header",
            "no media",
            "empty media",
            "a fragment that others may follow",
            "an image's boxes",
        ],
    )
    def test_boxes_that_do_not_define_the_end_prove_nothing(self, body: bytes) -> None:
        completeness = Completeness(MP4)
        completeness.feed(body)

        assert not completeness.proven

    @pytest.mark.parametrize(
        ("format_", "body", "lacks_media"),
        [
            (MP4, ftyp(b"isom") + box(b"moov", b"x" * 20), True),
            (MP4, ftyp(b"isom") + box(b"moov") + box(b"mdat"), True),
            (MP4, ftyp(b"isom") + box(b"moov") + box(b"mdat", b"x"), False),
            (MP4, ftyp(b"isom") + box(b"moov") + struct.pack(">I4s", 0, b"mdat") + b"x", False),
            (MP4, ftyp(b"isom") + box(b"moov") + struct.pack(">I4sQ", 1, b"mdat", 17) + b"x", False),
            (MOV, ftyp(b"qt  ") + box(b"wide") + box(b"moov"), True),
            (WEBM, b"\x1a\x45\xdf\xa3 webm", True),
            (WEBM, b"\x1a\x45\xdf\xa3 webm \x1f\x43\xb6\x75 x", False),
            (AVIF, ftyp(b"avif") + box(b"meta"), False),
            (JPEG, b"\xff\xd8\xff", False),
        ],
    )
    @pytest.mark.parametrize("step", [1, 7, 1000])
    def test_missing_media_data_is_detected_however_the_file_is_split(
        self, format_: Format, body: bytes, lacks_media: bool, step: int
    ) -> None:
        completeness = Completeness(format_)
        for start in range(0, len(body), step):
            completeness.feed(memoryview(body)[start : start + step])

        assert completeness.lacks_media is lacks_media

    def test_a_webm_is_never_proven(self) -> None:
        completeness = Completeness(WEBM)
        completeness.feed(b"\x1a\x45\xdf\xa3")

        assert not completeness.proven

    @given(st.lists(st.binary(max_size=40), max_size=20))
    def test_boxes_are_the_same_however_the_bytes_are_split(self, chunks: list[bytes]) -> None:
        whole, cut = Completeness(MP4), Completeness(MP4)
        whole.feed(b"".join(chunks))
        for chunk in chunks:
            cut.feed(chunk)

        assert whole.proven == cut.proven


class TestInspecting:
    def test_a_file_is_described(self) -> None:
        pieces = [VIDEO[start : start + HEAD_BYTES] for start in range(0, len(VIDEO), HEAD_BYTES)]

        assert inspect(pieces, "video") == (MP4, len(VIDEO), hashlib.sha256(VIDEO).hexdigest(), True)

    def test_half_a_file_is_described_as_incomplete(self) -> None:
        found = inspect([PHOTO[:5000]], "image")

        assert found is not None
        assert (found.bytes, found.complete) == (5000, False)

    @pytest.mark.parametrize("pieces", [[], [b"<html>"], [PHOTO], [ftyp(b"isom") + box(b"moov")]])
    def test_another_kind_of_file_has_no_description(self, pieces: list[bytes]) -> None:
        assert inspect(pieces, "video") is None
