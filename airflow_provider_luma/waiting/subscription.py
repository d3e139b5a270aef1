# SPDX-License-Identifier: Apache-2.0
"""The end of the shared poll that one wait holds."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from airflow_provider_luma.waiting.calls import PollResult, Waiter

if TYPE_CHECKING:
    from airflow_provider_luma.waiting.poller import Poller

OnAnswer = Callable[["Subscription", PollResult | None], Collection[str]]
"""
Takes in an answer, or ``None`` when the deadline passed and no call is in flight.

Returns the ids that are still open; when there are none, the wait is over. It runs in the event loop, in the
context of the wait.
"""

_DEADLINE_SLACK: Final = 1.0


class Subscription:
    """
    Deliver the answers of the shared poll to one wait.

    A function takes them in and not a task that waits for them: waking a task costs more than taking in most
    answers.

    :param deadline: When the last answer is due, on the event loop's clock.
    """

    def __init__(self, poller: Poller, waiter: Waiter, on_answer: OnAnswer, deadline: float) -> None:
        self.poller = poller
        self.timed_out = False
        self._waiter = waiter
        self._on_answer = on_answer
        self._context = contextvars.copy_context()
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # A wait whose deadline passed while no triggerer ran gets the time for a last poll, too.
        last_poll = max(deadline, self._loop.time())
        self._timer = self._loop.call_at(last_poll + _DEADLINE_SLACK, self._give_up)

    async def end(self) -> None:
        """
        Return when the wait is over; ``timed_out`` then says whether the last answer came at its deadline.

        :raises RuntimeError: when the shared poll broke for a reason that it doesn't know. What the callback
            raises is raised unchanged.
        """
        await self._ended

    def deliver(self, answer: PollResult | None) -> None:
        """Hand over an answer, or ``None`` when no further one will come."""
        if self._ended.done():
            return
        self.timed_out = self._loop.time() >= self._deadline
        try:
            open_ids = self._context.run(self._on_answer, self, answer)
        except Exception as error:
            self._ended.set_exception(error)
            return
        # Ids are only ever removed, so the same number means the same ids.
        if len(open_ids) != len(self._waiter.ids):
            self.poller.settle(self._waiter, open_ids)
        if not open_ids:
            self._ended.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the wait because the shared poll broke."""
        if not self._ended.done():
            broken = RuntimeError(f"The shared poll of Luma tasks broke: {error!r}")
            broken.__cause__ = error
            self._ended.set_exception(broken)

    def close(self) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def _give_up(self) -> None:
        # A call in flight is bounded by its own timeouts, and its answer may still be the good one.
        if not self._waiter.calls:
            self.deliver(None)
