# SPDX-License-Identifier: Apache-2.0
"""
What travels over the wire: tasks as relays answer them, requests as relays take them.

Relays of one software family answer with small differences. All of them are known here and nowhere
else: :func:`decode_tasks` turns every success shape into :class:`LumaTask` values.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol, TypeGuard

import msgspec

from airflow_provider_luma.client.errors import api_error
from airflow_provider_luma.client.requests import ExtensionRequest as ExtensionRequest
from airflow_provider_luma.client.requests import GenerationRequest as GenerationRequest
from airflow_provider_luma.client.salvage import (
    ArrayCutter,
    first_document,
    loose_json,
    object_members,
)
from airflow_provider_luma.client.wire import (
    MAX_LINK,
    MAX_WORD,
    WireArtifact,
    WireRequest,
    WireTask,
    odd_state,
    read_media,
    read_reason,
    read_task,
)
from airflow_provider_luma.client.wire import Media as Media
from airflow_provider_luma.exceptions import LumaResponseError
from airflow_provider_luma.text import MAX_PROMPT, MAX_TEXT, Cleaner, clean_text

log = logging.getLogger(__name__)

TASK_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
"""Every form of task id that relays use: UUID, ``task_`` + 32 characters, ``luma_gen_abc123``."""


def is_task_id(value: object) -> TypeGuard[str]:
    """Whether *value* has a form that relays use for task ids."""
    return isinstance(value, str) and TASK_ID_PATTERN.fullmatch(value) is not None


class TaskState(StrEnum):
    """
    Where a task stands, in one vocabulary for all relays.

    ``UNKNOWN`` is "not finished, not understood": a state that this provider hasn't met.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def terminal(self) -> bool:
        """Whether the task has come to its end."""
        return self in (TaskState.COMPLETED, TaskState.FAILED)


_STATES: Final[dict[str, TaskState]] = {
    "pending": TaskState.PENDING,
    "queued": TaskState.PENDING,
    "not_start": TaskState.PENDING,
    "submitted": TaskState.PENDING,
    "processing": TaskState.PROCESSING,
    "dreaming": TaskState.PROCESSING,
    "in_progress": TaskState.PROCESSING,
    "completed": TaskState.COMPLETED,
    "succeeded": TaskState.COMPLETED,
    "success": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
    "failure": TaskState.FAILED,
    "fail": TaskState.FAILED,
    "error": TaskState.FAILED,
    "rejected": TaskState.FAILED,
    "cancelled": TaskState.FAILED,
    "canceled": TaskState.FAILED,
    "expired": TaskState.FAILED,
    "timeout": TaskState.FAILED,
}

_warned_states: set[str] = set()
_MAX_WARNED_STATES: Final = 100


class LumaTask(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """
    One video generation, as a relay told it.

    ``problem`` is set when the relay's record of this task could not be read; ``state`` is then
    ``UNKNOWN`` and nothing else is set. ``state_text`` is the relay's own word for a state that this
    provider hasn't met; ``failure_reason`` may then be set too.
    """

    id: str
    state: TaskState
    failure_reason: str | None = None
    created_at: datetime | None = None
    prompt: str | None = None
    aspect_ratio: str | None = None
    video: Media | None = None
    video_raw: Media | None = None
    thumbnail: Media | None = None
    last_frame: Media | None = None
    problem: str | None = None
    state_text: str | None = None

    @property
    def video_urls(self) -> tuple[str, ...]:
        """
        Every URL under which the video may be found, the preferred one first.

        ``video.download_url`` has no watermark; then come ``video_raw.url``, ``video.url`` and
        ``video_raw.download_url``.
        """
        video, raw = self.video or _NO_MEDIA, self.video_raw or _NO_MEDIA
        urls = (video.download_url, raw.url, video.url, raw.download_url)
        return tuple(dict.fromkeys(url for url in urls if url))

    @property
    def video_url(self) -> str | None:
        """
        The first of :attr:`video_urls`.

        ``None`` until the task is completed, and for a completed task whose content was filtered.
        """
        return next(iter(self.video_urls), None)


_NO_MEDIA: Final = Media()
_NO_REQUEST: Final = WireRequest()
_NO_ARTIFACT: Final = WireArtifact()
_ABSENT: Final = msgspec.Raw(b"")


class _WireAnswer(msgspec.Struct, frozen=True):
    """The members that tell an envelope from a bare task and from an error."""

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
        """Whether it says, other than by its code, that it is an error; an empty error says nothing."""
        if self.success is False:
            return True
        members = self.error.values() if isinstance(self.error, dict) else [self.error]
        return any(member and _code(member) not in _SUCCESS_CODES for member in members)


_decode_tasks: Final = msgspec.json.Decoder(list[WireTask]).decode
_decode_task: Final = msgspec.json.Decoder(WireTask).decode
_decode_answer: Final = msgspec.json.Decoder(_WireAnswer).decode

_SUCCESS_CODES: Final = {"", "success", "succeed", "succeeded", "ok", "0", "200", "201", "202", "null"}
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, ValueError)

_COMPLETED: Final = TaskState.COMPLETED  # An enum's member is looked up slowly.
_MOST_RECORDS: Final = 20_000
_MAX_LEVELS: Final = 3
_MAX_EMBEDDED: Final = 1 << 20
# A javascript: or file: link must not reach those who open what they are given.
_LINK: Final = re.compile(r"(https?)://[^\s/?#\\]", re.IGNORECASE)
_ELSEWHERE: Final = ("result_url", "video_url", "assets", "output", "metadata", "url", "fail_reason")
"""Where some relays put the only link to a video, besides the usual members."""


class _CutText(Protocol):
    """Makes a text from outside fit to be kept: :class:`Cleaner`, or less where less is enough."""

    def __call__(self, text: str, limit: int = ..., /) -> str: ...


def _cut(text: str, limit: int = MAX_TEXT) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def decode_tasks(raw: bytes, *, clean: Cleaner = clean_text, most: int | None = None) -> list[LumaTask]:
    """
    Decode a relay's answer to a batch query, a single query, a submit or an extend.

    Takes a bare array, the ``{"code", "message", "data"}`` envelope, and a single task bare or in the
    envelope. A field that can't be read is dropped alone. A record whose state can't be read doesn't hurt
    the others: it comes back with :attr:`LumaTask.problem` set, and a warning is logged. One without a
    legible id is only warned of.

    :param raw: The body of the answer.
    :param clean: Cleans the relay's texts before they are kept.
    :param most: How many records to look at, so that a flood of them costs little. Default: 20,000.
    :raises LumaResponseError: when the answer as a whole is not one of these shapes.
    :raises LumaApiError: when the answer is an error in spite of its HTTP status.
    """
    body = raw.strip().removeprefix(b"\xef\xbb\xbf").lstrip()
    return _Decoder(clean, _MOST_RECORDS if most is None else most).answer(body)


class _Decoder(NamedTuple):
    """Decodes one answer."""

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
                tasks += [_task(wire, cut) for wire in _decode_tasks(chunk)]
                cutter.accept()
            except _UNREADABLE:
                broken, rest = True, self.most - len(tasks) - len(nameless)
                self._take(islice(cutter.elements(), rest), tasks, nameless)
        if not cutter.done:
            log.warning("The relay's answer has more than the %d records that it may have.", self.most)
        if broken and not tasks:
            raise self._unreadable(body)
        if nameless:
            log.warning(
                "The relay's answer has %d records that can't be read and have no id; the first one begins "
                "with %r.",
                len(nameless),
                self._begin(nameless[0]),
            )
        return tasks

    def _cut_for(self, document: bytes) -> _CutText:
        return self.clean if self.clean.is_needed(document) else _cut

    def _object(self, body: bytes, levels: int) -> list[LumaTask]:
        try:
            answer = _decode_answer(body)
        except _UNREADABLE:
            # One broken record, or a second document glued behind the first, must not hide the rest.
            answer = _loose_answer(body)
        tasks, unreadable = self._tasks_of(answer, body, levels)
        if any(task.state is not TaskState.UNKNOWN for task in tasks):
            return tasks
        code = "" if answer.is_record else _code(answer.code)
        if answer.reports_error or (code is not None and code not in _SUCCESS_CODES):
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

    def _take(self, elements: Iterable[bytes], tasks: list[LumaTask], nameless: list[bytes]) -> None:
        for element in elements:
            task = self._record(element)
            if task is not None:
                tasks.append(task)
            else:
                nameless.append(element[:200])

    def _record(self, element: bytes) -> LumaTask | None:
        """Decode a record as it usually is, else field by field; ``None`` when it has no legible id."""
        try:
            return _task(_decode_task(element), self._cut_for(element))
        except _UNREADABLE:
            record = loose_json(first_document(element))
        wire = read_task(record)
        if wire is None or _id_of(wire) is None:
            return None
        task = _task(wire, self.clean)
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
    if not payload.startswith(b'"') or len(payload) > _MAX_EMBEDDED:
        return None
    text = loose_json(payload)
    return text.encode("utf-8", "replace").decode().strip() if isinstance(text, str) else None


def _code(value: object) -> str | None:
    """Read a code of success or error; ``None`` when it is neither a text nor a small number."""
    if isinstance(value, str):
        return value.strip().lower()
    if value is None:
        return ""
    small = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1000
    return str(value) if small else None


def _task(wire: WireTask, cut: _CutText) -> LumaTask:
    # A row of the envelope has a row number for its own id, and its task may be null or partial.
    inner = wire.data or wire
    task_id = _id_of(wire)
    if task_id is None:
        raise ValueError("the record has no legible id")
    artifact, request = inner.artifact or _NO_ARTIFACT, inner.request or _NO_REQUEST
    state, word = _state(wire, inner)
    video = _media(inner.video, cut) or _media(artifact.video, cut)
    video_raw = _media(inner.video_raw, cut) or _media(artifact.video_raw, cut)
    if inner is not wire:
        video, video_raw = video or _media(wire.video, cut), video_raw or _media(wire.video_raw, cut)
    if state is _COMPLETED or state is None:
        found = any(media is not None and media.best_url for media in (video, video_raw))
        if not found and (elsewhere := _video_elsewhere(wire, inner, cut)) is not None:
            video, found = elsewhere, True
        state = state or (_COMPLETED if found else TaskState.FAILED)
    prompt = request.prompt or request.user_prompt or inner.prompt
    created_at = inner.created_at if inner.created_at is not None else (wire.created_at or wire.submit_time)
    return LumaTask(
        id=task_id,
        state=state,
        # Relays put the URL of a success into fail_reason.
        failure_reason=None if state is _COMPLETED else _reason(state, wire, inner, cut),
        created_at=_moment(created_at),
        prompt=cut(prompt, MAX_PROMPT) if prompt else None,
        aspect_ratio=cut(ratio, MAX_WORD) if (ratio := request.aspect_ratio) else None,
        video=video,
        video_raw=video_raw,
        thumbnail=_media(inner.thumbnail, cut)
        or _media(artifact.thumbnail, cut)
        or (_media(video.thumbnail, cut) if video is not None else None),
        last_frame=_media(inner.last_frame, cut) or _media(artifact.last_frame, cut),
        state_text=cut(word, MAX_WORD) if word and state is TaskState.UNKNOWN else None,
    )


def _id_of(wire: WireTask) -> str | None:
    usual = wire.id if wire.task_id is None and wire.data is None else wire.task_id
    if is_task_id(usual):
        return usual
    inner = wire.data or wire
    return next(filter(is_task_id, (wire.task_id, wire.id, inner.task_id, inner.id)), None)


def _media(media: Media | str | None, cut: _CutText) -> Media | None:
    """Check a file's links one by one; ``None`` when it has no usable one."""
    if media is None:
        return None
    if isinstance(media, str):
        media = Media(url=media)
    url, download_url, thumbnail = media.url, media.download_url, media.thumbnail
    if (
        cut is _cut
        and url is not None
        and "https://a" <= url < "https://{"
        and (not download_url or "https://a" <= download_url < "https://{")
        and thumbnail is None
    ):
        # As most are: there is nothing to change, and the comparisons cost a fifth of a look at each link.
        return media
    kind = media.media_type
    checked = Media(
        url=_link(url, cut) if url else url,
        download_url=_link(download_url, cut) if download_url else download_url,
        width=media.width,
        height=media.height,
        duration=media.duration,
        media_type=cut(kind, MAX_WORD) if kind else None,
        thumbnail=_link(thumbnail, cut) if thumbnail else None,
    )
    return checked if checked.best_url or checked.thumbnail else None


def _link(value: str, cut: _CutText) -> str | None:
    link = value.strip()
    scheme = _LINK.match(link)
    if scheme is None or cut(link, MAX_LINK) != link:
        if link:
            log.warning("Dropped a media link that is not http(s): %r", cut(link, MAX_WORD))
        return None
    name = scheme.group(1)
    return link if name.islower() else name.lower() + link[len(name) :]


def _video_elsewhere(wire: WireTask, inner: WireTask, cut: _CutText) -> Media | None:
    for level in (inner, wire):
        failed = _STATES.get((level.state or level.status or "").lower()) is TaskState.FAILED
        for name in _ELSEWHERE:
            value = getattr(level, name)
            if value is None or (name == "fail_reason" and (failed or not _is_one_word(value))):
                continue
            media = _media(read_media(value), cut)
            if media is not None and media.best_url:
                return media
    return None


def _is_one_word(value: object) -> bool:
    return isinstance(value, str) and len(value.split(maxsplit=1)) == 1


def _state(wire: WireTask, inner: WireTask) -> tuple[TaskState | None, str | None]:
    """
    Find the state of a task, and the relay's word for it.

    A finished state beats an unfinished one: relays give up a job in the row and leave ``processing`` in the
    task. Where one is completed and another one failed it is ``None``: the links decide.
    """
    if inner is wire and wire.status is None and (state := _STATES.get((wire.state or "").lower())):
        return state, None
    first = inner.state or inner.status
    state = _STATES.get(first.lower()) if first else None
    if state is not None:
        # Most often they all agree.
        for word in (inner.status, wire.status, wire.state):
            if word and word is not first and _STATES.get(word.lower()) is not state:
                break
        else:
            return state, None
    words = [word for word in (first, inner.status, wire.status, wire.state) if word]
    if not words:
        return TaskState.UNKNOWN, None
    states = [_STATES.get(word.lower(), TaskState.UNKNOWN) for word in words]
    ends = {state for state in states if state.terminal}
    if ends:
        return (ends.pop() if len(ends) == 1 else None), None
    if states[0] is TaskState.UNKNOWN:
        _warn_of_state(words[0])
    return states[0], words[0]


def _warn_of_state(word: str) -> None:
    word = clean_text(word, MAX_WORD)
    if word not in _warned_states and len(_warned_states) < _MAX_WARNED_STATES:
        _warned_states.add(word)
        log.warning("Unknown task state %r from the relay: taken as not finished yet.", word)


def _reason(state: TaskState, wire: WireTask, inner: WireTask, cut: _CutText) -> str | None:
    if state is not TaskState.FAILED and state is not TaskState.UNKNOWN:
        return None
    for level in (inner, wire):
        for value in (level.failure_reason, level.fail_reason, level.error):
            if value is not None and (reason := read_reason(value)):
                return cut(reason, MAX_TEXT)
    return None


def _moment(value: object) -> datetime | None:
    """Read an ISO text or an epoch in seconds or milliseconds; Go's zero time means nothing."""
    try:
        if isinstance(value, str):
            if 9 <= len(value) <= 13 and value.isdecimal():
                return _moment(int(value))
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not UTC:
                moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
            return moment if moment.year > 1 else None
        if value and isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)
    except (ValueError, OverflowError, OSError):
        log.debug("Unreadable creation time from the relay: %.80r", value)
    return None
