# SPDX-License-Identifier: Apache-2.0
"""Whatever one poll meets between good ones, every wait gets its videos."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from airflow_provider_luma.client.errors import api_error
from airflow_provider_luma.client.models import LumaTask, decode_tasks
from airflow_provider_luma.exceptions import LumaConnectionError, LumaServerError
from airflow_provider_luma.waiting import poller as poller_module
from airflow_provider_luma.waiting.poller import follow_shared
from airflow_provider_luma.waiting.progress import Progress, WaitPolicy
from airflow_provider_luma.waiting.tracker import Tracker
from tests.support.fake_relay import FakeCall, FakeRelay, FakeSettings, FakeTask
from tests.support.virtual_time import VirtualLoop, run

EPOCH = 1_700_000_000.0
INTERVAL = 15.0
HOURS = 3600.0
METER: Any = SimpleNamespace(
    incr=lambda name, count=1: None, gauge=lambda name, value: None, timing=lambda name, seconds: None
)

Odd = Callable[[], list[LumaTask]]

CODES = [
    "", "new_api_error", "insufficient_user_quota", "pre_consume_token_quota_failed", "insufficient_quota",
    "task_not_exist", "do_request_failed", "model_not_found", "success", 0, 1, 401, None, [], {},
]  # fmt: skip
WORDS = [
    "", "该令牌额度已用尽", "余额不足", "当前分组上游负载已饱和", "Invalid URL (POST /luma/tasks)",
    "rate limit", "invalid token", "无权进行此操作", "Endpoint request timed out", "\ud83d", "\x1b[2J",
]  # fmt: skip
PAGES = [
    b"", b"404 page not found", b"<html><title>Just a moment...</title></html>", b"null", b"[]", b"{}",
    b"<html>" + b"insufficient quota " * 9, b"\xff\xfe\x00", b"[{", b'{"data": null}', b"0", b"NaN",
    "余额不足".encode(), b'[{"id": "stranger", "state": "failed"}]', b"[" * 5000,
]  # fmt: skip


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


codes, words = st.sampled_from(CODES), st.sampled_from(WORDS)
documents = st.one_of(
    st.builds(lambda code, text: {"code": code, "message": text, "data": None}, codes, words),
    st.builds(lambda code, text: {"error": {"code": code, "message": text}}, codes, words),
    st.builds(lambda text: {"error": text}, words),
    st.builds(lambda text: {"success": False, "message": text}, words),
    st.builds(lambda text: {"detail": {"reason": text}}, words),
).map(_json)
bodies = documents | st.sampled_from(PAGES) | st.builds(lambda a, b: a + b, documents, documents)
statuses = st.sampled_from(
    [
        *(200, 201, 204, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 422, 429),
        *(451, 500, 501, 502, 503, 504, 520, 521, 522, 523, 524, 525, 530),
    ]
)
headers = st.sampled_from(
    [{}, {}, {"cf-mitigated": "challenge"}, {"location": "/maintenance"}, {"retry-after": "0"}]
    + [{"retry-after": value} for value in ("7", "120", "3600", "99999999", "Fri, 31 Dec 9999 23:59:59 GMT")]
)


def answered(status: int, headers: dict[str, str], body: bytes) -> Odd:
    """What the client makes of an answer."""

    def make() -> list[LumaTask]:
        if 200 <= status < 300:
            return decode_tasks(body)
        raise api_error(status, headers, body)

    return make


def broken(unsent: bool) -> Odd:
    def make() -> list[LumaTask]:
        raise LumaConnectionError("the connection broke", unsent=unsent)

    return make


answers = st.builds(answered, statuses, headers, bodies)
breaks = st.builds(broken, st.booleans())
odd_answers = st.sampled_from("aaaaaaaaab").flatmap(lambda kind: answers if kind == "a" else breaks)


@dataclass
class OddRelay(FakeRelay):
    """
    :param odd: What it answers from *begin* to *end*, in place of the truth.
    """

    odd: Odd = list
    begin: float = 0.0
    end: float = 0.0

    def answer(self, ids: list[str], key: str) -> dict[str, LumaTask]:
        if not self.begin <= self.loop.time() < self.end:
            return super().answer(ids, key)
        self.calls.append(FakeCall(self.loop.time(), tuple(ids), key))
        self.loop.take(self.latency)
        return {task.id: task for task in self.odd() if task.id in ids}


@dataclass
class World:
    odd: Odd
    groups: list[list[str]]
    batch_size: int
    proven_in_a_worker: bool
    verdicts: list[str] = field(default_factory=list)

    async def main(self, loop: VirtualLoop) -> None:
        relay = OddRelay(loop, odd=self.odd)
        # One interval: one poll, the very first one here if there was one in a worker before.
        relay.begin = 0.0 if self.proven_in_a_worker else INTERVAL + 2
        relay.end = relay.begin + INTERVAL + 1
        relay.tasks = {task_id: FakeTask(ends_at=100.0) for group in self.groups for task_id in group}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(poller_module, "time", SimpleNamespace(time=lambda: EPOCH + loop.time()))
            connection = FakeSettings(relay, batch_size=self.batch_size)
            self.verdicts = await asyncio.gather(*(self._wait(connection, group) for group in self.groups))
        assert any(relay.begin <= call.at < relay.end for call in relay.calls)

    async def _wait(self, connection: FakeSettings, ids: Sequence[str]) -> str:
        return await wait(connection, Progress.of(ids, answered=self.proven_in_a_worker))


async def wait(connection: FakeSettings, progress: Progress) -> str:
    """Wait as the trigger does; return the verdict."""

    async def load_settings() -> Any:
        return connection

    return await follow_shared(
        "luma_default",
        load_settings,
        Tracker(progress, WaitPolicy(), logging.getLogger(__name__)),
        interval=INTERVAL,
        deadline=EPOCH + 3 * HOURS,
        meter=METER,
    )


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@given(
    odd=odd_answers,
    groups=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4), min_size=1, max_size=4),
    batch_size=st.integers(1, 5),
    proven_in_a_worker=st.booleans(),
)
@settings(
    max_examples=int(os.environ.get("LUMA_ODD_POLLS", "300")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_answer_to_one_poll_after_one_that_worked_ends_no_wait(
    odd: Odd, groups: list[list[str]], batch_size: int, proven_in_a_worker: bool
) -> None:
    world = World(odd, groups, batch_size, proven_in_a_worker)
    run(world.main)
    assert world.verdicts == ["done"] * len(groups)
    try:
        odd()
    except Exception as error:
        event(type(error).__name__)
    else:
        event("an answer")


def test_many_ids_reach_their_end_though_a_call_in_nearly_every_round_fails() -> None:
    rng = random.Random(1)  # noqa: S311
    ids = [f"t{n}" for n in range(1000)]

    async def main(loop: VirtualLoop) -> str:
        relay = FakeRelay(loop, dict.fromkeys(ids, FakeTask(ends_at=20 * INTERVAL)))
        relay.outage = lambda now: LumaServerError("boom", status=502) if rng.random() < 0.02 else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(poller_module, "time", SimpleNamespace(time=lambda: EPOCH + loop.time()))
            connection = FakeSettings(relay, batch_size=10, max_poll_failures=3)
            return await wait(connection, Progress.of(ids))

    assert run(main) == "done"
