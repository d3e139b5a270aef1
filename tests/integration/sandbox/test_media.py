# SPDX-License-Identifier: Apache-2.0
"""The media host over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.support.patience import PATIENCE


@pytest.fixture
def task_id(sandbox: LumaSandbox) -> str:
    return sandbox.add_task(state="completed")


class TestFiles:
    def test_the_urls_of_a_task_return_its_files(
        self, sandbox: LumaSandbox, client: Any, task_id: str
    ) -> None:
        task = client.single(task_id).json()
        video = client.session.get(task["video"]["download_url"], timeout=PATIENCE)
        assert (video.headers["content-type"], video.content[4:8]) == ("video/mp4", b"ftyp")
        assert int(video.headers["content-length"]) == len(video.content)
        for name in ("thumbnail", "last_frame"):
            image = client.session.get(task[name]["url"], timeout=PATIENCE)
            assert (image.headers["content-type"], image.content[:3]) == ("image/jpeg", b"\xff\xd8\xff")

    def test_it_needs_no_key_and_its_calls_are_recorded(
        self, sandbox: LumaSandbox, client: Any, task_id: str
    ) -> None:
        assert client.media(task_id, headers={"X-Trace": "7"}).status_code == 200
        (call,) = sandbox.calls
        assert (call.name, call.ids, call.path) == ("media", (task_id,), f"/media/{task_id}/video.mp4")
        assert call.headers["x-trace"] == "7"
        assert not {"authorization", "cookie"} & call.headers.keys()

    def test_a_download_in_parts_is_the_whole_file(self, client: Any, task_id: str) -> None:
        whole = client.media(task_id)
        etag = whole.headers["etag"]
        first = client.media(task_id, headers={"Range": "bytes=0-999"})
        rest = client.media(task_id, headers={"Range": "bytes=1000-", "If-Range": etag})
        assert (first.status_code, rest.status_code) == (206, 206)
        assert first.content + rest.content == whole.content
        assert rest.headers["content-range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"

    def test_a_range_past_the_end_is_a_416(self, client: Any, task_id: str) -> None:
        assert client.media(task_id, headers={"Range": "bytes=999999999-"}).status_code == 416

    def test_an_unchanged_file_is_a_304(self, client: Any, task_id: str) -> None:
        etag = client.media(task_id).headers["etag"]
        again = client.media(task_id, headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")

    def test_head_returns_the_length_and_no_body(
        self, sandbox: LumaSandbox, client: Any, task_id: str
    ) -> None:
        whole = client.media(task_id)
        head = client.session.head(f"{sandbox.root_url}/media/{task_id}/video.mp4", timeout=PATIENCE)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
        assert client.media(task_id).content == whole.content

    @pytest.mark.parametrize("path", ["unknown/video.mp4", "unfinished/video.mp4", "finished/video.exe"])
    def test_what_is_not_there_is_a_404(self, sandbox: LumaSandbox, client: Any, path: str) -> None:
        sandbox.add_task("unfinished", state="processing")
        sandbox.add_task("finished", state="completed")
        assert client.media(*path.split("/")).status_code == 404

    def test_a_video_can_have_any_size(self, sandbox: LumaSandbox, client: Any) -> None:
        task_id = sandbox.add_task(state="completed", video_bytes=5 * 1024 * 1024)
        video = client.media(task_id)
        assert len(video.content) == 5 * 1024 * 1024
        part = client.media(task_id, headers={"Range": "bytes=3000000-3999999"})
        assert part.content == video.content[3_000_000:4_000_000]

    def test_all_videos_can_have_a_size(self, client_of: Any) -> None:
        with LumaSandbox(video_bytes=300_000) as sandbox:
            client = client_of(sandbox)
            assert len(client.media(sandbox.add_task(state="completed")).content) == 300_000

    def test_urls_start_with_the_setting(self, client_of: Any) -> None:
        with LumaSandbox(media_base_url="https://cdn.example/x/") as sandbox:
            task = client_of(sandbox).single(sandbox.add_task("one", state="completed")).json()
            assert task["video"]["url"] == "https://cdn.example/x/media/one/video.mp4"


class TestLinks:
    def test_a_url_expires_and_the_api_returns_a_new_one(self, client_of: Any) -> None:
        with LumaSandbox(links_expire_after=60) as sandbox:
            client = client_of(sandbox)
            task_id = sandbox.add_task(state="completed")

            def new_url() -> str:
                return str(client.single(task_id).json()["video"]["url"])

            old = new_url()
            assert client.session.get(old, timeout=PATIENCE).status_code == 200
            sandbox.advance(61)
            assert client.session.get(old, timeout=PATIENCE).status_code == 403
            assert client.session.get(new_url(), timeout=PATIENCE).status_code == 200
            assert client.media(task_id).status_code == 403

    @pytest.mark.parametrize("status", [400, 401, 404])
    def test_an_expired_url_is_refused_with_the_status_of_the_setting(
        self, client_of: Any, status: int
    ) -> None:
        with LumaSandbox(links_expire_after=60, lapsed_link_status=status) as sandbox:
            client = client_of(sandbox)
            url = client.single(sandbox.add_task(state="completed")).json()["video"]["url"]
            sandbox.advance(61)
            answer = client.session.get(url, timeout=PATIENCE)
            assert answer.status_code == status
            assert ("ExpiredToken" in answer.text) == (status == 400)

    def test_a_url_can_be_used_up(self, client_of: Any) -> None:
        with LumaSandbox(link_uses=1) as sandbox:
            client = client_of(sandbox)
            url = client.single(sandbox.add_task(state="completed")).json()["video"]["url"]
            assert client.session.head(url, timeout=PATIENCE).status_code == 200
            assert [client.session.get(url, timeout=PATIENCE).status_code for _ in range(2)] == [200, 403]


class TestFaults:
    @pytest.mark.parametrize("code", [401, 403, 404, 410])
    def test_the_media_host_refuses_a_file(
        self, sandbox: LumaSandbox, client: Any, task_id: str, code: int
    ) -> None:
        sandbox.fail_next("media", faults.media_error(code))
        assert [client.media(task_id).status_code for _ in range(2)] == [code, 200]

    def test_a_web_page_can_replace_the_video(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        sandbox.fail_next("media", faults.ok_html())
        answer = client.media(task_id)
        assert answer.status_code == 200
        assert answer.content.startswith(b"<!doctype html>")

    @pytest.mark.parametrize("fault", [faults.truncated(0.3), faults.reset(0.3), faults.chunk_cut(0.3)])
    def test_a_broken_download_can_be_continued(
        self, sandbox: LumaSandbox, client: Any, task_id: str, fault: faults.Fault
    ) -> None:
        whole = client.media(task_id).content
        sandbox.fail_next("media", fault)
        received = bytearray()

        def receive(answer: requests.Response) -> None:
            for piece in answer.iter_content(100):
                received.extend(piece)

        with client.media(task_id, stream=True) as answer, pytest.raises(requests.RequestException):
            receive(answer)
        assert 0 < len(received) < len(whole)
        rest = client.media(task_id, headers={"Range": f"bytes={len(received)}-"})
        assert bytes(received) + rest.content == whole

    def test_an_unframed_video_is_short_without_a_sign(self, sandbox: LumaSandbox, client: Any) -> None:
        task_id = sandbox.add_task(state="completed", video_bytes=20_000_000)
        sandbox.fail_next("media", faults.unframed(0.5))
        assert len(client.media(task_id).content) == 10_000_000

    def test_a_gzip_bomb_is_small_on_the_wire(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        sandbox.fail_next("media", faults.gzip_bomb(20))
        with client.media(task_id, stream=True) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            assert int(answer.headers["content-length"]) < 50_000
            assert sum(map(len, answer.iter_content(1024 * 1024))) == 20 * 1024 * 1024

    def test_a_host_can_ignore_ranges(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        sandbox.fail_next("media", faults.no_ranges())
        answer = client.media(task_id, headers={"Range": "bytes=10-"})
        assert (answer.status_code, answer.headers["accept-ranges"]) == (200, "none")

    def test_a_file_can_change_in_mid_download(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        etag = client.media(task_id).headers["etag"]
        sandbox.fail_next("media", faults.changed_etag())
        answer = client.media(task_id, headers={"Range": "bytes=10-", "If-Range": etag})
        assert (answer.status_code, answer.headers["etag"]) == (200, '"changed"')

    def test_a_part_can_claim_another_total(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        size = len(client.media(task_id).content)
        sandbox.fail_next("media", faults.other_total(1000))
        part = client.media(task_id, headers={"Range": "bytes=500-"})
        assert part.headers["content-range"] == f"bytes 500-{size - 1}/{size + 1000}"
        assert len(part.content) == size - 500

    def test_a_part_can_end_short_with_a_length_that_fits(
        self, sandbox: LumaSandbox, client: Any, task_id: str
    ) -> None:
        size = len(client.media(task_id).content)
        sandbox.fail_next("media", faults.short_part(0.5))
        part = client.media(task_id, headers={"Range": "bytes=500-"})
        assert part.headers["content-range"] == f"bytes 500-{size - 1}/{size}"
        assert len(part.content) == int(part.headers["content-length"]) == (size - 500) // 2

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
    def test_the_preferred_url_is_always_refused_and_the_next_works(
        self, sandbox: LumaSandbox, client: Any, task_id: str, code: Any
    ) -> None:
        sandbox.fail_when("batch", faults.dead_preferred_link(code))
        (task,) = client.batch(task_id).json()
        urls = task["video"]["download_url"], task["video"]["url"]
        assert [client.session.get(url, timeout=PATIENCE).status_code for url in urls] == [code, 200]

    def test_a_redirect_leads_to_its_location(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        sandbox.fail_when(
            "media", faults.redirect("http://169.254.169.254/", code=302), containing="video.mp4"
        )
        answer = client.media(task_id)
        assert (answer.status_code, answer.headers["location"]) == (302, "http://169.254.169.254/")
        assert client.media(task_id, "thumbnail.jpg").status_code == 200
