# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.sandbox.media_host import FileUrls, MediaFile, media_answer, media_file

VIDEO = media_file("some-task", "video.mp4")


def whole(file: MediaFile) -> bytes:
    return b"".join(file.slices(0, file.size))


class TestMediaFile:
    def test_a_video_is_an_mp4_whose_index_comes_before_its_pictures(self) -> None:
        data = whole(VIDEO)
        assert data[4:8] == b"ftyp"
        assert data.index(b"moov") < data.index(b"mdat")
        assert len(data) == VIDEO.size < 60_000

    @pytest.mark.parametrize("name", ["thumbnail.jpg", "last_frame.jpg"])
    def test_pictures_are_jpegs(self, name: str) -> None:
        data = whole(media_file("some-task", name))  # type: ignore[arg-type]
        assert data.startswith(b"\xff\xd8\xff")
        assert data.endswith(b"\xff\xd9")

    def test_there_are_several_samples(self) -> None:
        assert len({whole(media_file(f"task-{number}", "video.mp4")) for number in range(50)}) == 3

    def test_a_video_of_a_given_size_is_a_sample_and_one_free_box(self) -> None:
        size = 3_000_000
        data = whole(media_file("some-task", "video.mp4", size))
        boxes, position = [], 0
        while position < size:
            length, kind = struct.unpack_from(">I4s", data, position)
            if length == 1:
                (length,) = struct.unpack_from(">Q", data, position + 8)
            boxes.append(kind)
            position += length
        assert position == size == len(data)
        assert boxes[0] == b"ftyp"
        assert boxes[-1] == b"free"

    def test_videos_of_different_tasks_differ_in_their_filler(self) -> None:
        assert len({whole(media_file(f"task-{number}", "video.mp4", 200_000)) for number in range(20)}) == 20

    def test_a_size_too_small_for_a_sample_is_an_error_that_names_the_smallest(self) -> None:
        with pytest.raises(ValueError, match=r"video_bytes must be at least \d+.* got 1000"):
            media_file("some-task", "video.mp4", 1000)

    @given(st.integers(0, 2_500_000), st.integers(0, 2_500_000))
    def test_any_slice_is_that_part_of_the_whole(self, start: int, length: int) -> None:
        file = media_file("sliced", "video.mp4", 2_500_000)
        stop = min(file.size, start + length)
        assert b"".join(file.slices(start, stop)) == SLICED[start:stop]


SLICED = whole(media_file("sliced", "video.mp4", 2_500_000))


class TestMediaAnswer:
    def test_without_a_range_it_is_the_whole_file(self) -> None:
        answer = media_answer(VIDEO, {})
        assert (answer.status, answer.start, answer.stop) == (200, 0, VIDEO.size)
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "video/mp4"

    @pytest.mark.parametrize(
        ("requested", "start", "stop"),
        [
            ("bytes=0-99", 0, 100),
            ("bytes=100-", 100, VIDEO.size),
            ("bytes=-100", VIDEO.size - 100, VIDEO.size),
            ("bytes=-999999999", 0, VIDEO.size),
            (f"bytes=5-{VIDEO.size * 2}", 5, VIDEO.size),
        ],
    )
    def test_one_byte_range_is_answered_in_part(self, requested: str, start: int, stop: int) -> None:
        answer = media_answer(VIDEO, {"range": requested})
        assert (answer.status, answer.start, answer.stop) == (206, start, stop)
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{VIDEO.size}"

    @pytest.mark.parametrize("requested", ["bytes=", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=a-b"])
    def test_an_invalid_range_is_ignored(self, requested: str) -> None:
        assert media_answer(VIDEO, {"range": requested}).status == 200

    @pytest.mark.parametrize("requested", [f"bytes={VIDEO.size}-", "bytes=9-3", "bytes=-0"])
    def test_a_range_that_holds_nothing_is_a_416(self, requested: str) -> None:
        answer = media_answer(VIDEO, {"range": requested})
        assert answer.status == 416
        assert answer.headers["content-range"] == f"bytes */{VIDEO.size}"

    def test_if_range_with_the_same_etag_continues(self) -> None:
        assert media_answer(VIDEO, {"range": "bytes=10-", "if-range": VIDEO.etag}).status == 206

    def test_if_range_with_another_etag_starts_over(self) -> None:
        answer = media_answer(VIDEO, {"range": "bytes=10-", "if-range": VIDEO.etag}, etag='"changed"')
        assert (answer.status, answer.start) == (200, 0)
        assert answer.headers["etag"] == '"changed"'

    def test_a_host_without_ranges_does_not_offer_them(self) -> None:
        answer = media_answer(VIDEO, {"range": "bytes=10-"}, ranges=False)
        assert (answer.status, answer.headers["accept-ranges"]) == (200, "none")

    def test_an_unchanged_file_is_not_sent_again(self) -> None:
        assert media_answer(VIDEO, {"if-none-match": VIDEO.etag}).status == 304


class TestFileUrls:
    def test_a_plain_url_never_expires(self) -> None:
        urls = FileUrls("http://media.example/", lambda: 0.0)
        assert urls.url("one", "video.mp4") == "http://media.example/media/one/video.mp4"
        assert urls.is_valid("/media/one/video.mp4", "", use=True)

    def test_a_signed_url_is_valid_until_it_expires(self) -> None:
        now = 1000.0
        urls = FileUrls("http://media.example", lambda: now, expire_after=60)
        url = urlsplit(urls.url("one", "video.mp4"))
        now = 1059.0
        assert urls.is_valid(url.path, url.query, use=True)
        now = 1060.0
        assert not urls.is_valid(url.path, url.query, use=True)

    def test_each_url_has_its_own_uses(self) -> None:
        urls = FileUrls("http://media.example", lambda: 0.0, uses=2)
        url = urlsplit(urls.url("one", "video.mp4"))
        assert [urls.is_valid(url.path, url.query, use=True) for _ in range(3)] == [True, True, False]
        fresh = urlsplit(urls.url("one", "video.mp4"))
        assert urls.is_valid(fresh.path, fresh.query, use=True)

    @pytest.mark.parametrize("query", ["", "exp=never&n=1&sig=0", "exp=x&n=1&sig=é", "sig="])
    def test_a_url_with_another_signature_is_invalid(self, query: str) -> None:
        urls = FileUrls("http://media.example", lambda: 0.0, uses=2)
        assert not urls.is_valid("/media/one/video.mp4", query, use=True)

    def test_a_signature_holds_for_its_own_file_alone(self) -> None:
        urls = FileUrls("http://media.example", lambda: 0.0, expire_after=60)
        url = urlsplit(urls.url("one", "video.mp4"))
        assert not urls.is_valid("/media/two/video.mp4", url.query, use=True)
