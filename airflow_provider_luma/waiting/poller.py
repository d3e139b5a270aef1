# SPDX-License-Identifier: Apache-2.0
"""
One poll loop per relay connection and event loop, shared by everyone in the process who waits.

A thousand waiters cost what their ids cost in batches. The loop starts with its first waiter and ends
with its last. What is asked when is decided in :mod:`~airflow_provider_luma.waiting.schedule`; here are
the clock, the threads that make the calls, and the connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple, Unpack
from weakref import WeakKeyDictionary

from airflow_provider_luma.client.api import DEFAULT_BATCH_SIZE, LumaClient
from airflow_provider_luma.client.settings import DEFAULT_MAX_POLL_FAILURES, RelaySettings
from airflow_provider_luma.exceptions import LumaAuthError, LumaConfigError, LumaError, LumaRequestError
from airflow_provider_luma.waiting.schedule import Call, PollResult, Schedule, Waiter, spread

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_CALLS: Final = 4
"""How many calls a poller makes at the same time."""

MAX_SUSPECT_CALLS: Final = 2
"""How many further calls it makes at the same time for ids that made calls fail: they hold up nobody."""

_DEADLINE_SLACK: Final = 1.0


class Meter(Protocol):
    """Where measurements go."""

    def incr(self, name: str, count: int = 1) -> None:
        """Add to a counter."""

    def gauge(self, name: str, value: float) -> None:
        """Set a value."""

    def timing(self, name: str, seconds: float) -> None:
        """Record a duration."""


Take = Callable[[PollResult | None], Collection[str]]
"""
Takes in an answer, or ``None`` when the deadline passed and no call is under way.

Gives the ids that are still to be asked for; when there are none, the waiting is over. It runs in the event
loop, in the context of whoever waits.
"""


class Subscription:
    """
    A waiter's end of the shared poll.

    Answers are taken in by a function and not by a task that waits for them: to wake a task costs more than
    most answers have to tell.

    :param poller: The poll that is shared.
    :param waiter: Its place in the schedule.
    :param take: Takes in the answers.
    :param deadline: When the last answer is due, on the event loop's clock.
    """

    def __init__(self, poller: Poller, waiter: Waiter, take: Take, deadline: float) -> None:
        self.poller = poller
        self._waiter = waiter
        self._take = take
        self._context = contextvars.copy_context()
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # Also one whose deadline passed while no triggerer ran gets the time for a last look.
        last_look = max(deadline, self._loop.time())
        self._timer = self._loop.call_at(last_look + _DEADLINE_SLACK, self._give_up)

    @property
    def timed_out(self) -> bool:
        """Whether the deadline has passed."""
        return self._loop.time() >= self._deadline

    async def end(self) -> None:
        """
        Wait until the waiting is over.

        :raises RuntimeError: when the shared poll broke for a reason that it doesn't know. What taking in an
            answer raises comes as it is.
        """
        await self._ended

    def deliver(self, answer: PollResult | None) -> None:
        """Hand over an answer, or ``None`` when there is nothing more to wait for."""
        if self._ended.done():
            return
        try:
            open_ids = self._context.run(self._take, answer)
        except Exception as error:
            self._ended.set_exception(error)
            return
        # Ids only ever leave.
        if len(open_ids) != len(self._waiter.ids):
            self.poller.settle(self._waiter, open_ids)
        if not open_ids:
            self._ended.set_result(None)

    def fail(self, error: Exception) -> None:
        """Tell that the poll broke."""
        if not self._ended.done():
            broken = RuntimeError(f"The shared poll of Luma tasks broke: {error!r}")
            broken.__cause__ = error
            self._ended.set_exception(broken)

    def close(self) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def _give_up(self) -> None:
        # A call that is under way is bounded by its own timeouts, and its answer may still be the good one.
        if not self._waiter.being_served:
            self.deliver(None)


class Poller:
    """
    The shared poll of one connection in one event loop. Use :func:`shared_poll`.

    :param load_settings: Reads the connection; called before the first round, and again when the relay
        refuses the key, which may have been rotated.
    :param meter: Where measurements go.
    :param rng: Source of the jitter.
    """

    def __init__(
        self,
        load_settings: Callable[[], Awaitable[RelaySettings]],
        *,
        meter: Meter,
        rng: random.Random | None = None,
    ) -> None:
        self._load_settings = load_settings
        self._meter = meter
        self._rng = rng or random.Random()  # noqa: S311
        self._subscriptions: dict[Waiter, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reset()

    def _reset(self) -> None:
        self._schedule = Schedule(DEFAULT_BATCH_SIZE, self._rng)
        self._settings: RelaySettings | None = None
        self._client: LumaClient | None = None
        self._read_at = 0.0
        self._proven = False
        self._refusing = asyncio.Lock()
        self._round_of_refusals = -inf
        self._opening = asyncio.Lock()
        self._changed = asyncio.Event()
        self._wake_at = inf
        self._numbers = itertools.count()
        self._ordinary: asyncio.PriorityQueue[tuple[int, int, Call]] = asyncio.PriorityQueue()
        self._suspect: asyncio.PriorityQueue[tuple[int, int, Call]] = asyncio.PriorityQueue()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def waiters(self) -> int:
        """How many wait."""
        return len(self._subscriptions)

    @property
    def max_poll_failures(self) -> int:
        """How many polls in a row may fail, as the connection says."""
        return self._settings.max_poll_failures if self._settings else DEFAULT_MAX_POLL_FAILURES

    @property
    def proven(self) -> bool:
        """
        Whether a call has worked with what the connection says.

        From then on a refusal of the key is passing: caches of relays refuse good ones at times.
        """
        return self._proven

    @contextmanager
    def subscribe(
        self, ids: Iterable[str], take: Take, *, interval: float, deadline: float, answered: bool = False
    ) -> Iterator[Subscription]:
        """
        Wait for ids, in the running event loop.

        :param ids: The ids to ask for.
        :param take: Takes in the answers.
        :param interval: Seconds between two answers; the first comes after one interval.
        :param deadline: When the last answer is due, in seconds since the epoch.
        :param answered: Whether the waiter knows of a call that has worked with this connection.
        """
        now = asyncio.get_running_loop().time()
        due = now + deadline - time.time()
        waiter = self._schedule.join(ids, interval=interval, deadline=due, now=now, answered=answered)
        # A poll in a worker proves the connection too, unless it has changed since it was read here.
        self._proven = self._proven or (answered and self._client is None)
        subscription = self._subscriptions[waiter] = Subscription(self, waiter, take, due)
        self._start()
        if waiter.due < self._wake_at:
            self._changed.set()
        try:
            yield subscription
        finally:
            subscription.close()
            del self._subscriptions[waiter]
            self._schedule.leave(waiter)
            if not self._subscriptions:
                self._stop()

    def settle(self, waiter: Waiter, open_ids: Iterable[str]) -> None:
        """Say which ids are still to be asked for."""
        self._schedule.settle(waiter, open_ids)

    # The loop and its end

    def _start(self) -> None:
        if not self._tasks:
            self._threads = ThreadPoolExecutor(MAX_CALLS + MAX_SUSPECT_CALLS, "luma-poll")
            self._spawn("luma-poller", self._run)
            for lane, size in ((self._ordinary, MAX_CALLS), (self._suspect, MAX_SUSPECT_CALLS)):
                for _ in range(size):
                    self._spawn("luma-poller-call", self._work, lane)

    def _spawn(
        self, name: str, work: Callable[[Unpack[Ts]], Coroutine[Any, Any, None]], *arguments: *Ts
    ) -> None:
        # In a context of its own: else what is logged here would go to the log of the first waiter's task.
        task = asyncio.create_task(self._guard(work, *arguments), name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Callable[[Unpack[Ts]], Coroutine[Any, Any, None]], *arguments: *Ts) -> None:
        try:
            await work(*arguments)
        except Exception as error:
            # Whoever waits has to learn that nobody polls any more.
            for subscription in self._subscriptions.values():
                subscription.fail(error)
            self._stop()

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
        self._reset()

    # Rounds and calls

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

    async def _round(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # While nobody gets through, someone may be mending the connection.
            await self._open(since=loop.time() if self._schedule.fruitless else 0.0)
        except LumaError as error:
            for call in self._schedule.begin_round(loop.time()):
                self._deliver(self._failed(call, error))
            return
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
        """Let the calls of a round queue up one after the other."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        interval = min((waiter.interval for call in calls for waiter in call.waiters), default=0.0)
        for delay, group in spread(calls, interval, self._rng, abreast=MAX_CALLS):
            await asyncio.sleep(begin + delay - loop.time())
            for call in group:
                lane = self._suspect if call.level else self._ordinary
                lane.put_nowait((call.rank, next(self._numbers), call))

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
            answers = await self._answers(call, ids)
        except Exception as error:
            log.exception("Polling Luma tasks broke")
            for waiter in call.waiters:
                self._subscriptions[waiter].fail(error)
            self._schedule.drop(call)
        else:
            self._deliver(answers)

    async def _answers(self, call: Call, ids: list[str]) -> dict[Waiter, PollResult]:
        loop = asyncio.get_running_loop()
        try:
            tasks = await self._ask(lambda client: client.query(ids))
        except LumaRequestError as error:
            self._meter.incr("luma.poller.failures")
            if why := await self._why_no_call_works(call, error):
                return self._failed(call, why)
            self._proven = True
            return self._schedule.refuse(call, error, now=loop.time())
        except LumaError as error:
            self._meter.incr("luma.poller.failures")
            return self._failed(call, error)
        self._proven = True
        return self._schedule.succeed(call, tasks, now=loop.time())

    def _failed(self, call: Call, error: LumaError) -> dict[Waiter, PollResult]:
        if not call.waiters:
            return self._schedule.drop(call)
        if isinstance(error, LumaConfigError):
            return self._schedule.fail_everyone(error)
        answers = self._schedule.fail(call, error, now=asyncio.get_running_loop().time())
        if isinstance(error, LumaAuthError) and not self._proven:
            answers |= self._schedule.fail_unanswered(error)
        return answers

    async def _why_no_call_works(self, call: Call, refusal: LumaRequestError) -> LumaError | None:
        """
        Find out whether an id is why the relay has refused a call; ask for an id of no task if need be.

        :return: ``None`` when an id is why, else why no call at all would get through.
        """
        async with self._refusing:
            if not self._schedule.in_doubt(call, refusal):
                return None
            if call.planned_at <= self._round_of_refusals:
                return refusal
            try:
                await self._ask(lambda client: client.check())
            except LumaRequestError:
                self._round_of_refusals = call.planned_at
                return refusal
            except LumaError as error:
                return error
        return None

    def _deliver(self, answers: Mapping[Waiter, PollResult]) -> None:
        for waiter, answer in answers.items():
            self._subscriptions[waiter].deliver(answer)
            # Whoever was being served has a next time again.
            if waiter.due < self._wake_at:
                self._changed.set()

    # The connection

    async def _ask(self, call: Callable[[LumaClient], T]) -> T:
        """Make exactly one call; two when the key is refused and the connection has another one by now."""
        started = asyncio.get_running_loop().time()
        client = await self._open()
        try:
            return await self._timed(client, call)
        except LumaAuthError:
            renewed = await self._open(since=started)
            if renewed is client:
                raise
            log.info("The relay refused the API key, and the connection has changed since: asking with it.")
            return await self._timed(renewed, call)

    async def _timed(self, client: LumaClient, call: Callable[[LumaClient], T]) -> T:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._meter.incr("luma.poller.calls")
        try:
            return await loop.run_in_executor(self._threads, call, client)
        finally:
            self._meter.timing("luma.poller.call_duration", loop.time() - started)

    async def _open(self, *, since: float = 0.0) -> LumaClient:
        """
        Return the client for what the connection says.

        :param since: Read the connection again unless it was read after this time.
        """
        async with self._opening:
            if self._client is None or self._read_at < since:
                settings = await self._load_settings()
                self._read_at = asyncio.get_running_loop().time()
                if self._client is None or settings != self._settings:
                    return await self._use(settings)
            return self._client

    async def _use(self, settings: RelaySettings) -> LumaClient:
        # The next round is the retry; retries within a call would hold its thread and everyone behind it.
        loop = asyncio.get_running_loop()
        client = await loop.run_in_executor(self._threads, lambda: settings.client(max_retries=0))
        if self._client is not None:
            self._client.close()
            self._proven = False
        self._client, self._settings = client, settings
        self._schedule.batch_size = settings.batch_size
        return client


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


@contextmanager
def shared_poll(
    connection: str,
    load_settings: Callable[[], Awaitable[RelaySettings]],
    ids: Iterable[str],
    take: Take,
    *,
    interval: float,
    deadline: float,
    meter: Meter,
    answered: bool = False,
) -> Iterator[Subscription]:
    """
    Wait for ids together with everyone else in the running event loop who uses the same connection.

    :param connection: Name of the connection, the key of the sharing.
    :param load_settings: Reads the connection.
    :param ids: The ids to ask for.
    :param take: Takes in the answers.
    :param interval: Seconds between two answers; the first comes after one interval.
    :param deadline: When the last answer is due, in seconds since the epoch.
    :param meter: Where measurements go.
    :param answered: Whether the waiter knows of a call that has worked with this connection.
    """
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    poller = pollers.get(connection)
    if poller is None:
        poller = pollers[connection] = Poller(load_settings, meter=meter)
    try:
        with poller.subscribe(
            ids, take, interval=interval, deadline=deadline, answered=answered
        ) as subscription:
            yield subscription
    finally:
        if not poller.waiters and pollers.get(connection) is poller:
            del pollers[connection]
