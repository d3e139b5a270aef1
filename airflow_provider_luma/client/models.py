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
from typing import Any, Final, TypeGuard

import msgspec

from airflow_provider_luma.client.errors import api_error
from airflow_provider_luma.client.salvage import array_elements, first_document, object_members
from airflow_provider_luma.exceptions import LumaConfigError, LumaResponseError

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
}

_warned_states: set[str] = set()
_MAX_WARNED_STATES: Final = 100


# A javascript: or file: link must not reach those who open what they are given.
_SAFE_SCHEMES: Final = ("https://", "http://")


class Media(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """
    One file of a task. Width and height are pixels, duration is seconds.

    On some relays a task's thumbnail is a URL inside its video; :attr:`LumaTask.thumbnail` looks there too.
    """

    url: str | None = None
    download_url: str | None = None
    width: int | float | None = None
    height: int | float | None = None
    duration: int | float | None = None
    media_type: str | None = None
    thumbnail: str | None = None

    @property
    def best_url(self) -> str | None:
        """The clean file where the relay offers one, else the plain one."""
        return self.download_url or self.url or None


class LumaTask(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """
    One video generation, as a relay told it.

    ``problem`` is set when the relay's record of this task could not be read; ``state`` is then
    ``UNKNOWN`` and nothing else is set.
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
    def video_url(self) -> str | None:
        """
        The video to use: ``video.download_url`` (no watermark), else ``video_raw.url``, else ``video.url``.

        ``None`` until the task is completed, and for a completed task whose content was filtered.
        """
        if self.video is not None and self.video.download_url:
            return self.video.download_url
        if self.video_raw is not None and self.video_raw.url:
            return self.video_raw.url
        return (self.video.url or None) if self.video is not None else None


class _SubmitRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    prompt: str
    expand_prompt: bool | None = None
    image_url: str | None = None
    image_end_url: str | None = None
    notify_hook: str | None = None
    extra_fields: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise LumaConfigError(f"prompt must be a text that says what to generate, got {self.prompt!r}.")

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the submit: only what was set."""
        fields = {
            name: value
            for name in self.__struct_fields__
            if name not in ("prompt", "extra_fields") and (value := getattr(self, name)) is not None
        }
        return {"user_prompt": self.prompt, **fields, **self.extra_fields}


class GenerationRequest(_SubmitRequest, frozen=True, kw_only=True, omit_defaults=True):
    """
    What to generate. Fields that are ``None`` are not sent, so the relay's own defaults hold.

    :param prompt: The text; sent as ``user_prompt``.
    :param expand_prompt: Let the relay enrich the prompt.
    :param image_url: First frame: a URL or base64 data.
    :param image_end_url: Last frame: a URL or base64 data.
    :param notify_hook: Address that the relay calls when the task changes.
    :param extra_fields: Further body fields, sent as they are; they win over the others.
    :param model_name: ``ray-v1``, ``ray-v2``, ``ray-v3`` or what else the relay offers.
    :param duration: ``"5s"`` on most relays, ``"5"`` on some.
    :param resolution: ``540p``, ``720p`` or ``1080p``.
    :param aspect_ratio: For example ``16:9``.
    :param loop: Make the end meet the beginning.
    """

    model_name: str | None = None
    duration: str | None = None
    resolution: str | None = None
    aspect_ratio: str | None = None
    loop: bool | None = None


class ExtensionRequest(_SubmitRequest, frozen=True, kw_only=True, omit_defaults=True):
    """
    How to go on with an existing video. Fields that are ``None`` are not sent.

    :param prompt: The text; sent as ``user_prompt``.
    :param expand_prompt: Let the relay enrich the prompt.
    :param image_url: First frame: a URL or base64 data.
    :param image_end_url: Last frame: a URL or base64 data.
    :param notify_hook: Address that the relay calls when the task changes.
    :param extra_fields: Further body fields, sent as they are; they win over the others.
    """


class _WireRequest(msgspec.Struct, frozen=True, gc=False):
    prompt: str | None = None
    user_prompt: str | None = None
    aspect_ratio: str | None = None


class _WireArtifact(msgspec.Struct, frozen=True, gc=False):
    video: Media | None = None
    video_raw: Media | None = None
    thumbnail: Media | str | None = None
    last_frame: Media | str | None = None


class _WireTask(msgspec.Struct, frozen=True, gc=False):
    """A bare task, or (with ``task_id``) a row of the envelope around one."""

    id: str | int | None = None
    state: str | None = None
    created_at: str | float | None = None
    failure_reason: str | None = None
    fail_reason: str | None = None
    request: _WireRequest | None = None
    prompt: str | None = None
    artifact: _WireArtifact | None = None
    video: Media | None = None
    video_raw: Media | None = None
    thumbnail: Media | str | None = None
    last_frame: Media | str | None = None
    task_id: str | None = None
    status: str | None = None
    submit_time: float | str | None = None
    data: _WireTask | None = None


_NO_REQUEST: Final = _WireRequest()
_NO_ARTIFACT: Final = _WireArtifact()
_ABSENT: Final = msgspec.Raw(b"")


class _WireAnswer(msgspec.Struct, frozen=True):
    """The members that tell an envelope from a bare task and from an error."""

    id: msgspec.Raw = _ABSENT
    task_id: msgspec.Raw = _ABSENT
    code: str | int | None = None
    success: bool | None = None
    error: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT


_decode_tasks: Final = msgspec.json.Decoder(list[_WireTask]).decode
_decode_task: Final = msgspec.json.Decoder(_WireTask).decode
_decode_answer: Final = msgspec.json.Decoder(_WireAnswer).decode
_decode_id: Final = msgspec.json.Decoder(str).decode
_decode_code: Final = msgspec.json.Decoder(str | int | None).decode

_SUCCESS_CODES: Final = {"", "success", "0", "200"}
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, ValueError)


def decode_tasks(raw: bytes) -> list[LumaTask]:
    """
    Decode a relay's answer to a batch query, a single query, a submit or an extend.

    Takes a bare array, the ``{"code", "message", "data"}`` envelope, and a single task bare or in the
    envelope. A record that can't be read doesn't hurt the others: when at least its id is legible it
    comes back with :attr:`LumaTask.problem` set, and in any case a warning is logged.

    :param raw: The body of the answer.
    :raises LumaResponseError: when the answer as a whole is not one of these shapes.
    :raises LumaApiError: when the answer is an error in spite of its HTTP status.
    """
    body = raw.strip()
    if body.startswith(b"["):
        return _tasks_of_array(body)
    if body.startswith(b"{"):
        return _tasks_of_object(body)
    raise _unreadable(body)


def _unreadable(body: bytes) -> LumaResponseError:
    start = body[:200].decode("utf-8", "replace")
    return LumaResponseError(
        f"The relay's answer can't be understood; it begins with {start!r}. Check that the connection's "
        "host is a Luma relay; if it is, try again later.",
        status=200,
        relay_message=start,
    )


def _tasks_of_array(body: bytes) -> list[LumaTask]:
    try:
        return [_task(wire) for wire in _decode_tasks(body)]
    except _UNREADABLE:
        return _salvage(array_elements(body), body)


def _tasks_of_object(body: bytes) -> list[LumaTask]:
    try:
        answer = _decode_answer(body)
    except _UNREADABLE:
        # One broken record, or a second document glued behind the first, must not hide the rest.
        body = first_document(body)
        try:
            answer = _answer_of(object_members(body))
        except _UNREADABLE as error:
            raise _unreadable(body) from error
    data = bytes(answer.data)
    if answer.success is False or bytes(answer.error) not in (b"", b"null", b'""', b"{}"):
        raise api_error(200, {}, body)
    if bytes(answer.task_id) or (bytes(answer.id) and not data):
        return _salvage([body], body)
    if str(answer.code or "").lower() not in _SUCCESS_CODES:
        raise api_error(200, {}, body)
    if data == b"null":
        return []
    if data.startswith(b"["):
        return _tasks_of_array(data)
    if data.startswith(b"{"):
        return _salvage([data], body)
    if data.startswith(b'"'):
        return _salvage([b'{"id":%b,"state":"pending"}' % data], body)
    raise _unreadable(body)


def _answer_of(members: dict[bytes, bytes]) -> _WireAnswer:
    raw = {name: msgspec.Raw(members.get(name.encode(), b"")) for name in ("id", "task_id", "error", "data")}
    code = members.get(b"code", b"null")
    return _WireAnswer(
        **raw,
        code=_decode_code(code),
        success=members.get(b"success") != b"false",
    )


def _salvage(elements: Iterable[bytes], body: bytes) -> list[LumaTask]:
    """
    Decode element by element; report what can't be read under its id, as far as that is legible.

    :raises LumaResponseError: when nothing at all can be saved.
    """
    tasks = []
    nameless: list[bytes] = []
    for element in elements:
        try:
            tasks.append(_task(_decode_task(element)))
        except _UNREADABLE as error:
            task_id = _legible_id(element)
            if task_id is None:
                nameless.append(element[:200])
                continue
            problem = f"the relay's record of this task can't be read: {error}"
            log.warning("Luma task %s: %s", task_id, problem)
            tasks.append(LumaTask(id=task_id, state=TaskState.UNKNOWN, problem=problem))
    if not tasks:
        raise _unreadable(body)
    if nameless:
        log.warning(
            "The relay's answer has %d records that can't be read and have no id; the first begins with %r.",
            len(nameless),
            nameless[0].decode("utf-8", "replace"),
        )
    return tasks


def _legible_id(element: bytes) -> str | None:
    if not element.startswith(b"{"):
        return None
    try:
        members = object_members(element)
        task_id = members.get(b"task_id", b"null")
        return _valid_id(_decode_id(members.get(b"id", b"") if task_id == b"null" else task_id))
    except _UNREADABLE:
        return None


def _valid_id(value: object) -> str:
    if not is_task_id(value):
        raise ValueError(f"{value!r} is not a task id")
    return value


def _task(wire: _WireTask) -> LumaTask:
    row = None
    if wire.task_id is not None:
        # A row of the envelope: its own id is a row number, its task may be null or partial.
        row, wire = wire, wire.data or _WireTask()
    artifact = wire.artifact or _NO_ARTIFACT
    video = wire.video or artifact.video
    state = wire.state or (row.status if row is not None else None) or wire.status
    outcome = _state(state)
    reason = wire.failure_reason or wire.fail_reason
    if row is not None:
        reason = reason or row.failure_reason or row.fail_reason
    request = wire.request or _NO_REQUEST
    created = wire.created_at if wire.created_at is not None or row is None else row.submit_time
    return LumaTask(
        id=_valid_id(wire.id if row is None else row.task_id),
        state=outcome,
        # Relays put the result's URL into fail_reason of a success.
        failure_reason=(reason or None) if outcome is TaskState.FAILED else None,
        created_at=_moment(created),
        prompt=request.prompt or request.user_prompt or wire.prompt,
        aspect_ratio=request.aspect_ratio,
        video=_media(video),
        video_raw=_media(wire.video_raw or artifact.video_raw),
        thumbnail=_media(wire.thumbnail or artifact.thumbnail or (video.thumbnail if video else None)),
        last_frame=_media(wire.last_frame or artifact.last_frame),
    )


def _media(wire: Media | str | None) -> Media | None:
    if not wire:
        return None
    if isinstance(wire, str):
        wire = Media(url=wire)
    for url in (wire.url, wire.download_url):
        if url and not url.startswith(_SAFE_SCHEMES):
            log.warning("Dropped a media link that is not http(s): %.80r", url)
            return None
    if wire.thumbnail and not wire.thumbnail.startswith(_SAFE_SCHEMES):
        wire = msgspec.structs.replace(wire, thumbnail=None)
    return wire if wire.url or wire.download_url else None


def _state(value: str | None) -> TaskState:
    if value is None:
        return TaskState.UNKNOWN
    state = _STATES.get(value.lower())
    if state is None:
        if value not in _warned_states and len(_warned_states) < _MAX_WARNED_STATES:
            _warned_states.add(value)
            log.warning("Unknown task state %r from the relay: taken as not finished yet.", value[:80])
        return TaskState.UNKNOWN
    return state


def _moment(value: str | float | None) -> datetime | None:
    """Read an ISO text or an epoch in seconds or milliseconds; Go's zero time means nothing."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not UTC:
                moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
            return moment if moment.year > 1 else None
        if value:
            return datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)
    except (ValueError, OverflowError, OSError):
        log.debug("Unreadable creation time from the relay: %r", value)
    return None
