# SPDX-License-Identifier: Apache-2.0
"""The tasks of the sandbox relay: what becomes of them by the clock, and what a query sees."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from airflow_provider_luma.sandbox import media_host
from airflow_provider_luma.sandbox.settings import Seconds

Phase = Literal["pending", "processing", "completed", "failed", "unknown"]
_STATES: dict[Phase, tuple[str, ...]] = {
    "pending": ("pending", "queued", "not_start", "submitted"),
    "processing": ("processing", "dreaming", "in_progress"),
    "completed": ("completed", "succeeded", "success"),
    "failed": ("failed", "failure"),
}
_PHASES = {state: phase for phase, states in _STATES.items() for state in states}

Polls = Annotated[int, Meta(ge=0)]

_ID = re.compile(r"^[A-Za-z0-9_-]{1,128}$")
_FATES = ("states", "state", "completes_after", "fails_after")
_TERMINAL = ("completed", "failed")


class TaskScript(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    Describe what becomes of a task.

    By default a task is pending, then processing, then completed, for as long as the settings say. Give at
    most one of ``states``, ``state``, ``completes_after`` and ``fails_after``.

    :param id: A new id. None lets the relay choose.
    :param prompt: Prompt in the task's ``request``.
    :param aspect_ratio: Aspect ratio in the task's ``request``.
    :param states: (seconds since creation, state) pairs in order of time, the first at 0. Any text is a
        state, so that unknown ones can be tried; a task may also return from completed to processing.
    :param state: The task's only state, known or not.
    :param completes_after: Seconds until the task is completed.
    :param fails_after: Seconds until the task has failed.
    :param fails_with: Reason of the failure. Alone, it makes the task fail when it would have been completed.
    :param without_video: Whether the completed task never has artifacts.
    :param without_video_for: How many polls see the completed task without artifacts.
    :param hidden: Whether queries always leave the task out.
    :param hidden_for: How many polls leave the task out.
    :param malformed: Any JSON value in the task's place. True: an object that has the task's id and wrong
        types otherwise.
    :param overrides: Fields that replace the task's own, also within objects.
    :param row_overrides: The same for the row around the task in the envelope dialect.
    :param answered_twice_as: A second state in which every answer holds the task again.
    :param unasked: Whether every batch answer holds the task, requested or not.
    :param video_bytes: Size of the task's video instead of the setting's.
    :raises ValueError: A field's value is wrong, or two fields exclude each other.
    """

    id: str | None = None
    prompt: str = "a cat that dances"
    aspect_ratio: str = "16:9"
    states: tuple[tuple[Seconds, str], ...] | None = None
    state: str | None = None
    completes_after: Seconds | None = None
    fails_after: Seconds | None = None
    fails_with: str | None = None
    without_video: bool = False
    without_video_for: Polls = 0
    hidden: bool = False
    hidden_for: Polls = 0
    malformed: Any = msgspec.UNSET
    overrides: dict[str, Any] = {}
    row_overrides: dict[str, Any] = {}
    answered_twice_as: str | None = None
    unasked: bool = False
    video_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.id is not None and not _ID.match(self.id):
            raise ValueError(f"id must be 1 to 128 letters, digits, _ or -; got {self.id!r}.")
        given = [name for name in _FATES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; give one of them.")
        starts = [0.0] if self.states is None else [start for start, _ in self.states]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            what = "(seconds since creation, state) pairs in order of time, the first at 0"
            raise ValueError(f"states must be {what}; got {self.states!r}.")
        if self.video_bytes is not None:
            media_host.check_video_bytes(self.video_bytes)

    def timeline(self, pending: float, processing: float) -> tuple[tuple[float, str], ...]:
        """Return when each state begins, for a relay with these usual times."""
        if self.states is not None:
            return self.states
        if self.state is not None:
            return ((0.0, self.state),)
        final = "failed" if self.fails_with is not None or self.fails_after is not None else "completed"
        usual = pending + processing
        end = next((at for at in (self.completes_after, self.fails_after) if at is not None), usual)
        started = end * pending / usual if usual else 0.0
        return (0.0, "pending"), (started, "processing"), (end, final)


class TaskTimes(msgspec.Struct, frozen=True, kw_only=True):
    """
    Report when things happened to a task, as wall-clock epochs of the relay; None for what has not.

    :param id: The task's id.
    :param state: The state that holds now.
    :param created_at: When the task was created.
    :param finished_at: When the task first is in a terminal state. May lie ahead.
    :param first_answered_at: When a query first returned a terminal state.
    :param polls: How many queries named the task.
    """

    id: str
    state: str
    created_at: float
    finished_at: float | None
    first_answered_at: float | None
    polls: int


class Snapshot(NamedTuple):
    """A task at the moment of a query."""

    task: Task
    state: str
    phase: Phase
    since: float
    now: float
    has_video: bool


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """A task and what has happened to it. Times are the relay's clock."""

    script: TaskScript
    id: str
    number: int
    states: Sequence[tuple[float, str]]
    created: float
    hidden_until: float
    request: dict[str, Any]
    parent: str | None
    hidden_left: int = dataclasses.field(init=False)
    video_polls_left: int = dataclasses.field(init=False)
    polls: int = 0
    first_seen_final: float | None = None

    def __post_init__(self) -> None:
        self.hidden_left = self.script.hidden_for
        self.video_polls_left = self.script.without_video_for

    def snapshot(self, now: float) -> Snapshot:
        """Return the task as it is, without counting a poll."""
        since, state = self._step(now)
        phase = phase_of(state)
        has_video = phase == "completed" and not self.script.without_video and not self.video_polls_left
        return Snapshot(self, state, phase, since, now, has_video)

    def poll(self, now: float) -> Iterator[Snapshot]:
        """Count a poll and yield what it sees of the task: nothing, one state or two."""
        self.polls += 1
        if self.script.hidden or now < self.hidden_until:
            return
        if self.hidden_left:
            self.hidden_left -= 1
            return
        snapshot = self.snapshot(now)
        if snapshot.phase == "completed" and self.video_polls_left:
            self.video_polls_left -= 1
        if snapshot.phase in _TERMINAL and self.first_seen_final is None:
            self.first_seen_final = now
        yield snapshot
        twice = self.script.answered_twice_as
        if twice is not None:
            phase = phase_of(twice)
            yield snapshot._replace(state=twice, phase=phase, has_video=phase == "completed")

    def times(self, now: float, epoch: Callable[[float], float]) -> TaskTimes:
        """Return when things happened; ``epoch`` converts a reading of the relay's clock."""
        terminal = next((start for start, state in self.states if phase_of(state) in _TERMINAL), None)
        seen = self.first_seen_final
        return TaskTimes(
            id=self.id,
            state=self._step(now)[1],
            created_at=epoch(self.created),
            finished_at=None if terminal is None else epoch(self.created + terminal),
            first_answered_at=None if seen is None else epoch(seen),
            polls=self.polls,
        )

    def _step(self, now: float) -> tuple[float, str]:
        for start, state in reversed(self.states):
            if start <= now - self.created:
                return self.created + start, state
        return self.created, self.states[0][1]


def phase_of(state: str) -> Phase:
    """Return the phase that a state's name belongs to, in any letter case."""
    return _PHASES.get(state.lower(), "unknown")
