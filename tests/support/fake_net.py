# SPDX-License-Identifier: Apache-2.0
"""Fake the internet in memory: names, addresses and hosts that return what a test wants, without threads."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pytest_mock import MockerFixture

from airflow_provider_luma.client.artifacts import Artifact
from airflow_provider_luma.client.models import LumaTask, Media, TaskState
from airflow_provider_luma.download.addresses import HostPolicy
from airflow_provider_luma.download.transport import Route


class Get(NamedTuple):
    """Hold a request as a host sees it; names of headers are in lower case."""

    url: str
    headers: dict[str, str]


Answer = Callable[[Get], bytes]


class FakeNet:
    """
    Answer every request from memory. Every name resolves, by default to one public address.

    :param answer: Returns the bytes of a response, including the status line.
    """

    def __init__(self, mocker: MockerFixture, answer: Answer) -> None:
        self.answer = answer
        self.addresses: dict[str, list[str]] = {}
        self.unknown: set[str] = set()
        self.connected: list[tuple[str, int]] = []
        self.seen: list[Get] = []
        mocker.patch.object(socket, "getaddrinfo", self._getaddrinfo)
        mocker.patch.object(socket, "create_connection", self._create_connection)

    def route(self, **settings: Any) -> Route:
        """Return a route for a relay that uses plain http, so that both schemes are allowed."""
        policy = HostPolicy(
            base_url="http://relay.example", allowed_hosts=tuple(settings.pop("allowed_hosts", ()))
        )
        route = Route(policy=policy, **settings)
        vars(route)["tls"] = _FakeTls()
        return route

    def _getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        # Like the real one, raise UnicodeError and OverflowError.
        host.encode("idna")
        if not 0 <= port <= 65535:
            raise OverflowError("getaddrinfo() argument 2 must be in range")
        if host in self.unknown:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        try:
            return [_numeric(host, port)]
        except OSError:
            return [(None, None, 0, "", (address, port)) for address in self.addresses.get(host, ["1.1.1.1"])]

    def _create_connection(self, address: tuple[str, int], timeout: float = 0, **_: object) -> Any:
        self.connected.append(address)
        return _FakeSocket(self)


def _numeric(host: str, port: int) -> tuple[Any, ...]:
    if ":" in host:
        socket.inet_pton(socket.AF_INET6, host)
        return (None, None, 0, "", (host, port))
    return (None, None, 0, "", (socket.inet_ntoa(socket.inet_aton(host)), port))


class _FakeSocket:
    """Fake one connection. It looks readable while idle, so that it isn't reused."""

    def __init__(self, net: FakeNet) -> None:
        self._net = net
        self._sent = b""
        self._null = -1

    def sendall(self, data: bytes) -> None:
        self._sent += data

    def makefile(self, *_: object, **__: object) -> io.BytesIO:
        head = self._sent.partition(b"\r\n\r\n")[0]
        first, *lines = head.decode("latin-1").split("\r\n")
        self._sent = b""
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        target = first.split(" ")[1]
        url = target if "://" in target else f"{headers.get('host', '')}{target}"
        get = Get(url, headers)
        self._net.seen.append(get)
        return io.BytesIO(self._net.answer(get))

    def fileno(self) -> int:
        if self._null < 0:
            self._null = os.open(os.devnull, os.O_RDONLY)
        return self._null

    def close(self) -> None:
        if self._null >= 0:
            os.close(self._null)
            self._null = -1

    def __del__(self) -> None:
        self.close()

    def setsockopt(self, *_: object) -> None: ...

    def settimeout(self, _: float) -> None: ...

    def shutdown(self, _: int) -> None: ...

    def do_handshake(self) -> None: ...


class _FakeTls:
    """Be as strict about names as the real one."""

    def wrap_socket(self, sock: Any, *, server_hostname: str, **_: object) -> Any:
        server_hostname.encode("idna")
        if not server_hostname or server_hostname.startswith("."):
            raise ValueError("server_hostname cannot be an empty string or start with a leading dot.")
        return sock


def reply(
    body: bytes = b"", *headers: str, status: int = 200, length: int | None = None, framed: bool = True
) -> bytes:
    """
    Return a response.

    :param length: The length to announce; by default the true one.
    :param framed: False to announce none.
    """
    lines = [f"HTTP/1.1 {status} Whatever", *headers]
    if framed:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(body: bytes, *headers: str, ends: bool = True, status: int = 200) -> bytes:
    """Return a response in chunks, with or without its last one."""
    parts = reply(b"", "Transfer-Encoding: chunked", *headers, status=status, framed=False)
    for start in range(0, len(body), 50_000):
        piece = body[start : start + 50_000]
        parts += f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    return parts + (b"0\r\n\r\n" if ends else b"")


class UrlRelay:
    """
    Return the URLs of tasks, from query to query other ones if a test says so.

    :param urls: For each task its sets of URLs, each with the preferred one first; the last set is repeated.
    """

    def __init__(self, urls: Mapping[str, Iterable[Iterable[str]]], artifact: Artifact = "video") -> None:
        self._sets = {task_id: [list(one) for one in sets] for task_id, sets in urls.items()}
        self._artifact = artifact
        self.queried: list[str] = []

    def get_tasks(self, ids: Iterable[str]) -> dict[str, LumaTask]:
        return {task_id: self._task(task_id) for task_id in ids}

    def _task(self, task_id: str) -> LumaTask:
        self.queried.append(task_id)
        sets = self._sets[task_id]
        urls = sets.pop(0) if len(sets) > 1 else sets[0]
        if self._artifact != "video":
            files: dict[str, Any] = {self._artifact: Media(url=urls[0])}
            return LumaTask(task_id, TaskState.COMPLETED, **files)
        first, second, third = (*urls, None, None)[:3]
        return LumaTask(
            task_id,
            TaskState.COMPLETED,
            video=Media(download_url=first, url=third),
            video_raw=Media(url=second),
        )
