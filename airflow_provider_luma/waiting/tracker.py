# SPDX-License-Identifier: Apache-2.0
"""One waiting from its first answer to its end, told to the log: for sensor, trigger and operators alike."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from airflow_provider_luma.exceptions import LumaApiError, LumaError
from airflow_provider_luma.waiting.progress import Progress, Report, Verdict, WaitPolicy

if TYPE_CHECKING:
    from airflow_provider_luma.client.api import LumaClient
    from airflow_provider_luma.client.models import LumaTask


_MAX_FAILED_IN_A_ROW: Final = 3


class Log(Protocol):
    """The part of a logger that is used here."""

    def info(self, message: Any, /, *args: Any) -> Any:
        """Say what goes on."""

    def warning(self, message: Any, /, *args: Any) -> Any:
        """Say what goes wrong."""


class Tracker:
    """
    Watches over tasks: takes in answers, and logs one line per change.

    :param progress: What is known at the beginning.
    :param policy: What is tolerated.
    :param log: Where to say it.
    :param said: The line that was logged last, when the tracker goes on from an earlier one.
    """

    def __init__(self, progress: Progress, policy: WaitPolicy, log: Log, *, said: str = "") -> None:
        self.progress = progress
        self.policy = policy
        self.said = said
        self._log = log
        self._retry_after: float | None = None

    @property
    def retry_after(self) -> float | None:
        """Seconds that the relay asked to be left alone at the last poll, if it did; they are bounded."""
        return self._retry_after

    def poll(self, client: LumaClient) -> dict[str, LumaTask]:
        """
        Ask the relay once for the open ids; a failure is taken in like an answer.

        What some calls answer counts, although others fail. When several fail in a row, the rest is left for
        the next poll, because each may take as long as the client's timeouts and retries allow.

        :param client: The relay.
        :return: The tasks that the relay knows, as far as it could be asked.
        """
        ids = self.progress.open_ids
        batches = [ids[start : start + client.batch_size] for start in range(0, len(ids), client.batch_size)]
        if self.progress.trouble is not None:
            # Else batches that always fail would keep those behind them from ever being asked for.
            random.shuffle(batches)
        tasks: dict[str, LumaTask] = {}
        asked: list[str] = []
        errors: list[LumaError] = []
        failed_in_a_row = 0
        for batch in batches:
            try:
                tasks |= client.get_tasks(batch)
            except LumaError as error:
                errors.append(error)
                failed_in_a_row += 1
                if failed_in_a_row == _MAX_FAILED_IN_A_ROW or _asks_for_a_pause(error):
                    break
            else:
                asked += batch
                failed_in_a_row = 0
        self.take(tasks, asked=asked, error=errors[-1] if errors else None)
        return tasks

    def take(
        self,
        tasks: Mapping[str, LumaTask],
        *,
        asked: Sequence[str] | None = None,
        error: LumaError | None = None,
        answered: bool = False,
    ) -> None:
        """
        Take in an answer.

        :param tasks: What the relay told.
        :param asked: The ids that were asked for. Default: all that were open.
        :param error: Why the others could not be asked for.
        :param answered: Whether the connection is known to have worked, for example for another waiter.
        """
        self._retry_after = error.retry_after if isinstance(error, LumaApiError) else None
        before = self.progress
        self.progress = before.after(tasks, self.policy, asked=asked, error=error, answered=answered)
        if error is not None:
            self._log.warning("Polling the relay failed%s: %s", self._patience(), error)
        if self.said and self.progress is before:
            return
        summary = self.progress.summary()
        if summary != self.said:
            self._log.info("Luma tasks: %s", summary)
            self.said = summary

    def _patience(self) -> str:
        trouble = self.progress.trouble
        if trouble is None or not trouble.retryable:
            return ""
        if not trouble.polls:
            return " for a part of the ids"
        return f" ({trouble.polls} of at most {self.policy.max_poll_failures} times in a row)"

    def take_error(self, error: LumaError) -> None:
        """Take in that nothing could be asked for."""
        self.take({}, asked=(), error=error)

    def tolerate_poll_failures(self, count: int) -> None:
        """Set how many polls in a row may fail, once the connection has told it."""
        if count != self.policy.max_poll_failures:
            self.policy = msgspec.structs.replace(self.policy, max_poll_failures=count)

    def verdict(self, *, timed_out: bool) -> Verdict:
        """
        Decide how the waiting stands.

        :param timed_out: Whether the deadline has passed.
        """
        return self.progress.verdict(self.policy, timed_out=timed_out)

    def report(self, verdict: Verdict, *, waited: str) -> Report:
        """
        Put the end into words.

        :param verdict: How it ended.
        :param waited: What ran out, for the message of a timeout.
        """
        return self.progress.report(verdict, self.policy, waited=waited)


def _asks_for_a_pause(error: LumaError) -> bool:
    return isinstance(error, LumaApiError) and error.retry_after is not None
