# SPDX-License-Identifier: Apache-2.0
"""Serve what a test wants, byte for byte, as an artifact host."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self


class Request(NamedTuple):
    """Hold a client's request. Names of headers are in lower case."""

    target: str
    headers: dict[str, str]


Answer = Callable[[Request], Iterable[bytes]]


class RawHost:
    """
    Answer each connection once and close it.

    :param answer: Returns the bytes to send, including the status line.
    :param tls: Makes it an https host.
    """

    def __init__(self, answer: Answer, *, tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._tls = tls
        self._closing = threading.Event()
        self.requests: list[Request] = []
        self.server_names: list[str | None] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        if self._tls is not None:
            self._tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        # Wake the thread that accepts.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def wait(self, seconds: float) -> None:
        """Pause a response, until this host is closed at the latest."""
        self._closing.wait(seconds)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing.is_set():
                # This is the connection that woke this thread. The garbage collector would close it with a
                # warning that fails a later test.
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # Many tests make the client disconnect at any moment.
        with contextlib.suppress(OSError), connection:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as lines:
                _, target, _ = lines.readline().decode().split(" ", 2)
                headers = {}
                while line := lines.readline().decode().strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                request = Request(target, headers)
                self.requests.append(request)
                for piece in self._answer(request):
                    if self._closing.is_set():
                        break
                    connection.sendall(piece)


def ok(body: bytes, *headers: str, length: int | None = -1) -> list[bytes]:
    """
    Return a response with status 200.

    :param body: What to send.
    :param headers: Further header lines.
    :param length: The Content-Length: ``-1`` for the true one, ``None`` for none.
    """
    lines = ["HTTP/1.1 200 OK", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    return ["\r\n".join([*lines, "", ""]).encode(), body]


def redirect(location: str) -> list[bytes]:
    """Return a redirect to another URL."""
    return [f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()]
