# SPDX-License-Identifier: Apache-2.0
"""
Triggers that come and go, tasks that end, relays that fail: whatever the schedule, every waiter gets its one
and right outcome, and no id is polled that is not open for a waiter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, inf
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from airflow_provider_luma.exceptions import LumaBusyError, LumaConnectionError, LumaError, LumaServerError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from airflow_provider_luma.waiting import poller as poller_module
from tests.support.fake_relay import FakeRelay, FakeSettings, FakeTask
from tests.support.virtual_time import VirtualLoop, run

EPOCH = 1_700_000_000.0
HOURS = 3600.0
# Jitter of a newcomer's first round, spread of a round's calls, queueing for a place.
SLACK = 1.5
# Seconds by which sums of floats may differ.
ROUNDING = 1e-6

BOOM = LumaServerError("boom", status=503)
OUTAGES: list[LumaError] = [
    BOOM,
    LumaBusyError("busy", status=429, retry_after=20),
    LumaConnectionError("connection refused", unsent=True),
    LumaConnectionError("connection reset"),
]


@dataclass(frozen=True)
class Plan:
    """Someone who waits."""

    ids: tuple[str, ...]
    joins_at: float
    interval: float
    deadline: float
    leaves_at: float


@dataclass(frozen=True)
class World:
    tasks: dict[str, FakeTask]
    waiters: list[Plan]
    batch_size: int
    latency: float
    outages: list[tuple[float, float, LumaError]] = field(default_factory=list)

    def outage(self, now: float) -> LumaError | None:
        return next((error for begin, end, error in self.outages if begin <= now < end), None)


IDS = [f"t{n}" for n in range(12)]
moments = st.integers(0, 1200).map(lambda tenths: tenths / 10)


endings = st.builds(
    FakeTask,
    ends_at=moments,
    fails=st.sampled_from([False] * 9 + [True]),
    unknown=st.sampled_from([False] * 9 + [True]),
)
relapses = st.tuples(moments, moments).map(lambda span: FakeTask(ends_at=span[0], relapses=sum(span)))
poison = st.sampled_from(
    [FakeTask(poison=what) for what in (BOOM, LumaConnectionError("connection reset"), "hang")]
)
outages = st.tuples(moments, moments, st.sampled_from(OUTAGES)).map(
    lambda outage: (outage[0], outage[0] + outage[1] / 2, outage[2])
)


@st.composite
def plans(draw: st.DrawFn, patience: st.SearchStrategy[float]) -> Plan:
    joins_at = draw(moments)
    return Plan(
        ids=tuple(draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=6, unique=True))),
        joins_at=joins_at,
        interval=draw(st.sampled_from([5, 5, 7, 15, 37])),
        deadline=joins_at + draw(patience),
        leaves_at=draw(st.just(inf) | st.just(inf) | moments.map(lambda after: joins_at + after)),
    )


@st.composite
def worlds(draw: st.DrawFn, *, faults: bool) -> World:
    tasks = endings if faults else endings | st.just(FakeTask()) | relapses
    poisonous = draw(st.dictionaries(st.sampled_from(IDS), poison, max_size=4)) if faults else {}
    patience = st.just(3 * HOURS) if faults else st.integers(1, 300).map(float)
    return World(
        tasks={task_id: draw(tasks) for task_id in IDS} | poisonous,
        waiters=draw(st.lists(plans(patience), min_size=1, max_size=8)),
        batch_size=draw(st.integers(1, 5)),
        latency=draw(st.sampled_from([0.0, 0.05, 0.3])),
        outages=draw(st.lists(outages, max_size=2)) if faults else [],
    )


@dataclass
class Outcome:
    """What became of a waiter: its reports, and when it ended."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    ended_at: float = inf


class Play:
    """A world, played in virtual time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outcomes = [Outcome() for _ in world.waiters]
        self.waiting: dict[int, Plan] = {}
        self.rounds: list[int] = []

    async def main(self, loop: VirtualLoop) -> None:
        self.relay = FakeRelay(loop, dict(self.world.tasks), latency=self.world.latency)
        self.relay.outage = self.world.outage
        self.relay.on_call = self._check_call
        connection = FakeSettings(self.relay, batch_size=self.world.batch_size)

        async def aget_settings(luma_conn_id: str) -> FakeSettings:
            return connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LumaHook, "aget_settings", aget_settings)
            patch.setattr(poller_module, "time", SimpleNamespace(time=lambda: EPOCH + loop.time()))
            patch.setattr("airflow_provider_luma.triggers.luma._AirflowMeter", self._meter)
            await asyncio.gather(*(self._wait(n, plan) for n, plan in enumerate(self.world.waiters)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not poller_module._pollers.get(loop)

    async def _wait(self, number: int, plan: Plan) -> None:
        loop, outcome = asyncio.get_running_loop(), self.outcomes[number]
        await asyncio.sleep(plan.joins_at)
        trigger = LumaTaskTrigger(
            luma_task_ids=plan.ids,
            poll_interval=plan.interval,
            time_limit={"seconds": 1, "deadline": EPOCH + plan.deadline},
        )
        self.waiting[number] = plan
        try:
            async with asyncio.timeout_at(None if plan.leaves_at == inf else plan.leaves_at):
                async for fired in trigger.run():
                    outcome.reports.append(fired.payload)
                    outcome.ended_at = loop.time()
        except TimeoutError:
            outcome.ended_at = loop.time()
        finally:
            del self.waiting[number]

    def _check_call(self, ids: list[str]) -> None:
        waited_for = {task_id for plan in self.waiting.values() for task_id in plan.ids}
        [poller] = poller_module._pollers[self.relay.loop].values()
        assert set(ids) <= poller._schedule.open_ids <= waited_for
        assert len(ids) == len(set(ids)) <= self.world.batch_size

    def _meter(self, luma_conn_id: str) -> Any:
        def gauge(name: str, value: float) -> None:
            if name == "luma.poller.open_ids":
                self.rounds.append(int(value))

        return SimpleNamespace(
            incr=lambda name, count=1: None, gauge=gauge, timing=lambda name, seconds: None
        )

    def waiters(self) -> Iterator[tuple[Plan, Outcome]]:
        yield from zip(self.world.waiters, self.outcomes, strict=True)

    def check_outcome(self, plan: Plan, outcome: Outcome) -> str:
        """Whether a waiter's outcome is true; return its verdict."""
        if plan.leaves_at <= outcome.ended_at + ROUNDING and not outcome.reports:
            assert outcome.ended_at == pytest.approx(plan.leaves_at)
            return "left"
        assert len(outcome.reports) == 1
        [report], end = outcome.reports, outcome.ended_at
        tasks = {task_id: self.world.tasks[task_id] for task_id in plan.ids}
        for task_id, reason in report["failed"].items():
            task = tasks[task_id]
            if task.unknown:
                assert "doesn't know" in reason
            else:
                assert reason == "moderated"
                assert task.ends_at is not None
                assert task.ends_at <= end
        match report["verdict"]:
            case "done":
                assert not report["failed"]
                assert all(good(task) for task in tasks.values())
                assert all(task.ends_at is not None and task.ends_at <= end for task in tasks.values())
            case "failed":
                assert report["failed"]
            case "timed_out":
                assert end >= plan.deadline
            case "unreachable":
                assert any(task.poison for task in tasks.values())
            case verdict:
                raise AssertionError(verdict)
        return str(report["verdict"])


def good(task: FakeTask) -> bool:
    return task.ends_at is not None and not (task.fails or task.unknown or task.poison)


def visible_end(task: FakeTask, plan: Plan) -> float:
    """Return when a waiter that is served in time must have seen the terminal state."""
    if task.unknown or task.poison or task.ends_at is None:
        return inf
    if task.relapses is not None and task.relapses < max(task.ends_at, plan.joins_at) + plan.interval + SLACK:
        return inf
    return task.ends_at


@given(worlds(faults=False))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_without_faults_every_wait_gets_the_right_outcome_in_time(world: World) -> None:
    play = Play(world)
    run(play.main)

    for plan, outcome in play.waiters():
        verdict = play.check_outcome(plan, outcome)
        event(verdict)
        if verdict == "left":
            continue
        tasks = [world.tasks[task_id] for task_id in plan.ids]
        failure = min((visible_end(task, plan) for task in tasks if task.fails), default=inf)
        completion = max(visible_end(task, plan) for task in tasks) if all(map(good, tasks)) else inf
        if verdict == "timed_out":
            assert min(failure, completion) > plan.deadline
        # The end is seen one interval later at most, and never before the first interval is over.
        in_time = max(min(failure, completion), plan.joins_at) + plan.interval + SLACK
        assert outcome.ended_at <= min(in_time, plan.deadline + SLACK)
        assert outcome.ended_at >= min(plan.joins_at + plan.interval, plan.deadline)
    assert len(play.relay.calls) <= sum(ceil(open_ids / world.batch_size) + 1 for open_ids in play.rounds)
    begin = min(plan.joins_at for plan in world.waiters)
    end = max(outcome.ended_at for outcome in play.outcomes)
    shortest = min(plan.interval for plan in world.waiters)
    # Everyone has a first and a last round of its own at most.
    assert len(play.rounds) <= (end - begin) / shortest + 1 + 2 * len(world.waiters)


@given(worlds(faults=True))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_fails_every_wait_gets_the_one_right_outcome(world: World) -> None:
    play = Play(world)
    run(play.main)

    for plan, outcome in play.waiters():
        verdict = play.check_outcome(plan, outcome)
        event(verdict)
        tasks = [world.tasks[task_id] for task_id in plan.ids]
        if all(map(good, tasks)):
            # Neither a relay that was away for a while nor somebody else's poisonous ids can hurt it.
            assert verdict in ("done", "left")
        elif not any(task.poison for task in tasks):
            assert verdict in ("failed", "left")
