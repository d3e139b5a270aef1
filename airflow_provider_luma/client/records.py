# SPDX-License-Identifier: Apache-2.0
"""Turn the records that relays write into :class:`~airflow_provider_luma.client.tasks.LumaTask`."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Final, Protocol

from airflow_provider_luma.client.tasks import MAX_URL, MAX_WORD, LumaTask, Media, TaskState, is_task_id
from airflow_provider_luma.client.wire import WireArtifact, WireRequest, WireTask, read_media, read_reason
from airflow_provider_luma.text import MAX_PROMPT, MAX_TEXT, clean_text

log = logging.getLogger(__name__)

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

# Relays may use new words without end, which must fill neither the memory nor the log.
_MAX_WARNED_STATES: Final = 100
_warned_states: set[str] = set()

_NO_REQUEST: Final = WireRequest()
_NO_ARTIFACT: Final = WireArtifact()
_COMPLETED: Final = TaskState.COMPLETED  # An enum's member is looked up slowly.
# A javascript: or file: URL must not reach those who open what they are given.
_URL: Final = re.compile(r"(https?)://[^\s/?#\\]", re.IGNORECASE)
_ELSEWHERE: Final = ("result_url", "video_url", "assets", "output", "metadata", "url", "fail_reason")
"""Where some relays put the only URL of a video, besides the usual members."""


class CutText(Protocol):
    """
    Cut a text from outside to a length, and clean it where needed.

    It is a :class:`~airflow_provider_luma.text.Cleaner`, or :func:`cut_only` where nothing needs cleaning.
    """

    def __call__(self, text: str, limit: int = ..., /) -> str: ...


def cut_only(text: str, limit: int = MAX_TEXT) -> str:
    """Cut a text that needs no cleaning."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def to_task(wire: WireTask, cut: CutText) -> LumaTask:
    """
    Turn a record, in which each text is as the relay wrote it, into a task.

    :raises ValueError: when the record has no legible id.
    """
    # A row of the envelope has a row number as its own id, and its task may be null or partial.
    inner = wire.data or wire
    task_id = record_id(wire)
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


def record_id(wire: WireTask) -> str | None:
    """Return the id of the task in a record, or ``None`` when none is legible."""
    usual = wire.id if wire.task_id is None and wire.data is None else wire.task_id
    if is_task_id(usual):
        return usual
    inner = wire.data or wire
    return next(filter(is_task_id, (wire.task_id, wire.id, inner.task_id, inner.id)), None)


def _media(media: Media | str | None, cut: CutText) -> Media | None:
    """Check each URL of a file; return ``None`` when it has no usable one."""
    if media is None:
        return None
    if isinstance(media, str):
        media = Media(url=media)
    url, download_url, thumbnail = media.url, media.download_url, media.thumbnail
    if (
        cut is cut_only
        and url is not None
        and "https://a" <= url < "https://{"
        and (not download_url or "https://a" <= download_url < "https://{")
        and thumbnail is None
    ):
        # Most files are so and need no change; these comparisons cost a fifth of checking each URL.
        return media
    kind = media.media_type
    checked = Media(
        url=_url(url, cut) if url else url,
        download_url=_url(download_url, cut) if download_url else download_url,
        width=media.width,
        height=media.height,
        duration=media.duration,
        media_type=cut(kind, MAX_WORD) if kind else None,
        thumbnail=_url(thumbnail, cut) if thumbnail else None,
    )
    return checked if checked.best_url or checked.thumbnail else None


def _url(value: str, cut: CutText) -> str | None:
    url = value.strip()
    scheme = _URL.match(url)
    if scheme is None or cut(url, MAX_URL) != url:
        if url:
            log.warning("Dropped a media URL that is not http(s): %r", cut(url, MAX_WORD))
        return None
    name = scheme.group(1)
    return url if name.islower() else name.lower() + url[len(name) :]


def _video_elsewhere(wire: WireTask, inner: WireTask, cut: CutText) -> Media | None:
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
    Return the state of a task, and the relay's word for it.

    A terminal state wins: relays give up a task in the row and leave ``processing`` in the task itself. Where
    one is completed and another one failed the state is ``None``: the URLs decide.
    """
    if inner is wire and wire.status is None and (state := _STATES.get((wire.state or "").lower())):
        return state, None
    first = inner.state or inner.status
    state = _STATES.get(first.lower()) if first else None
    if state is not None:
        # Usually they all agree.
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
        log.warning("The relay reports the unknown task state %r; it counts as not terminal.", word)


def _reason(state: TaskState, wire: WireTask, inner: WireTask, cut: CutText) -> str | None:
    if state is not TaskState.FAILED and state is not TaskState.UNKNOWN:
        return None
    for level in (inner, wire):
        for value in (level.failure_reason, level.fail_reason, level.error):
            if value is not None and (reason := read_reason(value)):
                return cut(reason, MAX_TEXT)
    return None


def _moment(value: object) -> datetime | None:
    """Read an ISO text or an epoch in seconds or milliseconds; Go's zero time counts as absent."""
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
        log.debug("The relay's creation time can't be read: %.80r", value)
    return None
