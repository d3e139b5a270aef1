# SPDX-License-Identifier: Apache-2.0
"""
Keep the deadline of a call, and know whether any of its request was sent.

urllib3 does neither: its timeouts start again with each byte, so headers that trickle in void them. Behind a
proxy it reports a connection that broke after the request was sent like one that was never established.
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
    Track one request and its answer: the time left, whether a proxy is used, whether anything was sent.

    :param seconds: Seconds for the attempt as a whole.
    :param connect_timeout: Seconds for each address of the host to accept a connection, and again for a
        proxy's tunnel and the TLS handshake.
    :param timeout: Seconds until the answer begins, and again until it is complete.
    """

    def __init__(self, *, seconds: float, connect_timeout: float, timeout: float) -> None:
        self.sent = False
        self.proxied = False
        now = time.monotonic()
        self._end = now + seconds
        # The last address of the host may take its whole connect timeout, too.
        self._deadline = max(self._end - connect_timeout, now + seconds / 2)
        self._connect_timeout = connect_timeout
        self._timeout = timeout

    def remaining(self) -> float:
        """
        Return the seconds left for the current phase, more than 0.

        :raises TimeoutError: when none are left.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(_LATE)
        return left

    def connects(self, *, proxied: bool) -> None:
        """Note that a connection, perhaps to a proxy, is about to be established."""
        self.proxied = proxied

    def reaches_peer(self) -> None:
        """Start the timeout for a proxy's tunnel and the TLS handshake."""
        self._start(self._connect_timeout)

    def sends(self) -> None:
        """Note that the request is being sent, and start the timeout until its answer begins."""
        if not self.sent:
            self.sent = True
            self._start(self._timeout)

    def receives(self) -> None:
        """Start the timeout until the answer is complete."""
        self._start(self._timeout)

    def _start(self, seconds: float) -> None:
        self._deadline = min(self._end, time.monotonic() + seconds)


class _Current(threading.local):
    # urllib3 establishes connections in the thread of the call, but passes no context to them.
    attempt: Attempt | None = None


_current: Final = _Current()


@contextmanager
def attempting(attempt: Attempt) -> Iterator[None]:
    """Make this the current attempt of the connections in this thread."""
    _current.attempt = attempt
    try:
        yield
    finally:
        _current.attempt = None


class WatchedAdapter(HTTPAdapter):
    """Keep the deadline of the current attempt, with or without a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            _watch(manager)
        return manager


def _watch(manager: Any) -> None:
    manager.pool_classes_by_scheme = {
        scheme: _watched_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


@functools.cache
def _watched_pool(pool: Any) -> Any:
    connection = type(pool.ConnectionCls.__name__, (_WatchedConnection, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _TimedStream(io.RawIOBase):
    """Read from a socket within the time that an attempt has left."""

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
            # Otherwise http.client takes headers that are cut off for a whole answer with that status.
            raise http.client.IncompleteRead(b"")


class _OptionsInTime:
    """Check the deadline when urllib3 reads the socket's options, which it does before each address."""

    def __init__(self, options: Iterable[Any], attempt: Attempt) -> None:
        self._options, self._attempt = options, attempt

    def __iter__(self) -> Iterator[Any]:
        self._attempt.remaining()
        return iter(self._options)


class _WatchedConnection:
    """Extend each kind of urllib3's connections."""

    response_class = _TimedResponse
    _connecting = False

    def _new_conn(self: Any) -> Any:
        if (attempt := _current.attempt) is None:
            return super()._new_conn()  # type: ignore[misc]
        attempt.connects(proxied=self.proxy is not None)
        options = self.socket_options
        # Otherwise a name with many unreachable addresses takes the connect timeout for each of them.
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
            # Only the proxy gets what is sent while connecting.
            if not self._connecting:
                attempt.sends()
            self.sock.settimeout(attempt.remaining())
        super().send(data)  # type: ignore[misc]
