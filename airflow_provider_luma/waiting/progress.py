# SPDX-License-Identifier: Apache-2.0
"""
What a series of answers means for someone who waits for a set of tasks.

Pure values: no clock, no network. The synchronous sensor and the trigger make the same calls here, so
they cannot come to different ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal, Self

import msgspec

from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaAuthError,
    LumaConfigError,
    LumaEndpointError,
    LumaError,
)
from airflow_provider_luma.text import clean_text, shorten_list

Verdict = Literal["waiting", "done", "failed", "timed_out", "refused", "unreachable"]
"""
How the waiting stands.

``done``: every id came to its end, and no more than ``max_failed`` of them failed.
``failed``: more than ``max_failed`` failed; the rest is not waited for.
``timed_out``: the deadline has passed.
``refused``: no poll has worked yet, and asking again can't help (a wrong key, say).
``unreachable``: the relay could not be asked ``max_poll_failures`` times in a row.
"""

_Doubt = Literal["missing", "without_video", "unreadable"]

_MAX_TEXT: Final = 300
_MAX_WORD: Final = 80
_MAX_NOTES: Final = 3
_TEMPORARY_REDIRECTS: Final = (302, 303, 307)


class WaitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is tolerated while waiting.

    :param max_failed: How many tasks may fail; ``None`` means any number.
    :param missing_polls: How many answers in a row may leave an id out, tell it completed without a
        video, or tell it illegibly, before it counts as failed.
    :param max_poll_failures: How many polls in a row may fail for passing reasons. A poll of which a part
        was answered has not failed.
    """

    max_failed: int | None = 0
    missing_polls: int = 3
    max_poll_failures: int = 20

    def __post_init__(self) -> None:
        if self.max_failed is not None:
            _check_count("max_failed", self.max_failed, 0, " or None for any number")
        _check_count("missing_polls", self.missing_polls, 1)
        _check_count("max_poll_failures", self.max_poll_failures, 1)


def _check_count(name: str, value: object, least: int, alternative: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise LumaConfigError(
            f"{name} must be a whole number of at least {least}{alternative}, got {value!r}."
        )


class Doubt(msgspec.Struct, frozen=True):
    """How many answers in a row had the same thing wrong with one id."""

    kind: _Doubt
    polls: int
    text: str = ""


class Trouble(msgspec.Struct, frozen=True):
    """
    How many polls in a row failed as a whole, and what the last one said.

    ``polls`` is 0 when a part of the last one was answered. ``retryable`` is false when no later poll can
    get through either.
    """

    text: str
    polls: int
    retryable: bool


class Report(msgspec.Struct, frozen=True):
    """
    The end of a waiting.

    :param verdict: How it ended; never ``waiting``.
    :param message: What happened, to which ids, in words for the person who reads the log.
    :param failed: Reason by id, of all failed tasks.
    :param completed: Ids of the completed tasks, in input order.
    """

    verdict: Verdict
    message: str
    failed: dict[str, str]
    completed: list[str] = []


class Progress(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """
    What is known of the tasks that someone waits for. A value: each answer makes a new one.

    A task that has come to its end stays there, whatever later answers say. ``notes`` holds the relay's own
    words about tasks whose state is unknown. ``answered`` says whether the connection has worked before: from
    then on every failing answer is passing.
    """

    ids: tuple[str, ...]
    states: dict[str, TaskState] = {}
    doubts: dict[str, Doubt] = {}
    failed: dict[str, str] = {}
    trouble: Trouble | None = None
    notes: dict[str, str] = {}
    answered: bool = False

    @classmethod
    def of(cls, ids: Iterable[str], *, answered: bool = False) -> Self:
        """
        Begin to wait for *ids*; repeated ones count once.

        :param ids: The ids to wait for.
        :param answered: Whether a call with the same connection has worked before.
        """
        return cls(ids=tuple(dict.fromkeys(ids)), answered=answered)

    @classmethod
    def presumed_missing(cls, ids: Iterable[str], polls: int) -> Self:
        """
        Go on without a memory: what the next answer leaves out, the *polls* before left out as well.

        A final error would have ended the waiting at one of them, so the connection is taken for good.
        """
        progress = cls.of(ids, answered=True)
        return msgspec.structs.replace(
            progress, doubts={task_id: Doubt("missing", polls) for task_id in progress.ids}
        )

    @classmethod
    def from_json(cls, ids: Iterable[str], data: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` gave, for the same ids."""
        # Triggers that were stored before there was this field know it by what the relay has answered.
        answered = bool(data.get("states") or data.get("doubts"))
        return msgspec.convert({"answered": answered, **data, "ids": tuple(ids)}, cls)

    def to_json(self) -> dict[str, Any]:
        """Give what is known as JSON primitives, without the ids themselves."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        del data["ids"]
        return data

    def is_completed(self, task_id: str) -> bool:
        """Whether the task is completed and its video is there."""
        return (
            self.states.get(task_id) is TaskState.COMPLETED
            and task_id not in self.doubts
            and task_id not in self.failed
        )

    @cached_property
    def open_ids(self) -> list[str]:
        """The ids that still have to be asked for."""
        failed, is_completed = self.failed, self.is_completed
        return [id_ for id_ in self.ids if id_ not in failed and not is_completed(id_)]

    @property
    def completed_ids(self) -> list[str]:
        """The ids of completed tasks, in input order."""
        return [id_ for id_ in self.ids if self.is_completed(id_)]

    def after(
        self,
        answer: Mapping[str, LumaTask],
        policy: WaitPolicy,
        *,
        asked: Sequence[str] | None = None,
        error: LumaError | None = None,
        answered: bool = False,
    ) -> Progress:
        """
        Take in one answer; one without any news gives this very value back.

        :param answer: What the relay told; an id that was asked for and is missing here was left out.
        :param policy: What is tolerated.
        :param asked: The ids that were asked for. Default: all that were open.
        :param error: Why the others could not be asked for.
        :param answered: Whether the connection is known to have worked, for example for another waiter.
        """
        got_through = error is None or bool(asked)
        answered = answered or self.answered or got_through
        wanted = self.open_ids
        if asked is not None and asked != wanted:
            was_asked = set(asked)
            wanted = [task_id for task_id in wanted if task_id in was_asked]
        states, doubts, failed = self.states, self.doubts, self.failed
        news = [
            task_id
            for task_id in wanted
            if (task := answer.get(task_id)) is None
            or task.state is not states.get(task_id)
            or task.problem is not None
            or (task.state is TaskState.UNKNOWN and _note(task) != self.notes.get(task_id, ""))
            or task_id in doubts
        ]
        if not news and error is None and self.trouble is None and answered == self.answered:
            return self
        states, doubts, failed, notes = dict(states), dict(doubts), dict(failed), dict(self.notes)
        for task_id in news:
            task = answer.get(task_id)
            doubt = _doubt(task)
            if task is not None and task.problem is None:
                states[task_id] = task.state
                notes.pop(task_id, None)
                if note := _note(task):
                    notes[task_id] = note
            if doubt is None:
                doubts.pop(task_id, None)
                if task is not None and task.state is TaskState.FAILED:
                    reason = " ".join((task.failure_reason or "the relay gave no reason").split())
                    failed[task_id] = reason[:_MAX_TEXT]
                continue
            before = self.doubts.get(task_id)
            if before is not None and before.kind == doubt.kind:
                doubt = Doubt(doubt.kind, before.polls + 1, doubt.text)
            doubts[task_id] = doubt
            if doubt.polls >= policy.missing_polls:
                failed[task_id] = _reason(doubt)
        trouble = None
        if error is not None:
            polls = 0 if got_through else (self.trouble.polls if self.trouble else 0) + 1
            trouble = Trouble(str(error), polls, not _is_final(error, answered=answered))
        return Progress(
            ids=self.ids,
            states=states,
            doubts=doubts,
            failed=failed,
            trouble=trouble,
            notes=notes,
            answered=answered,
        )

    def verdict(self, policy: WaitPolicy, *, timed_out: bool = False) -> Verdict:
        """
        Decide how the waiting stands.

        :param policy: What is tolerated.
        :param timed_out: Whether the deadline has passed; a waiting that is at its end otherwise, is.
        """
        if policy.max_failed is not None and len(self.failed) > policy.max_failed:
            return "failed"
        if not self.open_ids:
            return "done"
        if self.trouble is not None and not self.trouble.retryable:
            return "refused"
        if timed_out:
            return "timed_out"
        if self.trouble is not None and self.trouble.polls >= policy.max_poll_failures:
            return "unreachable"
        return "waiting"

    def summary(self) -> str:
        """Count the states in a line such as ``37/100 completed, 1 failed, 62 processing``."""
        completed = len(self.ids) - len(self.open_ids) - len(self.failed)
        failed = [f"{len(self.failed)} failed"] if self.failed else []
        standings = Counter(map(self._standing, self.open_ids))
        rest = [f"{count} {name}" for name in _OPEN_STANDINGS if (count := standings[name])]
        if standings[TaskState.UNKNOWN.value] and (notes := self._open_notes()):
            rest = [f"{part} ({notes})" if part.endswith(TaskState.UNKNOWN.value) else part for part in rest]
        return ", ".join([f"{completed}/{len(self.ids)} completed", *failed, *rest])

    def _open_notes(self) -> str:
        """Join the different words about open tasks whose state is unknown."""
        open_notes = (
            self.notes[id_]
            for id_ in self.open_ids
            if id_ in self.notes and self._standing(id_) == TaskState.UNKNOWN.value
        )
        return _join(dict.fromkeys(open_notes), _MAX_NOTES)

    def report(self, verdict: Verdict, policy: WaitPolicy, *, waited: str = "the timeout") -> Report:
        """
        Put the end into words.

        :param verdict: How it ended.
        :param policy: What was tolerated.
        :param waited: What ran out, for the message of a timeout.
        """
        return Report(verdict, self._message(verdict, policy, waited), self.failed, self.completed_ids)

    def _message(self, verdict: Verdict, policy: WaitPolicy, waited: str) -> str:
        summary = self.summary()
        match verdict:
            case "failed":
                return (
                    f"Luma tasks failed: {summary}; max_failed={policy.max_failed}. "
                    f"{_join(f'{id_}: {reason}' for id_, reason in self.failed.items())}. A retry only asks "
                    "again; to generate them anew, submit them again."
                )
            case "timed_out":
                standing = _join(f"{id_} ({self._standing_in_words(id_)})" for id_ in self.open_ids)
                trouble = f" The last poll failed: {self.trouble.text}" if self.trouble else ""
                return (
                    f"Luma tasks are not finished after {waited}: {summary}. Not finished: {standing}."
                    f"{trouble} They go on at the relay; clear this task to wait for them again."
                )
            case "refused" | "unreachable" if self.trouble is not None:
                times = f" {self.trouble.polls} times in a row" if verdict == "unreachable" else ""
                return (
                    f"The relay could not be asked for Luma tasks{times} ({summary}; "
                    f"{shorten_list(self.open_ids)}). {self.trouble.text}"
                )
            case _:
                return f"Luma tasks: {summary}."

    def _standing_in_words(self, task_id: str) -> str:
        standing = self._standing(task_id)
        note = self.notes.get(task_id) if standing == TaskState.UNKNOWN.value else None
        return f"{standing}, {note}" if note else standing

    def _standing(self, task_id: str) -> str:
        if task_id in self.failed:
            return TaskState.FAILED.value
        doubt = self.doubts.get(task_id)
        if doubt is not None:
            return _DOUBT_NAMES[doubt.kind]
        state = self.states.get(task_id)
        return _STATE_NAMES[state] if state is not None else _NOT_SEEN


_NOT_SEEN: Final = "not seen yet"
_DOUBT_NAMES: Final[dict[_Doubt, str]] = {
    "missing": "not known to the relay",
    "without_video": "completed without a video",
    "unreadable": "illegible",
}
_STATE_NAMES: Final = {state: state.value for state in TaskState}
_OPEN_STANDINGS: Final = (
    *(state.value for state in TaskState if not state.terminal),
    *_DOUBT_NAMES.values(),
    _NOT_SEEN,
)


def _is_final(error: LumaError, *, answered: bool) -> bool:
    """
    Decide whether asking again can't help.

    Challenge pages, maintenance redirects and refusals of a valid key come in the middle of good polls and
    pass again. So a refusal by the relay is final only as long as no call with the connection has worked, and
    a page of a proxy only when it means that the host is wrong.
    """
    if error.retryable:
        return False
    if not isinstance(error, LumaApiError):
        # Not an answer: the connection itself is unusable, and only its owner can mend it.
        return True
    if answered or error.status in _TEMPORARY_REDIRECTS:
        return False
    return error.well_formed or isinstance(error, LumaAuthError | LumaEndpointError)


def _note(task: LumaTask) -> str:
    """Quote the relay's word for an unknown state, and the reason beside it."""
    if task.state is not TaskState.UNKNOWN:
        return ""
    word = f'"{clean_text(task.state_text, _MAX_WORD)}"' if task.state_text else ""
    reason = " ".join(clean_text(task.failure_reason or "", _MAX_TEXT).split())
    return ": ".join(filter(None, (word, reason)))


def _doubt(task: LumaTask | None) -> Doubt | None:
    if task is None:
        return Doubt("missing", 1)
    if task.problem is not None:
        return Doubt("unreadable", 1, task.problem[:_MAX_TEXT])
    if task.state is TaskState.COMPLETED and not task.video_url:
        return Doubt("without_video", 1)
    return None


def _reason(doubt: Doubt) -> str:
    match doubt.kind:
        case "missing":
            return f"the relay doesn't know this id ({doubt.polls} answers in a row left it out)"
        case "without_video":
            return (
                f"completed without a video in {doubt.polls} answers in a row: its content was probably "
                "filtered after it had been made"
            )
        case "unreadable":
            return f"illegible in {doubt.polls} answers in a row: {doubt.text}"


def _join(parts: Iterable[str], limit: int = 20) -> str:
    listed = list(parts)
    more = f"; and {len(listed) - limit} more" if len(listed) > limit else ""
    return "; ".join(listed[:limit]) + more
