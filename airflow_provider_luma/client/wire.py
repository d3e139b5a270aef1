# SPDX-License-Identifier: Apache-2.0
"""
Read the records of tasks as relays write them: strictly where they are as usual, else field by field.

A record needs an id, a state and URLs. Each other field may have any type: what is legible of it is kept and
the rest is dropped, so that a decorative field never costs a paid video.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from airflow_provider_luma.client.salvage import ILLEGIBLE, loose_json
from airflow_provider_luma.client.tasks import MAX_NUMBER, Media

MAX_EMBEDDED: Final = 1 << 20
"""Characters of the longest JSON text inside JSON that is read."""

_MAX_LISTED: Final = 20


class WireRequest(msgspec.Struct, frozen=True, gc=False):
    """The request, as the relay repeats it."""

    prompt: str | None = None
    user_prompt: str | None = None
    aspect_ratio: str | None = None


class WireArtifact(msgspec.Struct, frozen=True, gc=False):
    """The files again, in a member of their own."""

    video: Media | str | None = None
    video_raw: Media | str | None = None
    thumbnail: Media | str | None = None
    last_frame: Media | str | None = None


class WireTask(msgspec.Struct, frozen=True, gc=False):
    """
    A bare task, or (with ``task_id``) a row of the envelope around one.

    A field of type ``Any`` is read only where it is needed, by a reader that takes any type.
    """

    id: str | int | None = None
    state: str | None = None
    created_at: Any = None
    failure_reason: Any = None
    fail_reason: Any = None
    error: Any = None
    request: WireRequest | None = None
    prompt: str | None = None
    artifact: WireArtifact | None = None
    video: Media | str | None = None
    video_raw: Media | str | None = None
    thumbnail: Media | str | None = None
    last_frame: Media | str | None = None
    task_id: str | None = None
    status: str | None = None
    submit_time: Any = None
    data: WireTask | None = None
    result_url: Any = None
    video_url: Any = None
    url: Any = None
    assets: Any = None
    output: Any = None
    metadata: Any = None


Reader = Callable[[object], Any]
_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_NUMBER: Final = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(?:px|s|sec|secs|seconds?)?", re.ASCII | re.IGNORECASE
)


def read_number(value: object) -> int | float | None:
    """Read a size or a duration: a number or its text, such as ``"1360"`` or ``"5s"``."""
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value[:40].strip())
        digits = found.group(1) if found else ""
        value = (float(digits) if "." in digits else int(digits)) if digits else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= MAX_NUMBER else None


def read_text(value: object) -> str | None:
    """Read a text."""
    return value if isinstance(value, str) else None


def read_word(value: object) -> str | None:
    """Read a text that decides something; one with broken characters doesn't count."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def read_id(value: object) -> str | int | None:
    """Read an id or a row number."""
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def read_object(value: object) -> Mapping[str, object] | None:
    """Read an object, or the JSON text of one."""
    if isinstance(value, str) and len(value) <= MAX_EMBEDDED and value.lstrip().startswith("{"):
        value = loose_json(value.strip().encode("utf-8", "surrogatepass"))
    return value if isinstance(value, dict) else None


def read_media(value: object, *, levels: int = 3) -> Media | None:
    """
    Read a file in any of the shapes that relays use, at most *levels* deep.

    These are an object with URLs, a URL, an object around either, and a list whose first video counts.
    """
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return Media(url=value) if value else None
    if isinstance(value, list):
        videos = (read_media(entry, levels=levels - 1) for entry in value[:_MAX_LISTED] if _is_video(entry))
        return next((video for video in videos if video is not None), None) if levels else None
    members = read_object(value)
    if members is None:
        return None
    media = _read(Media, _MEDIA, members)
    if media.best_url or not levels:
        return media
    inner = (read_media(members.get(name), levels=levels - 1) for name in ("video", "video_url", "videos"))
    return next((video for video in inner if video is not None and video.best_url), media)


def _is_video(entry: object) -> bool:
    kind = entry.get("type") or entry.get("media_type") if isinstance(entry, dict) else None
    return not isinstance(kind, str) or "video" in kind.lower()


def read_url(value: object) -> str | None:
    """Read a URL, or the one in an object."""
    return read_text(value.get("url") if isinstance(value, dict) else value)


def read_reason(value: object, *, levels: int = 3) -> str | None:
    """Read why a task failed, at most *levels* deep: a text, one in an object, or the first one in a list."""
    if isinstance(value, str):
        return value.strip() or None
    if not levels:
        return None
    inner: list[object] = []
    if isinstance(value, dict):
        inner = [value.get(name) for name in _REASONS]
    elif isinstance(value, list):
        inner = value[:_MAX_LISTED]
    reasons = (read_reason(entry, levels=levels - 1) for entry in inner)
    return next((reason for reason in reasons if reason), None)


def read_task(value: object) -> WireTask | None:
    """Read a record, decoded by :func:`loose_json`, field by field; return ``None`` if it isn't an object."""
    members = read_object(value)
    return None if members is None else _read(WireTask, _ROW, members)


def _read_inner(value: object) -> WireTask | None:
    if isinstance(value, str) and len(value) <= MAX_EMBEDDED and value.lstrip().startswith("["):
        value = loose_json(value.strip().encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        value = next(filter(None, map(read_object, value[:_MAX_LISTED])), None)
    members = read_object(value)
    return None if members is None else _read(WireTask, _TASK, members)


def odd_state(value: object) -> object:
    """Return the value of a record's state if it is neither a word nor absent, else ``None``."""
    levels = [members for members in (read_object(value),) if members is not None]
    levels += [inner for members in levels if (inner := read_object(members.get("data"))) is not None]
    states = [members.get(name) for members in levels for name in ("state", "status")]
    return next((state for state in states if state is not None and read_word(state) is None), None)


def _read(kind: type[_Struct], readers: Mapping[str, Reader], members: Mapping[str, object]) -> _Struct:
    return kind(**{name: read(members[name]) for name, read in readers.items() if name in members})


def _part(kind: type[_Struct], readers: Mapping[str, Reader]) -> Reader:
    def read(value: object) -> _Struct | None:
        members = read_object(value)
        return None if members is None else _read(kind, readers, members)

    return read


def _anything(value: object) -> object:
    return None if value is ILLEGIBLE else value


_REASONS: Final = ("message", "reason", "detail", "msg", "description", "error", "code")
_MEDIA: Final[dict[str, Reader]] = {
    "url": read_url,
    "download_url": read_url,
    "width": read_number,
    "height": read_number,
    "duration": read_number,
    "media_type": read_text,
    "thumbnail": read_url,
}
_REQUEST: Final[dict[str, Reader]] = dict.fromkeys(WireRequest.__struct_fields__, read_text)
_ARTIFACT: Final[dict[str, Reader]] = dict.fromkeys(WireArtifact.__struct_fields__, read_media)
_TASK: Final[dict[str, Reader]] = {
    **dict.fromkeys(WireTask.__struct_fields__, _anything),
    "id": read_id,
    "task_id": read_text,
    "state": read_word,
    "status": read_word,
    "request": _part(WireRequest, _REQUEST),
    "prompt": read_text,
    "artifact": _part(WireArtifact, _ARTIFACT),
    **_ARTIFACT,
    "data": lambda _: None,
}
_ROW: Final[dict[str, Reader]] = {**_TASK, "data": _read_inner}
