# SPDX-License-Identifier: Apache-2.0
"""
One poll loop per relay connection and event loop, shared by all waits of the process.

A thousand waits cost what their ids cost in batches. The loop starts with its first waiter and ends with its
last. :mod:`~airflow_provider_luma.waiting.schedule` decides which ids are polled when.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import random
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any, Final, TypeVarTuple, Unpack
from weakref import WeakKeyDictionary

from airflow_provider_luma.client.api import DEFAULT_BATCH_SIZE
from airflow_provider_luma.exceptions import LumaAuthError, LumaConfigError, LumaError, LumaRequestError
from airflow_provider_luma.waiting.calls import Call, PollResult, Waiter
from airflow_provider_luma.waiting.connection import LoadSettings, Meter, PolledRelay
from airflow_provider_luma.waiting.progress import Verdict
from airflow_provider_luma.waiting.schedule import Schedule, spread
from airflow_provider_luma.waiting.subscription import OnAnswer, Subscription
from airflow_provider_luma.waiting.tracker import Tracker

log = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

MAX_CALLS: Final = 4
"""How many calls a poller makes at the same time."""

MAX_QUARANTINE_CALLS: Final = 2
"""How many further calls it makes at the same time for quarantined ids: these delay no other ids."""


class Poller:
    """The shared poll of one connection in one event loop. Use :func:`shared_poller`."""

    def __init__(self, load_settings: LoadSettings, *, meter: Meter) -> None:
        self._load_settings = load_settings
        self._meter = meter
        self._rng = random.Random()  # noqa: S311
        self._subscriptions: dict[Waiter, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reset()

    def _reset(self) -> None:
        self._schedule = Schedule(DEFAULT_BATCH_SIZE, self._rng)
        self.relay = PolledRelay(
            self._load_settings, meter=self._meter, max_calls=MAX_CALLS + MAX_QUARANTINE_CALLS
        )
        self._checking = asyncio.Lock()
        self._refusing_round = -inf
        self._changed = asyncio.Event()
        self._wake_at = inf
        self._numbers = itertools.count()
        self._ordinary: asyncio.PriorityQueue[tuple[int, int, Call]] = asyncio.PriorityQueue()
        self._quarantined: asyncio.PriorityQueue[tuple[int, int, Call]] = asyncio.PriorityQueue()

    @property
    def waiters(self) -> int:
        """How many waits share the poll."""
        return len(self._subscriptions)

    @contextmanager
    def subscribe(
        self,
        ids: Iterable[str],
        on_answer: OnAnswer,
        *,
        interval: float,
        deadline: float,
        answered: bool = False,
    ) -> Iterator[Subscription]:
        """
        Wait for ids, in the running event loop.

        :param interval: Seconds between two answers; the first comes after one interval.
        :param deadline: When the last answer is due, in seconds since the epoch.
        :param answered: Whether the wait knows of a call that has worked with this connection.
        """
        now = asyncio.get_running_loop().time()
        due = now + deadline - time.time()
        waiter = self._schedule.join(ids, interval=interval, deadline=due, now=now, answered=answered)
        if answered:
            self.relay.presume_proven()
        subscription = self._subscriptions[waiter] = Subscription(self, waiter, on_answer, due)
        self._start()
        self._wake_for(waiter)
        try:
            yield subscription
        finally:
            subscription.close()
            del self._subscriptions[waiter]
            self._schedule.leave(waiter)
            if not self._subscriptions:
                self._stop()

    def settle(self, waiter: Waiter, open_ids: Iterable[str]) -> None:
        """Set which ids are still to be polled."""
        self._schedule.settle(waiter, open_ids)

    def _start(self) -> None:
        if not self._tasks:
            self._spawn("luma-poller", self._run)
            for lane, size in ((self._ordinary, MAX_CALLS), (self._quarantined, MAX_QUARANTINE_CALLS)):
                for _ in range(size):
                    self._spawn("luma-poller-call", self._work, lane)

    def _spawn(
        self, name: str, work: Callable[[Unpack[Ts]], Coroutine[Any, Any, None]], *arguments: *Ts
    ) -> None:
        # In an empty context: a copy would send these lines to the log of the first waiter's task instance.
        task = asyncio.create_task(self._guard(work, *arguments), name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Callable[[Unpack[Ts]], Coroutine[Any, Any, None]], *arguments: *Ts) -> None:
        try:
            await work(*arguments)
        except Exception as error:
            # Without this, every wait would hang until its deadline.
            for subscription in self._subscriptions.values():
                subscription.fail(error)
            self._stop()

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        self.relay.close()
        self._reset()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._wake_at = self._schedule.next_round()
            if self._wake_at <= loop.time():
                await self._round()
                continue
            timer = loop.call_at(self._wake_at, self._changed.set) if self._wake_at < inf else None
            await self._changed.wait()
            if timer is not None:
                timer.cancel()

    def _wake_for(self, waiter: Waiter) -> None:
        if waiter.due < self._wake_at:
            self._changed.set()

    async def _round(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # While no call gets through, the connection may be under repair.
            await self.relay.open(since=loop.time() if self._schedule.is_unanswered else 0.0)
        except LumaError as error:
            for call in self._schedule.begin_round(loop.time()):
                self._deliver(self._failed(call, error))
            return
        self._schedule.batch_size = self.relay.batch_size
        calls = self._schedule.begin_round(loop.time())
        open_ids = len(self._schedule.open_ids)
        ids = sum(len(call.ids) for call in calls)
        log.debug(
            "Luma poll round: %d waiters, %d of %d ids, %d calls", self.waiters, ids, open_ids, len(calls)
        )
        self._meter.incr("luma.poller.rounds")
        self._meter.gauge("luma.poller.open_ids", open_ids)
        self._meter.gauge("luma.poller.waiters", self.waiters)
        if calls:
            self._spawn("luma-poller-round", self._release, calls)

    async def _release(self, calls: list[Call]) -> None:
        """Queue the calls of a round, one after the other."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        interval = min((waiter.interval for call in calls for waiter in call.waiters), default=0.0)
        for delay, group in spread(calls, interval, self._rng, concurrency=MAX_CALLS):
            await asyncio.sleep(begin + delay - loop.time())
            for call in group:
                lane = self._quarantined if call.depth else self._ordinary
                lane.put_nowait((call.priority, next(self._numbers), call))

    async def _work(self, lane: asyncio.PriorityQueue[tuple[int, int, Call]]) -> None:
        while True:
            _, _, call = await lane.get()
            await self._make(call)

    async def _make(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        ids = self._schedule.take_turn(call)
        busy = self._schedule.busy(loop.time(), call)
        if busy is not None or not ids:
            self._deliver(self._schedule.drop(call, busy))
            return
        try:
            results = await self._query(call, ids)
        except Exception as error:
            log.exception("Polling Luma tasks broke")
            for waiter in call.waiters:
                self._subscriptions[waiter].fail(error)
            self._schedule.drop(call)
        else:
            self._deliver(results)

    async def _query(self, call: Call, ids: list[str]) -> dict[Waiter, PollResult]:
        loop = asyncio.get_running_loop()
        try:
            tasks = await self.relay.call(lambda client: client.query(ids))
        except LumaRequestError as error:
            self._meter.incr("luma.poller.failures")
            if general := await self._why_no_call_works(call, error):
                return self._failed(call, general)
            self.relay.proven = True
            return self._schedule.refuse(call, error, now=loop.time())
        except LumaError as error:
            self._meter.incr("luma.poller.failures")
            return self._failed(call, error)
        self.relay.proven = True
        return self._schedule.succeed(call, tasks, now=loop.time())

    def _failed(self, call: Call, error: LumaError) -> dict[Waiter, PollResult]:
        if not call.waiters:
            return self._schedule.drop(call)
        if isinstance(error, LumaConfigError):
            return self._schedule.fail_all(error)
        results = self._schedule.fail(call, error, now=asyncio.get_running_loop().time())
        if isinstance(error, LumaAuthError) and not self.relay.proven:
            results |= self._schedule.fail_unanswered(error)
        return results

    async def _why_no_call_works(self, call: Call, refusal: LumaRequestError) -> LumaError | None:
        """Return why no call at all would get through, or ``None`` when an id is why this one was refused."""
        async with self._checking:
            if not self._schedule.needs_check(call, refusal):
                return None
            if call.planned_at <= self._refusing_round:
                return refusal
            try:
                await self.relay.call(lambda client: client.check())
            except LumaRequestError:
                self._refusing_round = call.planned_at
                return refusal
            except LumaError as error:
                return error
        return None

    def _deliver(self, results: Mapping[Waiter, PollResult]) -> None:
        for waiter, result in results.items():
            self._subscriptions[waiter].deliver(result)
            # A served waiter is due again; the loop must not sleep longer than that.
            self._wake_for(waiter)


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


@contextmanager
def shared_poller(connection: str, load_settings: LoadSettings, meter: Meter) -> Iterator[Poller]:
    """Share one poller with all waits of the running event loop that use the connection of the same name."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    poller = pollers.get(connection)
    if poller is None:
        poller = pollers[connection] = Poller(load_settings, meter=meter)
    try:
        yield poller
    finally:
        if not poller.waiters and pollers.get(connection) is poller:
            del pollers[connection]


async def follow_shared(
    connection: str,
    load_settings: LoadSettings,
    tracker: Tracker,
    *,
    interval: float,
    deadline: float,
    meter: Meter,
) -> Verdict:
    """Poll until the wait ends, sharing the polls: see :func:`shared_poller` and :meth:`Poller.subscribe`."""

    def on_answer(subscription: Subscription, answer: PollResult | None) -> Collection[str]:
        relay = subscription.poller.relay
        if answer is not None:
            tracker.on_answer(answer, answered=relay.proven, max_poll_failures=relay.max_poll_failures)
        waiting = tracker.verdict(timed_out=subscription.timed_out) == "waiting"
        return tracker.progress.open_ids if waiting else ()

    open_ids, answered = tracker.progress.open_ids, tracker.progress.answered
    if not open_ids:
        return tracker.verdict(timed_out=False)
    with (
        shared_poller(connection, load_settings, meter) as poller,
        poller.subscribe(
            open_ids, on_answer, interval=interval, deadline=deadline, answered=answered
        ) as subscription,
    ):
        others = poller.waiters - 1
        tracker.log.info("Waiting for Luma tasks together with %d others: %s", others, tracker.last_summary)
        await subscription.end()
    return tracker.verdict(timed_out=subscription.timed_out)
