# SPDX-License-Identifier: Apache-2.0
"""A relay without a network: it stands in for every socket that urllib3 opens."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any

import pytest

from airflow_provider_luma.client import records

SEED_ID = "4665a07c-7641-4809-a133-10786201bb56"
CDN = "https://storage.cdn-luma.com/dream-machine"


@pytest.fixture
def seed_task() -> dict[str, Any]:
    """A completed task in the shape of the user's relay."""
    size = {"height": 752, "width": 1360}
    frame = {"media_type": "image", "palette": None, "url": f"{CDN}/last_frame.jpg", **size}
    thumbnail = frame | {"url": f"{CDN}/thumbnail", "palette": {"grid": "em9csKqX"}}
    video = {"download_url": f"{CDN}/clean.mp4", "url": f"{CDN}/marked.mp4", **size}
    raw = {"duration": 5.04, "media_type": "video", "url": f"{CDN}/raw.mp4", **size}
    files = {"last_frame": frame, "thumbnail": thumbnail, "video": video, "video_raw": raw}
    return {
        "artifact": {"created_at": "0001-01-01T00:00:00Z", **files},
        "created_at": "2024-12-22T13:38:40.139Z",
        "id": SEED_ID,
        "request": {"aspect_ratio": "16:9", "prompt": "cat dance"},
        "state": "completed",
        **files,
    }


@dataclass(frozen=True)
class Sent:
    """A request as it left for the relay."""

    peer: tuple[str, int]
    method: str
    target: str
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What comes back: the head and body in pieces, then the end of the stream or a fault."""

    pieces: Sequence[bytes]
    fault: Exception | None = None
    seconds_per_piece: float = 0.0


@dataclass
class FakeRelay:
    """
    Answers requests in the order of its script.

    ``peers`` are the addresses that were connected to, ``pauses`` the seconds that retries waited.
    """

    sent: list[Sent] = field(default_factory=list)
    peers: list[tuple[str, int]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    pieces_read: int = 0
    clock: float = 1000.0
    _script: deque[Answer | Exception] = field(default_factory=deque)

    def answers(
        self,
        body: bytes | str | Any = b"[]",
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        length: int | None = None,
        fault: Exception | None = None,
        pieces: Sequence[bytes] = (),
        seconds_per_piece: float = 0.0,
    ) -> FakeRelay:
        """
        Add an answer to the script.

        :param body: Bytes, text, or a value to send as JSON.
        :param length: The length to announce; default is the body's own.
        :param fault: What happens at the end of the body instead of its end.
        :param pieces: The body as it arrives bit by bit, after *body*.
        """
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
        length = sum(map(len, pieces), len(body)) if length is None else length
        lines = {"Content-Type": "application/json", "Content-Length": str(length), **(headers or {})}
        head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        self._script.append(
            Answer([head.encode("latin-1") + b"\r\n" + body, *pieces], fault, seconds_per_piece)
        )
        return self

    def says(
        self, *pieces: bytes, fault: Exception | None = None, seconds_per_piece: float = 0.0
    ) -> FakeRelay:
        """Add raw bytes to the script."""
        self._script.append(Answer(pieces, fault, seconds_per_piece))
        return self

    def cannot_be_reached(self, error: Exception) -> FakeRelay:
        """Let the next connection attempt fail."""
        self._script.append(error)
        return self

    def connect(self, peer: tuple[str, int], *args: Any, **kwargs: Any) -> FakeSocket:
        self.peers.append(peer)
        if self._script and isinstance(fault := self._script[0], Exception):
            self._script.popleft()
            raise fault
        return FakeSocket(self, peer)

    def next_answer(self) -> Answer:
        assert self._script, "the relay was asked once more than this test foresees"
        answer = self._script.popleft()
        assert isinstance(answer, Answer), "this test foresees a new connection here"
        return answer


class FakeSocket:
    """The part of a socket that http.client uses."""

    def __init__(self, relay: FakeRelay, peer: tuple[str, int]) -> None:
        self._relay, self._peer, self._received = relay, peer, b""
        # urllib3 asks the operating system whether a pooled connection has something to read.
        self._silent: tuple[int, ...] = os.pipe()

    def sendall(self, data: bytes) -> None:
        self._received += bytes(data)

    def makefile(self, mode: str, *args: Any) -> io.BufferedReader:
        head, _, body = self._received.partition(b"\r\n\r\n")
        self._received = b""
        line, _, headers = head.partition(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ")
        self._relay.sent.append(
            Sent(self._peer, method, target, BytesHeaderParser().parsebytes(headers), body)
        )
        return io.BufferedReader(Arriving(self._relay, self._relay.next_answer()))

    def fileno(self) -> int:
        return self._silent[0]

    def settimeout(self, seconds: float | None) -> None:
        self.timeout = seconds

    def close(self) -> None:
        for end in self._silent:
            os.close(end)
        self._silent = ()

    def shutdown(self, how: int) -> None:
        pass

    def __del__(self) -> None:
        self.close()


class Arriving(io.RawIOBase):
    """Bytes that arrive piece by piece."""

    def __init__(self, relay: FakeRelay, answer: Answer) -> None:
        self._relay, self._answer = relay, answer
        self._pieces: Iterator[bytes] = iter(answer.pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self._relay.pieces_read += 1
            self._relay.clock += self._answer.seconds_per_piece
        if not self._rest and self._answer.fault is not None:
            raise self._answer.fault
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRelay]:
    """A scripted relay at every address; no name is resolved, and pauses take no time."""
    relay = FakeRelay()
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr("urllib3.util.connection.create_connection", relay.connect)
    monkeypatch.setattr(time, "sleep", relay.pauses.append)
    monkeypatch.setattr(time, "monotonic", lambda: relay.clock)
    yield relay
    assert not relay._script, "the relay was asked less often than this test foresees"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit tests open no connection."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a unit test wants to connect to {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def no_state_met_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_warned_states", set())
