# SPDX-License-Identifier: Apache-2.0
"""One waiting from its first answer to its end, told to the log: for sensor, trigger and operators alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_provider_luma.exceptions import LumaError
from airflow_provider_luma.waiting.progress import Progress, Report, Verdict, WaitPolicy

if TYPE_CHECKING:
    from airflow_provider_luma.client.luma import LumaClient
    from airflow_provider_luma.client.models import LumaTask


class Log(Protocol):
    """The part of a logger that is used here."""

    def info(self, message: Any, /, *args: Any) -> Any:
        """Say what goes on."""

    def warning(self, message: Any, /, *args: Any) -> Any:
        """Say what goes wrong."""


class Watch:
    """
    Watches over tasks: takes in answers, and logs one line per change.

    :param progress: What is known at the beginning.
    :param policy: What is tolerated.
    :param log: Where to say it.
    :param said: The line that was logged last, when the watch goes on from an earlier one.
    """

    def __init__(self, progress: Progress, policy: WaitPolicy, log: Log, *, said: str = "") -> None:
        self.progress = progress
        self.policy = policy
        self.said = said
        self._log = log

    def poll(self, client: LumaClient) -> None:
        """Ask the relay once for the open ids; trouble is taken in like an answer."""
        try:
            tasks = client.get_tasks(self.progress.open_ids)
        except LumaError as error:
            self.take_error(error)
        else:
            self.take(tasks)

    def take(
        self,
        tasks: Mapping[str, LumaTask],
        *,
        asked: Sequence[str] | None = None,
        error: LumaError | None = None,
    ) -> None:
        """
        Take in an answer.

        :param tasks: What the relay told.
        :param asked: The ids that were asked for. Default: all that were open.
        :param error: Why the others could not be asked for.
        """
        if error is not None:
            self._log.warning("Polling the relay failed: %s", error)
        before = self.progress
        self.progress = before.after(tasks, self.policy, asked=asked, error=error)
        if self.said and self.progress is before:
            return
        summary = self.progress.summary()
        if summary != self.said:
            self._log.info("Luma tasks: %s", summary)
            self.said = summary

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
