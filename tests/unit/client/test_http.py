# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from pytest_mock import MockerFixture

from airflow_provider_luma import __version__
from airflow_provider_luma.client.http import RelaySession
from airflow_provider_luma.delays import MAX_RETRY_AFTER
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaBusyError,
    LumaConfigError,
    LumaConnectionError,
    LumaEndpointError,
    LumaModelUnavailableError,
    LumaResponseError,
    LumaServerError,
)

KEY = "sk-the-secret-key"
TASKS, ONE, SUBMIT = "/luma/tasks", "/luma/generations/t1", "/luma/generations"
RESET = ConnectionResetError(104, "Connection reset by peer")
CHUNKED = {"Transfer-Encoding": "chunked"}


def session(base_url: str = "http://relay.test", **options: Any) -> RelaySession:
    return RelaySession(base_url, KEY, **options)


def unresolvable() -> socket.gaierror:
    return socket.gaierror(-2, "Name or service not known")


class TestWhatIsSent:
    def test_a_batch_query_carries_the_key_and_json(self, relay: Any) -> None:
        relay.answers(b"[]")
        assert session().read("POST", TASKS, {"ids": ["t1"]}) == b"[]"
        [sent] = relay.sent
        assert (sent.peer, sent.method, sent.target) == (("relay.test", 80), "POST", TASKS)
        assert sent.json == {"ids": ["t1"]}
        assert sent.headers["Authorization"] == f"Bearer {KEY}"
        assert sent.headers["Accept"] == "application/json"
        assert sent.headers["Content-Type"] == "application/json"
        assert sent.headers["User-Agent"].startswith(f"airflow-provider-luma/{__version__} python-requests/")
        assert sent.headers["Cookie"] is None

    def test_a_single_query_has_no_body(self, relay: Any) -> None:
        relay.answers(b"{}")
        session().read("GET", ONE)
        [sent] = relay.sent
        assert (sent.method, sent.target, sent.body) == ("GET", ONE, b"")
        assert sent.headers["Authorization"] == f"Bearer {KEY}"
        assert sent.headers["Content-Type"] is None

    @pytest.mark.parametrize("call", ["read", "submit"])
    def test_texts_are_sent_as_utf_8(self, relay: Any, call: str) -> None:
        relay.answers(b"{}")
        body = {"user_prompt": '猫 "dances"\n'}
        http = session()
        http.submit(SUBMIT, msgspec.json.encode(body)) if call == "submit" else http.read("POST", TASKS, body)
        assert relay.sent[0].json == body
        assert "猫".encode() in relay.sent[0].body

    def test_a_path_prefix_and_a_port_are_kept(self, relay: Any) -> None:
        relay.answers(b"[]")
        session("http://relay.test:8321/some/prefix/").read("POST", TASKS, {"ids": []})
        assert relay.sent[0].peer == ("relay.test", 8321)
        assert relay.sent[0].target == "/some/prefix/luma/tasks"

    def test_queries_share_connections_and_each_submit_has_its_own(self, relay: Any) -> None:
        http = session()
        relay.answers(b"{}").answers(b"{}")
        http.read("GET", ONE)
        http.read("GET", ONE)
        assert len(relay.peers) == 1
        relay.answers(b"{}").answers(b"{}")
        http.submit(SUBMIT, b"{}")
        http.submit(SUBMIT, b"{}")
        assert len(relay.peers) == 3
        relay.answers(b"{}")
        http.read("GET", ONE)
        assert len(relay.peers) == 3

    def test_no_cookie_is_kept(self, relay: Any) -> None:
        for _ in range(2):
            relay.answers(b"[]", headers={"Set-Cookie": "session=1; Path=/; Domain=relay.test"})
        http = session()
        http.read("POST", TASKS, {"ids": []})
        http.read("POST", TASKS, {"ids": []})
        assert [sent.headers["Cookie"] for sent in relay.sent] == [None, None]
        assert not http._session.cookies

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("call", ["read", "submit"])
    def test_no_redirect_is_followed(self, relay: Any, call: str, status: int) -> None:
        relay.answers(b"moved", status=status, headers={"Location": "http://elsewhere.test/"})
        if call == "submit":
            assert session().submit(SUBMIT, b"{}").status == status
        else:
            with pytest.raises(LumaEndpointError, match=f"HTTP {status}"):
                session().read("GET", ONE)
        assert [sent.peer for sent in relay.sent] == [("relay.test", 80)]

    @pytest.mark.parametrize("target", ["http://[::1", "caf\xe9", "ftp://x", "http://a..b/", ""])
    def test_a_redirect_to_nowhere_is_an_answer_like_any_other(self, relay: Any, target: str) -> None:
        relay.answers(b"moved", status=302, headers={"Location": target})
        with pytest.raises(LumaEndpointError, match="moved"):
            session().read("GET", ONE)

    def test_a_netrc_file_is_not_read(
        self, relay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine relay.test login me password from-netrc\n")
        monkeypatch.setenv("NETRC", str(netrc))
        relay.answers(b"[]")
        session().read("POST", TASKS, {"ids": []})
        assert relay.sent[0].headers["Authorization"] == f"Bearer {KEY}"


class TestProxies:
    def test_those_of_the_environment_are_honoured(self, relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
        relay.answers(b"[]")
        session().read("POST", TASKS, {"ids": []})
        assert relay.peers == [("proxy.test", 3128)]
        assert relay.sent[0].target == "http://relay.test/luma/tasks"

    def test_no_proxy_is_honoured(self, relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
        monkeypatch.setenv("no_proxy", "relay.test")
        relay.answers(b"[]")
        session().read("POST", TASKS, {"ids": []})
        assert relay.peers == [("relay.test", 80)]

    def test_no_proxy_may_name_an_international_host_in_ascii(
        self, relay: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
        monkeypatch.setenv("no_proxy", "xn--bcher-kva.test")
        relay.answers(b"[]")
        session("http://b\xfccher.test").read("POST", TASKS, {"ids": []})
        assert relay.peers == [("xn--bcher-kva.test", 80)]

    @pytest.mark.parametrize("call", ["read", "submit"])
    def test_the_environment_is_read_when_the_session_is_made(
        self, relay: Any, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
        http = session()
        monkeypatch.delenv("http_proxy")
        relay.answers(b"{}")
        http.submit(SUBMIT, b"{}") if call == "submit" else http.read("GET", ONE)
        assert relay.peers == [("proxy.test", 3128)]

    def test_those_of_the_connection_win(self, relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
        relay.answers(b"[]")
        session(proxies={"http": "http://own.test:8080"}).read("POST", TASKS, {"ids": []})
        assert relay.peers == [("own.test", 8080)]

    def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(self, relay: Any) -> None:
        relay.cannot_be_reached(ConnectionRefusedError(111, "Connection refused"))
        http = session(proxies={"http": "http://me:hidden@own.test:8080"}, max_retries=0)
        with pytest.raises(LumaConnectionError, match="proxy") as caught:
            http.read("GET", ONE)
        assert caught.value.unsent
        assert "hidden" not in str(caught.value)

    @pytest.mark.parametrize("proxy", ["socks5://own.test", "gopher://own.test", "http://"])
    def test_a_proxy_that_cannot_be_used_sent_nothing(self, relay: Any, proxy: str) -> None:
        with pytest.raises(LumaConnectionError) as caught:
            session(proxies={"http": proxy}).submit(SUBMIT, b"{}")
        assert caught.value.unsent


class TestTls:
    def kwargs_of_a_call(self, mocker: MockerFixture, **options: Any) -> dict[str, Any]:
        send = mocker.patch("requests.adapters.HTTPAdapter.send", side_effect=requests.ConnectTimeout)
        with pytest.raises(LumaConnectionError):
            session("https://relay.test", **options).read("GET", ONE)
        return dict(send.call_args.kwargs)

    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    def test_an_unchecked_certificate_stays_unchecked_whatever_the_environment_says(
        self, mocker: MockerFixture, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, "/etc/bundle.pem")
        assert self.kwargs_of_a_call(mocker, verify=False)["verify"] is False

    def test_the_bundle_of_the_environment_checks_where_the_connection_names_none(
        self, mocker: MockerFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/bundle.pem")
        assert self.kwargs_of_a_call(mocker)["verify"] == "/etc/bundle.pem"

    def test_the_connections_own_bundle_wins(
        self, mocker: MockerFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/bundle.pem")
        bundle = tmp_path / "own.pem"
        bundle.write_text("")
        assert self.kwargs_of_a_call(mocker, verify=str(bundle))["verify"] == str(bundle)

    def test_certificates_are_checked_by_default(self, mocker: MockerFixture, relay: Any) -> None:
        assert self.kwargs_of_a_call(mocker)["verify"] is True

    @pytest.mark.parametrize(
        ("fault", "unsent"),
        [
            (ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate"), True),
            (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), True),
        ],
    )
    def test_a_handshake_that_fails_sent_nothing(
        self, relay: Any, mocker: MockerFixture, fault: ssl.SSLError, unsent: bool
    ) -> None:
        mocker.patch("urllib3.connection._ssl_wrap_socket_and_match_hostname", side_effect=fault)
        with pytest.raises(LumaConnectionError, match="TLS connection") as caught:
            session("https://relay.test").submit(SUBMIT, b"{}")
        assert caught.value.unsent is unsent
        assert fault.args[1] in str(caught.value)
        assert "verify" in str(caught.value)


class TestTimeouts:
    def timeouts(self, mocker: MockerFixture, call: str, **options: Any) -> Any:
        send = mocker.patch("requests.adapters.HTTPAdapter.send", side_effect=requests.ConnectTimeout)
        http = session(**options)
        with pytest.raises(LumaConnectionError):
            http.submit(SUBMIT, b"{}") if call == "submit" else http.read("GET", ONE)
        return send.call_args.kwargs["timeout"]

    @pytest.mark.parametrize(
        ("options", "read", "submit"),
        [
            ({}, (5.0, 30.0), (5.0, 120)),
            ({"connect_timeout": 2, "read_timeout": 7}, (2, 7), (2, 120)),
            ({"read_timeout": 500}, (5.0, 500), (5.0, 500)),
            ({"submit_timeout": 9}, (5.0, 30.0), (5.0, 9)),
        ],
    )
    def test_a_submit_waits_longer_than_a_query(
        self, mocker: MockerFixture, options: dict[str, Any], read: Any, submit: Any
    ) -> None:
        assert self.timeouts(mocker, "read", **options) == read
        assert self.timeouts(mocker, "submit", **options) == submit

    @pytest.mark.parametrize("headers", [{}, CHUNKED], ids=["with a length", "chunked"])
    def test_an_answer_that_trickles_in_is_given_up_when_the_time_is_over(
        self, relay: Any, headers: dict[str, str]
    ) -> None:
        bits = [b"1\r\n.\r\n"] * 100 if headers else [b"."] * 100
        relay.answers(b"", pieces=bits, seconds_per_piece=1, headers=headers)
        with pytest.raises(LumaConnectionError, match="didn't answer in time") as caught:
            session(read_timeout=10).read("GET", ONE)
        assert not caught.value.unsent
        assert relay.pieces_read < 20

    @pytest.mark.parametrize("call", ["read", "submit"])
    def test_silence_before_and_within_the_answer_is_a_timeout_that_may_have_been_heard(
        self, relay: Any, call: str
    ) -> None:
        for received in ((), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[{",)):
            relay.says(*received, fault=TimeoutError("timed out"))
            http = session(max_retries=0)
            with pytest.raises(LumaConnectionError, match="didn't answer in time") as caught:
                http.submit(SUBMIT, b"{}") if call == "submit" else http.read("GET", ONE)
            assert not caught.value.unsent
            assert "read_timeout" in str(caught.value)

    def test_silence_to_the_last_retry_is_a_timeout_too(self, relay: Any) -> None:
        for _ in range(3):
            relay.says(fault=TimeoutError("timed out"))
        with pytest.raises(LumaConnectionError, match="didn't answer in time"):
            session(max_retries=2).read("GET", ONE)


class TestRetriesOfQueries:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520, 521, 522, 523, 524])
    @pytest.mark.parametrize(("method", "path"), [("POST", TASKS), ("GET", ONE)])
    def test_a_passing_status_is_tried_again(self, relay: Any, method: Any, path: str, status: int) -> None:
        relay.answers(b"busy", status=status).answers(b"busy", status=status).answers(b"[]")
        assert session().read(method, path, None) == b"[]"
        assert len(relay.sent) == 3

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 418, 422, 501])
    def test_any_other_status_is_not(self, relay: Any, status: int) -> None:
        relay.answers(b"no", status=status, headers={"Retry-After": "1"} if status != 413 else {})
        with pytest.raises(LumaApiError):
            session().read("POST", TASKS, {})
        assert len(relay.sent) == 1

    @pytest.mark.parametrize(
        "fault", [RESET, TimeoutError("timed out"), None], ids=["reset", "silence", "closed without a word"]
    )
    def test_a_connection_that_breaks_before_the_answer_is_tried_again(
        self, relay: Any, fault: Exception | None
    ) -> None:
        relay.says(fault=fault).answers(b"[]")
        assert session().read("POST", TASKS, {}) == b"[]"

    @pytest.mark.parametrize(
        "error", [ConnectionRefusedError(111, "refused"), TimeoutError(), unresolvable()]
    )
    def test_a_connection_that_does_not_come_about_is_tried_again(self, relay: Any, error: Exception) -> None:
        relay.cannot_be_reached(error).answers(b"[]")
        assert session().read("POST", TASKS, {}) == b"[]"

    def test_the_last_refusal_is_the_error(self, relay: Any) -> None:
        for attempt in range(3):
            relay.answers({"error": {"message": f"busy {attempt}"}}, status=429, headers={"Retry-After": "9"})
        with pytest.raises(LumaBusyError, match="busy 2") as caught:
            session(max_retries=2).read("POST", TASKS, {})
        assert caught.value.retry_after == 9

    def test_none_are_made_where_none_are_wanted(self, relay: Any) -> None:
        relay.answers(b"busy", status=503)
        with pytest.raises(LumaServerError):
            session(max_retries=0).read("POST", TASKS, {})

    def test_pauses_grow_up_to_ten_seconds_with_some_jitter(self, relay: Any) -> None:
        for _ in range(8):
            relay.answers(b"busy", status=503)
        with pytest.raises(LumaServerError):
            session(max_retries=7).read("POST", TASKS, {})
        for pause, least in zip(relay.pauses, [1, 2, 4, 8, 10, 10], strict=True):
            assert least <= pause <= min(least + 0.5, 10)

    @pytest.mark.parametrize("said", ["7", "60"])
    def test_retry_after_is_honoured_up_to_a_minute(self, relay: Any, said: str) -> None:
        relay.answers(b"busy", status=429, headers={"Retry-After": said}).answers(b"[]")
        session().read("POST", TASKS, {})
        assert relay.pauses == [float(said)]

    @pytest.mark.parametrize("said", ["61", "Sun, 06 Nov 2094 08:49:37 GMT", "86400", "9" * 5000])
    @pytest.mark.parametrize("status", [429, 503])
    def test_a_longer_delay_than_a_call_may_wait_is_handed_on_instead_of_cut(
        self, relay: Any, status: int, said: str
    ) -> None:
        relay.answers(b"busy", status=status, headers={"Retry-After": said})
        with pytest.raises(LumaApiError) as caught:
            session().read("POST", TASKS, {})
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > MAX_RETRY_AFTER
        assert relay.pauses == []

    def test_a_delay_shorter_than_the_own_pause_does_not_shorten_it(self, relay: Any) -> None:
        for _ in range(3):
            relay.answers(b"busy", status=503, headers={"Retry-After": "0"})
        relay.answers(b"[]")
        session().read("POST", TASKS, {})
        assert relay.pauses[0] >= 1
        assert relay.pauses[1] >= 2

    @pytest.mark.parametrize("said", ["soon", "²", "Mon, 99 Jan 9999 99:99:99 GMT", "-1"])
    def test_an_unreadable_retry_after_is_none(self, relay: Any, said: str) -> None:
        relay.answers(b"busy", status=429, headers={"Retry-After": said}).answers(b"[]")
        assert session().read("POST", TASKS, {}) == b"[]"

    def test_the_body_of_an_answer_that_is_not_taken_is_not_read(self, relay: Any) -> None:
        endless = [b"." * 1000] * 1000
        relay.answers(b"", status=503, pieces=endless).answers(b"[]")
        assert session().read("POST", TASKS, {}) == b"[]"
        assert relay.pieces_read < 100

    @pytest.mark.parametrize(
        "base_url", ["http://bücher.test", "http://Relay.Test:80/%7Ea/../b", "http://h.test:"]
    )
    def test_the_spelling_of_the_address_does_not_matter(self, relay: Any, base_url: str) -> None:
        relay.answers(b"busy", status=503).answers(b"[]")
        assert session(base_url).read("POST", TASKS, {}) == b"[]"


class TestSubmitsAreSentOnce:
    @pytest.mark.parametrize("path", [SUBMIT, f"{ONE}/extend"])
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 524])
    def test_after_a_refusal(self, relay: Any, path: str, status: int) -> None:
        relay.answers(b"busy", status=status, headers={"Retry-After": "1"})
        assert session().submit(path, b"{}")[::2] == (status, b"busy")
        assert len(relay.sent) == 1
        assert relay.pauses == []

    @pytest.mark.parametrize("fault", [RESET, TimeoutError("timed out"), None])
    def test_after_a_broken_connection(self, relay: Any, fault: Exception | None) -> None:
        relay.says(fault=fault)
        with pytest.raises(LumaConnectionError) as caught:
            session().submit(SUBMIT, b"{}")
        assert not caught.value.unsent
        assert len(relay.sent) == 1

    @pytest.mark.parametrize(
        "error", [ConnectionRefusedError(111, "refused"), TimeoutError(), unresolvable()]
    )
    def test_not_even_a_connection_is_tried_again(self, relay: Any, error: Exception) -> None:
        relay.cannot_be_reached(error)
        with pytest.raises(LumaConnectionError) as caught:
            session().submit(SUBMIT, b"{}")
        assert caught.value.unsent
        assert len(relay.peers) == 1
        assert relay.sent == []


class TestBodies:
    def test_a_body_in_chunks_is_put_together(self, relay: Any) -> None:
        relay.answers(b"2\r\n[1\r\n", pieces=[b"3\r\n,2]\r\n", b"0\r\n\r\n"], headers=CHUNKED).answers(b"[]")
        http = session()
        assert http.read("GET", ONE) == b"[1,2]"
        assert http.read("GET", ONE) == b"[]"
        assert len(relay.peers) == 1

    def test_a_compressed_body_is_unpacked(self, relay: Any) -> None:
        text = b'[{"id": "t1"}]' * 10_000
        relay.answers(gzip.compress(text), headers={"Content-Encoding": "gzip"})
        assert session().read("GET", ONE) == text

    def test_an_empty_body_is_empty(self, relay: Any) -> None:
        relay.answers(b"").answers(b"", status=204)
        assert session().read("GET", ONE) == b""
        assert session().read("GET", ONE) == b""

    @pytest.mark.parametrize("status", [200, 201, 202, 299])
    def test_every_2xx_is_a_success(self, relay: Any, status: int) -> None:
        relay.answers(b"{}", status=status)
        assert session().submit(SUBMIT, b"{}")[::2] == (status, b"{}")

    @pytest.mark.parametrize(
        ("body", "headers", "length", "fault"),
        [
            (b"[{", {}, 1000, None),
            (b"[{", {}, 1000, RESET),
            (b"5\r\n[", CHUNKED, None, None),
            (b"5\r\n[{}]\n\r\n", CHUNKED, None, None),
            (b"zzz\r\n[", CHUNKED, None, None),
            (b"no gzip", {"Content-Encoding": "gzip"}, None, None),
        ],
        ids=["cut short", "reset", "a cut chunk", "no last chunk", "a bad chunk", "bad gzip"],
    )
    @pytest.mark.parametrize("status", [200, 400])
    def test_a_truncated_or_damaged_body_is_an_error(
        self,
        relay: Any,
        status: int,
        body: bytes,
        headers: dict[str, str],
        length: int | None,
        fault: Exception | None,
    ) -> None:
        relay.answers(body, status=status, headers=headers, length=length, fault=fault)
        with pytest.raises(LumaConnectionError, match="broke before the answer was complete") as caught:
            session().read("GET", ONE)
        assert not caught.value.unsent
        assert " at 0x" not in str(caught.value)

    @pytest.mark.parametrize(
        "received",
        [
            b"garbage\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        ],
        ids=["no HTTP", "no status", "too many headers", "too long a header", "two lengths"],
    )
    def test_what_is_not_http_is_an_error(self, relay: Any, received: bytes) -> None:
        relay.says(received)
        with pytest.raises(LumaConnectionError):
            session(max_retries=0).read("GET", ONE)

    @pytest.mark.parametrize("status", [200, 302, 404, 500])
    @pytest.mark.parametrize("headers", [{}, CHUNKED], ids=["with a length", "chunked"])
    def test_a_body_is_read_up_to_its_cap(self, relay: Any, headers: dict[str, str], status: int) -> None:
        bit = b"." * 10_000
        bits = [b"2710\r\n" + bit + b"\r\n"] * 1000 if headers else [bit] * 1000
        relay.answers(b"", status=status, pieces=bits, headers=headers | {"Location": "http://x.test"})
        with pytest.raises(LumaResponseError, match="larger than") as caught:
            session(max_body_bytes=100_000, max_retries=0).read("GET", ONE)
        assert caught.value.status == status
        assert relay.pieces_read < 50

    def test_a_small_body_that_unpacks_to_a_large_one_hits_the_cap(self, relay: Any) -> None:
        bomb = gzip.compress(b"\0" * 50_000_000)
        relay.answers(bomb, headers={"Content-Encoding": "gzip"})
        with pytest.raises(LumaResponseError, match="larger than 1 MiB"):
            session(max_body_bytes=1024 * 1024).read("GET", ONE)

    def test_a_body_of_just_the_cap_is_taken(self, relay: Any) -> None:
        relay.answers(b"." * 1000)
        assert len(session(max_body_bytes=1000).read("GET", ONE)) == 1000

    def test_the_cap_is_64_mib_by_default(self) -> None:
        assert session()._max_body_bytes == 64 * 1024 * 1024


class TestTheKeyStaysSecret:
    def test_in_the_words_of_the_relay(self, relay: Any) -> None:
        relay.answers({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status=401)
        with pytest.raises(LumaApiError, match=r"provided: \*\*\*") as caught:
            session().read("GET", ONE)
        assert KEY not in repr(vars(caught.value)) + repr(caught.value)

    def test_in_words_that_arrive_in_pieces(self, relay: Any) -> None:
        relay.answers(b"key ", status=401, pieces=[KEY[:5].encode(), KEY[5:].encode(), b" is bad"])
        with pytest.raises(LumaApiError, match=r"key \*\*\* is bad"):
            session().read("GET", ONE)

    def test_in_a_success_that_is_an_error(self, relay: Any) -> None:
        relay.answers({"error": {"message": f"bad {KEY}"}})
        assert KEY.encode() not in session().read("GET", ONE)

    def test_in_every_repr(self) -> None:
        http = session()
        assert KEY not in repr(http) + repr(http._session) + repr(http._session.auth)
        assert KEY not in repr(http._session.headers)

    def test_in_the_log(self, relay: Any, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        relay.answers(b"busy", status=503).answers(b"[]")
        session().read("POST", TASKS, {"ids": ["t1"]})
        assert "POST /luma/tasks answered 200 with 2 bytes" in caplog.text
        assert KEY not in caplog.text


class TestConnectionErrors:
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (unresolvable(), "host name of http://relay.test can't be resolved"),
            (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
            (OSError(113, "No route to host"), "No route to host"),
            (TimeoutError("timed out"), "Can't connect to http://relay.test"),
        ],
    )
    def test_what_was_never_sent_says_so_and_what_to_check(
        self, relay: Any, error: Exception, words: str
    ) -> None:
        relay.cannot_be_reached(error)
        with pytest.raises(LumaConnectionError) as caught:
            session(max_retries=0).read("GET", ONE)
        assert words in str(caught.value)
        assert "Check the connection's host" in str(caught.value)
        assert "object at 0x" not in str(caught.value)
        assert caught.value.unsent
        assert caught.value.retryable

    def test_a_broken_connection_may_have_been_heard(self, relay: Any) -> None:
        relay.says(fault=RESET)
        with pytest.raises(LumaConnectionError, match="reset by peer") as caught:
            session(max_retries=0).read("GET", ONE)
        assert not caught.value.unsent
        assert caught.value.retryable

    def test_a_model_without_a_channel_is_tried_a_few_times(self, relay: Any) -> None:
        for _ in range(4):
            relay.answers({"error": {"message": "no channel", "code": "model_not_found"}}, status=503)
        with pytest.raises(LumaModelUnavailableError):
            session().read("GET", ONE)


class TestArguments:
    @pytest.mark.parametrize("key", ["", " ", "sk 1", "sk\n", "sk-é", None, 5, b"sk"])
    def test_an_unusable_key_is_refused_without_being_shown(self, key: Any) -> None:
        with pytest.raises(LumaConfigError, match="API key") as caught:
            RelaySession("https://relay.test", key)
        assert not key or repr(key) not in str(caught.value)

    @pytest.mark.parametrize("name", ["connect_timeout", "read_timeout", "submit_timeout"])
    @pytest.mark.parametrize("value", [0, -1, True, "5", float("nan"), float("inf"), 100_000, [5]])
    def test_an_unusable_timeout_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(LumaConfigError, match=name) as caught:
            session(**{name: value})
        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize("name", ["max_retries", "max_body_bytes", "pool_size"])
    @pytest.mark.parametrize("value", [-1, True, "5", 1.5, None])
    def test_an_unusable_number_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(LumaConfigError, match=name) as caught:
            session(**{name: value})
        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize("value", ["/no/such/bundle.pem", "", None, 1])
    def test_a_bundle_that_is_not_there_is_refused(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="verify") as caught:
            session(verify=value)
        assert repr(value) in str(caught.value)

    def test_an_unusable_address_is_refused(self) -> None:
        with pytest.raises(LumaConfigError, match="base_url"):
            session("ftp://relay.test")


class TestShortKeys:
    def test_a_key_that_stands_in_ordinary_words_does_not_spoil_answers(self, relay: Any) -> None:
        relay.answers(b'[{"id": "completed-k", "state": "completed"}]')
        session = RelaySession("http://relay.test", "k")
        assert (
            session.read("POST", "/luma/tasks", {"ids": []})
            == b'[{"id": "completed-k", "state": "completed"}]'
        )
