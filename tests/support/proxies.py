# SPDX-License-Identifier: Apache-2.0
"""
Run a proxy on 127.0.0.1 that disconnects at a stage of a test's choice.

::

    with DroppingProxy(tmp_path) as proxy:
        client = LumaClient(…, proxies={"http": proxy.url, "https": proxy.url})
        proxy.drop("before_answer")

It forwards requests to http URLs and opens tunnels (CONNECT) to https URLs. It is proxy.py in a process of
its own, ``python -m tests.support.proxies FOLDER``, and ends with the ``with`` block or the test's process.

A tunnel's bytes are encrypted, so the kind of the TLS record shows that a response has begun. This requires a
host that uses TLS 1.2 at most, which :func:`for_tunnels` ensures.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

import msgspec
from proxy import Proxy
from proxy.http.exception import HttpProtocolException, HttpRequestRejected
from proxy.http.parser import HttpParser
from proxy.http.proxy import HttpProxyBasePlugin

Stage = Literal["407", "403", "502", "at_once", "in_handshake", "before_answer", "in_headers", "in_body"]
"""
Where the proxy disconnects: it returns a status instead of connecting, closes silently instead of connecting,
closes at the host's first bytes of the TLS handshake (tunnels only), when the host's response arrives, after
a part of the response's headers, or after its headers and a part of its body.

In a tunnel headers and body look alike: both stages mean a part of the response's first bytes there.
"""
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

_REASONS: Final = {"407": b"Proxy Authentication Required", "403": b"Forbidden", "502": b"Bad Gateway"}
_FOLDER: Final = "LUMA_TESTS_PROXY_FOLDER"
_APPLICATION_DATA: Final = 0x17
_PATIENCE: Final = 300


class _Order(msgspec.Struct):
    """Say where to disconnect and how often; ``times`` None means always."""

    stage: Stage | None = None
    times: int | None = None


class DroppingProxy:
    """
    Run the proxy in a process of its own.

    :param folder: An empty folder that the proxy may write to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self.pass_on()
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        with (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.proxies", str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={
                    **os.environ,
                    "HOME": str(self._folder),
                    "PYTHONPATH": os.pathsep.join(paths),
                    _FOLDER: str(self._folder),
                },
            )
        assert self._process.stdout is not None
        port = self._process.stdout.readline()
        if not port:
            self._end()
            raise RuntimeError(f"The proxy did not start: {(self._folder / 'output').read_text()}")
        self.port = int(port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        try:
            # Closing its stdin ends the process.
            self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def by_scheme(self) -> dict[str, str]:
        """Return the proxy for all URLs, as a connection's extra takes it."""
        return {"http": self.url, "https": self.url}

    @property
    def requests(self) -> list[str]:
        """Return its requests since the last ``pass_on``, such as ``CONNECT 127.0.0.1:443``."""
        return _log(self._folder).read_text().splitlines()

    def drop(self, stage: Stage, *, times: int | None = None) -> None:
        """Disconnect at this stage, a number of times or from now on."""
        _write(self._folder, _Order(stage, times))

    def pass_on(self) -> None:
        """Be an ordinary proxy from now on, and forget the requests so far."""
        _write(self._folder, _Order())
        _log(self._folder).write_text("")


def for_tunnels(tls: ssl.SSLContext) -> ssl.SSLContext:
    """Limit a host's TLS to a version in which the proxy sees where a response begins."""
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    return tls


def unused_port() -> int:
    """Return a port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Dropper(HttpProxyBasePlugin):
    """Handle one connection, in the proxy's process."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._folder = Path(os.environ[_FOLDER])
        self._tunnel = False
        self._answer = b""

    def before_upstream_connection(self, request: HttpParser) -> HttpParser:
        self._tunnel = request.is_https_tunnel
        host, port = (request.host or b"").decode(), request.port
        with _log(self._folder).open("a") as log:
            log.write(f"{(request.method or b'').decode()} {host}:{port}\n")
        for status, reason in _REASONS.items():
            if self._ordered(status):
                self._done()
                raise HttpRequestRejected(status_code=int(status), reason=reason)
        if self._ordered("at_once"):
            self._done()
            raise HttpProtocolException("dropped")
        return request

    def handle_upstream_chunk(self, chunk: memoryview) -> memoryview | None:
        is_answer = not self._tunnel or chunk[0] == _APPLICATION_DATA
        if self._ordered("before_answer" if is_answer else "in_handshake"):
            self._close()
        elif is_answer and self._ordered("in_headers", "in_body"):
            self._answer += bytes(chunk)
            if part := self._part():
                self.client.connection.send(part)
                self._close()
        else:
            return chunk
        return None

    def _part(self) -> bytes:
        """Return what to pass on before disconnecting; nothing until the body has begun."""
        if self._tunnel:
            return self._answer[: len(self._answer) // 2]
        headers, end, body = self._answer.partition(b"\r\n\r\n")
        if self._ordered("in_headers"):
            return headers[: len(headers) // 2]
        return headers + end + body[: len(body) // 2] if body else b""

    def _close(self) -> None:
        self._done()
        # The client may have disconnected already.
        with suppress(OSError):
            self.client.connection.shutdown(socket.SHUT_RDWR)

    def _ordered(self, *stages: str) -> bool:
        order = _read(self._folder)
        return order.stage in stages and order.times != 0

    def _done(self) -> None:
        order = _read(self._folder)
        if order.times is not None:
            order.times -= 1
            _write(self._folder, order)


def _log(folder: Path) -> Path:
    return folder / "requests"


def _read(folder: Path) -> _Order:
    return msgspec.json.decode((folder / "order.json").read_bytes(), type=_Order)


def _write(folder: Path, order: _Order) -> None:
    new = folder / "order.new"
    new.write_bytes(msgspec.json.encode(order))
    # Atomically, because the proxy may be reading.
    new.replace(folder / "order.json")


def main(folder: str) -> None:
    """Serve until stdin closes; print the port first."""
    arguments = ["--hostname", "127.0.0.1", "--port", "0", "--num-acceptors", "1", "--local-executor", "1"]
    arguments += ["--data-dir", folder, "--log-level", "ERROR", "--plugins", f"{__spec__.name}.Dropper"]
    with Proxy(arguments) as proxy:
        print(proxy.flags.port, flush=True)  # noqa: T201
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main(sys.argv[1])
