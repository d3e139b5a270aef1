# SPDX-License-Identifier: Apache-2.0
"""
Which ids are polled when, and in which calls: the decisions of the shared poll, without clock and network.

Waiters with overlapping ids and different intervals share calls by these rules:

* A round begins when a waiter is due, and serves every waiter that would be due before the next round. So no
  waiter is served later than its interval, and rounds are only as frequent as the shortest interval.
* A new waiter is first served one interval after it joined, together with the others that joined at about the
  same time; from then on the common rounds serve it. Its deadline, too, is a moment of its own.
* A round polls each id once, and no id that is settled for all its waiters. Waiters with few ids come first,
  so that one with a hundred thousand ids delays no other.
* Ids whose call fails while another call gets through are quarantined: polled in ever smaller calls, round by
  round, until the id that makes calls fail is alone and fails only its own waiters.
* A refusal of a call for one id alone is an answer about that id: it is unknown to the relay, or illegible.
* While no call gets through, rounds become rarer. Every third of them polls some ids one by one, more of
  them each time, to find out whether the relay fails, or an id in every call.
* A pause that the relay asks for holds for all waiters. But a waiter's last poll comes at its deadline,
  however rare the rounds have become.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import inf
from typing import Final

from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.exceptions import (
    LumaConnectionError,
    LumaError,
    LumaRequestError,
    LumaResponseError,
    LumaServerError,
    LumaTaskNotFoundError,
)
from airflow_provider_luma.waiting.backoff import Backoff
from airflow_provider_luma.waiting.calls import Call, PollResult, Waiter
from airflow_provider_luma.waiting.quarantine import Quarantine, cut

_MAX_JITTER: Final = 0.5
_PACE: Final = 0.005


class Schedule:
    """
    The shared poll of one relay connection.

    All times (``now``) are seconds of one clock that only moves forward. Each call of a round has to be ended
    by :meth:`succeed`, :meth:`refuse`, :meth:`fail` or :meth:`drop`, which return the results that are whole
    now.

    :param batch_size: How many ids one call carries at most.
    """

    def __init__(self, batch_size: int, rng: random.Random) -> None:
        self.batch_size = batch_size
        self.quarantine = Quarantine()
        self._rng = rng
        self._backoff = Backoff(rng)
        self._waiters: dict[Waiter, None] = {}
        self._first_due: dict[float, float] = {}
        self._calls: dict[str, Call] = {}
        self._last_success = -inf
        # Failed calls of an unanswered round: whether an id is why shows when another call gets through.
        self._undecided: list[Call] = []

    @property
    def open_ids(self) -> set[str]:
        """Every id that is open for a waiter."""
        return set().union(*[waiter.ids for waiter in self._waiters])

    @property
    def is_unanswered(self) -> bool:
        """Whether no call got through in the last round."""
        return self._backoff.unanswered_rounds > 0

    def join(
        self, ids: Iterable[str], *, interval: float, deadline: float, now: float, answered: bool = False
    ) -> Waiter:
        """
        Add a waiter; its first result comes one interval from now, or at the deadline if that is sooner.

        :param answered: Whether it knows of a call that has worked with this connection.
        """
        due = self._first_due.get(interval, -inf)
        if due < now + interval:
            jitter = min(interval / 10, _MAX_JITTER)
            due = now + interval + self._rng.uniform(jitter / 2, jitter)
            self._first_due[interval] = due
        waiter = Waiter(ids, interval=interval, deadline=deadline, due=due, answered=answered)
        self._waiters[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter. Calls in flight continue for the others that they serve."""
        self._waiters.pop(waiter, None)
        self._leave_calls(waiter)

    def _leave_calls(self, waiter: Waiter) -> None:
        for call in waiter.calls:
            call.waiters.pop(waiter, None)
            call.stale = True
        waiter.calls.clear()

    def settle(self, waiter: Waiter, open_ids: Iterable[str]) -> None:
        """Set which ids are still open for the waiter."""
        waiter.ids = dict.fromkeys(open_ids)
        for call in waiter.calls:
            call.stale = True

    def next_round(self) -> float:
        """Return when the next round begins; infinity when no waiter has to be served."""
        held_until = self._backoff.held_until
        return min(
            [waiter.next_time(held_until) for waiter in self._waiters if not waiter.calls], default=inf
        )

    def begin_round(self, now: float) -> list[Call]:
        """Begin a round, and return the calls to make."""
        if self.quarantine.depths:
            self.quarantine.retain(self.open_ids)
        first: dict[str, Waiter] = {}
        sharers: dict[str, list[Waiter]] = {}
        for waiter in self._waiters_to_serve(now):
            waiter.begin_round(now)
            for task_id in waiter.ids:
                if task_id in self._calls:
                    self._calls[task_id].serve(waiter, (task_id,))
                elif first.setdefault(task_id, waiter) is not waiter:
                    sharers.setdefault(task_id, []).append(waiter)
        calls = []
        for ids, depth in self._batches(list(first)):
            call = Call(ids, depth=depth, planned_at=now)
            self._calls.update(dict.fromkeys(ids, call))
            for waiter, mine in groupby(ids, first.__getitem__):
                call.serve(waiter, mine)
            for task_id in filter(sharers.__contains__, ids):
                for waiter in sharers[task_id]:
                    call.serve(waiter, (task_id,))
            call.priority = min(len(waiter.ids) for waiter in call.waiters)
            calls.append(call)
        return calls

    def _waiters_to_serve(self, now: float) -> list[Waiter]:
        idle = [waiter for waiter in self._waiters if not waiter.calls]
        held_until = self._backoff.held_until
        if now < held_until:
            return [waiter for waiter in idle if waiter.next_time(held_until) <= now]
        in_step = [waiter for waiter in idle if waiter.in_step]
        horizon = now
        if any(waiter.due <= now for waiter in in_step):
            horizon = now + min(waiter.interval for waiter in in_step)
        serve = [w for w in idle if w.due <= now or (w.in_step and w.due < horizon)]
        # By whole batches: else a waiter's place in the rounds would change with each id that others settle.
        return sorted(serve, key=lambda waiter: len(waiter.ids) // self.batch_size)

    def _batches(self, ids: list[str]) -> Iterator[tuple[list[str], int]]:
        probes, ids = self._backoff.pick_probes(ids)
        for batch in cut(probes, 1):
            yield batch, 0
        yield from self.quarantine.batches(ids, self.batch_size)

    def take_turn(self, call: Call) -> list[str]:
        """Return what a call polls when its turn comes: those of its ids that are still open for a waiter."""
        # A waiter that joins now must not take the call for an answer about the ids that it leaves out.
        self._forget(call.drop_settled_ids(), call)
        return call.ids

    def busy(self, now: float, call: Call | None = None) -> LumaError | None:
        """Return the relay's request for a pause, as long as it holds and *call* is no waiter's last poll."""
        if call and any(waiter.deadline <= now for waiter in call.waiters):
            return None
        return self._backoff.busy(now)

    def succeed(self, call: Call, tasks: Mapping[str, LumaTask], *, now: float) -> dict[Waiter, PollResult]:
        """End a call that was answered."""
        self._got_through(call, now)
        self.quarantine.release(call.ids)
        return self._end(call, tasks, None)

    def _got_through(self, call: Call, now: float) -> None:
        self._last_success = now
        self._backoff.on_success()
        for failed in self._undecided:
            if failed.planned_at == call.planned_at:
                self.quarantine.add(failed, self.batch_size)
        self._undecided.clear()

    def needs_check(self, call: Call, error: LumaError) -> bool:
        """Return whether only a call for an id of no task shows if the relay refuses every call."""
        return (
            isinstance(error, LumaRequestError)
            and not isinstance(error, LumaTaskNotFoundError)
            and self._last_success < call.planned_at
        )

    def refuse(self, call: Call, error: LumaRequestError, *, now: float) -> dict[Waiter, PollResult]:
        """
        End a call that the relay refused because of an id in it, while others would get through.

        A refusal of one id alone is an answer about it.
        """
        self._got_through(call, now)
        self.quarantine.add(call, self.batch_size)
        self.quarantine.refused.update(call.ids)
        if len(call.ids) > 1:
            return self._end(call, {}, error)
        if isinstance(error, LumaTaskNotFoundError):
            return self._end(call, {}, None)
        [task_id] = call.ids
        return self._end(call, {task_id: LumaTask(task_id, TaskState.UNKNOWN, problem=str(error))}, None)

    def fail(self, call: Call, error: LumaError, *, now: float) -> dict[Waiter, PollResult]:
        """End a call that failed."""
        self._backoff.on_error(error, now)
        if self._last_success >= call.planned_at:
            if _may_be_caused_by_an_id(error):
                self.quarantine.add(call, self.batch_size)
            return self._end(call, {}, error)
        intervals = (waiter.interval for waiter in self._waiters)
        if self._backoff.on_unanswered(call.planned_at, now, intervals):
            self._undecided.clear()
        self.quarantine.release(call.ids)
        if _may_be_caused_by_an_id(error):
            self._undecided.append(call)
        return self._end(call, {}, error)

    def drop(self, call: Call, error: LumaError | None = None) -> dict[Waiter, PollResult]:
        """End a call that was not made: because of an error, or because no waiter has its ids open."""
        return self._end(call, {}, error)

    def fail_all(self, error: LumaError) -> dict[Waiter, PollResult]:
        """End all calls, because none can succeed, and return a result for every waiter."""
        self._calls.clear()
        return self._fail_waiters(self._waiters, error)

    def fail_unanswered(self, error: LumaError) -> dict[Waiter, PollResult]:
        """Return a result for each waiter, due or not, that no call has ever been answered for."""
        return self._fail_waiters([waiter for waiter in self._waiters if not waiter.answered], error)

    def _fail_waiters(self, waiters: Iterable[Waiter], error: LumaError) -> dict[Waiter, PollResult]:
        results = {}
        for waiter in waiters:
            self._leave_calls(waiter)
            results[waiter] = waiter.pop_result()._replace(error=error)
        return results

    def _end(
        self, call: Call, tasks: Mapping[str, LumaTask], error: LumaError | None
    ) -> dict[Waiter, PollResult]:
        self._forget(call.ids, call)
        results: dict[Waiter, PollResult] = {}
        for waiter in call.waiters:
            if (result := waiter.on_call_end(call, tasks, error)) is not None:
                results[waiter] = result
        return results

    def _forget(self, ids: Iterable[str], call: Call) -> None:
        calls = self._calls
        for task_id in ids:
            if calls.get(task_id) is call:
                del calls[task_id]


def spread(
    calls: Sequence[Call], interval: float, rng: random.Random, *, concurrency: int
) -> list[tuple[float, Sequence[Call]]]:
    """
    Spread the calls of a round, in seconds from its beginning, so that they don't come at once.

    A call's place in time depends on those before it alone: no waiter is delayed when others settle ids.

    :param interval: The shortest interval of the waiters that they serve.
    :param concurrency: How many are made at the same time, and so may come at the same time.
    """
    groups = list(cut(calls, concurrency))
    pace = min(_PACE * concurrency, interval / 5 / max(1, len(groups)))
    return [(pace * (index + rng.random()), group) for index, group in enumerate(groups)]


def _may_be_caused_by_an_id(error: LumaError) -> bool:
    if isinstance(error, LumaConnectionError):
        return not error.unsent
    return isinstance(error, LumaServerError | LumaResponseError)
