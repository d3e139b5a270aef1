# SPDX-License-Identifier: Apache-2.0
"""How rare the rounds of the shared poll become while no call gets through."""

from __future__ import annotations

import random
from collections.abc import Iterable
from math import inf
from typing import Final

from airflow_provider_luma.delays import MAX_DELAY
from airflow_provider_luma.exceptions import LumaApiError, LumaError
from airflow_provider_luma.waiting.quarantine import MAX_QUARANTINE_BATCHES

MAX_BACKOFF: Final = 120.0
"""Seconds between rounds, at most, while no call gets through (or the interval, if longer)."""

_PROBE_EVERY: Final = 3
_MAX_DOUBLINGS: Final = 10


class Backoff:
    """
    Hold rounds back while no call gets through, or while the relay asks for a pause.

    ``unanswered_rounds`` counts the rounds in a row in which no call got through.
    """

    def __init__(self, rng: random.Random) -> None:
        self.unanswered_rounds = 0
        self._rng = rng
        self._probes = 0
        self._last_unanswered = -inf
        self._until = -inf
        self._busy_until = -inf
        self._busy: LumaError | None = None

    @property
    def held_until(self) -> float:
        """When the next round may begin."""
        return max(self._until, self._busy_until)

    def busy(self, now: float) -> LumaError | None:
        """Return the relay's request for a pause, as long as it holds."""
        return None if now >= self._busy_until else self._busy

    def on_success(self) -> None:
        """Hold back nothing any more."""
        self.unanswered_rounds = self._probes = 0
        self._until = -inf

    def on_error(self, error: LumaError, now: float) -> None:
        """Heed the pause that an error asks for, if it does."""
        if isinstance(error, LumaApiError) and error.retry_after is not None:
            self._busy = error
            self._busy_until = max(self._busy_until, now + min(error.retry_after, MAX_DELAY))

    def on_unanswered(self, planned_at: float, now: float, intervals: Iterable[float]) -> bool:
        """Lengthen the pause at the first failed call of a round, and return whether this is the first."""
        if planned_at <= self._last_unanswered or planned_at < self._until:
            return False
        self._last_unanswered = planned_at
        self.unanswered_rounds += 1
        interval = min(intervals, default=0.0)
        doublings = min(self.unanswered_rounds - 1, _MAX_DOUBLINGS)
        pause = min(interval * 2**doublings, max(MAX_BACKOFF, interval))
        self._until = now + pause * self._rng.uniform(0.75, 1.0)
        return True

    def pick_probes(self, ids: list[str]) -> tuple[list[str], list[str]]:
        """Return the ids to poll one by one, more in every third unanswered round, and the others."""
        if not ids or not self.unanswered_rounds or self.unanswered_rounds % _PROBE_EVERY:
            return [], ids
        start = self._probes % len(ids)
        ids = ids[start:] + ids[:start]
        count = min(self._probes + 1, MAX_QUARANTINE_BATCHES)
        self._probes += count
        return ids[:count], ids[count:]
