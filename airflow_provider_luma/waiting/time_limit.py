# SPDX-License-Identifier: Apache-2.0
"""A time limit of a wait, as one value that travels from a task to its trigger and into messages."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

TimedOutBy = Literal["timeout", "execution_timeout"]


class TimeLimit(msgspec.Struct, frozen=True, kw_only=True):
    """
    Say how long a wait may take, and by which of the task's parameters.

    :param seconds: Its whole length.
    :param name: The parameter that sets it.
    :param deadline: When it runs out, in seconds since the epoch. ``None`` for a task that starts in the
        triggerer: it is *grace* before Airflow's own timeout of the deferral.
    :param grace: Seconds by which Airflow's own timeout of the deferral comes later.
    """

    seconds: float
    name: TimedOutBy = "timeout"
    deadline: float | None = None
    grace: float = 0.0

    def __str__(self) -> str:
        return f"the {self.name} of {self.seconds:g} s"

    @property
    def defer_timeout(self) -> timedelta:
        """Airflow's own timeout for the deferral."""
        left = self.seconds if self.deadline is None else max(0.0, self.deadline - time.time())
        return timedelta(seconds=left + self.grace)

    def runs_out_at(self, timeout_after: datetime | None) -> float:
        """
        Return the deadline in seconds since the epoch.

        :param timeout_after: Airflow's own timeout of the deferral, which survives a restart of the
            triggerer; naive means UTC.
        """
        if self.deadline is not None:
            return self.deadline
        if timeout_after is None:
            return time.time() + self.seconds
        if timeout_after.tzinfo is None:
            timeout_after = timeout_after.replace(tzinfo=UTC)
        return timeout_after.timestamp() - self.grace
