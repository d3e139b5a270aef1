# SPDX-License-Identifier: Apache-2.0
"""
Decode the answers of relays into tasks.

Relays of one software family answer in slightly different shapes; only this module and those that it imports
know them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from airflow_provider_luma.client.errors import SUCCESS_CODES, api_error
from airflow_provider_luma.client.records import CutText, cut_only, record_id, to_task
from airflow_provider_luma.client.salvage import ArrayCutter, first_document, loose_json, object_members
from airflow_provider_luma.client.tasks import LumaTask, TaskState, is_task_id
from airflow_provider_luma.client.wire import MAX_EMBEDDED, WireTask, odd_state, read_task
from airflow_provider_luma.exceptions import LumaResponseError
from airflow_provider_luma.text import Cleaner, clean_text

log = logging.getLogger(__name__)

_ABSENT: Final = msgspec.Raw(b"")


class _WireAnswer(msgspec.Struct, frozen=True):
    """Hold the members that distinguish an envelope, a bare task and an error."""

    id: msgspec.Raw = _ABSENT
    task_id: msgspec.Raw = _ABSENT
    state: msgspec.Raw = _ABSENT
    code: Any = None
    success: Any = None
    error: Any = None
    data: msgspec.Raw = _ABSENT
    items: msgspec.Raw = _ABSENT
    generations: msgspec.Raw = _ABSENT
    tasks: msgspec.Raw = _ABSENT

    @property
    def payload(self) -> bytes:
        """The member that holds the tasks; empty when there is none."""
        return max(map(bytes, (self.data, self.items, self.generations, self.tasks)), key=len)

    @property
    def is_record(self) -> bool:
        """Whether it is a task, or the row around one, and not an envelope."""
        if bytes(self.task_id) not in (b"", b"null"):
            return True
        return bool(bytes(self.id)) and (bool(bytes(self.state)) or not self.payload.startswith((b"[", b"{")))

    @property
    def reports_error(self) -> bool:
        """Whether it reports an error other than by its code; an empty error is none."""
        if self.success is False:
            return True
        members = self.error.values() if isinstance(self.error, dict) else [self.error]
        return any(member and _code(member) not in SUCCESS_CODES for member in members)


_decode_tasks: Final = msgspec.json.Decoder(list[WireTask]).decode
_decode_task: Final = msgspec.json.Decoder(WireTask).decode
_decode_answer: Final = msgspec.json.Decoder(_WireAnswer).decode

_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, ValueError)

_MAX_RECORDS: Final = 20_000
_MAX_LEVELS: Final = 3


def decode_tasks(raw: bytes, *, clean: Cleaner = clean_text, most: int | None = None) -> list[LumaTask]:
    """
    Decode a relay's answer to a batch query, a single query, a submit or an extend.

    The answer may be a bare array, the ``{"code", "message", "data"}`` envelope, or a single task, bare or in
    the envelope. A field that can't be read is dropped alone. A record whose state can't be read affects no
    other: it is returned with :attr:`LumaTask.problem` set, and a warning is logged. A record without a
    legible id is dropped with a warning.

    :param raw: The body of the answer.
    :param clean: Cleans the relay's texts before they are kept.
    :param most: How many records to read, so that a flood of them costs little. Default: 20,000.
    :raises LumaResponseError: when the answer as a whole has none of these shapes.
    :raises LumaApiError: when the answer is an error in spite of its HTTP status.
    """
    body = raw.strip().removeprefix(b"\xef\xbb\xbf").lstrip()
    return _Decoder(clean, _MAX_RECORDS if most is None else most).answer(body)


class _Decoder(NamedTuple):
    """Decode one answer."""

    clean: Cleaner
    most: int

    def answer(self, body: bytes, levels: int = _MAX_LEVELS) -> list[LumaTask]:
        """Decode an array or an object; *levels* bounds how deep envelopes may stand in each other."""
        if body.startswith(b"["):
            return self._array(body)
        if body.startswith(b"{") and levels:
            return self._object(body, levels - 1)
        raise self._unreadable(body)

    def _array(self, body: bytes) -> list[LumaTask]:
        tasks: list[LumaTask] = []
        nameless: list[bytes] = []
        broken, cutter = False, ArrayCutter(body)
        while not cutter.done and len(tasks) + len(nameless) < self.most:
            chunk = cutter.chunk()
            cut = self._cut_for(chunk)
            try:
                tasks += [to_task(wire, cut) for wire in _decode_tasks(chunk)]
                cutter.accept()
            except _UNREADABLE:
                broken, rest = True, self.most - len(tasks) - len(nameless)
                self._decode_each(islice(cutter.elements(), rest), tasks, nameless)
        if not cutter.done:
            log.warning("The relay's answer has more than %d records; the rest is ignored.", self.most)
        if broken and not tasks:
            raise self._unreadable(body)
        if nameless:
            log.warning(
                "%d records of the relay's answer can't be read and have no id; the first begins with %r.",
                len(nameless),
                self._begin(nameless[0]),
            )
        return tasks

    def _cut_for(self, document: bytes) -> CutText:
        return self.clean if self.clean.is_needed(document) else cut_only

    def _object(self, body: bytes, levels: int) -> list[LumaTask]:
        try:
            answer = _decode_answer(body)
        except _UNREADABLE:
            # One broken record, or a second document appended to the first, must not hide the rest.
            answer = _loose_answer(body)
        tasks, unreadable = self._tasks_of(answer, body, levels)
        if any(task.state is not TaskState.UNKNOWN for task in tasks):
            return tasks
        code = "" if answer.is_record else _code(answer.code)
        if answer.reports_error or (code is not None and code not in SUCCESS_CODES):
            raise api_error(200, {}, body)
        if unreadable is not None or code is None:
            raise self._unreadable(body) from unreadable
        return tasks or self._id_alone(answer.payload)

    def _tasks_of(
        self, answer: _WireAnswer, body: bytes, levels: int
    ) -> tuple[list[LumaTask], LumaResponseError | None]:
        payload = answer.payload
        try:
            if answer.is_record:
                task = self._record(body)
                return ([], self._unreadable(body)) if task is None else ([task], None)
            if payload == b"null" or is_task_id(_text_of(payload)):
                return [], None
            return self.answer((_text_of(payload) or "").encode() or payload, levels), None
        except LumaResponseError as error:
            return [], error

    @staticmethod
    def _id_alone(payload: bytes) -> list[LumaTask]:
        """Decode an answer to a submit that is nothing but an id."""
        task_id = _text_of(payload)
        return [LumaTask(id=task_id, state=TaskState.PENDING)] if is_task_id(task_id) else []

    def _decode_each(self, elements: Iterable[bytes], tasks: list[LumaTask], nameless: list[bytes]) -> None:
        for element in elements:
            task = self._record(element)
            if task is not None:
                tasks.append(task)
            else:
                nameless.append(element[:200])

    def _record(self, element: bytes) -> LumaTask | None:
        """Decode a record strictly, else field by field; return ``None`` when it has no legible id."""
        try:
            return to_task(_decode_task(element), self._cut_for(element))
        except _UNREADABLE:
            record = loose_json(first_document(element))
        wire = read_task(record)
        if wire is None or record_id(wire) is None:
            return None
        task = to_task(wire, self.clean)
        odd = odd_state(record)
        if odd is None or task.state is not TaskState.UNKNOWN or task.state_text is not None:
            return task
        problem = self.clean(f"the relay's record of this task can't be read: its state is {odd!r:.100}")
        log.warning("Luma task %s: %s", task.id, problem)
        return LumaTask(id=task.id, state=TaskState.UNKNOWN, problem=problem)

    def _unreadable(self, body: bytes) -> LumaResponseError:
        start = self._begin(body)
        return LumaResponseError(
            f"The relay's answer can't be understood; it begins with {start!r}. Check that the connection's "
            "host is a Luma relay; if it is, try again later.",
            status=200,
            relay_message=start,
        )

    def _begin(self, body: bytes) -> str:
        return self.clean(body[:1000].decode("utf-8", "replace"), 200)


def _loose_answer(body: bytes) -> _WireAnswer:
    members = object_members(body)
    undecoded = ("id", "task_id", "state", "data", "items", "generations", "tasks")
    raw = {name: msgspec.Raw(members.get(name.encode(), b"")) for name in undecoded}
    code, success, error = (
        loose_json(members.get(name, b"null")) for name in (b"code", b"success", b"error")
    )
    return _WireAnswer(**raw, code=code, success=success, error=error)


def _text_of(payload: bytes) -> str | None:
    if not payload.startswith(b'"') or len(payload) > MAX_EMBEDDED:
        return None
    text = loose_json(payload)
    return text.encode("utf-8", "replace").decode().strip() if isinstance(text, str) else None


def _code(value: object) -> str | None:
    """Read a code of success or error; return ``None`` when it is neither a text nor a small number."""
    if isinstance(value, str):
        return value.strip().lower()
    if value is None:
        return ""
    small = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1000
    return str(value) if small else None
