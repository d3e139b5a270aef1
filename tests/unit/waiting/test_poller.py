# SPDX-License-Identifier: Apache-2.0
"""The shared poll in virtual time, against a relay that exists in this process alone."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_luma.exceptions import (
    LumaAuthError,
    LumaBusyError,
    LumaConfigError,
    LumaError,
    LumaRequestError,
    LumaServerError,
    LumaTaskNotFoundError,
    LumaUnavailableError,
)
from airflow_provider_luma.waiting import poller as poller_module
from airflow_provider_luma.waiting.calls import PollResult
from airflow_provider_luma.waiting.poller import (
    MAX_CALLS,
    MAX_QUARANTINE_CALLS,
    Poller,
    shared_poller,
)
from airflow_provider_luma.waiting.subscription import Subscription
from tests.support.fake_relay import HANG_SECONDS, UNUSED_ID, FakeRelay, FakeSettings, FakeTask
from tests.support.virtual_time import VirtualLoop, run

EPOCH = 1_700_000_000.0
NEVER = 1e6
TASK = FakeTask()

Scenario = Callable[["Stage"], Awaitable[None]]


class Counts:
    """A meter that remembers."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.timings: list[tuple[str, float]] = []

    def incr(self, name: str, count: int = 1) -> None:
        self.counters[name] += count

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name] = value

    def timing(self, name: str, seconds: float) -> None:
        self.timings.append((name, seconds))


class Stage:
    """A relay, a connection to it, and those who wait."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.relay = FakeRelay(loop)
        self.settings: FakeSettings | Exception = self.relay.settings
        self.reads = 0
        self.meter = Counts()
        self.heard: dict[str, list[tuple[float, PollResult | None]]] = {}

    async def load_settings(self) -> Any:
        self.reads += 1
        if isinstance(self.settings, Exception):
            raise self.settings
        return self.settings

    @property
    def poller(self) -> Poller:
        [poller] = poller_module._pollers[self.loop].values()
        return poller

    async def wait(
        self,
        ids: str | Iterable[str],
        *,
        interval: float = 10,
        deadline: float = NEVER,
        until: Callable[[PollResult | None], bool] = lambda answer: answer is None,
        connection: str = "luma_default",
        answered: bool = False,
    ) -> PollResult | None:
        """Wait until an answer is what was hoped for."""
        ids = [ids] if isinstance(ids, str) else list(ids)
        for task_id in ids:
            self.relay.tasks.setdefault(task_id, TASK)
        heard = self.heard.setdefault(ids[0], [])

        def on_answer(_: Subscription, answer: PollResult | None) -> list[str]:
            heard.append((self.loop.time(), answer))
            return [] if until(answer) else ids

        with (
            shared_poller(connection, self.load_settings, self.meter) as poller,
            poller.subscribe(
                ids, on_answer, interval=interval, deadline=EPOCH + deadline, answered=answered
            ) as subscription,
        ):
            await subscription.end()
        return heard[-1][1]

    @asynccontextmanager
    async def waiting(self, *waits: Awaitable[Any]) -> AsyncIterator[Sequence[asyncio.Future[Any]]]:
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.sleep(0)
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def times(self, task_id: str) -> list[float]:
        return [time for time, _ in self.heard[task_id]]

    def errors(self, task_id: str) -> list[LumaError | None]:
        return [answer.error for _, answer in self.heard[task_id] if answer is not None]

    def assert_nothing_is_left(self) -> None:
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not poller_module._pollers.get(self.loop)
        assert all(client.closed for client in self.relay.clients)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Play a scenario in virtual time; nothing may be left after it."""

    def play(scenario: Scenario) -> None:
        async def main(loop: VirtualLoop) -> None:
            monkeypatch.setattr(poller_module, "time", SimpleNamespace(time=lambda: EPOCH + loop.time()))
            stage = Stage(loop)
            await scenario(stage)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            stage.assert_nothing_is_left()

        run(main)

    return play


Play = Callable[[Scenario], None]


class TestSharing:
    def test_a_thousand_waiters_cost_what_their_ids_cost_in_batches(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async with stage.waiting(*(stage.wait([f"a{n}", f"b{n}"]) for n in range(1000))):
                await asyncio.sleep(35)
                assert stage.poller.waiters == 1000
            assert [len(call.ids) for call in stage.relay.calls] == [100] * 20 * 3
            assert all(len(heard) == 3 for heard in stage.heard.values())

        play(scenario)

    def test_connections_do_not_share(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            waits = stage.wait("t1"), stage.wait("t2", connection="other")
            async with stage.waiting(*waits):
                await asyncio.sleep(15)
            assert sorted(call.ids for call in stage.relay.calls) == [("t1",), ("t2",)]
            assert stage.reads == 2

        play(scenario)

    def test_a_burst_of_a_thousand_newcomers_is_spread_and_comes_one_interval_later(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async def join(n: int) -> None:
                await asyncio.sleep(n * 0.003)
                await stage.wait([f"t{n}-{m}" for m in range(10)], interval=15)

            under_way: list[float] = []
            most = 0

            def count(ids: list[str]) -> None:
                nonlocal most
                now = stage.loop.time()
                under_way[:] = [end for end in under_way if end > now] + [now + stage.relay.latency]
                most = max(most, len(under_way))

            stage.relay.on_call = count
            async with stage.waiting(*(join(n) for n in range(1000))):
                await asyncio.sleep(21)
                assert len(stage.heard) == 1000
                assert all(15 <= stage.times(f"t{n}-0")[0] - n * 0.003 <= 17 for n in range(1000))
            moments = Counter(int(call.at) for call in stage.relay.calls)
            assert most <= MAX_CALLS
            assert max(moments.values()) <= 50

        play(scenario)

    def test_the_poller_dies_with_its_last_waiter_and_comes_back_with_the_next(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            for _ in range(2):
                async with stage.waiting(stage.wait("t1"), stage.wait("t2")):
                    await asyncio.sleep(12)
                await asyncio.sleep(0)
                stage.assert_nothing_is_left()
                calls = len(stage.relay.calls)
                await asyncio.sleep(1000)
                assert len(stage.relay.calls) == calls
            assert stage.reads == 2

        play(scenario)

    def test_one_poller_can_end_and_begin_again_itself(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.tasks["t1"] = TASK
            poller = Poller(stage.load_settings, meter=stage.meter)
            for _ in range(2):
                with hear(poller, "t1") as (heard, subscription):
                    await subscription.end()
                    assert [answer and answer.asked for answer in heard] == [["t1"]]
                    await asyncio.sleep(9.99)

        play(scenario)

    def test_it_does_not_run_in_the_context_of_its_first_waiter(
        self, play: Play, caplog: pytest.LogCaptureFixture
    ) -> None:
        whose: ContextVar[str] = ContextVar("whose", default="none")
        seen = []

        async def scenario(stage: Stage) -> None:
            async def load_settings() -> Any:
                seen.append(whose.get())
                return stage.settings

            whose.set("the first waiter's")
            poller = Poller(load_settings, meter=stage.meter)
            stage.relay.tasks["t1"] = TASK
            with hear(poller, "t1") as (_, subscription):
                await subscription.end()

        play(scenario)
        assert seen == ["none"]

    def test_an_answer_is_taken_in_in_the_context_of_its_wait(self, play: Play) -> None:
        whose: ContextVar[str] = ContextVar("whose", default="none")
        seen = []

        async def scenario(stage: Stage) -> None:
            def look(answer: PollResult | None) -> bool:
                seen.append(whose.get())
                return True

            async def wait(task_id: str) -> None:
                whose.set(task_id)
                await stage.wait(task_id, until=look)

            async with stage.waiting(wait("t1"), wait("t2")) as waits:
                await asyncio.gather(*waits)
                assert whose.get() == "none"

        play(scenario)
        assert sorted(seen) == ["t1", "t2"]

    def test_rounds_and_calls_are_measured_and_logged(
        self, play: Play, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "airflow_provider_luma.waiting.poller")

        async def scenario(stage: Stage) -> None:
            stage.relay.outage = lambda now: LumaServerError("boom", status=500) if now > 15 else None
            async with stage.waiting(stage.wait(f"t{n}" for n in range(150)), stage.wait("u")):
                await asyncio.sleep(22)
            assert stage.meter.counters == {
                "luma.poller.rounds": 2,
                "luma.poller.calls": 4,
                "luma.poller.failures": 2,
            }
            assert stage.meter.gauges == {"luma.poller.open_ids": 151, "luma.poller.waiters": 2}
            assert [name for name, _ in stage.meter.timings] == ["luma.poller.call_duration"] * 4
            assert [seconds for _, seconds in stage.meter.timings] == pytest.approx([stage.relay.latency] * 4)

        play(scenario)
        assert caplog.messages == ["Luma poll round: 2 waiters, 151 of 151 ids, 2 calls"] * 2


class TestIsolation:
    def test_an_id_that_hangs_stops_only_its_owner(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.tasks["bad"] = FakeTask(poison="hang")
            waits = [stage.wait(f"t{n}") for n in range(399)]
            async with stage.waiting(stage.wait("bad"), *waits):
                await asyncio.sleep(600)
            assert all(stage.errors("bad"))
            for n in range(399):
                times, errors = stage.times(f"t{n}"), stage.errors(f"t{n}")
                gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
                # Some share a call with it at first; none does for long.
                assert max(gaps) <= HANG_SECONDS + 10 + 1
                assert sum(error is not None for error in errors) <= 3
                assert max(gaps[12:]) <= 10 + 1
            unharmed = [n for n in range(399) if not any(stage.errors(f"t{n}"))]
            assert len(unharmed) == 300
            assert all(len(stage.times(f"t{n}")) >= 58 for n in unharmed)

        play(scenario)

    def test_ids_that_hang_take_no_place_from_the_others(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            bad = [f"bad{n}" for n in range(10)]
            stage.relay.tasks.update(dict.fromkeys(bad, FakeTask(poison="hang")))
            async with stage.waiting(stage.wait("good"), *(stage.wait(task_id) for task_id in bad)):
                await asyncio.sleep(3600)
                slots = Counter(
                    task_id
                    for call in stage.relay.calls_between(3570, 3600)
                    for task_id in call.ids
                    if task_id in bad
                )
                assert sum(slots.values()) <= MAX_QUARANTINE_CALLS + 1
            times = [time for time, answer in stage.heard["good"] if answer and not answer.error]
            late = [time for time in times if time > 600]
            assert max(after - before for before, after in pairwise(late)) <= 11

        play(scenario)

    def test_a_hundred_thousand_ids_of_one_waiter_delay_no_other(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.latency = 0.3
            async with stage.waiting(stage.wait(f"m{n}" for n in range(100_000)), stage.wait("few")):
                await asyncio.sleep(300)
            assert len(stage.times("m0")) == 3
            times = stage.times("few")
            assert max(after - before for before, after in pairwise(times)) <= 11.5

        play(scenario)

    def test_an_unexpected_error_of_a_call_reaches_its_waiters_alone(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            def break_it(ids: list[str]) -> None:
                if "t1" in ids:
                    raise ZeroDivisionError("a bug")

            stage.settings = replace(stage.relay.settings, batch_size=1)
            stage.relay.on_call = break_it
            async with stage.waiting(stage.wait("t1"), stage.wait("t2")) as (one, two):
                await asyncio.sleep(25)
                with pytest.raises(RuntimeError, match="a bug") as caught:
                    one.result()
                assert isinstance(caught.value.__cause__, ZeroDivisionError)
                assert not two.done()
            assert stage.errors("t2") == [None, None]

        play(scenario)

    def test_an_error_in_what_one_makes_of_an_answer_is_its_own(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            def break_it(answer: PollResult | None) -> bool:
                raise ZeroDivisionError("a bug")

            async with stage.waiting(stage.wait("t1", until=break_it), stage.wait("t2")) as (one, two):
                await asyncio.sleep(25)
                with pytest.raises(ZeroDivisionError, match="a bug"):
                    one.result()
                assert not two.done()
            assert stage.errors("t2") == [None, None]
            assert [set(call.ids) for call in stage.relay.calls] == [{"t1", "t2"}, {"t2"}]

        play(scenario)

    def test_a_bug_in_the_schedule_fails_every_wait_and_the_next_one_starts_over(
        self, play: Play, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def scenario(stage: Stage) -> None:
            def begin_round(now: float) -> Any:
                raise ZeroDivisionError("a bug")

            async with stage.waiting(stage.wait("t1"), stage.wait("t2", interval=100)) as waits:
                monkeypatch.setattr(stage.poller._schedule, "begin_round", begin_round)
                await asyncio.wait(waits)
                assert stage.loop.time() < 11
                assert all("a bug" in str(wait.exception()) for wait in waits)
            await stage.wait("t3", until=bool)
            assert stage.errors("t3") == [None]

        play(scenario)

    def test_a_waiter_left_after_the_loop_broke_does_not_block_a_new_one(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.settings = KeyError("settings")
            poller = Poller(stage.load_settings, meter=stage.meter)
            stage.relay.tasks |= {"t1": TASK, "t2": TASK}
            with hear(poller, "t1") as (_, broken):
                with pytest.raises(RuntimeError, match="settings"):
                    await broken.end()
                stage.settings = stage.relay.settings
                with hear(poller, "t2") as (heard, fresh):
                    await fresh.end()
            assert [answer and answer.asked for answer in heard] == [["t2"]]

        play(scenario)


class TestFailingRelay:
    def test_retry_after_holds_back_the_calls_that_queue_up_already(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            busy = LumaBusyError("busy", status=429, retry_after=60)
            stage.settings = replace(stage.relay.settings, batch_size=1)
            stage.relay.outage = lambda now: busy if now < 20 else None
            async with stage.waiting(*(stage.wait(f"t{n}") for n in range(50))):
                await asyncio.sleep(65)
                assert len(stage.relay.calls) <= MAX_CALLS
                assert all(stage.errors(f"t{n}") == [busy] for n in range(50))
                await asyncio.sleep(10)
            assert all(stage.errors(f"t{n}")[1:] == [None] for n in range(50))

        play(scenario)

    def test_a_relay_that_is_down_is_asked_ever_more_rarely_and_then_served_again(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            boom = LumaServerError("boom", status=503)
            stage.relay.outage = lambda now: boom if now < 500 else None
            async with stage.waiting(stage.wait("t1"), stage.wait("t2")):
                await asyncio.sleep(700)
            assert 7 <= len(stage.relay.calls_between(0, 500)) <= 12
            assert len(stage.relay.calls_between(620, 700)) in range(7, 10)
            assert stage.errors("t1")[-1] is None

        play(scenario)

    def test_while_no_call_gets_through_the_connection_is_read_again(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.outage = lambda now: (
                None if stage.relay.calls[-1].key == "mended" else LumaServerError("boom", status=500)
            )
            async with stage.waiting(stage.wait("t1")):
                await asyncio.sleep(15)
                stage.relay.key = "mended"
                stage.settings = replace(stage.relay.settings, api_key="mended")
                stage.relay.outage = lambda now: None
                await asyncio.sleep(15)
            assert [call.key for call in stage.relay.calls] == ["key", "mended"]
            assert stage.errors("t1")[1] is None
            assert [client.closed for client in stage.relay.clients] == [True, True]

        play(scenario)

    def test_as_long_as_it_works_the_connection_is_read_once(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async with stage.waiting(stage.wait("t1"), stage.wait("t2")):
                await asyncio.sleep(1000)
            assert stage.reads == 1
            assert len(stage.relay.clients) == 1

        play(scenario)


class TestWrongKey:
    def test_a_rotated_key_is_read_from_the_connection_and_no_wait_fails(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.settings = replace(stage.relay.settings, batch_size=1)
            async with stage.waiting(*(stage.wait(f"t{n}") for n in range(20))):
                await asyncio.sleep(15)
                stage.relay.key = "rotated"
                stage.settings = replace(stage.settings, api_key="rotated")
                await asyncio.sleep(30)
            assert stage.reads == 2
            assert all(stage.errors(f"t{n}") == [None] * 4 for n in range(20))
            assert Counter(call.key for call in stage.relay.calls)["key"] <= 20 + MAX_CALLS

        play(scenario)

    def test_every_wait_fails_with_the_one_error_due_or_not_after_the_connection_is_read_again(
        self, play: Play
    ) -> None:
        async def scenario(stage: Stage) -> None:
            stage.settings = replace(stage.relay.settings, batch_size=1, api_key="wrong")
            waits = [stage.wait(f"t{n}", until=bool) for n in range(20)]
            async with stage.waiting(*waits, stage.wait("later", interval=1000, until=bool)) as tasks:
                answers = await asyncio.gather(*tasks)
                assert stage.loop.time() < 12
            assert {str(answer.error) for answer in answers} == {"The relay refuses the API key."}
            assert stage.reads == 2
            assert len(stage.relay.calls) <= MAX_CALLS

        play(scenario)

    def test_a_rotated_key_that_is_wrong_as_well_fails_every_wait(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async with stage.waiting(stage.wait("t1", until=failed)) as [wait]:
                await asyncio.sleep(15)
                stage.relay.key = "another"
                stage.settings = replace(stage.relay.settings, api_key="mistyped")
                answer = await wait
            assert isinstance(answer.error, LumaAuthError)
            assert [call.key for call in stage.relay.calls] == ["key", "key", "mistyped"]

        play(scenario)

    def test_a_waiter_that_stays_gets_through_when_the_key_is_corrected_later(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.key = "another"
            async with stage.waiting(stage.wait("t1")):
                await asyncio.sleep(15)
                stage.settings = replace(stage.relay.settings, api_key="another")
                await asyncio.sleep(10)
            assert [type(error) for error in stage.errors("t1")] == [LumaAuthError, type(None)]

        play(scenario)


class TestRefusalsAfterPollsThatWorked:
    """Valid keys are refused now and then; one such answer must not end all waits on the connection."""

    def test_those_whom_it_served_count_a_failed_poll_and_the_others_hear_nothing(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            refusal = LumaAuthError("The relay refuses the API key.", status=401, well_formed=True)
            stage.relay.outage = lambda now: refusal if 15 < now < 25 else None
            waits = [stage.wait(f"t{n}") for n in range(50)]
            async with stage.waiting(*waits, stage.wait("later", interval=1000)):
                await asyncio.sleep(45)
            assert all(stage.errors(f"t{n}") == [None, refusal, None, None] for n in range(50))
            assert stage.errors("later") == []

        play(scenario)

    def test_a_poll_in_a_worker_proves_the_connection_before_the_first_one_here(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            refusal = LumaAuthError("The relay refuses the API key.", status=401, well_formed=True)
            stage.relay.outage = lambda now: refusal if now < 15 else None
            waits = stage.wait("t1", answered=True), stage.wait("t2"), stage.wait("t3", interval=1000)
            async with stage.waiting(*waits):
                await asyncio.sleep(5)
                assert stage.poller.relay.proven
                await asyncio.sleep(20)
            assert stage.errors("t1") == stage.errors("t2") == [refusal, None]
            assert stage.errors("t3") == []

        play(scenario)

    def test_a_changed_connection_has_to_prove_itself_to_newcomers_alone(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async with stage.waiting(stage.wait("t1", interval=100)):
                await asyncio.sleep(105)
                assert stage.poller.relay.proven
                stage.relay.key = "another"
                stage.settings = replace(stage.relay.settings, api_key="mistyped")
                async with stage.waiting(stage.wait("t2", until=bool)) as [newcomer]:
                    answer = await newcomer
                    assert isinstance(answer.error, LumaAuthError)
                assert not stage.poller.relay.proven
            assert stage.errors("t1") == [None]

        play(scenario)


class TestRefusedCalls:
    """Where the relay refuses a call for an id in it, and where it refuses every call."""

    @pytest.mark.parametrize(
        "error",
        [LumaTaskNotFoundError("no such task", status=400), LumaRequestError("bad", status=400)],
        ids=repr,
    )
    def test_every_http_call_is_counted_and_a_found_id_costs_one_more_a_round(
        self, play: Play, error: LumaError
    ) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.tasks["t37"] = FakeTask(poison=error)
            async with stage.waiting(*(stage.wait(f"t{n}") for n in range(100))):
                await asyncio.sleep(50)
                assert stage.errors("t36")[-1] is stage.errors("t37")[-1] is None
                before = len(stage.relay.calls)
                await asyncio.sleep(100)
            assert len(stage.relay.calls) <= before + 2 * 10
            assert stage.meter.counters["luma.poller.calls"] == len(stage.relay.calls)
            result = stage.heard["t37"][-1][1]
            assert result is not None
            assert result.asked == ["t37"]
            assert {task.problem for task in result.tasks.values()} <= {"bad"}

        play(scenario)

    def test_a_relay_that_refuses_every_call_is_found_out_with_one_more_call_a_round(
        self, play: Play
    ) -> None:
        async def scenario(stage: Stage) -> None:
            refusal = LumaRequestError("not like this", status=400, well_formed=True)
            stage.relay.outage = lambda now: refusal
            async with stage.waiting(*(stage.wait(f"t{n}") for n in range(400))):
                await asyncio.sleep(15)
                assert len(stage.relay.calls) == 4 + 1
            assert all(stage.errors(f"t{n}") == [refusal] for n in range(400))
            assert stage.meter.counters["luma.poller.calls"] == len(stage.relay.calls)

        play(scenario)

    def test_when_it_can_not_be_found_out_nothing_is_held_against_an_id(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            away = LumaServerError("boom", status=502)
            stage.relay.outage = lambda now: (
                away if stage.relay.calls[-1].ids == (UNUSED_ID,) else LumaRequestError("bad", status=400)
            )
            async with stage.waiting(stage.wait("t1")):
                await asyncio.sleep(15)
            assert stage.errors("t1") == [away]

        play(scenario)


class TestConnection:
    @pytest.mark.parametrize("interval", [10, 1000])
    def test_a_connection_that_cannot_be_used_fails_every_wait(self, play: Play, interval: float) -> None:
        async def scenario(stage: Stage) -> None:
            stage.settings = LumaConfigError("The API key is missing.")
            waits = stage.wait("t1", until=bool), stage.wait("t2", interval=interval, until=bool)
            async with stage.waiting(*waits) as tasks:
                answers = await asyncio.gather(*tasks)
            assert [answer.error for answer in answers] == [stage.settings] * 2
            assert stage.loop.time() < 11
            assert stage.relay.calls == []

        play(scenario)

    def test_one_that_cannot_be_read_just_now_is_tried_again(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.settings = LumaUnavailableError("The API server is away.")
            async with stage.waiting(stage.wait("t1"), stage.wait("t2")):
                await asyncio.sleep(15)
                outage, stage.settings = stage.settings, stage.relay.settings
                await asyncio.sleep(15)
            assert stage.errors("t1") == stage.errors("t2") == [outage, None]

        play(scenario)

    def test_an_unexpected_error_reaches_every_waiter(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.settings = KeyError("luma_default")
            waits = [stage.wait(f"t{n}", interval=10 + n) for n in range(5)]
            async with stage.waiting(*waits) as tasks:
                await asyncio.wait(tasks)
                errors = [task.exception() for task in tasks]
            assert all(isinstance(error, RuntimeError) for error in errors)
            assert {repr(error.__cause__) for error in errors if error} == {"KeyError('luma_default')"}
            assert stage.loop.time() < 11

        play(scenario)

    def test_the_connection_says_how_many_failures_are_tolerated(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.settings = replace(stage.relay.settings, max_poll_failures=3)
            async with stage.waiting(stage.wait("t1")):
                assert stage.poller.relay.max_poll_failures == 20
                await asyncio.sleep(15)
                assert stage.poller.relay.max_poll_failures == 3

        play(scenario)


class TestDeadline:
    def test_the_last_answer_comes_at_the_deadline(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async with stage.waiting(stage.wait("t1", deadline=15)):
                await asyncio.sleep(15.99)
                assert stage.times("t1") == pytest.approx([10.5, 15.3], abs=0.4)

        play(scenario)

    def test_a_deadline_is_kept_while_rounds_back_off(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.outage = lambda now: LumaServerError("boom", status=500)
            await stage.wait("t1", deadline=200)
            assert stage.loop.time() == 201

        play(scenario)

    @pytest.mark.parametrize("ends_at", [150, NEVER])
    def test_a_relay_that_asks_to_be_left_alone_is_looked_at_once_more(
        self, play: Play, ends_at: float
    ) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.tasks["t1"] = FakeTask(ends_at=ends_at)
            busy = LumaBusyError("busy", status=429, retry_after=3600)
            stage.relay.outage = lambda now: busy if now < 100 else None
            await stage.wait("t1", deadline=200)
            assert [call.at for call in stage.relay.calls] == pytest.approx([10.5, 200], abs=0.5)
            assert stage.errors("t1") == [busy, None]
            assert stage.loop.time() == 201

        play(scenario)

    def test_a_call_in_flight_is_waited_for(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.latency = 25
            stage.relay.tasks["t1"] = FakeTask(ends_at=0)
            answer = await stage.wait("t1", deadline=15, until=bool)
            assert answer is not None
            assert answer.tasks["t1"].state.terminal
            assert len(stage.heard["t1"]) == 1
            assert stage.loop.time() == pytest.approx(35.5, abs=0.6)

        play(scenario)

    def test_one_that_has_passed_already_still_gets_an_answer(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async with stage.waiting(stage.wait("t1", deadline=-3600)):
                await asyncio.sleep(0.9)
            assert len(stage.relay.calls) == 1
            assert stage.errors("t1") == [None]

        play(scenario)

    def test_a_waiter_that_will_not_go_costs_no_more_than_before(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async with stage.waiting(stage.wait("t1", deadline=15, until=lambda answer: False)):
                await asyncio.sleep(115)
            assert len(stage.relay.calls) <= 12

        play(scenario)


class TestCancellation:
    @pytest.mark.parametrize("seconds", [0, 5, 10.3, 12, 25], ids=lambda s: f"after {s} s")
    @pytest.mark.parametrize("latency", [0.05, 5])
    def test_nothing_is_left_whenever_it_comes(self, play: Play, seconds: float, latency: float) -> None:
        async def scenario(stage: Stage) -> None:
            stage.relay.latency = latency
            async with stage.waiting(*(stage.wait(f"t{n}") for n in range(50))):
                await asyncio.sleep(seconds)
            await asyncio.sleep(0)
            stage.assert_nothing_is_left()

        play(scenario)

    def test_the_others_stay_and_the_ids_of_who_left_are_asked_for_no_more(self, play: Play) -> None:
        async def scenario(stage: Stage) -> None:
            async with stage.waiting(stage.wait("t1"), stage.wait("t2")) as (one, _):
                await asyncio.sleep(15)
                one.cancel()
                await asyncio.sleep(15)
            assert [set(call.ids) for call in stage.relay.calls] == [{"t1", "t2"}, {"t2"}]

        play(scenario)


@contextmanager
def hear(poller: Poller, task_id: str) -> Iterator[tuple[list[PollResult | None], Subscription]]:
    """Wait for the first answer."""
    heard: list[PollResult | None] = []

    def on_answer(_: Subscription, answer: PollResult | None) -> list[str]:
        heard.append(answer)
        return []

    with poller.subscribe([task_id], on_answer, interval=10, deadline=EPOCH + NEVER) as subscription:
        yield heard, subscription


def failed(answer: PollResult | None) -> bool:
    return answer is not None and answer.error is not None
