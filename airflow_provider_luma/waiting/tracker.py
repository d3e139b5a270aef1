# SPDX-License-Identifier: Apache-2.0
"""Track a wait across polls and log its changes; poll until it ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_luma.client.settings import DEFAULT_MAX_POLL_FAILURES
from airflow_provider_luma.delays import delay_before_retry
from airflow_provider_luma.exceptions import LumaApiError, LumaError, LumaInterruptedError
from airflow_provider_luma.text import shorten_list
from airflow_provider_luma.waiting.calls import PollResult
from airflow_provider_luma.waiting.progress import Progress, Report, Verdict, WaitPolicy

if TYPE_CHECKING:
    from airflow_provider_luma.client.api import LumaClient
    from airflow_provider_luma.client.models import LumaTask
    from airflow_provider_luma.waiting.time_limit import TimeLimit

_MAX_FAILED_IN_A_ROW: Final = 3
_MAX_NAMED: Final = 100


class Log(Protocol):
    """The part of a logger that a tracker uses."""

    def info(self, message: Any, /, *args: Any) -> Any:
        """Log a change."""

    def warning(self, message: Any, /, *args: Any) -> Any:
        """Log a failed poll."""


class StopSignal(Protocol):
    """What can end the pause between two polls."""

    asked: bool

    def pause(self, seconds: float) -> None:
        """Sleep, unless a stop is asked for."""


class Tracker:
    """
    Take in the answers about a set of tasks, and log one line per change.

    ``retry_after`` is the pause in seconds that the relay asked for at the last poll, if it did.

    :param progress: What is known at the beginning.
    :param policy: What is tolerated.
    :param log: Where to log.
    :param last_summary: The line that was logged last, when this tracker continues an earlier one.
    """

    def __init__(self, progress: Progress, policy: WaitPolicy, log: Log, *, last_summary: str = "") -> None:
        self.progress = progress
        self.policy = policy
        self.last_summary = last_summary
        self.log = log
        self.retry_after: float | None = None

    def poll(
        self, client: LumaClient, *, max_poll_failures: int = DEFAULT_MAX_POLL_FAILURES
    ) -> dict[str, LumaTask]:
        """
        Poll the open ids once; a failure is taken in like an answer.

        The answers of some calls count, although others fail. When several fail in a row, the rest is left
        for the next poll, because each may take as long as the client's timeouts and retries allow.

        :return: The tasks that the relay knows, as far as it answered.
        """
        ids = self.progress.open_ids
        batches = [ids[start : start + client.batch_size] for start in range(0, len(ids), client.batch_size)]
        if self.progress.poll_failures is not None:
            # In a fixed order, batches that always fail would keep those behind them from ever being polled.
            random.shuffle(batches)
        tasks: dict[str, LumaTask] = {}
        asked: list[str] = []
        last_error: LumaError | None = None
        failed_in_a_row = 0
        for batch in batches:
            try:
                tasks |= client.get_tasks(batch)
            except LumaError as error:
                last_error = error
                failed_in_a_row += 1
                if failed_in_a_row == _MAX_FAILED_IN_A_ROW or _requested_pause(error) is not None:
                    break
            else:
                asked += batch
                failed_in_a_row = 0
        self.on_answer(PollResult(tasks, asked, last_error), max_poll_failures=max_poll_failures)
        return tasks

    def on_answer(
        self,
        result: PollResult,
        *,
        answered: bool = False,
        max_poll_failures: int = DEFAULT_MAX_POLL_FAILURES,
    ) -> None:
        """
        Take in the result of one poll.

        :param answered: Whether the connection is known to have worked, for example for another wait.
        :param max_poll_failures: How many polls in a row the connection allows to fail.
        """
        tasks, asked, error = result
        self.retry_after = _requested_pause(error)
        before = self.progress
        self.progress = before.after(
            tasks,
            self.policy,
            asked=asked,
            error=error,
            answered=answered,
            max_poll_failures=max_poll_failures,
        )
        if error is not None:
            self.log.warning("Polling the relay failed%s: %s", self._extent_of_failure(), error)
        if self.last_summary and self.progress is before:
            return
        summary = self.progress.summary()
        if summary != self.last_summary:
            self.log.info("Luma tasks: %s", summary)
            self.last_summary = summary

    def _extent_of_failure(self) -> str:
        failures = self.progress.poll_failures
        if failures is None or not failures.retryable:
            return ""
        if not failures.polls:
            return " for a part of the ids"
        return f" ({failures.polls} of at most {failures.limit} times in a row)"

    def on_error(self, error: LumaError) -> None:
        """Take in that nothing could be polled."""
        self.on_answer(PollResult({}, [], error))

    def verdict(self, *, timed_out: bool) -> Verdict:
        """Decide the state of the wait, see :meth:`Progress.verdict`."""
        return self.progress.verdict(self.policy, timed_out=timed_out)

    def report(self, verdict: Verdict, *, limit: TimeLimit) -> Report:
        """Describe how the wait ended, see :meth:`Progress.report`."""
        return self.progress.report(verdict, self.policy, limit=limit)


def follow(
    client: LumaClient,
    tracker: Tracker,
    *,
    interval: float,
    limit: TimeLimit,
    max_poll_failures: int = DEFAULT_MAX_POLL_FAILURES,
    pause_first: bool = False,
    stop: StopSignal | None = None,
    after_poll: Callable[[dict[str, LumaTask]], None] = lambda tasks: None,
) -> Report:
    """
    Poll until the wait ends, in the calling thread.

    :param tracker: What is known, what is tolerated, and where to log.
    :param interval: Seconds between polls; longer when the relay asks for a longer pause.
    :param limit: How long to wait. The last poll comes when it runs out.
    :param max_poll_failures: How many polls in a row the connection allows to fail.
    :param pause_first: Whether the first poll comes after one interval, and not at once.
    :param stop: Ends the wait between two polls.
    :param after_poll: Called with the tasks of each poll.
    :raises LumaInterruptedError: when it is stopped or interrupted by Ctrl-C, with the ids that keep running.
    """
    deadline = time.monotonic() + limit.seconds
    try:
        if pause_first:
            _pause(interval, tracker, deadline, stop)
        while True:
            after_poll(tracker.poll(client, max_poll_failures=max_poll_failures))
            verdict = tracker.verdict(timed_out=time.monotonic() >= deadline)
            if verdict != "waiting":
                return tracker.report(verdict, limit=limit)
            _pause(interval, tracker, deadline, stop)
    except KeyboardInterrupt:
        raise _interrupted(tracker) from None


def _pause(interval: float, tracker: Tracker, deadline: float, stop: StopSignal | None) -> None:
    pause = delay_before_retry(tracker.retry_after, own=interval)
    sleep = time.sleep if stop is None else stop.pause
    sleep(max(0.0, min(pause, deadline - time.monotonic())))
    if stop is not None and stop.asked:
        raise _interrupted(tracker)


def _interrupted(tracker: Tracker) -> LumaInterruptedError:
    ids = tracker.progress.open_ids
    return LumaInterruptedError(
        f"Interrupted. {len(ids)} of {len(tracker.progress.ids)} videos keep running at the relay: "
        f"{shorten_list(ids, _MAX_NAMED)}. Waiting for them again, as a retry does, is free of charge.",
        task_ids=ids,
    )


def _requested_pause(error: LumaError | None) -> float | None:
    return error.retry_after if isinstance(error, LumaApiError) else None
