# SPDX-License-Identifier: Apache-2.0
"""Test submits, polls and downloads through a proxy that disconnects; the sandbox counts its generations."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_luma.client.models import LumaTask
from airflow_provider_luma.client.requests import GenerationRequest
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.download.downloader import Downloader, FileFailure, FileRecord
from airflow_provider_luma.download.file_store import FileStore
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.transport import Route
from airflow_provider_luma.exceptions import LumaAmbiguousSubmitError, LumaConnectionError, LumaError
from airflow_provider_luma.sandbox import LumaSandbox
from airflow_provider_luma.sandbox.media_host import media_file
from tests.support.authority import Authority
from tests.support.proxies import DroppingProxy, Stage, for_tunnels, unused_port

Way = Literal["forward", "tunnel"]
SIZE = 600_000
REQUEST = GenerationRequest(prompt="a cat that dances")
# The stages at which the request can't have left this machine, or can't have left the proxy.
NOT_SENT: list[tuple[Way, Stage]] = [
    ("tunnel", "407"),
    ("tunnel", "403"),
    ("tunnel", "502"),
    ("tunnel", "at_once"),
    ("tunnel", "in_handshake"),
    ("forward", "407"),
    ("forward", "403"),
    ("forward", "502"),
    ("forward", "at_once"),
]
SENT: list[tuple[Way, Stage]] = [
    ("tunnel", "before_answer"),
    ("tunnel", "in_body"),
    ("forward", "before_answer"),
    ("forward", "in_headers"),
    ("forward", "in_body"),
]


@pytest.fixture(scope="module")
def one_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DroppingProxy]:
    with DroppingProxy(tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture
def proxy(one_proxy: DroppingProxy) -> DroppingProxy:
    one_proxy.pass_on()
    return one_proxy


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class Lab:
    """Reach a relay only through a proxy."""

    def __init__(self, sandbox: LumaSandbox, proxy: DroppingProxy, folder: Path, bundle: Path) -> None:
        self.sandbox = sandbox
        self.proxy = proxy
        self.folder = folder
        self.bundle = bundle

    def settings(self, **extra: Any) -> RelaySettings:
        fields = {"proxies": self.proxy.by_scheme, "verify": str(self.bundle), **extra}
        return RelaySettings.from_fields(
            host=self.sandbox.base_url, password=self.sandbox.api_key, extra=json.dumps(fields)
        )

    def submit(self, **extra: Any) -> LumaTask | LumaError:
        with self.settings(**extra).client() as client:
            try:
                return client.generate(REQUEST)
            except LumaError as error:
                return error

    def submit_with_retries(self) -> LumaTask | LumaError:
        """Submit like a task with ``retries=2``: retryable errors are retried."""
        for _ in range(3):
            outcome = self.submit()
            if not isinstance(outcome, LumaError) or not outcome.retryable:
                break
        return outcome

    def download(self, task_id: str, *, through_proxy: bool = True) -> FileRecord | FileFailure:
        """
        Download a video through the proxy.

        :param through_proxy: False queries the relay for the URL directly.
        """
        settings = self.settings()
        store = FileStore(LocalFileSystem(), str(self.folder), label=str(self.folder), owner="lab")
        options = DownloadOptions(backoff=0.01, backoff_max=0.05)
        with settings.client(**({} if through_proxy else {"proxies": {}})) as client:
            downloader = Downloader(client, store, Route.of(settings), options=options)
            with closing(downloader.run([task_id])) as outcomes:
                (outcome,) = outcomes
        return outcome

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture
def lab(way: Way, proxy: DroppingProxy, authority: Authority, tmp_path: Path) -> Iterator[Lab]:
    bundle = tmp_path / "authority.pem"
    bundle.write_bytes(authority.certificate)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    tls = for_tunnels(authority.host(tmp_path, address)) if way == "tunnel" else None
    with LumaSandbox(tls=tls, pending_seconds=0, processing_seconds=0, video_bytes=SIZE) as sandbox:
        yield Lab(sandbox, proxy, tmp_path / "videos", bundle)


both_ways = pytest.mark.parametrize("way", ["forward", "tunnel"], indirect=True)


def assert_complete(lab: Lab, task_id: str, outcome: FileRecord | FileFailure) -> None:
    assert isinstance(outcome, FileRecord), outcome
    file = media_file(task_id, "video.mp4", SIZE)
    assert (lab.folder / f"{task_id}_video.mp4").read_bytes() == b"".join(
        bytes(piece) for piece in file.slices(0, SIZE)
    )


class TestOrdinaryProxy:
    @both_ways
    def test_a_submit_a_poll_and_a_download_pass(self, lab: Lab, way: Way) -> None:
        target = f"127.0.0.1:{lab.sandbox.port}"
        with lab.settings().client() as client:
            task_id = client.generate(REQUEST).id
            assert client.get_tasks([task_id])[task_id].state == "completed"
        assert_complete(lab, task_id, lab.download(task_id))
        assert [generation.id for generation in lab.sandbox.generations] == [task_id]
        seen = set(lab.proxy.requests)
        assert seen == ({f"CONNECT {target}"} if way == "tunnel" else {f"POST {target}", f"GET {target}"})

    @both_ways
    def test_the_media_host_never_receives_the_key(self, lab: Lab) -> None:
        task_id = lab.sandbox.add_task(state="completed")
        assert_complete(lab, task_id, lab.download(task_id))
        (media,) = [call for call in lab.sandbox.calls if call.name == "media"]
        assert lab.sandbox.api_key not in str(media.headers)


class TestSubmits:
    @both_ways
    def test_an_unreachable_proxy_leaves_a_submit_unsent(self, lab: Lab) -> None:
        nowhere = f"http://127.0.0.1:{unused_port()}"
        error = lab.submit(proxies={"http": nowhere, "https": nowhere})
        assert isinstance(error, LumaConnectionError)
        assert error.unsent
        assert "proxies" in str(error)
        assert lab.sandbox.generations == []

    @pytest.mark.parametrize(("way", "stage"), NOT_SENT, indirect=["way"])
    def test_a_proxy_that_disconnects_before_the_relay_submits_nothing(self, lab: Lab, stage: Stage) -> None:
        lab.proxy.drop(stage)
        assert isinstance(lab.submit(), LumaError)
        assert lab.sandbox.generations == []

    @pytest.mark.parametrize("stage", ["407", "403", "502"])
    @pytest.mark.parametrize("way", ["tunnel"], indirect=True)
    def test_a_refused_tunnel_leaves_a_submit_unsent(self, lab: Lab, stage: Stage) -> None:
        lab.proxy.drop(stage)
        error = lab.submit()
        assert isinstance(error, LumaConnectionError)
        assert error.unsent
        assert stage in str(error)

    @pytest.mark.parametrize("stage", ["502", "at_once"])
    @pytest.mark.parametrize("way", ["forward"], indirect=True)
    def test_a_proxy_that_received_the_request_leaves_a_submit_ambiguous(
        self, lab: Lab, stage: Stage
    ) -> None:
        lab.proxy.drop(stage)
        assert isinstance(lab.submit(), LumaAmbiguousSubmitError)

    @pytest.mark.parametrize(("way", "stage"), SENT, indirect=["way"])
    def test_a_proxy_that_disconnects_after_the_post_leaves_a_submit_ambiguous(
        self, lab: Lab, stage: Stage
    ) -> None:
        lab.proxy.drop(stage)
        error = lab.submit()
        assert len(lab.sandbox.generations) == 1
        assert isinstance(error, LumaAmbiguousSubmitError), error

    @pytest.mark.parametrize(("way", "stage"), [*NOT_SENT, *SENT], indirect=["way"])
    def test_retries_are_never_billed_twice(self, lab: Lab, way: Way, stage: Stage) -> None:
        lab.proxy.drop(stage)
        outcome = lab.submit_with_retries()
        assert isinstance(outcome, LumaError)
        billed = len(lab.sandbox.generations)
        assert billed == ((way, stage) in SENT)
        assert isinstance(outcome, LumaAmbiguousSubmitError) or not billed

    @pytest.mark.parametrize("stage", ["407", "403", "502"])
    @pytest.mark.parametrize("way", ["tunnel"], indirect=True)
    def test_a_submit_whose_tunnel_was_refused_once_is_sent_again(self, lab: Lab, stage: Stage) -> None:
        lab.proxy.drop(stage, times=1)
        task = lab.submit_with_retries()
        assert isinstance(task, LumaTask)
        assert [generation.id for generation in lab.sandbox.generations] == [task.id]


class TestPolls:
    @pytest.mark.parametrize(("way", "stage"), [*NOT_SENT, *SENT], indirect=["way"])
    def test_a_poll_after_a_disconnected_one_succeeds(self, lab: Lab, stage: Stage) -> None:
        task_id = lab.sandbox.add_task(state="completed")
        with lab.settings().client(max_retries=0) as client:
            lab.proxy.drop(stage, times=1)
            # The client may retry a forward proxy's own response itself, and succeed.
            with suppress(LumaError):
                client.get_tasks([task_id])
            assert client.get_tasks([task_id])[task_id].state == "completed"


class TestDownloads:
    @pytest.mark.parametrize(
        ("way", "stage"),
        [
            ("tunnel", "502"),
            ("tunnel", "at_once"),
            ("tunnel", "in_handshake"),
            ("forward", "502"),
            ("forward", "at_once"),
            *SENT,
        ],
        indirect=["way"],
    )
    def test_a_disconnected_download_ends_in_a_complete_file(self, lab: Lab, stage: Stage) -> None:
        task_id = lab.sandbox.add_task(state="completed")
        lab.proxy.drop(stage, times=1)
        assert_complete(lab, task_id, lab.download(task_id, through_proxy=False))
        assert lab.files == [f"{task_id}_video.mp4"]

    @pytest.mark.parametrize(("way", "stage"), [*NOT_SENT, *SENT], indirect=["way"])
    def test_a_download_that_is_always_disconnected_leaves_nothing(self, lab: Lab, stage: Stage) -> None:
        task_id = lab.sandbox.add_task(state="completed")
        lab.proxy.drop(stage)
        outcome = lab.download(task_id, through_proxy=False)
        assert isinstance(outcome, FileFailure)
        assert lab.files == []
