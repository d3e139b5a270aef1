# SPDX-License-Identifier: Apache-2.0
"""
Who is asked for when, and in which calls: the decisions of the shared poll, without clock and network.

Waiters with overlapping ids and different intervals share calls by these rules:

* A round begins when someone is due, and serves everyone who would be due before the next round. So
  nobody is served later than asked, and rounds are only as frequent as the most impatient waiter.
* A newcomer is first served one interval after it joined, together with the others that came at about
  the same time; from then on it goes with the common rounds. Its deadline, too, is a moment of its own.
* A round asks for each id once, and for no id that nobody waits for any more. Those who wait for few ids
  come first, so that someone who waits for a hundred thousand delays nobody.
* Ids whose call fails while another call gets through are asked for in ever smaller calls, round by round,
  until the one that makes calls fail stands alone and hurts only its owners. This is the only bisection of
  the shared poll: each call is one HTTP request.
* A refusal of a call for one id alone is an answer about that id: it is unknown to the relay, or illegible.
* When nobody gets through, rounds become rarer. Every third of them asks for some ids one by one, more of
  them each time, to see whether it is the relay that fails, or an id in every call.
* A relay that asks to be left alone is, for everyone. But a waiter's last look comes at its deadline, however
  rare the rounds have become.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import inf
from typing import Final, NamedTuple, TypeVar

from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.delays import MAX_DELAY
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaConnectionError,
    LumaError,
    LumaRequestError,
    LumaResponseError,
    LumaServerError,
    LumaTaskNotFoundError,
)

T = TypeVar("T")

MAX_BACKOFF: Final = 120.0
"""Seconds between rounds, at most, while the relay doesn't answer anyone (or the interval, if longer)."""

MAX_SUSPECT_BATCHES: Final = 16
"""
About how many further calls a round makes, at most, for ids that made calls fail.

Calls that the relay refuses are not bounded: they are answered quickly, and an id that is refused alone is
soon given up by its owners.
"""

_MAX_JITTER: Final = 0.5
_PACE: Final = 0.005
_PROBE_EVERY: Final = 3
# Quarters cost as many calls as halves of halves, and take half the rounds.
_LEVELS_PER_FAILURE: Final = 2
_LONG_AGO: Final = -inf


class PollResult(NamedTuple):
    """
    What one round tells one waiter.

    :param tasks: The tasks that the relay told.
    :param asked: The ids that were asked for and answered; one that is missing in *tasks* was left out.
    :param error: Why some of the waiter's ids could not be asked for, if that is so.
    """

    tasks: dict[str, LumaTask]
    asked: list[str]
    error: LumaError | None


class Waiter:
    """
    Someone who waits. Made by :meth:`Schedule.join`.

    ``ids`` are those still open for it, ``due`` is when it has to be served next.
    """

    def __init__(self, ids: Iterable[str], *, interval: float, deadline: float, due: float) -> None:
        self.ids: Collection[str] = dict.fromkeys(ids)
        self.interval = interval
        self.deadline = deadline
        self.due = min(due, deadline)
        # Whether it waits for the common rounds, or for a moment of its own.
        self.in_step = False
        # Whether something has ever been answered to it.
        self.answered = False
        self._calls: set[Call] = set()
        self._answer = PollResult({}, [], None)

    @property
    def being_served(self) -> bool:
        """Whether calls for it are under way."""
        return bool(self._calls)

    def _next_time(self, held_until: float) -> float:
        """Return when to serve it while rounds are held back; its deadline is not held back."""
        moment = max(self.due, held_until)
        return min(moment, self.deadline) if self.due <= self.deadline else moment

    def _begin(self, now: float) -> None:
        self.due = now + self.interval
        self.in_step = not now < self.deadline < self.due
        if not self.in_step:
            self.due = self.deadline

    def _take(self, call: Call, tasks: Mapping[str, LumaTask], error: LumaError | None) -> PollResult | None:
        """Take in the end of one call; return the whole answer with the last one."""
        if error is None:
            mine = [task_id for task_id in call.waiters[self] if task_id in self.ids]
            self._answer.asked.extend(mine)
            self._answer.tasks.update({task_id: tasks[task_id] for task_id in mine if task_id in tasks})
            self.answered = True
        else:
            self._answer = self._answer._replace(error=error)
        self._calls.discard(call)
        return None if self._calls else self._whole_answer()

    def _whole_answer(self) -> PollResult:
        answer, self._answer = self._answer, PollResult({}, [], None)
        return answer


class Call:
    """
    One batch query of a round.

    ``ids`` is what it asks for; ``level`` says how often a full batch was halved to come to its size;
    ``rank`` is its place when calls queue up: how many ids the most modest of its waiters waits for.
    ``waiters`` are those who wait for its end, each with the ids that the call asks for it.
    """

    def __init__(self, ids: list[str], *, level: int, planned_at: float) -> None:
        self.ids = ids
        self.level = level
        self.rank = 0
        self.planned_at = planned_at
        self.waiters: dict[Waiter, list[str]] = {}
        # Whether someone has lost interest since it was planned.
        self._stale = False

    def serve(self, waiter: Waiter, ids: Iterable[str]) -> None:
        """Ask for ids on behalf of a waiter, too."""
        self.waiters.setdefault(waiter, []).extend(ids)
        waiter._calls.add(self)


class Schedule:
    """
    The shared poll of one relay connection. All times are seconds of one clock that only goes forward.

    :param batch_size: How many ids one call carries at most.
    :param rng: Source of the jitter.
    """

    def __init__(self, batch_size: int, rng: random.Random) -> None:
        self.batch_size = batch_size
        self._rng = rng
        self._waiters: dict[Waiter, None] = {}
        self._newcomers_due: dict[float, float] = {}
        self._calls: dict[str, Call] = {}
        self._levels: dict[str, int] = {}
        self._refused: set[str] = set()
        self._last_success = _LONG_AGO
        self._undecided: list[Call] = []
        self._fruitless_rounds = 0
        self._probes = 0
        self._last_fruitless = _LONG_AGO
        self._back_off_until = _LONG_AGO
        self._busy_until = _LONG_AGO
        self._busy: LumaError | None = None

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def open_ids(self) -> set[str]:
        """Every id that someone waits for."""
        return set().union(*[waiter.ids for waiter in self._waiters])

    @property
    def fruitless(self) -> bool:
        """Whether nobody got through in the last round."""
        return self._fruitless_rounds > 0

    @property
    def _held_until(self) -> float:
        return max(self._back_off_until, self._busy_until)

    def join(
        self, ids: Iterable[str], *, interval: float, deadline: float, now: float, answered: bool = False
    ) -> Waiter:
        """
        Begin to wait; the first answer comes one interval from now, or at the deadline if that is sooner.

        :param ids: The ids to ask for.
        :param interval: Seconds between two answers.
        :param deadline: When the last answer is due.
        :param now: The time.
        :param answered: Whether it knows of a call that has worked with this connection.
        """
        due = self._newcomers_due.get(interval, _LONG_AGO)
        if due < now + interval:
            jitter = _jitter(interval)
            due = now + interval + self._rng.uniform(jitter / 2, jitter)
            self._newcomers_due[interval] = due
        waiter = Waiter(ids, interval=interval, deadline=deadline, due=due)
        waiter.answered = answered
        self._waiters[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting. Calls under way go on for the others that they serve."""
        self._waiters.pop(waiter, None)
        self._leave_calls(waiter)

    def _leave_calls(self, waiter: Waiter) -> None:
        for call in waiter._calls:
            call.waiters.pop(waiter, None)
            call._stale = True
        waiter._calls.clear()

    def settle(self, waiter: Waiter, open_ids: Iterable[str]) -> None:
        """Say which ids are still open for the waiter."""
        waiter.ids = dict.fromkeys(open_ids)
        for call in waiter._calls:
            call._stale = True

    def next_round(self) -> float:
        """Return when the next round begins; infinity means that nobody has to be served."""
        held_until = self._held_until
        return min(
            [waiter._next_time(held_until) for waiter in self._waiters if not waiter._calls], default=inf
        )

    def begin_round(self, now: float) -> list[Call]:
        """
        Begin a round.

        :param now: The time.
        :return: The calls to make. Each has to be ended by :meth:`succeed`, :meth:`fail` or :meth:`drop`.
        """
        if self._levels:
            open_ids = self.open_ids
            self._levels = {task_id: n for task_id, n in self._levels.items() if task_id in open_ids}
            self._refused &= open_ids
        wanted: dict[str, Waiter] = {}
        sharers: dict[str, list[Waiter]] = {}
        for waiter in self._whom_to_serve(now):
            waiter._begin(now)
            for task_id in waiter.ids:
                if task_id in self._calls:
                    self._calls[task_id].serve(waiter, (task_id,))
                elif wanted.setdefault(task_id, waiter) is not waiter:
                    sharers.setdefault(task_id, []).append(waiter)
        calls = []
        for ids, level in self._batches(list(wanted)):
            call = Call(ids, level=level, planned_at=now)
            self._calls.update(dict.fromkeys(ids, call))
            for waiter, mine in groupby(ids, wanted.__getitem__):
                call.serve(waiter, mine)
            for task_id in filter(sharers.__contains__, ids):
                for waiter in sharers[task_id]:
                    call.serve(waiter, (task_id,))
            call.rank = min(len(waiter.ids) for waiter in call.waiters)
            calls.append(call)
        return calls

    def _whom_to_serve(self, now: float) -> list[Waiter]:
        idle = [waiter for waiter in self._waiters if not waiter._calls]
        held_until = self._held_until
        if now < held_until:
            return [waiter for waiter in idle if waiter._next_time(held_until) <= now]
        in_step = [waiter for waiter in idle if waiter.in_step]
        horizon = now
        if any(waiter.due <= now for waiter in in_step):
            horizon = now + min(waiter.interval for waiter in in_step)
        serve = [w for w in idle if w.due <= now or (w.in_step and w.due < horizon)]
        # By whole batches only: so nobody's place in the rounds changes with each id that others settle.
        return sorted(serve, key=lambda waiter: len(waiter.ids) // self.batch_size)

    def _batches(self, ids: list[str]) -> Iterator[tuple[list[str], int]]:
        """Cut ids into what one call carries, each with how often a full batch was halved for it."""
        if ids and self._fruitless_rounds and self._fruitless_rounds % _PROBE_EVERY == 0:
            start = self._probes % len(ids)
            ids = ids[start:] + ids[:start]
            probes = min(self._probes + 1, MAX_SUSPECT_BATCHES)
            self._probes += probes
            for batch in _cut(ids[:probes], 1):
                yield batch, 0
            ids = ids[probes:]
        suspects: dict[int, list[str]] = {}
        if self._levels:
            for task_id in ids:
                if level := self._levels.get(task_id):
                    suspects.setdefault(level, []).append(task_id)
            ids = [task_id for task_id in ids if task_id not in self._levels]
        for batch in _cut(ids, self.batch_size):
            yield batch, 0
        sizes = {level: max(1, self.batch_size >> level) for level in suspects}
        for level, members in suspects.items():
            refused = list(filter(self._refused.__contains__, members))
            for batch in _cut(refused, sizes[level]):
                yield batch, level
            if refused:
                suspects[level] = [task_id for task_id in members if task_id not in self._refused]
        batches = sum(len(members) / sizes[level] for level, members in suspects.items())
        coarser = max(1.0, batches / MAX_SUSPECT_BATCHES)
        for level, members in suspects.items():
            for batch in _cut(members, min(self.batch_size, round(sizes[level] * coarser))):
                yield batch, level

    def take_turn(self, call: Call) -> list[str]:
        """Return what a call asks for when its turn comes: those of its ids that someone still waits for."""
        if call._stale:
            planned, call.ids = (
                call.ids,
                [task_id for task_id in call.ids if any(task_id in waiter.ids for waiter in call.waiters)],
            )
            # Else whoever joins in mid-flight would take the call for an answer about them.
            self._forget(set(planned).difference(call.ids), call)
            call._stale = False
        return call.ids

    def busy(self, now: float, call: Call | None = None) -> LumaError | None:
        """
        Return the relay's request to be left alone for a while, as long as it holds.

        :param now: The time.
        :param call: The call that is to be made; it is not held back when it is someone's last look.
        """
        if now >= self._busy_until or (call and any(waiter.deadline <= now for waiter in call.waiters)):
            return None
        return self._busy

    def succeed(self, call: Call, tasks: Mapping[str, LumaTask], *, now: float) -> dict[Waiter, PollResult]:
        """
        End a call that was answered.

        :param tasks: What the relay told.
        :param now: The time.
        :return: The answers that are whole now.
        """
        self._got_through(call, now)
        for task_id in call.ids if self._levels else ():
            self._levels.pop(task_id, None)
            self._refused.discard(task_id)
        return self._end(call, tasks, None)

    def _got_through(self, call: Call, now: float) -> None:
        self._last_success = now
        self._fruitless_rounds = self._probes = 0
        self._back_off_until = _LONG_AGO
        for failed in self._undecided:
            if failed.planned_at == call.planned_at:
                self._suspect(failed)
        self._undecided.clear()

    def in_doubt(self, call: Call, error: LumaError) -> bool:
        """
        Whether it can't be seen if the relay refuses this call for its ids, or every call.

        Then ask it for an id that belongs to no task, and report by :meth:`refuse` or :meth:`fail`.
        """
        return (
            isinstance(error, LumaRequestError)
            and not isinstance(error, LumaTaskNotFoundError)
            and self._last_success < call.planned_at
        )

    def refuse(self, call: Call, error: LumaRequestError, *, now: float) -> dict[Waiter, PollResult]:
        """
        End a call that the relay refused because of an id in it, while others would get through.

        :param error: Why it refused.
        :param now: The time.
        :return: The answers that are whole now. A refusal of one id alone is an answer about it.
        """
        self._got_through(call, now)
        self._suspect(call)
        self._refused.update(call.ids)
        if len(call.ids) > 1:
            return self._end(call, {}, error)
        if isinstance(error, LumaTaskNotFoundError):
            return self._end(call, {}, None)
        [task_id] = call.ids
        return self._end(call, {task_id: LumaTask(task_id, TaskState.UNKNOWN, problem=str(error))}, None)

    def fail(self, call: Call, error: LumaError, *, now: float) -> dict[Waiter, PollResult]:
        """
        End a call that failed.

        :param error: Why it failed.
        :param now: The time.
        :return: The answers that are whole now.
        """
        if isinstance(error, LumaApiError) and error.retry_after is not None:
            self._busy = error
            self._busy_until = max(self._busy_until, now + min(error.retry_after, MAX_DELAY))
        if self._last_success >= call.planned_at:
            if _an_id_may_cause(error):
                self._suspect(call)
            return self._end(call, {}, error)
        if call.planned_at > self._last_fruitless and call.planned_at >= self._back_off_until:
            self._last_fruitless = call.planned_at
            self._undecided.clear()
            self._back_off(now)
        for task_id in call.ids:
            self._levels.pop(task_id, None)
        if _an_id_may_cause(error):
            # Whether it is an id shows when another call of the round gets through.
            self._undecided.append(call)
        return self._end(call, {}, error)

    def drop(self, call: Call, error: LumaError | None = None) -> dict[Waiter, PollResult]:
        """
        End a call that was not made.

        :param error: Why not, if anyone still waits for its ids.
        :return: The answers that are whole now.
        """
        return self._end(call, {}, error)

    def fail_everyone(self, error: LumaError) -> dict[Waiter, PollResult]:
        """
        End all calls, because none can succeed.

        :param error: Why.
        :return: An answer for every waiter.
        """
        for call in set(self._calls.values()):
            call.waiters.clear()
            call._stale = True
        self._calls.clear()
        answers = {}
        for waiter in self._waiters:
            waiter._calls.clear()
            answers[waiter] = waiter._whole_answer()._replace(error=error)
        return answers

    def fail_unanswered(self, error: LumaError) -> dict[Waiter, PollResult]:
        """
        End the calls of those to whom nothing has ever been answered, due or not.

        :param error: Why.
        :return: An answer for each of them.
        """
        answers = {}
        for waiter in self._waiters:
            if not waiter.answered:
                self._leave_calls(waiter)
                answers[waiter] = waiter._whole_answer()._replace(error=error)
        return answers

    def _suspect(self, call: Call) -> None:
        level = min(call.level + _LEVELS_PER_FAILURE, self.batch_size.bit_length())
        self._levels.update(dict.fromkeys(call.ids, level))
        self._refused.difference_update(call.ids)

    def _back_off(self, now: float) -> None:
        self._fruitless_rounds += 1
        base = min((waiter.interval for waiter in self._waiters), default=0.0)
        pause = min(base * 2 ** min(self._fruitless_rounds - 1, 10), max(MAX_BACKOFF, base))
        self._back_off_until = now + pause * self._rng.uniform(0.75, 1.0)

    def _end(
        self, call: Call, tasks: Mapping[str, LumaTask], error: LumaError | None
    ) -> dict[Waiter, PollResult]:
        self._forget(call.ids, call)
        answers: dict[Waiter, PollResult] = {}
        for waiter in call.waiters:
            if (answer := waiter._take(call, tasks, error)) is not None:
                answers[waiter] = answer
        return answers

    def _forget(self, ids: Iterable[str], call: Call) -> None:
        calls = self._calls
        for task_id in ids:
            if calls.get(task_id) is call:
                del calls[task_id]


def spread(
    calls: Sequence[Call], interval: float, rng: random.Random, *, abreast: int
) -> list[tuple[float, Sequence[Call]]]:
    """
    Spread the calls of a round, in seconds from its beginning, so that they don't come at once.

    A call's place in time depends on those before it alone: nobody waits longer because others settle.

    :param calls: The calls of a round.
    :param interval: The shortest interval of those whom they serve.
    :param rng: Source of the jitter.
    :param abreast: How many are made at the same time, and so may come at the same time.
    """
    groups = list(_cut(calls, abreast))
    pace = min(_PACE * abreast, interval / 5 / max(1, len(groups)))
    return [(pace * (index + rng.random()), group) for index, group in enumerate(groups)]


def _jitter(interval: float) -> float:
    return min(interval / 10, _MAX_JITTER)


def _cut(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _an_id_may_cause(error: LumaError) -> bool:
    if isinstance(error, LumaConnectionError):
        return not error.unsent
    return isinstance(error, LumaServerError | LumaResponseError)
