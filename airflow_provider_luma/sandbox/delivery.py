# SPDX-License-Identifier: Apache-2.0
"""Send an answer: whole, late, byte by byte, cut short, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from airflow_provider_luma.sandbox.faults.fault import NO_FAULT, Fault

Piece = bytes | memoryview
_WRITE_BUFFER = 1024 * 1024
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Answer(Response):
    """
    Send an answer that a fault may spoil on its way.

    The body is made as it is sent. The fault's own status, headers, body and delay are not used here.
    """

    def __init__(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        pieces: Iterable[Piece],
        length: int,
        *,
        delay: float = 0.0,
        fault: Fault = NO_FAULT,
    ) -> None:
        self.status_code = status
        self.background = None
        self.raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        self._pieces = pieces
        self._length = length
        self._delay = delay
        self._fault = fault
        if fault.ending == "short":
            self._length = int(length * fault.keep)
            self._pieces = _first(pieces, self._length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault
        if self._delay and await _client_leaves(receive, self._delay):
            return
        if fault.header_drip:
            await self._trickle(scope, receive, fault.header_drip)
            return
        if fault.ending in ("whole", "chunked", "short"):
            await self._send(scope, receive, send)
            return
        pieces = _first(self._pieces, int(self._length * fault.keep))
        if fault.ending == "unframed":
            await self._send_unframed(scope, pieces)
        elif not fault.silent:
            await self._start(send, framed=fault.ending != "chunk_cut")
            for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await _end(fault, scope, receive)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._start(send, framed=self._fault.ending != "chunked")
        drip = self._fault.drip
        last: Piece = b""
        if scope["method"] != "HEAD":
            for piece in _drops(self._pieces) if drip else self._pieces:
                if last:
                    await send({"type": "http.response.body", "body": last, "more_body": True})
                    if drip and await _client_leaves(receive, drip):
                        return
                last = piece
        await send({"type": "http.response.body", "body": last})

    async def _send_unframed(self, scope: Scope, pieces: Iterable[Piece]) -> None:
        """Write past uvicorn, which always frames."""
        transport = _transport(scope)
        transport.write(self._head())
        await _write(transport, pieces)

    async def _trickle(self, scope: Scope, receive: Receive, seconds: float) -> None:
        """Write past uvicorn, which sends the headers at once."""
        transport = _transport(scope)
        for byte in self._head(b"content-length: %d" % self._length):
            transport.write(bytes((byte,)))
            if await _client_leaves(receive, seconds):
                return
        if scope["method"] != "HEAD":
            await _write(transport, self._pieces)
        transport.close()
        await _client_left(receive)

    def _head(self, *more: bytes) -> bytes:
        lines = [b"HTTP/1.1 %d OK" % self.status_code, b"connection: close", *more]
        lines += [name + b": " + value for name, value in self.raw_headers]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def _start(self, send: Send, *, framed: bool) -> None:
        headers = self.raw_headers
        if framed and self.status_code != 304:
            headers = [*headers, (b"content-length", str(self._length).encode())]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})


def _transport(scope: Scope) -> asyncio.Transport:
    return cast("asyncio.Transport", scope["state"]["transport"])


async def _write(transport: asyncio.Transport, pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        transport.write(piece)
        # A bare transport has no drain to await.
        while transport.get_write_buffer_size() > _WRITE_BUFFER and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def _end(fault: Fault, scope: Scope, receive: Receive) -> None:
    """End the connection, or wait until the client does."""
    transport = _transport(scope)
    if fault.ending == "reset":
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        transport.abort()
    elif fault.ending != "stalled":
        transport.close()
    await _client_left(receive)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _client_leaves(receive: Receive, within: float) -> bool:
    """Wait until the client leaves, at most so many seconds; return whether it has left."""
    try:
        async with asyncio.timeout(within):
            await _client_left(receive)
            return True
    except TimeoutError:
        return False


def _first(pieces: Iterable[Piece], length: int) -> Iterator[Piece]:
    for piece in pieces:
        if length <= 0:
            return
        yield piece[:length]
        length -= len(piece)


def _drops(pieces: Iterable[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        for index in range(len(piece)):
            yield piece[index : index + 1]
