# SPDX-License-Identifier: Apache-2.0
"""Test hostile URLs and hostile hosts over real HTTP: refused, bounded, and never sent a secret."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_luma.client import LumaClient
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.download.addresses import HostPolicy
from airflow_provider_luma.download.downloader import Downloader, FileFailure, FileRecord
from airflow_provider_luma.download.file_store import FileStore
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.transport import Route, Transport
from airflow_provider_luma.exceptions import LumaConfigError, LumaDownloadError, LumaUnsafeLinkError
from airflow_provider_luma.sandbox import LumaSandbox, faults
from airflow_provider_luma.sandbox.faults import Fault
from airflow_provider_luma.sandbox.media_host import media_file
from tests.support.authority import Authority
from tests.support.patience import PATIENCE
from tests.support.raw_host import RawHost, Request, ok, redirect

SIZE = 1_000_000
GIB = 1024**3
VIDEO = b"".join(bytes(piece) for piece in media_file("task-1", "video.mp4", SIZE).slices(0, SIZE))


@pytest.fixture
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox(video_bytes=SIZE) as sandbox:
        yield sandbox


class Lab:
    """Download from the URLs that a sandbox relay returns."""

    def __init__(self, sandbox: LumaSandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.route_settings: dict[str, Any] = {}

    def download(
        self, url: str | None = None, *, hosts: str = "", **options: Any
    ) -> FileRecord | FileFailure:
        """
        Download one video.

        :param url: The URL that the relay returns; by default one of the sandbox itself.
        :param hosts: The connection's ``allowed_artifact_hosts``.
        """
        media = {"url": url, "download_url": url}
        overrides: dict[str, Any] = {"video": media, "video_raw": media, "artifact": None}
        script: dict[str, Any] = {} if url is None else {"overrides": overrides}
        extra = {"allowed_artifact_hosts": hosts, "read_timeout": PATIENCE, **self.route_settings}
        settings = RelaySettings.from_fields(
            host=self.sandbox.base_url, password=self.sandbox.api_key, extra=json.dumps(extra)
        )
        # The settings under test are those of the downloads.
        with settings.client(verify=True, proxies=None) as client:
            downloader = Downloader(
                client,
                FileStore(LocalFileSystem(), str(self.folder), label=str(self.folder), owner="lab"),
                Route.of(settings),
                options=DownloadOptions(**{"backoff": 0.01, "attempts": 2, **options}),
            )
            with closing(downloader.run([self.sandbox.add_task(state="completed", **script)])) as outcomes:
                [outcome] = outcomes
        return outcome

    def refused(self, url: str | None = None, **options: Any) -> LumaDownloadError:
        """Download a video that must be refused; return why."""
        outcome = self.download(url, **options)
        assert isinstance(outcome, FileFailure)
        assert [path for path in self.folder.rglob("*") if path.is_file()] == []
        assert isinstance(outcome.error, LumaDownloadError)
        return outcome.error

    def kept(self, url: str | None = None, **options: Any) -> bytes:
        """Download a video that must be accepted; return its bytes."""
        outcome = self.download(url, **options)
        assert isinstance(outcome, FileRecord), outcome
        return Path(outcome.path).read_bytes()


@pytest.fixture
def lab(sandbox: LumaSandbox, tmp_path: Path) -> Lab:
    return Lab(sandbox, tmp_path / "videos")


@pytest.fixture
def victim() -> Iterator[RawHost]:
    """Run a host of the private network that must never receive a request."""
    with RawHost(lambda request: ok(VIDEO)) as host:
        yield host
        assert host.requests == []


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return the names that this test's resolver knows besides the system's, and their addresses in turn."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **kwargs)
        address = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return real(address, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "http://169.254.169.254/latest/meta-data/iam",
            "http://[fd00:ec2::254]/latest/meta-data",
            "http://168.63.129.16/machine",
            "http://127.0.0.1:{port}/v.mp4",
            "http://127.0.0.2:{port}/v.mp4",
            "http://localhost:{port}/v.mp4",
            "http://0.0.0.0:{port}/v.mp4",
            "http://[::ffff:127.0.0.1]:{port}/v.mp4",
            "http://[::1]:{port}/v.mp4",
            "http://2130706433:{port}/v.mp4",
            "http://127.1:{port}/v.mp4",
            "https://127.0.0.1:{port}/v.mp4",
            "http://10.0.0.1/v.mp4",
            "http://192.168.1.1/v.mp4",
            "http://224.0.0.1/v.mp4",
            "http://private.example:{port}/v.mp4",
            "http://half.example:{port}/v.mp4",
            "http://user:password@127.0.0.1:{port}/v.mp4",
        ],
    )
    @pytest.mark.parametrize("way", ["url", "redirect", "second redirect"])
    def test_nothing_is_downloaded_from_the_private_network(
        self,
        lab: Lab,
        sandbox: LumaSandbox,
        victim: RawHost,
        names: dict[str, list[str]],
        url: str,
        way: str,
    ) -> None:
        names["private.example"] = ["127.0.0.1"]
        names["half.example"] = ["127.0.0.1"]
        url = url.format(port=victim.port)
        if way == "url":
            error = lab.refused(url)
        else:
            if way == "second redirect":
                sandbox.fail_next("media", faults.redirect("video.mp4?again"))
            sandbox.fail_next("media", faults.redirect(url))
            error = lab.refused()

        assert isinstance(error, LumaUnsafeLinkError)
        assert not error.retryable
        assert "Refusing to download" in str(error)
        assert "password" not in str(error)

    @pytest.mark.parametrize(
        "location",
        [
            "file:///etc/passwd",
            "ftp://127.0.0.1/v.mp4",
            "gopher://127.0.0.1/_GET",
            "data:video/mp4,x",
            "http://[::1",
        ],
    )
    def test_a_redirect_to_another_kind_of_url_is_refused(
        self, lab: Lab, sandbox: LumaSandbox, location: str
    ) -> None:
        sandbox.fail_next("media", faults.redirect(location))

        assert isinstance(lab.refused(), LumaUnsafeLinkError)

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/v.mp4", "/etc/passwd", "v.mp4"])
    def test_another_kind_of_url_from_the_relay_is_missing(self, lab: Lab, url: str) -> None:
        outcome = lab.download(url)

        assert isinstance(outcome, FileFailure)
        assert "no video" in str(outcome.error)
        assert list(lab.folder.iterdir()) == []

    def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(
        self, lab: Lab, victim: RawHost, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names["rebinding.example"] = ["1.1.1.1", "127.0.0.1"]
        connected: list[Any] = []
        real = socket.create_connection

        def create_connection(address: Any, *args: Any, **kwargs: Any) -> socket.socket:
            connected.append(address)
            if address[0] == "1.1.1.1":
                raise ConnectionRefusedError("no internet in tests")
            return real(address, *args, **kwargs)

        monkeypatch.setattr(socket, "create_connection", create_connection)

        error = lab.refused(f"http://rebinding.example:{victim.port}/v.mp4", attempts=1)

        assert connected == [("1.1.1.1", victim.port)]
        assert "no internet" in str(error)
        # The next lookup returns the private address, and is refused.
        assert isinstance(
            lab.refused(f"http://rebinding.example:{victim.port}/v.mp4", attempts=1), LumaUnsafeLinkError
        )

    def test_all_addresses_of_a_name_are_tried(
        self, lab: Lab, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with RawHost(lambda request: ok(VIDEO)) as host:
            monkeypatch.setattr(
                "airflow_provider_luma.download.addresses.HostPolicy.addresses",
                lambda policy, url: ["127.0.0.9", "127.0.0.1"],
            )
            assert lab.kept(f"http://media.example:{host.port}/v.mp4") == VIDEO

    @pytest.mark.parametrize("pattern", ["media.internal", "media.internal:{port}", "*.internal"])
    def test_a_host_that_the_user_allows_may_be_private(
        self, lab: Lab, names: dict[str, list[str]], pattern: str
    ) -> None:
        names["media.internal"] = ["127.0.0.1"]
        with RawHost(lambda request: ok(VIDEO)) as host:
            body = lab.kept(f"http://media.internal:{host.port}/v.mp4", hosts=pattern.format(port=host.port))

        assert body == VIDEO
        assert host.requests[0].headers["host"] == f"media.internal:{host.port}"

    def test_an_allowed_host_may_not_redirect_to_another(
        self, lab: Lab, victim: RawHost, names: dict[str, list[str]]
    ) -> None:
        names["media.internal"] = ["127.0.0.1"]
        with RawHost(lambda request: redirect(f"http://127.0.0.1:{victim.port}/")) as host:
            error = lab.refused(f"http://media.internal:{host.port}/v.mp4", hosts="media.internal")

        assert isinstance(error, LumaUnsafeLinkError)

    def test_plain_http_is_refused_when_the_relay_speaks_https(self, lab: Lab, victim: RawHost) -> None:
        relay = RelaySettings.from_fields(
            host="https://relay.example", password="key", extra='{"allowed_artifact_hosts": "127.0.0.1"}'
        )
        url = f"http://127.0.0.1:{victim.port}/v.mp4"
        task_id = lab.sandbox.add_task(
            state="completed", overrides={"video": {"url": url, "download_url": url}}
        )

        with LumaClient(lab.sandbox.base_url, lab.sandbox.api_key) as client:
            store = FileStore(LocalFileSystem(), str(lab.folder), label="videos", owner="lab")
            [failure] = Downloader(client, store, Route.of(relay)).run([task_id])

        assert isinstance(failure, FileFailure)
        assert "only https" in str(failure.error)


class TestRedirects:
    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_three_redirects_are_followed(self, lab: Lab, sandbox: LumaSandbox, code: int) -> None:
        for number in range(3):
            sandbox.fail_next("media", faults.redirect(f"video.mp4?hop={number}", code=code))

        assert len(lab.kept()) == SIZE
        assert sandbox.count("media") == 4

    def test_a_fourth_redirect_is_refused(self, lab: Lab, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("media", faults.redirect("video.mp4?again"))

        assert "more than 3 redirects" in str(lab.refused())
        assert sandbox.count("media") == 4

    def test_a_redirect_without_a_location_is_an_error(self, lab: Lab, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("media", faults.answer(302, b""))

        assert "HTTP 302" in str(lab.refused())


class TestSecrets:
    def test_no_host_receives_the_key_a_cookie_or_credentials(
        self, lab: Lab, sandbox: LumaSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password netrc-secret\ndefault login me password x\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        with RawHost(lambda request: ok(VIDEO, "Set-Cookie: a=b")) as host:
            # The relay's own responses set cookies too.
            sandbox.fail_next("media", faults.redirect(f"http://127.0.0.1:{host.port}/one.mp4"))
            lab.kept(hosts=f"127.0.0.1:{host.port}")
            lab.kept(f"http://127.0.0.1:{host.port}/two.mp4", hosts=f"127.0.0.1:{host.port}")

        seen = [request.headers for request in host.requests]
        seen += [call.headers for call in sandbox.calls if call.name == "media"]
        assert len(seen) == 3
        for headers in seen:
            assert set(headers) == {"host", "user-agent", "accept", "accept-encoding"}
            assert sandbox.api_key not in str(headers)

    @pytest.mark.parametrize(
        "fault",
        [
            None,
            faults.media_error(403),
            faults.ok_html(),
            faults.truncated(0.1),
            faults.bad_gateway(),
            faults.gzip_bomb(1),
            faults.redirect("http://10.0.0.1/v.mp4?sig=secret-signature"),
            faults.redirect("http://[::1/?sig=secret-signature"),
            faults.redirect("?sig=secret-signature"),
        ],
        ids=lambda fault: fault.name if fault else "whole",
    )
    def test_signatures_are_in_no_log_and_no_error(
        self, lab: Lab, sandbox: LumaSandbox, caplog: pytest.LogCaptureFixture, fault: Fault | None
    ) -> None:
        caplog.set_level(logging.DEBUG)
        if fault is not None:
            sandbox.fail_when("media", fault)

        outcome = lab.download(f"{sandbox.root_url}/media/task-1/video.mp4?sig=secret-signature")

        assert "secret-signature" not in caplog.text
        assert "secret-signature" not in str(outcome)

    def test_a_url_that_a_host_echoes_is_not_logged(self, lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)

        def echo(request: Request) -> Iterable[bytes]:
            yield f"{request.target} is not HTTP\r\n".encode()

        with RawHost(echo) as host:
            error = lab.refused(f"http://127.0.0.1:{host.port}/v.mp4?sig=secret-signature", hosts="127.0.0.1")

        assert "BadStatusLine" in str(error)
        assert "secret-signature" not in caplog.text + str(error)


class TestBodies:
    @pytest.mark.parametrize(
        ("fault", "what"),
        [
            (faults.ok_html(), "'text/html; charset=utf-8' that begins with '<!doctype html>"),
            (faults.ok_with_error(), "application/json"),
            (faults.empty(), "an empty file"),
            (faults.not_json(), "begins with '[{"),
            (faults.answer(200, b"\xff\xd8\xff" + b"x" * 5000, content_type="video/mp4"), "JPEG instead"),
            (faults.answer(200, b"\x1b[31m\n" + b"x" * 5000, content_type="video/mp4"), "begins with"),
        ],
        ids=lambda value: value if isinstance(value, str) else value.name,
    )
    def test_another_file_in_place_of_a_video_is_refused(
        self, lab: Lab, sandbox: LumaSandbox, fault: Fault, what: str
    ) -> None:
        sandbox.fail_when("media", fault)

        error = lab.refused()

        assert what in str(error)
        assert "a video" in str(error)
        assert str(error).isprintable()

    def test_ten_gigabytes_against_a_cap_of_one_are_refused_unread(self, tmp_path: Path) -> None:
        with LumaSandbox(video_bytes=10 * GIB) as sandbox:
            error = Lab(sandbox, tmp_path / "videos").refused(max_bytes=GIB)

        assert f"has {10 * GIB} bytes, but max_bytes allows {GIB}" in str(error)
        assert not error.retryable

    @pytest.mark.parametrize("ending", ["chunked", "unframed"])
    def test_a_body_that_hides_its_size_is_cut_off_at_the_cap(self, tmp_path: Path, ending: Any) -> None:
        with LumaSandbox(video_bytes=10 * GIB) as sandbox:
            sandbox.fail_when("media", Fault(name=ending, ending=ending))
            error = Lab(sandbox, tmp_path / "videos").refused(max_bytes=2_000_000)

        assert "more than 2000000 bytes" in str(error)
        assert not error.retryable

    def test_bytes_beyond_the_announced_length_are_ignored(self, lab: Lab) -> None:
        with RawHost(lambda request: ok(VIDEO + b"more", length=SIZE)) as host:
            assert lab.kept(f"http://127.0.0.1:{host.port}/v.mp4", hosts="127.0.0.1") == VIDEO

    @pytest.mark.parametrize(
        "header",
        ["Content-Encoding: gzip", "Content-Encoding: br, gzip", "Transfer-Encoding: gzip, chunked"],
    )
    def test_compressed_bodies_are_refused(self, lab: Lab, header: str) -> None:
        with RawHost(lambda request: ok(VIDEO, header)) as host:
            error = lab.refused(f"http://127.0.0.1:{host.port}/v.mp4", hosts="127.0.0.1")

        assert "not requested" in str(error)
        assert host.requests[0].headers["accept-encoding"] == "identity"

    def test_a_gzip_bomb_is_refused_unread(self, lab: Lab, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("media", faults.gzip_bomb(100))

        assert "Content-Encoding 'gzip'" in str(lab.refused())

    def test_the_identity_encoding_is_accepted(self, lab: Lab) -> None:
        with RawHost(lambda request: ok(VIDEO, "Content-Encoding: Identity")) as host:
            assert lab.kept(f"http://127.0.0.1:{host.port}/v.mp4", hosts="127.0.0.1") == VIDEO


class TestTime:
    def test_a_slow_body_is_aborted_at_the_files_time_limit(self, lab: Lab, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("media", faults.drip(1.0))

        error = lab.refused(file_timeout=1.5)

        assert "file_timeout, 1.5 s" in str(error)
        assert error.retryable

    @pytest.mark.parametrize(
        "beginning",
        [b"HTTP/1.1 200 OK\r\nX-Padding: ", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\n\r\n", b""],
        ids=["header", "status line", "body", "nothing"],
    )
    def test_a_slow_response_is_aborted_wherever_it_stalls(self, lab: Lab, beginning: bytes) -> None:
        def drip(request: Request) -> Iterable[bytes]:
            yield beginning
            while True:
                host.wait(0.05)
                yield b"x"

        with RawHost(drip) as host:
            error = lab.refused(f"http://127.0.0.1:{host.port}/v.mp4", hosts="127.0.0.1", file_timeout=0.6)

        assert "file_timeout, 0.6 s" in str(error)

    def test_endless_interim_responses_are_aborted(self, lab: Lab) -> None:
        def interim(request: Request) -> Iterable[bytes]:
            while True:
                host.wait(0.01)
                yield b"HTTP/1.1 100 Continue\r\n\r\n"

        with RawHost(interim) as host:
            error = lab.refused(f"http://127.0.0.1:{host.port}/v.mp4", hosts="127.0.0.1", file_timeout=0.6)

        assert "file_timeout, 0.6 s" in str(error)

    def test_a_long_retry_after_is_bounded_by_the_files_time_limit(
        self, lab: Lab, sandbox: LumaSandbox
    ) -> None:
        sandbox.fail_when("media", faults.too_many_requests(retry_after=3600))

        assert "file_timeout, 0.6 s" in str(lab.refused(file_timeout=0.6, attempts=5))

    def test_endless_headers_are_an_error(self, lab: Lab) -> None:
        answer = [b"HTTP/1.1 200 OK\r\n", *[b"X-Padding: x\r\n"] * 200, b"\r\n"]
        with RawHost(lambda request: answer) as host:
            error = lab.refused(f"http://127.0.0.1:{host.port}/v.mp4", hosts="127.0.0.1")

        assert "HTTPException" in str(error)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class TestTls:
    @pytest.fixture
    def bundle(self, authority: Authority, tmp_path: Path) -> str:
        path = tmp_path / "authority.pem"
        path.write_bytes(authority.certificate)
        return str(path)

    def test_the_certificate_is_that_of_the_name_though_the_address_is_connected_to(
        self, lab: Lab, names: dict[str, list[str]], authority: Authority, bundle: str, tmp_path: Path
    ) -> None:
        names["cdn.example"] = ["127.0.0.1"]
        lab.route_settings["verify"] = bundle
        tls = authority.host(tmp_path, x509.DNSName("cdn.example"))
        with RawHost(lambda request: ok(VIDEO), tls=tls) as host:
            assert lab.kept(f"https://cdn.example:{host.port}/v.mp4", hosts="cdn.example") == VIDEO

        assert host.server_names == ["cdn.example"]
        assert host.requests[0].headers["host"] == f"cdn.example:{host.port}"

    def test_an_address_can_have_a_certificate_of_its_own(
        self, lab: Lab, authority: Authority, bundle: str, tmp_path: Path
    ) -> None:
        lab.route_settings["verify"] = bundle
        tls = authority.host(tmp_path, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        with RawHost(lambda request: ok(VIDEO), tls=tls) as host:
            assert lab.kept(f"https://127.0.0.1:{host.port}/v.mp4", hosts="127.0.0.1") == VIDEO

    @pytest.mark.parametrize("why", ["another name", "unknown authority"])
    def test_another_certificate_is_not_retryable(
        self,
        lab: Lab,
        names: dict[str, list[str]],
        authority: Authority,
        bundle: str,
        tmp_path: Path,
        why: str,
    ) -> None:
        names["cdn.example"] = ["127.0.0.1"]
        lab.route_settings["verify"] = bundle if why == "another name" else "true"
        tls = authority.host(tmp_path, x509.DNSName("other.example"))
        with RawHost(lambda request: ok(VIDEO), tls=tls) as host:
            error = lab.refused(f"https://cdn.example:{host.port}/v.mp4?sig=secret", hosts="cdn.example")

        assert "certificate of https://cdn.example" in str(error)
        assert "secret" not in str(error)
        assert not error.retryable
        assert host.requests == []

    def test_verification_can_be_disabled(
        self, lab: Lab, names: dict[str, list[str]], authority: Authority, tmp_path: Path
    ) -> None:
        names["cdn.example"] = ["127.0.0.1"]
        lab.route_settings["verify"] = False
        with RawHost(lambda request: ok(VIDEO), tls=authority.host(tmp_path)) as host:
            assert lab.kept(f"https://cdn.example:{host.port}/v.mp4", hosts="cdn.example") == VIDEO

    def test_a_missing_bundle_is_named(self, lab: Lab) -> None:
        lab.route_settings["verify"] = "/no/such/bundle.pem"

        with pytest.raises(LumaConfigError, match=r"verify must .*'/no/such/bundle\.pem'"):
            lab.download()


class TestProxies:
    @pytest.fixture
    def proxy(self) -> Iterator[RawHost]:
        """Run a proxy that refuses tunnels and answers plain http with a video."""

        def answer(request: Request) -> Iterable[bytes]:
            return ok(VIDEO) if request.target.startswith("http://") else [b"HTTP/1.1 403 No\r\n\r\n"]

        with RawHost(answer) as host:
            yield host

    def use(self, lab: Lab, proxy: RawHost) -> None:
        address = f"http://me:proxy-secret@127.0.0.1:{proxy.port}"
        lab.route_settings["proxies"] = {"https": address, "http": address}

    def test_a_proxy_is_asked_for_the_checked_address(
        self, lab: Lab, proxy: RawHost, names: dict[str, list[str]]
    ) -> None:
        names["cdn.example"] = ["1.1.1.1"]
        self.use(lab, proxy)

        error = lab.refused("https://cdn.example/v.mp4", attempts=1)

        [request] = proxy.requests
        assert request.target == "1.1.1.1:443"
        assert request.headers["proxy-authorization"].startswith("Basic ")
        assert "Tunnel connection failed: 403" in str(error)
        assert "proxy-secret" not in str(error)

    def test_a_proxy_is_not_asked_for_private_addresses(
        self, lab: Lab, proxy: RawHost, names: dict[str, list[str]]
    ) -> None:
        names["cdn.example"] = ["10.0.0.1"]
        self.use(lab, proxy)

        assert isinstance(lab.refused("https://cdn.example/v.mp4"), LumaUnsafeLinkError)
        assert isinstance(lab.refused("http://1.1.1.1/v.mp4"), LumaUnsafeLinkError)
        assert proxy.requests == []

    def test_a_proxy_resolves_the_names_that_the_user_allows(self, lab: Lab, proxy: RawHost) -> None:
        self.use(lab, proxy)

        lab.refused("https://media.internal/v.mp4", hosts="media.internal", attempts=1)
        video = lab.kept("http://media.internal/v.mp4", hosts="media.internal")

        assert [request.target for request in proxy.requests] == [
            "media.internal:443",
            "http://media.internal/v.mp4",
        ]
        assert video == VIDEO

    def test_a_refused_tunnel_leaves_no_open_connection(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
            policy = HostPolicy(base_url="https://relay.example", allowed_hosts=("media.internal",))
            transport = Transport(Route(policy=policy, proxies={"https": proxy}))
            answering = threading.Thread(target=lambda: self._refuse(listener))
            answering.start()

            with pytest.raises(OSError, match="Tunnel connection failed: 403") as raised:
                transport.get("https://media.internal/v.mp4", headers={})
            answering.join(PATIENCE)

            # The error is still held here, as a log or a retry may hold it, and its frames with it.
            assert raised.value.__traceback__ is not None
            assert not answering.is_alive()

    @staticmethod
    def _refuse(listener: socket.socket) -> None:
        """Refuse one tunnel, and return once the client has closed its connection."""
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 403 No\r\n\r\n")
            while connection.recv(65536):
                pass

    def test_the_proxy_of_the_environment_is_used(
        self, lab: Lab, proxy: RawHost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")

        lab.refused("https://media.internal/v.mp4", hosts="media.internal", attempts=1)

        assert proxy.requests[0].target == "media.internal:443"

    def test_another_kind_of_proxy_is_named(self, lab: Lab) -> None:
        lab.route_settings["proxies"] = {"https": "socks5://127.0.0.1:1080"}

        with pytest.raises(LumaConfigError, match="'socks5'"):
            lab.download("https://cdn.example/v.mp4")
