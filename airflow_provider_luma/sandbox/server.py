# SPDX-License-Identifier: Apache-2.0
"""A sandbox in a thread of this process (``LumaSandbox``) or in a process of its own (``SandboxProcess``)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self, cast

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from airflow_provider_luma.sandbox.app import make_app
from airflow_provider_luma.sandbox.control import Remote
from airflow_provider_luma.sandbox.relay import Relay
from airflow_provider_luma.sandbox.settings import Settings
from airflow_provider_luma.sandbox.steering import Sandbox

_PATIENCE = 10.0


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol; the application finds the transport in ``scope["state"]``, to break it."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Server(uvicorn.Server):
    """uvicorn that starts and stops without polling, and doesn't wait for clients when it stops."""

    def __init__(
        self, app: ASGIApp, on_ready: Callable[[], None], *, tls: ssl.SSLContext | None = None
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
        )
        config.load()
        config.ssl = tls
        super().__init__(config)
        self._on_ready = on_ready

    def stop(self) -> None:
        """Make ``serve`` return; safe from any thread and from a signal handler."""
        # A loop that is closed already has nothing left to stop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # Without their connections the application's tasks end by themselves.
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_PATIENCE)
        for server in self.servers:
            await server.wait_closed()


class LumaSandbox(Sandbox):
    """
    Serve a sandbox from a thread of this process for as long as the ``with`` block lasts.

    Tasks and faults can be set up before the block as well.

    :param host: Address to listen on. Every client that reaches it can steer the sandbox: keep it local.
    :param port: Port to listen on. 0 takes a free one.
    :param clock: Seconds that tasks follow, for tests that hold the time.
    :param tls: Serves https. The client must trust the certificate.
    :param settings: Fields of :class:`~airflow_provider_luma.sandbox.settings.Settings`.
    :raises ValueError: A setting is unknown or its value wrong.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(Settings.of(settings), host=host, port=port)
        self.relay = Relay(self.settings, clock=clock)
        self._tls = tls
        if tls is not None:
            self.scheme = "https"

    def __enter__(self) -> Self:
        ready = threading.Event()
        listener = self._open(ready.set)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="luma-sandbox", daemon=True
        )
        self._thread.start()
        if not ready.wait(_PATIENCE):
            raise RuntimeError("The sandbox's server did not start.")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        self._thread.join(2 * _PATIENCE)

    def serve(self, on_ready: Callable[[], None]) -> None:
        """
        Serve from this thread until SIGINT, SIGTERM or ``stop``; call ``on_ready`` once the sandbox listens.

        :raises OSError: It can't listen on its host and port.
        """
        listener = self._open(on_ready)
        self._server.run(sockets=[listener])

    def stop(self) -> None:
        """End ``serve``; safe from any thread."""
        self._server.stop()

    def _open(self, on_ready: Callable[[], None]) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=2048)
        # asyncio sets this only on sockets that name their protocol; without it small answers wait for ACKs.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        self._server = Server(make_app(self), on_ready, tls=self._tls)
        return listener


class SandboxProcess(Sandbox):
    """
    Run a sandbox in a process of its own, for benchmarks and for clients that are killed.

    It shares no interpreter lock with them. It ends with the ``with`` block, and in any case when this
    process ends. The parameters are those of :class:`LumaSandbox`.
    """

    remote: Remote

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, **settings: Any) -> None:
        super().__init__(Settings.of(settings), host=host, port=port)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", __package__, "--host", self.host, "--port", str(self.port)]
        command += ["--settings", msgspec.json.encode(self.settings).decode(), "--until-stdin-closes"]
        package_root = str(Path(__file__).parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        ready = cast("IO[str]", self.process.stdout).readline().split()
        if not ready:
            self._end()
            raise RuntimeError(
                f"The sandbox process ended with {self.process.returncode} before it was ready."
            )
        root_url = ready[-1].removesuffix(self.prefix)
        self.port = int(root_url.rpartition(":")[2])
        self.remote = Remote(self.root_url)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remote.close()
        self._end()

    def _end(self) -> None:
        try:
            # Closes the process's stdin, at which it ends.
            self.process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
