# SPDX-License-Identifier: Apache-2.0
"""
What a series of answers means for a wait for a set of tasks.

Pure values: no clock, no network. Sensor, trigger, operators and CLI decide by them alone, so all of them
reach the same verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal, Self

import msgspec

from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.client.settings import DEFAULT_MAX_POLL_FAILURES
from airflow_provider_luma.exceptions import LumaApiError, LumaAuthError, LumaEndpointError, LumaError
from airflow_provider_luma.text import clean_text, shorten_list
from airflow_provider_luma.validation import whole_number
from airflow_provider_luma.waiting.anomalies import (
    LABELS,
    MAX_REASON,
    Anomaly,
    find_anomaly,
    unknown_state_note,
)
from airflow_provider_luma.waiting.time_limit import TimedOutBy, TimeLimit

Verdict = Literal["waiting", "done", "failed", "timed_out", "refused", "unreachable"]
"""
The state of a wait.

``done``: every task is in a terminal state, and at most ``max_failed`` of them failed.
``failed``: more than ``max_failed`` failed; the wait ends without the rest.
``timed_out``: the deadline has passed.
``refused``: no poll has worked yet, and another one can't help (a wrong key, say).
``unreachable``: as many polls in a row failed as the connection's ``max_poll_failures`` allows.
"""

_MAX_NAMED: Final = 20
_MAX_NOTES: Final = 3
_TEMPORARY_REDIRECTS: Final = (302, 303, 307)


class WaitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    Say what a wait tolerates of its tasks.

    :param max_failed: How many tasks may fail; ``None`` means any number.
    :param missing_polls: How many answers in a row may leave an id out, report it as completed without a
        video, or be unreadable for it, before it counts as failed.
    :raises LumaConfigError: naming the parameter and its value.
    """

    max_failed: int | None = 0
    missing_polls: int = 3

    def __post_init__(self) -> None:
        if self.max_failed is not None:
            whole_number("max_failed", self.max_failed, least=0)
        whole_number("missing_polls", self.missing_polls, least=1)


class ConsecutiveFailures(msgspec.Struct, frozen=True):
    """
    Count the polls in a row that failed as a whole.

    :param text: The error of the last one.
    :param polls: How many; 0 when a part of the last one was answered.
    :param retryable: Whether a later poll can get through.
    :param limit: How many the connection allows (``max_poll_failures``).
    """

    text: str
    polls: int
    retryable: bool
    limit: int = DEFAULT_MAX_POLL_FAILURES


class Report(msgspec.Struct, frozen=True):
    """
    Describe how a wait ended.

    :param verdict: How it ended; never ``waiting``.
    :param message: What happened, to which ids, for the log.
    :param failed: Reason by id, of all failed tasks.
    :param completed: Ids of the completed tasks, in input order.
    :param timed_out_by: The parameter that set the time limit.
    """

    verdict: Verdict
    message: str
    failed: dict[str, str]
    completed: list[str] = []
    timed_out_by: TimedOutBy = "timeout"


class Progress(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """
    Hold what is known of the tasks of a wait. A value: each answer makes a new one.

    A terminal state is kept, whatever later answers say. ``notes`` quotes the relay about tasks whose state
    is unknown. ``answered`` says whether the connection has worked before: from then on a failing answer is
    waited out.
    """

    ids: tuple[str, ...]
    states: dict[str, TaskState] = {}
    anomalies: dict[str, Anomaly] = {}
    failed: dict[str, str] = {}
    poll_failures: ConsecutiveFailures | None = None
    notes: dict[str, str] = {}
    answered: bool = False

    @classmethod
    def of(cls, ids: Iterable[str], *, answered: bool = False) -> Self:
        """Begin to wait for *ids*; repeated ones count once."""
        return cls(ids=tuple(dict.fromkeys(ids)), answered=answered)

    @classmethod
    def presumed_missing(cls, ids: Iterable[str], polls: int) -> Self:
        """
        Resume without a memory: what the next answer leaves out, the *polls* before left out as well.

        A final error would have ended the wait at one of them, so the connection counts as proven.
        """
        progress = cls.of(ids, answered=True)
        return msgspec.structs.replace(
            progress, anomalies={task_id: Anomaly("missing", polls) for task_id in progress.ids}
        )

    @classmethod
    def from_json(cls, ids: Iterable[str], data: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` returned, for the same ids."""
        return msgspec.convert({**data, "ids": tuple(ids)}, cls)

    def to_json(self) -> dict[str, Any]:
        """Return what is known as JSON primitives, without the ids themselves."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        del data["ids"]
        return data

    def is_completed(self, task_id: str) -> bool:
        """Return whether the task is completed and its video is there."""
        return (
            self.states.get(task_id) is TaskState.COMPLETED
            and task_id not in self.anomalies
            and task_id not in self.failed
        )

    @cached_property
    def open_ids(self) -> list[str]:
        """The ids that still have to be polled."""
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
        max_poll_failures: int = DEFAULT_MAX_POLL_FAILURES,
    ) -> Progress:
        """
        Return the progress after one answer: this very value when the answer changes nothing.

        :param answer: The tasks in the answer; an id that was polled and is missing here was left out.
        :param asked: The ids that were polled. Default: all that were open.
        :param error: Why the others could not be polled.
        :param answered: Whether the connection is known to have worked, for example for another waiter.
        :param max_poll_failures: How many polls in a row the connection allows to fail.
        """
        got_through = error is None or bool(asked)
        answered = answered or self.answered or got_through
        news = self._news(answer, asked)
        if not news and error is None and self.poll_failures is None and answered == self.answered:
            return self
        poll_failures = None
        if error is not None:
            before = self.poll_failures.polls if self.poll_failures else 0
            poll_failures = ConsecutiveFailures(
                text=str(error),
                polls=0 if got_through else before + 1,
                retryable=not _is_final(error, answered=answered),
                limit=max_poll_failures,
            )
        progress = Progress(
            ids=self.ids,
            states=dict(self.states),
            anomalies=dict(self.anomalies),
            failed=dict(self.failed),
            poll_failures=poll_failures,
            notes=dict(self.notes),
            answered=answered,
        )
        for task_id in news:
            progress._record(task_id, answer.get(task_id), policy)
        return progress

    def _news(self, answer: Mapping[str, LumaTask], asked: Sequence[str] | None) -> list[str]:
        """Return the ids about which the answer says anything that is not known yet."""
        wanted = self.open_ids
        if asked is not None and asked != wanted:
            was_asked = set(asked)
            wanted = [task_id for task_id in wanted if task_id in was_asked]
        states, anomalies = self.states, self.anomalies
        return [
            task_id
            for task_id in wanted
            if (task := answer.get(task_id)) is None
            or task.state is not states.get(task_id)
            or task.problem is not None
            or (task.state is TaskState.UNKNOWN and unknown_state_note(task) != self.notes.get(task_id, ""))
            or task_id in anomalies
        ]

    def _record(self, task_id: str, task: LumaTask | None, policy: WaitPolicy) -> None:
        """Write the news about one id into this value, before anything else has seen it."""
        if task is not None and task.problem is None:
            self.states[task_id] = task.state
            self.notes.pop(task_id, None)
            if note := unknown_state_note(task):
                self.notes[task_id] = note
        anomaly = find_anomaly(task, self.anomalies.get(task_id))
        if anomaly is not None:
            self.anomalies[task_id] = anomaly
            if anomaly.polls >= policy.missing_polls:
                self.failed[task_id] = anomaly.reason
            return
        self.anomalies.pop(task_id, None)
        if task is not None and task.state is TaskState.FAILED:
            reason = " ".join((task.failure_reason or "the relay gave no reason").split())
            self.failed[task_id] = clean_text(reason, MAX_REASON)

    def verdict(self, policy: WaitPolicy, *, timed_out: bool = False) -> Verdict:
        """Decide the state of the wait; any other end comes before *timed_out* (the deadline has passed)."""
        failures = self.poll_failures
        if policy.max_failed is not None and len(self.failed) > policy.max_failed:
            return "failed"
        if not self.open_ids:
            return "done"
        if failures is not None and not failures.retryable:
            return "refused"
        if timed_out:
            return "timed_out"
        if failures is not None and failures.polls >= failures.limit:
            return "unreachable"
        return "waiting"

    def summary(self) -> str:
        """Count the states in a line such as ``37/100 completed, 1 failed, 62 processing``."""
        completed = len(self.ids) - len(self.open_ids) - len(self.failed)
        failed = [f"{len(self.failed)} failed"] if self.failed else []
        labels = Counter(map(self._label, self.open_ids))
        rest = [f"{count} {label}" for label in _OPEN_LABELS if (count := labels[label])]
        if labels[_UNKNOWN] and (notes := self._open_notes()):
            rest = [f"{part} ({notes})" if part.endswith(_UNKNOWN) else part for part in rest]
        return ", ".join([f"{completed}/{len(self.ids)} completed", *failed, *rest])

    def _open_notes(self) -> str:
        """Join the different notes about open tasks whose state is unknown."""
        notes = (self.notes.get(id_) for id_ in self.open_ids if self._label(id_) == _UNKNOWN)
        return shorten_list(list(dict.fromkeys(filter(None, notes))), _MAX_NOTES, separator="; ")

    def report(self, verdict: Verdict, policy: WaitPolicy, *, limit: TimeLimit) -> Report:
        """Describe how the wait ended, by which policy and time limit."""
        message = self._message(verdict, policy, limit)
        return Report(verdict, message, self.failed, self.completed_ids, limit.name)

    def _message(self, verdict: Verdict, policy: WaitPolicy, limit: TimeLimit) -> str:
        summary, failures = self.summary(), self.poll_failures
        match verdict:
            case "failed":
                reasons = [f"{id_}: {reason}" for id_, reason in self.failed.items()]
                return (
                    f"Luma tasks failed: {summary}; max_failed={policy.max_failed}. {_named(reasons)}. A "
                    "retry only polls them again; to generate new videos, submit them again."
                )
            case "timed_out":
                open_tasks = [f"{id_} ({self._label_with_note(id_)})" for id_ in self.open_ids]
                last = f" The last poll failed: {failures.text}" if failures else ""
                return (
                    f"Luma tasks are not finished after {limit}: {summary}. Not finished: "
                    f"{_named(open_tasks)}.{last} They keep running at the relay; clear this task to resume "
                    "waiting."
                )
            case "refused" | "unreachable" if failures is not None:
                times = f" {failures.polls} times in a row" if verdict == "unreachable" else ""
                return (
                    f"Polling Luma tasks failed{times} ({summary}; {shorten_list(self.open_ids)}). "
                    f"{failures.text}"
                )
            case _:
                return f"Luma tasks: {summary}."

    def _label_with_note(self, task_id: str) -> str:
        label = self._label(task_id)
        note = self.notes.get(task_id) if label == _UNKNOWN else None
        return f"{label}, {note}" if note else label

    def _label(self, task_id: str) -> str:
        if task_id in self.failed:
            return TaskState.FAILED.value
        anomaly = self.anomalies.get(task_id)
        if anomaly is not None:
            return LABELS[anomaly.kind]
        state = self.states.get(task_id)
        return _STATE_LABELS[state] if state is not None else _NOT_SEEN


_NOT_SEEN: Final = "not seen yet"
_UNKNOWN: Final = TaskState.UNKNOWN.value
# A dictionary, because Enum.value is a slow descriptor and a wait may hold 100,000 ids.
_STATE_LABELS: Final = {state: state.value for state in TaskState}
_OPEN_LABELS: Final = (
    *(state.value for state in TaskState if not state.terminal),
    *LABELS.values(),
    _NOT_SEEN,
)


def _named(parts: list[str]) -> str:
    return shorten_list(parts, _MAX_NAMED, separator="; ")


def _is_final(error: LumaError, *, answered: bool) -> bool:
    """
    Decide whether another poll can't help.

    Challenge pages, maintenance redirects and refusals of a valid key come between good polls and pass. So a
    refusal by the relay is final only as long as no call with the connection has worked, and a page of a
    proxy only when it means that the host is wrong.
    """
    if error.retryable:
        return False
    if not isinstance(error, LumaApiError):
        # Not an answer: the connection itself is unusable, and only its owner can repair it.
        return True
    if answered or error.status in _TEMPORARY_REDIRECTS:
        return False
    return error.well_formed or isinstance(error, LumaAuthError | LumaEndpointError)
