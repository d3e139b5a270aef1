# SPDX-License-Identifier: Apache-2.0
"""What a round of the shared poll is made of: waiters, the calls that serve them, and what they get back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from airflow_provider_luma.client.models import LumaTask
from airflow_provider_luma.exceptions import LumaError


class PollResult(NamedTuple):
    """
    What one round returns to one waiter.

    :param tasks: The tasks in the answers.
    :param asked: The ids that were polled and answered; one that is missing in *tasks* was left out.
    :param error: Why some of the waiter's ids could not be polled, if that is so.
    """

    tasks: dict[str, LumaTask]
    asked: list[str]
    error: LumaError | None


class Waiter:
    """
    One wait for a set of ids. Made by :meth:`Schedule.join`.

    ``ids`` are those still open for it, ``due`` is when it has to be served next, ``in_step`` says whether
    the common rounds serve it (or a moment of its own), ``answered`` whether a call for it has ever worked.
    """

    def __init__(
        self, ids: Iterable[str], *, interval: float, deadline: float, due: float, answered: bool
    ) -> None:
        self.ids: Collection[str] = dict.fromkeys(ids)
        self.interval = interval
        self.deadline = deadline
        self.due = min(due, deadline)
        self.in_step = False
        self.answered = answered
        self.calls: set[Call] = set()
        self._result = PollResult({}, [], None)

    def next_time(self, held_until: float) -> float:
        """Return when to serve it while rounds are held back; its deadline is not held back."""
        moment = max(self.due, held_until)
        return min(moment, self.deadline) if self.due <= self.deadline else moment

    def begin_round(self, now: float) -> None:
        """Set when it is due again."""
        self.due = now + self.interval
        self.in_step = not now < self.deadline < self.due
        if not self.in_step:
            self.due = self.deadline

    def on_call_end(
        self, call: Call, tasks: Mapping[str, LumaTask], error: LumaError | None
    ) -> PollResult | None:
        """Take in the end of one call; return the whole result with the last one."""
        if error is None:
            mine = [task_id for task_id in call.waiters[self] if task_id in self.ids]
            self._result.asked.extend(mine)
            self._result.tasks.update({task_id: tasks[task_id] for task_id in mine if task_id in tasks})
            self.answered = True
        else:
            self._result = self._result._replace(error=error)
        self.calls.discard(call)
        return None if self.calls else self.pop_result()

    def pop_result(self) -> PollResult:
        """Return what its calls of this round have answered so far, and forget it."""
        result, self._result = self._result, PollResult({}, [], None)
        return result


class Call:
    """
    One batch query of a round, and one HTTP request.

    ``depth`` is its bisection depth: how often a full batch was halved for it. ``priority`` is its place in
    the queue, lowest first: the number of ids of its smallest waiter. ``waiters`` holds the ids that it polls
    for each waiter. ``stale`` says whether one of them has settled an id since it was planned.
    """

    def __init__(self, ids: list[str], *, depth: int, planned_at: float) -> None:
        self.ids = ids
        self.depth = depth
        self.priority = 0
        self.planned_at = planned_at
        self.waiters: dict[Waiter, list[str]] = {}
        self.stale = False

    def serve(self, waiter: Waiter, ids: Iterable[str]) -> None:
        """Poll ids on behalf of a waiter, too."""
        self.waiters.setdefault(waiter, []).extend(ids)
        waiter.calls.add(self)

    def drop_settled_ids(self) -> list[str]:
        """Leave out the ids that no waiter has open any more, and return these."""
        if not self.stale:
            return []
        self.stale = False
        planned = self.ids
        self.ids = [task_id for task_id in planned if any(task_id in waiter.ids for waiter in self.waiters)]
        return list(set(planned).difference(self.ids))
