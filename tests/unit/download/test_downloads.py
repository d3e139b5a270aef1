# SPDX-License-Identifier: Apache-2.0
"""Tests of downloads from hosts in memory: which URL is used, and when a file is complete."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from airflow_provider_luma.download import fetcher as fetcher_module
from airflow_provider_luma.download.addresses import is_public
from airflow_provider_luma.download.downloader import Downloader, FileFailure, FileRecord
from airflow_provider_luma.download.file_store import FileStore
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.exceptions import (
    LumaAuthError,
    LumaConfigError,
    LumaDownloadError,
    LumaError,
    LumaInterruptedError,
    LumaMissingArtifactError,
    LumaUnsafeLinkError,
)
from airflow_provider_luma.sandbox.media_host import media_file
from airflow_provider_luma.text import clean_text
from tests.support.fake_net import Answer, FakeNet, Get, UrlRelay, chunked, reply

SIZE = 1_000_000
ETAG = 'ETag: "one"'
REFUSALS = [400, 401, 402, 403, 404, 405, 410, 451]


def video_bytes(name: str, size: int = SIZE) -> bytes:
    file = media_file(name, "video.mp4", size)
    return b"".join(bytes(piece) for piece in file.slices(0, size))


VIDEO = video_bytes("one")
OTHER = video_bytes("another", SIZE + 1000)


def part(body: bytes, start: int, stop: int, total: int | str, *headers: str, **how: Any) -> bytes:
    content_range = f"Content-Range: bytes {start}-{stop - 1}/{total}"
    return reply(body[start:stop], content_range, *headers, status=206, **how)


def _start(get: Get) -> int:
    return int(get.headers["range"].removeprefix("bytes=").removesuffix("-"))


class Lab:
    """Download from hosts that return a list of responses by URL, the last one repeatedly."""

    def __init__(self, mocker: MockerFixture) -> None:
        self.net = FakeNet(mocker, self._answer)
        self.scripts: dict[str, list[bytes | Answer]] = {}
        self.fs = MemoryFileSystem()
        self.route_settings: dict[str, Any] = {}

    def close(self) -> None:
        # One store serves all file systems of this kind.
        self.fs.store.clear()

    def host(self, url: str, *answers: bytes | Answer) -> None:
        self.scripts[url] = list(answers)

    def _answer(self, get: Get) -> bytes:
        script = (
            self.scripts.get(get.url) or self.scripts.get(get.url.partition("?")[0]) or [reply(status=404)]
        )
        answer = script.pop(0) if len(script) > 1 else script[0]
        return answer if isinstance(answer, bytes) else answer(get)

    def run(self, relay: UrlRelay, ids: Iterable[str] = ("a",), **options: Any) -> list[Any]:
        defaults = {"attempts": 3, "backoff": 1e-6, "backoff_max": 1e-6, "max_concurrency": 1}
        downloader = Downloader(
            relay,  # type: ignore[arg-type]
            FileStore(self.fs, "/videos", label="memory://videos", owner="lab"),
            self.net.route(**self.route_settings),
            options=DownloadOptions(**{**defaults, **options}),
        )
        return list(downloader.run(list(ids)))

    def one(self, *urls: Iterable[str], **options: Any) -> FileRecord | FileFailure:
        """Download one file; the relay returns these sets of URLs one after the other."""
        self.relay = UrlRelay({"a": urls}, options.pop("artifact", "video"))
        [outcome] = self.run(self.relay, **options)
        return outcome  # type: ignore[no-any-return]

    def kept(self, *urls: Iterable[str], **options: Any) -> bytes:
        outcome = self.one(*urls, **options)
        assert isinstance(outcome, FileRecord), outcome
        body = self.fs.cat_file(f"/videos/{outcome.path.rpartition('/')[2]}")
        assert len(body) == outcome.bytes
        return bytes(body)

    def refused(self, *urls: Iterable[str], **options: Any) -> LumaError:
        outcome = self.one(*urls, **options)
        assert isinstance(outcome, FileFailure), outcome
        assert self.fs.find("/videos") == []
        return outcome.error

    def requested(self) -> list[str]:
        return [get.url for get in self.net.seen]


@pytest.fixture
def lab(mocker: MockerFixture) -> Iterator[Lab]:
    lab = Lab(mocker)
    yield lab
    lab.close()


class TestTotals:
    """A file is complete only when it has every length that was announced for it."""

    URL = "http://cdn.example/v.mp4"

    def take(self, lab: Lab, *answers: bytes | Answer, **options: Any) -> bytes:
        lab.host("cdn.example/v.mp4", *answers)
        return lab.kept([self.URL], **options)

    def refuse(self, lab: Lab, *answers: bytes | Answer, **options: Any) -> LumaError:
        lab.host("cdn.example/v.mp4", *answers)
        return lab.refused([self.URL], **options)

    def test_a_range_that_ends_before_its_own_total_is_not_the_end(self, lab: Lab) -> None:
        body = self.take(
            lab,
            chunked(VIDEO[:600_000], ETAG, ends=False),
            lambda get: part(VIDEO, _start(get), _start(get) + 200_000, SIZE, ETAG),
            lambda get: part(VIDEO, _start(get), SIZE, SIZE, ETAG),
        )

        assert body == VIDEO
        assert len(lab.net.seen) == 3

    def test_a_range_that_always_ends_early_never_makes_a_complete_file(self, lab: Lab) -> None:
        error = self.refuse(
            lab,
            chunked(VIDEO[:600_000], ETAG, ends=False),
            lambda get: part(VIDEO, _start(get), 700_000, SIZE, ETAG) if _start(get) < 700_000 else b"",
        )

        assert "700000 of 1000000 bytes" in str(error)

    @pytest.mark.parametrize("total", [SIZE - 1, SIZE + 1, 600_000])
    def test_a_range_of_a_file_of_another_size_is_not_appended(self, lab: Lab, total: int) -> None:
        broken = reply(VIDEO[:500_000], ETAG, length=SIZE)
        another = part(VIDEO + b"x", 500_000, total, total, ETAG)

        assert self.take(lab, broken, another, reply(VIDEO, ETAG)) == VIDEO
        assert "range" not in lab.net.seen[2].headers

    def test_a_host_with_contradictory_sizes_is_an_error(self, lab: Lab) -> None:
        broken = reply(VIDEO[:500_000], ETAG, length=SIZE)
        another = part(VIDEO, 500_000, 600_000, 600_000, ETAG)

        error = self.refuse(lab, broken, another, attempts=2)

        assert "another part of the file" in str(error)

    def test_the_total_of_a_range_is_compared_with_later_ranges(self, lab: Lab) -> None:
        body = self.take(
            lab,
            chunked(VIDEO[:600_000], ETAG, ends=False),
            lambda get: part(VIDEO, _start(get), _start(get) + 100_000, SIZE, ETAG),
            lambda get: part(VIDEO, _start(get), 800_000, 800_000, ETAG),
            reply(VIDEO, ETAG),
        )

        assert body == VIDEO

    @pytest.mark.parametrize("header", [ETAG, "X: none"])
    @pytest.mark.parametrize("way", ["length", "chunks"])
    def test_a_file_that_is_shorter_than_announced_is_complete_only_if_that_is_confirmed(
        self, lab: Lab, header: str, way: str
    ) -> None:
        short = video_bytes("one", 600_000)
        answer = reply(short, header) if way == "length" else chunked(short, header)

        body = self.take(lab, reply(VIDEO[:300_000], header, length=SIZE), answer, answer)

        assert body == short
        assert len(lab.net.seen) == 3

    def test_a_new_version_of_a_file_may_have_another_size(self, lab: Lab) -> None:
        short = video_bytes("one", 600_000)

        broken = reply(VIDEO[:300_000], ETAG, length=SIZE)
        for number, whole in enumerate([reply(short, 'ETag: "two"'), chunked(short, 'ETag: "three"')], 1):
            assert self.take(lab, broken, whole, on_existing="replace") == short
            assert len(lab.net.seen) == 2 * number

    def test_a_file_of_unknown_size_is_complete_when_the_host_says_that_there_is_no_more(
        self, lab: Lab
    ) -> None:
        # The structure of a WebM never proves that it is complete.
        webm = b"\x1a\x45\xdf\xa3\x42\x82\x84webm\x1f\x43\xb6\x75" + b"x" * 50_000
        body = self.take(
            lab,
            reply(webm[:20_000], ETAG, framed=False),
            lambda get: part(webm, _start(get), len(webm), "*", ETAG),
            lambda get: reply(b"no more", f"Content-Range: bytes */{_start(get)}", ETAG, status=416),
        )

        assert body == webm

    @pytest.mark.parametrize(
        "lie",
        [
            "bytes 500000-499999/1000000",
            "bytes 500000-1000000/1000000",
            "bytes 499999-999999/1000000",
            "bytes */1000000",
            "bytes 500000-999999/",
            "items 500000-999999/1000000",
            f"bytes 500000-{'9' * 5000}/*",
            f"bytes {'9' * 5000}-{'9' * 5000}/{'9' * 5000}",
        ],
    )
    def test_a_range_that_contradicts_itself_is_not_appended(self, lab: Lab, lie: str) -> None:
        answers = (
            reply(VIDEO[:500_000], ETAG, length=SIZE),
            reply(VIDEO[500_000:], f"Content-Range: {lie}", ETAG, status=206),
        )

        assert self.take(lab, *answers, reply(VIDEO, ETAG)) == VIDEO

    def test_a_host_that_sends_more_than_its_range_announced_starts_over(self, lab: Lab) -> None:
        more = reply(
            VIDEO[500_000:] + b"more", "Content-Range: bytes 500000-999999/1000000", ETAG, status=206
        )

        assert self.take(lab, reply(VIDEO[:500_000], ETAG, length=SIZE), more, reply(VIDEO, ETAG)) == VIDEO

    @pytest.mark.parametrize("fields", [["5"], ["1e6"], ["-1"], ["9" * 5000], ["1000000", "500000"]])
    def test_a_malformed_or_contradictory_length_is_refused(self, lab: Lab, fields: list[str]) -> None:
        headers = [f"Content-Length: {field}" for field in fields]
        error = self.refuse(lab, reply(VIDEO, ETAG, *headers, framed=fields == ["5"]))

        assert isinstance(error, LumaDownloadError)
        assert len(str(error)) < 500

    def test_chunks_without_an_end_are_incomplete_even_if_the_video_is_not(self, lab: Lab) -> None:
        assert "IncompleteRead" in str(self.refuse(lab, chunked(VIDEO, ends=False)))


class TestUrls:
    """A video has several URLs, and a bad one of them doesn't fail the file."""

    D, R, U = "http://cdn.example/clean.mp4", "http://raw.example/raw.mp4", "http://cdn.example/plain.mp4"

    def host(self, lab: Lab, *alive: str) -> None:
        for url in alive:
            lab.host(url.removeprefix("http://"), reply(VIDEO, ETAG))

    @pytest.mark.parametrize("status", REFUSALS)
    def test_a_dead_url_leads_to_the_next_one(self, lab: Lab, status: int) -> None:
        lab.host("cdn.example/clean.mp4", reply(b"<Error/>", status=status))
        self.host(lab, self.R)

        assert lab.kept([self.D, self.R, self.U]) == VIDEO
        # The dead URL came back unchanged, and was left out.
        assert lab.requested() == ["cdn.example/clean.mp4", "raw.example/raw.mp4"]
        assert lab.relay.queried == ["a", "a"]

    @pytest.mark.parametrize("status", REFUSALS)
    def test_an_expired_url_is_replaced_by_a_fresh_one_of_its_kind(self, lab: Lab, status: int) -> None:
        lab.host("cdn.example/clean.mp4?sig=1", reply(status=status))
        self.host(lab, self.D, self.R)

        assert lab.kept([f"{self.D}?sig=1", self.R], [f"{self.D}?sig=2", self.R]) == VIDEO
        assert lab.requested() == ["cdn.example/clean.mp4?sig=1", "cdn.example/clean.mp4?sig=2"]

    def test_the_relay_is_queried_for_fresh_urls_once_per_file(self, lab: Lab) -> None:
        sets = [[f"{self.D}?{n}", f"{self.R}?{n}", f"{self.U}?{n}"] for n in range(9)]

        error = lab.refused(*sets)

        assert lab.relay.queried == ["a", "a"]
        assert lab.requested() == [
            "cdn.example/clean.mp4?0",
            "cdn.example/clean.mp4?1",
            "raw.example/raw.mp4?1",
            "cdn.example/plain.mp4?1",
        ]
        assert [str(error).count(url) for url in (self.D, self.R, self.U)] == [1, 1, 1]
        assert error.retryable

    @pytest.mark.parametrize(
        "bad",
        [
            "http://10.0.0.1/v.mp4",
            "http://private.example/v.mp4",
            "ftp://cdn.example/v.mp4",
            "https://a..b/v",
            "http://redirecting.example/v.mp4",
        ],
    )
    def test_an_unsafe_url_leads_to_the_next_one(self, lab: Lab, bad: str) -> None:
        lab.net.addresses["private.example"] = ["10.0.0.1"]
        lab.host("redirecting.example/v.mp4", reply(b"", "Location: http://10.0.0.1/v.mp4", status=302))
        self.host(lab, self.R)

        assert lab.kept([bad, self.R]) == VIDEO
        assert lab.relay.queried == ["a"]
        assert all(address == "1.1.1.1" for address, _ in lab.net.connected)

    def test_unsafe_urls_alone_are_an_unsafe_link_error(self, lab: Lab) -> None:
        error = lab.refused(["http://10.0.0.1/v.mp4", "http://192.168.0.1/v.mp4", "https://a..b/v"])

        assert isinstance(error, LumaUnsafeLinkError)
        assert not error.retryable
        assert all(
            text in str(error) for text in ("10.0.0.1", "192.168.0.1", "a..b", "allowed_artifact_hosts")
        )
        assert lab.net.connected == []

    @pytest.mark.parametrize(
        "answer",
        [
            reply(b"<html>gone</html>"),
            b"",
            reply(status=500),
            reply(VIDEO, "Content-Encoding: br"),
            chunked(b""),
        ],
        ids=["a page", "nothing", "500", "packed", "empty"],
    )
    def test_a_url_that_returns_no_video_leads_to_the_next_one(self, lab: Lab, answer: bytes) -> None:
        lab.host("cdn.example/clean.mp4", answer)
        self.host(lab, self.R)

        assert lab.kept([self.D, self.R]) == VIDEO

    def test_truncated_headers_are_a_broken_connection(self, lab: Lab) -> None:
        lab.host("cdn.example/clean.mp4", b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n", reply(VIDEO))

        assert lab.kept([self.D]) == VIDEO
        assert lab.requested() == ["cdn.example/clean.mp4"] * 2

    def test_a_file_that_is_too_large_is_not_replaced_by_a_smaller_one(self, lab: Lab) -> None:
        self.host(lab, self.D)
        lab.host("raw.example/raw.mp4", reply(video_bytes("small", 200_000)))

        error = lab.refused([self.D, self.R], max_bytes=SIZE - 1)

        assert "max_bytes" in str(error)
        assert lab.requested() == ["cdn.example/clean.mp4"]

    @pytest.mark.parametrize("etag", [ETAG, "X: none"])
    @pytest.mark.parametrize("other", [OTHER, video_bytes("third")], ids=["longer", "as long"])
    def test_the_bytes_of_two_urls_are_never_mixed(self, lab: Lab, etag: str, other: bytes) -> None:
        lab.host("cdn.example/clean.mp4", reply(VIDEO[:500_000], etag, length=SIZE), reply(status=403))
        lab.host("raw.example/raw.mp4", lambda get: _served(get, other, etag))

        assert lab.kept([self.D, self.R]) == other

    def test_a_fresh_url_of_the_same_bytes_resumes_the_download(self, lab: Lab) -> None:
        lab.host("cdn.example/clean.mp4?sig=1", reply(VIDEO[:500_000], ETAG, length=SIZE), reply(status=403))
        lab.host("cdn.example/clean.mp4?sig=2", lambda get: _served(get, VIDEO, ETAG))

        assert lab.kept([f"{self.D}?sig=1"], [f"{self.D}?sig=2"]) == VIDEO
        assert lab.net.seen[-1].headers["range"] == "bytes=500000-"

    def test_a_date_does_not_guarantee_that_two_queries_return_the_same_bytes(self, lab: Lab) -> None:
        date = "Last-Modified: Sun, 22 Dec 2024 13:38:40 GMT"
        other = video_bytes("third")
        lab.host("cdn.example/get?file=1", reply(VIDEO[:500_000], date, length=SIZE), reply(status=403))
        lab.host("cdn.example/get?file=2", lambda get: _served(get, other, date))

        assert lab.kept(["http://cdn.example/get?file=1", "http://cdn.example/get?file=2"]) == other

    def test_a_size_is_requested_from_one_url_after_the_other_too(self, lab: Lab) -> None:
        self.host(lab, self.R)
        lab.kept([self.R])
        lab.net.seen.clear()

        outcome = lab.one(["http://10.0.0.1/v.mp4", self.D, self.R])

        assert isinstance(outcome, FileRecord)
        assert outcome.seconds == 0
        assert lab.requested() == ["cdn.example/clean.mp4", "raw.example/raw.mp4"]

    def test_a_failed_query_for_fresh_urls_leaves_those_at_hand(
        self, lab: Lab, mocker: MockerFixture
    ) -> None:
        self.host(lab, self.R)
        relay = UrlRelay({"a": [[self.D, self.R]], "b": [[self.D]]})
        get_tasks = mocker.patch.object(
            relay,
            "get_tasks",
            side_effect=[relay.get_tasks(["a", "b"]), *[LumaAuthError("no more.", status=401)] * 2],
        )

        outcomes = {outcome.id: outcome for outcome in lab.run(relay, ["a", "b"])}

        failed = outcomes["b"]
        assert isinstance(outcomes["a"], FileRecord)
        assert isinstance(failed, FileFailure)
        assert "no more." in str(failed.error)
        assert get_tasks.call_count == 3

    def test_a_url_that_a_fresh_query_lacks_is_missing(self, lab: Lab) -> None:
        assert isinstance(lab.refused([self.D], [""]), LumaMissingArtifactError)

    @pytest.mark.parametrize(
        "answer", [reply(status=401), reply(b"", "WWW-Authenticate: Bearer", status=403)]
    )
    def test_a_host_that_requires_credentials_is_named_and_gets_none(self, lab: Lab, answer: bytes) -> None:
        lab.host("relay.example/v1/videos/a/content", answer)

        error = lab.refused(["http://relay.example/v1/videos/a/content"])

        assert "credentials" in str(error)
        assert "API key" in str(error)
        assert "is gone" not in str(error)
        assert all("authorization" not in get.headers for get in lab.net.seen)


def _served(get: Get, body: bytes, validator: str) -> bytes:
    """Return what a host that supports ranges and compares validators returns."""
    if get.headers.get("if-range", "") == validator.partition(": ")[2]:
        return part(body, _start(get), len(body), len(body), validator)
    return reply(body, validator)


class TestContents:
    @pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
    @pytest.mark.parametrize("end", [b"ftyp", b"moov", b"mdat header", b"empty mdat", b"moof"])
    def test_a_video_without_media_data_is_refused(self, lab: Lab, framed: bool, end: bytes) -> None:
        body = b"\0\0\0\x18ftypisom\0\0\0\0isomavc1"
        if end != b"ftyp":
            body += b"\0\0\x0f\x08moov" + b"x" * 3840
        if end == b"mdat header":
            body += b"\0\0\0\0mdat"
        elif end == b"empty mdat":
            body += b"\0\0\0\x08mdat"
        elif end == b"moof":
            body += b"\0\0\0\x10moofabcdefgh"
        lab.host("cdn.example/v.mp4", reply(body, framed=framed))

        error = lab.refused(["http://cdn.example/v.mp4"])

        assert "without media data" in str(error) or "mid-file" in str(error)

    @pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
    @pytest.mark.parametrize(
        ("body", "extension"),
        [
            (b"GIF89a" + b"x" * 5000 + b"\0;", ".gif"),
            (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf\0\0\0\x0cmeta1234\0\0\0\x0cmdat1234", ".avif"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x0cmeta1234\0\0\0\x0cmdat1234", ".heic"),
            (b"RIFF\x18\0\0\0WEBPVP8 " + b"\0" * 16, ".webp"),
        ],
        ids=["gif", "avif", "heic", "webp"],
    )
    def test_every_image_format_of_a_thumbnail_is_kept(
        self, lab: Lab, body: bytes, extension: str, framed: bool
    ) -> None:
        lab.host("cdn.example/t", reply(body, "Content-Type: image/jpeg", framed=framed))

        outcome = lab.one(["http://cdn.example/t"], artifact="thumbnail", artifacts=["thumbnail"])

        assert isinstance(outcome, FileRecord), outcome
        assert outcome.path.endswith(f"a_thumbnail{extension}")

    def test_another_file_in_place_of_an_image_is_refused(self, lab: Lab) -> None:
        lab.host("cdn.example/t", reply(b"<html>", "Content-Type: text/\x1b[31mhtml\x9d\x07"))

        error = lab.refused(["http://cdn.example/t"], artifact="thumbnail", artifacts=["thumbnail"])

        assert "an image" in str(error)
        assert str(error).isprintable()


class TestTime:
    def test_unreachable_addresses_get_no_more_time_than_the_file_has(
        self, lab: Lab, mocker: MockerFixture
    ) -> None:
        lab.net.addresses["dead.example"] = [f"1.1.1.{number}" for number in range(1, 41)]
        timeouts: list[float] = []
        clock = [0.0]
        mocker.patch.object(time, "monotonic", side_effect=lambda: clock[0])

        def time_out(address: Any, timeout: float) -> Any:
            timeouts.append(timeout)
            clock[0] += timeout
            raise TimeoutError("timed out")

        mocker.patch("socket.create_connection", time_out)
        lab.route_settings["connect_timeout"] = 1.25

        error = lab.refused(["http://dead.example/v.mp4"], file_timeout=3)

        assert timeouts == [1.25, 1.25, 0.5]
        assert "file_timeout, 3 s" in str(error)

    def test_an_interruption_takes_effect_between_two_addresses(
        self, lab: Lab, mocker: MockerFixture
    ) -> None:
        lab.net.addresses["dead.example"] = [f"1.1.1.{number}" for number in range(1, 41)]
        fetcher = fetcher_module.Fetcher(lab.net.route(), DownloadOptions(backoff=1e-6))
        tried: list[Any] = []

        def time_out(address: Any, timeout: float) -> Any:
            tried.append(address)
            fetcher.interrupt()
            raise TimeoutError("timed out")

        mocker.patch("socket.create_connection", time_out)
        with pytest.raises(LumaInterruptedError):
            fetcher.announced_size(lambda: ["http://dead.example/v.mp4"])
        fetcher.close()

        assert len(tried) == 1


class TestProxies:
    PROXY = "http://user:p%40ss\u00e9@proxy.example:3128"

    @pytest.fixture
    def tunnels(self, lab: Lab, mocker: MockerFixture) -> list[str]:
        """Return the targets of the tunnels that the proxy is asked for and refuses."""
        targets: list[str] = []

        def set_tunnel(connection: Any, host: str, port: int, headers: Any) -> None:
            targets.append(host)

        mocker.patch("http.client.HTTPConnection.set_tunnel", set_tunnel)
        mocker.patch(
            "http.client.HTTPConnection.connect", side_effect=OSError("Tunnel connection failed: 403")
        )
        lab.route_settings["proxies"] = {"https": self.PROXY, "http": self.PROXY}
        return targets

    def test_without_dns_the_error_explains_how_to_let_the_proxy_resolve_names(
        self, lab: Lab, tunnels: list[str]
    ) -> None:
        lab.net.unknown.add("cdn.example")

        error = lab.refused(["https://cdn.example/v.mp4"], attempts=1)

        assert "Name or service not known" in str(error)
        assert "allowed_artifact_hosts" in str(error)
        assert "p@ss" not in str(error)
        assert tunnels == []

    @pytest.mark.parametrize("pattern", ["cdn.example", "*.example"])
    def test_a_name_that_the_user_allows_is_resolved_only_by_the_proxy(
        self, lab: Lab, tunnels: list[str], pattern: str
    ) -> None:
        lab.net.unknown.add("cdn.example")
        lab.route_settings["allowed_hosts"] = [pattern]

        error = lab.refused(["https://cdn.example/v.mp4"], attempts=1)

        assert tunnels == ["cdn.example"]
        assert "Tunnel connection failed" in str(error)

    def test_every_checked_address_is_tried_through_the_proxy(self, lab: Lab, tunnels: list[str]) -> None:
        lab.net.addresses["cdn.example"] = ["2606:4700::1111", "1.1.1.1"]

        lab.refused(["https://cdn.example/v.mp4"], attempts=1)

        assert tunnels == ["2606:4700::1111", "1.1.1.1"]

    @pytest.mark.parametrize("address", ["http://[::1", "http://", "http://a..b:3128", "http://proxy:99999"])
    def test_a_malformed_proxy_address_is_a_configuration_error(self, lab: Lab, address: str) -> None:
        lab.route_settings["proxies"] = {"https": address}

        with pytest.raises(LumaConfigError, match="HTTPS_PROXY"):
            lab.one(["https://cdn.example/v.mp4"])

    def test_credentials_for_a_proxy_may_have_any_characters(self, lab: Lab) -> None:
        lab.route_settings["proxies"] = {"http": self.PROXY}
        lab.route_settings["allowed_hosts"] = ["cdn.example"]
        lab.host("http://cdn.example/v.mp4", reply(VIDEO))

        assert lab.kept(["http://cdn.example/v.mp4"]) == VIDEO
        assert lab.net.seen[0].headers["proxy-authorization"].startswith("Basic ")


LABELS = st.sampled_from(
    ["", "a", "b" * 63, "c" * 64, "\u00fc", "xn--", "\u3002", "-", "_", " ", "\ud83d", "%41"]
)
HOSTS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=5).map(".".join),
    st.sampled_from(
        ["evil.example"] * 4 + ["[::1", "[::1]", "10.0.0.1", "1.1.1.1", "127.1", "0x7f.1", "cdn.example"]
    ),
    st.text(max_size=20),
)
PORTS = st.sampled_from(["", "", "", ":", ":0", ":80", ":99999", ":x", ":-1", f":{'9' * 5000}", ":\u0663"])
URLS = st.one_of(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(
            ["http://", "http://", "https://", "HTTP://", "//", "", "ftp://", "http:", "http://u:p@"]
        ),
        HOSTS,
        PORTS,
        st.one_of(
            st.sampled_from(["/v.mp4", "", "/\ud800", "?a=\0", "/\r\nX: y", "#", "/" + "x" * 70_000]),
            st.text(),
        ),
    ),
    st.text(),
)
NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "-1",
        "1000000",
        "+5",
        "1e3",
        "1_0",
        "",
        " ",
        "\xb2",
        "9" * 18,
        "9" * 19,
        "9" * 5000,
        "0" * 5000,
    ]
)
RANGES = st.builds("{} {}-{}/{}".format, st.sampled_from(["bytes", "items", ""]), NUMBERS, NUMBERS, NUMBERS)
DATES = st.sampled_from(
    [
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Sun, 22 Dec 2024 13:38:40 GMT",
        "99999999999999999999",
    ]
)
TEXTS = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)
VALUES = st.one_of(
    TEXTS, NUMBERS, RANGES, DATES, URLS.map(lambda url: url.encode("utf-8", "replace").decode("latin-1"))
)
NAMES = st.sampled_from(
    [
        *("Retry-After", "Content-Range", "Content-Length", "Content-Encoding", "Transfer-Encoding"),
        *("Location", "ETag", "Last-Modified", "Content-Type", "WWW-Authenticate"),
        *("Connection", "Keep-Alive", "Set-Cookie", ""),
    ]
)
HEADERS = st.lists(st.tuples(st.one_of(NAMES, TEXTS), VALUES), max_size=6)
STATUSES = st.one_of(
    st.sampled_from(
        ["200", "206", "416", "302", "308", "400", "403", "404", "429", "503", "100", "101", "103", "204"]
    ),
    st.integers(-1, 1000).map(str),
    TEXTS,
)
BODIES = st.one_of(
    st.sampled_from(
        [b"", VIDEO[:5000], VIDEO[:200_000], VIDEO, b"5\r\nhello\r\n0\r\n\r\n", b"-5\r\n", b"f" * 5000]
    ),
    st.binary(max_size=200),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw anything that a host may return."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    lines = [f"HTTP/1.1 {draw(STATUSES)} {draw(TEXTS)}"]
    lines += [f"{name}: {value}" for name, value in draw(HEADERS)]
    head = "\r\n".join(lines).encode("latin-1", "replace")
    return head + b"\r\n\r\n" + draw(BODIES)


HOSTILE = st.lists(answers(), min_size=1, max_size=4)
GOOD = "http://good.example/v.mp4"


@pytest.fixture
def no_patience(mocker: MockerFixture) -> None:
    mocker.patch.object(fetcher_module, "MAX_RETRY_AFTER", 0.0)
    mocker.patch.object(fetcher_module, "log")


def small(_: Get) -> bytes:
    return reply(video_bytes("good", 200_000))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(urls=st.lists(URLS, min_size=1, max_size=3), script=HOSTILE)
@example(urls=["https://a..b/v"], script=[b""])
@example(
    urls=["http://evil.example/v"],
    script=[reply(b"", "Retry-After: Fri, 31 Dec 99999 23:59:59 GMT", status=503)],
)
@example(
    urls=["http://evil.example/v"],
    script=[reply(VIDEO, f"Content-Range: bytes 0-{'9' * 5000}/*", status=206)],
)
@example(urls=["http://evil.example/v"], script=[reply(b"", "Location: http://a..b/", status=302)])
def test_a_hostile_url_or_response_fails_one_file_at_most(
    no_patience: None, mocker: MockerFixture, urls: list[str], script: list[bytes]
) -> None:
    lab = Lab(mocker)
    waiting = list(script)

    def answer(get: Get) -> bytes:
        if get.url.startswith("good.example"):
            return small(get)
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    lab.net.answer = answer
    relay = UrlRelay({"bad": [urls], "good": [[GOOD]]})

    outcomes = {outcome.id: outcome for outcome in lab.run(relay, ["bad", "good"])}

    assert isinstance(outcomes["good"], FileRecord)
    bad = outcomes["bad"]
    if isinstance(bad, FileFailure):
        assert isinstance(bad.error, LumaError)
        message = str(bad.error)
        assert len(message) < 5000
        assert clean_text(message, 5000) == message
    else:
        # Only a complete video is ever kept.
        assert bad.bytes in (len(VIDEO), 200_000)
    assert all(is_public(ipaddress.ip_address(address)) for address, _ in lab.net.connected)
    lab.close()
