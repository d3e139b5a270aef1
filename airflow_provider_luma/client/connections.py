# SPDX-License-Identifier: Apache-2.0
"""
Connections that keep the deadline of a call and know whether its request has begun to leave.

urllib3 knows neither: its timeouts hold from one byte to the next, so that headers that trickle in void them.
And behind a proxy it reports a connection that broke after the request was sent like one that was never
established.
"""

from __future__ import annotations

import functools
import http.client
import io
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from requests.adapters import HTTPAdapter

_LATE: Final = "the call took longer than its time limit"


class Attempt:
    """
    One request and its answer: how much time is left, whether there is a proxy, whether anything was sent.

    :param seconds: How long the attempt may take as a whole.
    :param connect_timeout: How long each address of the host may take to accept a connection, and then a
        proxy's tunnel and the TLS handshake.
    :param timeout: How long the answer may take to begin, and then again to be complete.
    """

    def __init__(self, *, seconds: float, connect_timeout: float, timeout: float) -> None:
        self.sent = False
        self.proxied = False
        now = time.monotonic()
        self._end = now + seconds
        # The last address that is tried may take its whole time, too.
        self._deadline = max(self._end - connect_timeout, now + seconds / 2)
        self._connect_timeout = connect_timeout
        self._timeout = timeout

    def remaining(self) -> float:
        """
        Return the seconds that are left for what is under way, more than 0.

        :raises TimeoutError: when none are left.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(_LATE)
        return left

    def connects(self, *, proxied: bool) -> None:
        """
        Note that a connection is about to be made.

        :param proxied: Whether it leads to a proxy.
        """
        self.proxied = proxied

    def reaches_peer(self) -> None:
        """Start the time for a proxy's tunnel and the TLS handshake."""
        self._start(self._connect_timeout)

    def sends(self) -> None:
        """Note that the request begins to leave, and start the time until its answer begins."""
        if not self.sent:
            self.sent = True
            self._start(self._timeout)

    def receives(self) -> None:
        """Start the time until the answer is complete."""
        self._start(self._timeout)

    def _start(self, seconds: float) -> None:
        self._deadline = min(self._end, time.monotonic() + seconds)


class _Current(threading.local):
    # urllib3 makes its connections in the thread of the call, and hands nothing down to them.
    attempt: Attempt | None = None


_current: Final = _Current()


@contextmanager
def attempting(attempt: Attempt) -> Iterator[None]:
    """
    Make an attempt the one that the connections of this thread work for.

    :param attempt: The attempt.
    """
    _current.attempt = attempt
    try:
        yield
    finally:
        _current.attempt = None


class WatchedAdapter(HTTPAdapter):
    """An adapter whose connections, with or without a proxy, keep the deadline of the current attempt."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _tracker(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            _tracker(manager)
        return manager


def _tracker(manager: Any) -> None:
    manager.pool_classes_by_scheme = {
        scheme: _watched_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


@functools.cache
def _watched_pool(pool: Any) -> Any:
    connection = type(pool.ConnectionCls.__name__, (_WatchedConnection, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _TimedStream(io.RawIOBase):
    """Reads from a socket within the time that an attempt has left."""

    def __init__(self, sock: Any, stream: io.BufferedReader, attempt: Attempt) -> None:
        self._sock, self._stream, self._attempt = sock, stream, attempt
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._attempt.remaining())
        count: int | None = self._stream.raw.readinto(buffer)
        self.ended = self.ended or count == 0
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    _stream: _TimedStream | None = None

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if _current.attempt is not None:
            self._stream = _TimedStream(sock, self.fp, _current.attempt)
            self.fp = io.BufferedReader(self._stream)

    def begin(self) -> None:
        super().begin()
        if self._stream is not None and self._stream.ended:
            # Else a head that breaks off behind its status line counts as a whole answer with that status.
            raise http.client.IncompleteRead(b"")


class _OptionsInTime:
    """Options of a socket, which urllib3 asks for before it tries each address of a name."""

    def __init__(self, options: Iterable[Any], attempt: Attempt) -> None:
        self._options, self._attempt = options, attempt

    def __iter__(self) -> Iterator[Any]:
        self._attempt.remaining()
        return iter(self._options)


class _WatchedConnection:
    """What is added to each kind of urllib3's connections."""

    response_class = _TimedResponse
    _connecting = False

    def _new_conn(self: Any) -> Any:
        if (attempt := _current.attempt) is None:
            return super()._new_conn()  # type: ignore[misc]
        attempt.connects(proxied=self.proxy is not None)
        options = self.socket_options
        # Else a name with many addresses that don't answer takes the connect timeout for each of them.
        self.socket_options = _OptionsInTime(options or (), attempt)
        self.timeout = min(self.timeout, attempt.remaining())
        try:
            sock = super()._new_conn()  # type: ignore[misc]
        finally:
            self.socket_options = options
        attempt.reaches_peer()
        sock.settimeout(attempt.remaining())
        return sock

    def connect(self: Any) -> None:
        self._connecting = True
        try:
            super().connect()  # type: ignore[misc]
        finally:
            self._connecting = False

    def send(self: Any, data: Any) -> None:
        if self.sock is None and self.auto_open:
            self.connect()
        if (attempt := _current.attempt) is not None:
            # What is sent while connecting is for a proxy alone.
            if not self._connecting:
                attempt.sends()
            self.sock.settimeout(attempt.remaining())
        super().send(data)  # type: ignore[misc]
