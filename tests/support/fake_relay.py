# SPDX-License-Identifier: Apache-2.0
"""A relay in virtual time: what stands behind a poller when timing matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from airflow_provider_luma.client.models import LumaTask, Media, TaskState
from airflow_provider_luma.exceptions import LumaAuthError, LumaConnectionError, LumaError
from tests.support.virtual_time import VirtualLoop

HANG_SECONDS = 30.0
UNUSED_ID = "unused-id"


@dataclass(frozen=True)
class FakeTask:
    """
    What becomes of a task.

    :param ends_at: when it reaches its terminal state; ``None``: never
    :param fails: whether that is a failure
    :param unknown: whether the relay leaves it out
    :param poison: what every call suffers that polls it: an error, or "hang"
    :param relapses: from when on it is reported as processing again
    """

    ends_at: float | None = None
    fails: bool = False
    unknown: bool = False
    poison: LumaError | str | None = None
    relapses: float | None = None

    def as_reported(self, task_id: str, now: float) -> LumaTask:
        if self.ends_at is None or now < self.ends_at or (self.relapses or now + 1) <= now:
            return LumaTask(id=task_id, state=TaskState.PROCESSING)
        if self.fails:
            return LumaTask(id=task_id, state=TaskState.FAILED, failure_reason="moderated")
        return LumaTask(
            id=task_id, state=TaskState.COMPLETED, video=Media(url=f"https://cdn.example/{task_id}.mp4")
        )


@dataclass(frozen=True)
class FakeCall:
    """A call that the relay received."""

    at: float
    ids: tuple[str, ...]
    key: str


@dataclass
class FakeRelay:
    """
    :param key: the only key that it takes
    :param latency: seconds that an answer takes
    :param outage: the error, if any, that every call at a time meets
    """

    loop: VirtualLoop
    tasks: dict[str, FakeTask] = field(default_factory=dict)
    key: str = "key"
    latency: float = 0.05
    outage: Callable[[float], Exception | None] = lambda now: None
    calls: list[FakeCall] = field(default_factory=list)
    clients: list[FakeClient] = field(default_factory=list)
    on_call: Callable[[list[str]], object] = lambda ids: None

    def answer(self, ids: list[str], key: str) -> dict[str, LumaTask]:
        now = self.loop.time()
        self.calls.append(FakeCall(now, tuple(ids), key))
        self.on_call(ids)
        self.loop.take(self.latency)
        if key != self.key:
            raise LumaAuthError("The relay refuses the API key.", status=401, well_formed=True)
        if (error := self.outage(now)) is not None:
            raise error
        for poison in (self.tasks[task_id].poison for task_id in ids if task_id != UNUSED_ID):
            if poison == "hang":
                self.loop.take(HANG_SECONDS)
                raise LumaConnectionError("no answer in time")
            if isinstance(poison, LumaError):
                raise poison
        known = (task_id for task_id in ids if task_id != UNUSED_ID and not self.tasks[task_id].unknown)
        return {task_id: self.tasks[task_id].as_reported(task_id, now) for task_id in known}

    def calls_between(self, begin: float, end: float) -> list[FakeCall]:
        return [call for call in self.calls if begin <= call.at < end]

    @property
    def settings(self) -> FakeSettings:
        return FakeSettings(self)


class FakeClient:
    def __init__(self, relay: FakeRelay, key: str) -> None:
        self.closed = False
        self._relay = relay
        self._key = key
        relay.clients.append(self)

    def query(self, ids: Iterable[str]) -> dict[str, LumaTask]:
        assert not self.closed
        return self._relay.answer(list(ids), self._key)

    def check(self) -> str:
        self.query([UNUSED_ID])
        return "it works"

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class FakeSettings:
    """A connection to the relay."""

    relay: FakeRelay = field(compare=False)
    api_key: str = "key"
    batch_size: int = 100
    max_poll_failures: int = 20

    def client(self, *, max_retries: int) -> FakeClient:
        assert max_retries == 0
        return FakeClient(self.relay, self.api_key)
