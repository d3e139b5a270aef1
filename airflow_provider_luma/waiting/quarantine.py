# SPDX-License-Identifier: Apache-2.0
"""Bisect the ids that make calls fail: the only bisection of the shared poll."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from airflow_provider_luma.waiting.calls import Call

T = TypeVar("T")

MAX_QUARANTINE_BATCHES: Final = 16
"""
About how many further calls a round makes, at most, for quarantined ids.

Refused ones are not bounded: they are answered quickly, and a wait soon gives up an id that is refused alone.
"""

# Quarters cost as many calls as halves of halves, and take half the rounds.
_DEPTH_PER_FAILURE: Final = 2


def cut(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Cut items into lists of a size; the last one may be shorter."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


class Quarantine:
    """
    Hold the ids whose call failed while another call got through.

    ``depths`` is the bisection depth by id; ``refused`` are those of them whose call the relay refused.
    """

    def __init__(self) -> None:
        self.depths: dict[str, int] = {}
        self.refused: set[str] = set()

    def add(self, call: Call, batch_size: int) -> None:
        """Poll the ids of a failed call in smaller batches from now on."""
        depth = min(call.depth + _DEPTH_PER_FAILURE, batch_size.bit_length())
        self.depths.update(dict.fromkeys(call.ids, depth))
        self.refused.difference_update(call.ids)

    def release(self, ids: Iterable[str]) -> None:
        """Poll ids in full batches again."""
        for task_id in ids if self.depths else ():
            self.depths.pop(task_id, None)
            self.refused.discard(task_id)

    def retain(self, open_ids: set[str]) -> None:
        """Forget the ids that no waiter has open any more."""
        self.depths = {task_id: depth for task_id, depth in self.depths.items() if task_id in open_ids}
        self.refused &= open_ids

    def batches(self, ids: list[str], batch_size: int) -> Iterator[tuple[list[str], int]]:
        """Cut ids into batches, each with its bisection depth; those not in quarantine come first."""
        groups: dict[int, list[str]] = {}
        if self.depths:
            for task_id in ids:
                if depth := self.depths.get(task_id):
                    groups.setdefault(depth, []).append(task_id)
            ids = [task_id for task_id in ids if task_id not in self.depths]
        for batch in cut(ids, batch_size):
            yield batch, 0
        sizes = {depth: max(1, batch_size >> depth) for depth in groups}
        for depth, members in groups.items():
            refused = [task_id for task_id in members if task_id in self.refused]
            for batch in cut(refused, sizes[depth]):
                yield batch, depth
            if refused:
                groups[depth] = [task_id for task_id in members if task_id not in self.refused]
        batches = sum(len(members) / sizes[depth] for depth, members in groups.items())
        coarser = max(1.0, batches / MAX_QUARANTINE_BATCHES)
        for depth, members in groups.items():
            for batch in cut(members, min(batch_size, round(sizes[depth] * coarser))):
                yield batch, depth
