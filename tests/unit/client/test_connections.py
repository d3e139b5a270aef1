# SPDX-License-Identifier: Apache-2.0
"""A call keeps its deadline, and knows whether its request began to leave, with a proxy and without one."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
from pytest_mock import MockerFixture
from urllib3.connection import _WrappedAndVerifiedSocket
from urllib3.util.connection import create_connection

from airflow_provider_luma.client.http import RelaySession
from airflow_provider_luma.exceptions import LumaApiError, LumaConnectionError

KEY = "sk-the-secret-key"
ONE, SUBMIT = "/luma/generations/t1", "/luma/generations"
RESET = ConnectionResetError(104, "Connection reset by peer")
ESTABLISHED = b"HTTP/1.0 200 Connection established\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def session(scheme: str = "http", **options: Any) -> RelaySession:
    return RelaySession(f"{scheme}://relay.test", KEY, **options)


@pytest.fixture
def tls(mocker: MockerFixture) -> Any:
    """A TLS that encrypts nothing."""

    def wrap(sock: Any, **kwargs: Any) -> Any:
        return _WrappedAndVerifiedSocket(socket=sock, is_verified=True)

    return mocker.patch("urllib3.connection._ssl_wrap_socket_and_match_hostname", side_effect=wrap)


@pytest.fixture
def tls_in_tls(mocker: MockerFixture, tls: Any) -> None:
    mocker.patch(
        "urllib3.connection.HTTPSConnection._connect_tls_proxy", side_effect=lambda hostname, sock: sock
    )


PROXIES = {
    "no proxy": ("http", {}),
    "no proxy, TLS": ("https", {}),
    "a forward proxy": ("http", {"http": "http://proxy.test:3128"}),
    "a tunnel": ("https", {"https": "http://proxy.test:3128"}),
    "a tunnel to a TLS proxy": ("https", {"https": "https://proxy.test:3128"}),
    "a TLS forward proxy": ("http", {"http": "https://proxy.test:3128"}),
}


@pytest.mark.parametrize(("scheme", "proxies"), PROXIES.values(), ids=PROXIES)
@pytest.mark.usefixtures("tls_in_tls")
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
class TestWhetherTheRequestLeft:
    def submit(self, scheme: str, proxies: dict[str, str]) -> LumaConnectionError:
        with pytest.raises(LumaConnectionError) as caught:
            session(scheme, proxies=proxies).submit(SUBMIT, b'{"user_prompt": "cat"}')
        return caught.value

    def answers_connect(self, relay: Any, scheme: str, proxies: dict[str, str]) -> None:
        if scheme == "https" and proxies:
            relay.says(ESTABLISHED)

    @pytest.mark.parametrize(
        "fault", [RESET, None, TimeoutError("timed out"), BrokenPipeError()], ids=lambda fault: repr(fault)
    )
    @pytest.mark.parametrize(
        "begun",
        [
            (),
            (b"HTTP/1.1 200 O",),
            (b"HTTP/1.1 429 Too Many Requests\r\n",),
            (b"HTTP/1.1 429 Too Many Requests\r\nRetry-Af",),
        ],
    )
    def test_a_connection_that_ends_after_the_request_may_have_been_heard(
        self, relay: Any, scheme: str, proxies: dict[str, str], fault: Any, begun: Any
    ) -> None:
        self.answers_connect(relay, scheme, proxies)
        relay.says(*begun, fault=fault)
        error = self.submit(scheme, proxies)
        assert not error.unsent
        assert "Check the connection's proxies" not in str(error)
        assert relay.sent[-1].json == {"user_prompt": "cat"}

    @pytest.mark.parametrize(
        "error", [ConnectionRefusedError(111, "refused"), TimeoutError(), socket.gaierror(-2, "unknown")]
    )
    def test_a_peer_that_is_not_reached_was_sent_nothing(
        self, relay: Any, scheme: str, proxies: dict[str, str], error: Exception
    ) -> None:
        relay.cannot_be_reached(error)
        assert self.submit(scheme, proxies).unsent
        assert relay.sent == []


@pytest.mark.parametrize("proxy", ["http://proxy.test:3128", "https://proxy.test:3128"])
@pytest.mark.usefixtures("tls_in_tls")
class TestTunnels:
    def submit(self, proxy: str) -> LumaConnectionError:
        with pytest.raises(LumaConnectionError) as caught:
            session("https", proxies={"https": proxy}).submit(SUBMIT, b'{"user_prompt": "cat"}')
        return caught.value

    def test_a_handshake_that_fails_behind_it_sent_nothing(self, relay: Any, proxy: str, tls: Any) -> None:
        relay.says(ESTABLISHED)
        tls.side_effect = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
        error = self.submit(proxy)
        assert error.unsent
        assert "TLS connection" in str(error)

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 403 Forbidden\r\n\r\n",
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"",
        ],
    )
    def test_a_refused_one_sent_nothing_and_blames_the_proxy(
        self, relay: Any, proxy: str, answer: bytes
    ) -> None:
        relay.says(answer)
        error = self.submit(proxy)
        assert error.unsent
        assert "Check the connection's proxies" in str(error)
        assert [sent.method for sent in relay.sent] == ["CONNECT"]

    def test_what_a_proxy_says_is_shown_clean(self, relay: Any, proxy: str) -> None:
        relay.says(f"HTTP/1.1 403 \x1b[31m{KEY}\r\n\r\n".encode())
        error = self.submit(proxy)
        assert "403 [31m***" in str(error)
        assert error.__cause__ is None


class TestTheDeadline:
    """The clock of the scripted relay stands in for time: each piece of an answer takes some of it."""

    TRICKLE = (b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 90, b"Content-Length: 2\r\n\r\n{}")

    @pytest.mark.parametrize("call", ["read", "submit"])
    def test_headers_that_trickle_in_are_given_up_when_the_time_is_over(self, relay: Any, call: str) -> None:
        relay.says(*self.TRICKLE, seconds_per_piece=1)
        http = session(read_timeout=10, submit_timeout=10, max_retries=0)
        with pytest.raises(LumaConnectionError, match="didn't answer in time") as caught:
            http.submit(SUBMIT, b"{}") if call == "submit" else http.read("GET", ONE)
        assert not caught.value.unsent
        assert relay.pieces_read <= 11

    def test_a_tunnel_that_trickles_in_is_given_up_after_the_connect_timeout(
        self, relay: Any, tls: Any
    ) -> None:
        relay.says(b"HTTP/1.0 200 OK\r\n", *[b"X: y\r\n"] * 90, seconds_per_piece=1)
        http = session("https", proxies={"https": "http://proxy.test:3128"}, connect_timeout=5)
        with pytest.raises(LumaConnectionError) as caught:
            http.submit(SUBMIT, b"{}")
        assert caught.value.unsent
        assert relay.pieces_read <= 6

    def test_interim_answers_do_not_stretch_it(self, relay: Any) -> None:
        relay.says(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 100, seconds_per_piece=1)
        with pytest.raises(LumaConnectionError, match="didn't answer in time"):
            session(read_timeout=10, max_retries=0).read("GET", ONE)
        assert relay.pieces_read <= 11

    def test_retries_share_the_time_of_one_call(self, relay: Any) -> None:
        start = relay.clock
        for _ in range(3):
            relay.says(*self.TRICKLE, seconds_per_piece=1)
        with pytest.raises(LumaConnectionError, match="didn't answer in time"):
            session(connect_timeout=5, read_timeout=10, max_retries=7).read("GET", ONE)
        # The pauses don't move this clock, and come on top.
        assert relay.clock - start <= 5 + 2 * 10 + 2 + sum(relay.pauses)

    def test_a_slow_refusal_is_taken_when_no_time_is_left_for_a_retry(self, relay: Any) -> None:
        pieces = [b"HTTP/1.1 503 Busy\r\n", *[b"X: y\r\n"] * 8, b"Content-Length: 0\r\n\r\n"]
        for _ in range(3):
            relay.says(*pieces, seconds_per_piece=1)
        with pytest.raises((LumaApiError, LumaConnectionError)):
            session(connect_timeout=5, read_timeout=10, max_retries=7).read("GET", ONE)

    def test_a_head_and_a_body_have_their_time_each(self, relay: Any) -> None:
        head = [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 7, b"Content-Length: 8\r\n\r\n"]
        relay.says(*head, *[b" "] * 8, seconds_per_piece=1)
        assert session(read_timeout=10).read("GET", ONE) == b" " * 8

    def test_a_name_with_many_addresses_that_do_not_answer_takes_no_longer(
        self, relay: Any, mocker: MockerFixture
    ) -> None:
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{n}", 443)) for n in range(1, 41)]
        mocker.patch("socket.getaddrinfo", return_value=addresses)

        def times_out(sock: Any, address: Any) -> None:
            relay.clock += sock.gettimeout()
            raise TimeoutError("timed out")

        mocker.patch("socket.socket.connect", times_out)
        mocker.patch("urllib3.util.connection.create_connection", new=create_connection)
        start = relay.clock
        with pytest.raises(LumaConnectionError) as caught:
            session(connect_timeout=5, submit_timeout=7).submit(SUBMIT, b"{}")
        assert caught.value.unsent
        assert relay.clock - start <= 5 + 2 * 7

    def test_it_does_not_outlive_its_call(self, relay: Any) -> None:
        http = session(read_timeout=10)
        relay.says(OK).says(OK)
        http.read("GET", ONE)
        relay.clock += 10_000
        assert http.read("GET", ONE) == b"{}"
        assert len(relay.peers) == 1
