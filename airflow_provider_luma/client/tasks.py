# SPDX-License-Identifier: Apache-2.0
"""The values that the client returns: tasks, their states and their files."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, TypeGuard

import msgspec

TASK_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
"""Every form of task id that relays use: UUID, ``task_`` + 32 characters, ``luma_gen_abc123``."""

MAX_URL: Final = 8192
"""Characters of the longest URL that is kept."""

MAX_WORD: Final = 80
"""Characters of a word, such as a state, that are kept."""

MAX_NUMBER: Final = 10**9
"""The largest size or duration that is kept; one of hundreds of digits would break whatever prints it."""

Number = (
    Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)] | Annotated[float, msgspec.Meta(ge=0, le=MAX_NUMBER)]
)
Url = Annotated[str, msgspec.Meta(max_length=MAX_URL)]
Word = Annotated[str, msgspec.Meta(max_length=MAX_WORD)]


def is_task_id(value: object) -> TypeGuard[str]:
    """Return whether *value* has a form that relays use for task ids."""
    return isinstance(value, str) and TASK_ID_PATTERN.fullmatch(value) is not None


class TaskState(StrEnum):
    """
    The state of a task, in one vocabulary for all relays.

    ``UNKNOWN`` means a state that this provider doesn't know; it counts as not terminal.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def terminal(self) -> bool:
        """Whether the state is final: completed or failed."""
        return self in (TaskState.COMPLETED, TaskState.FAILED)


class Media(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """
    One file of a task. Width and height are pixels, duration is seconds.

    On some relays a task's thumbnail is a URL inside its video; ``LumaTask.thumbnail`` covers that too.
    """

    url: Url | None = None
    download_url: Url | None = None
    width: Number | None = None
    height: Number | None = None
    duration: Number | None = None
    media_type: Word | None = None
    thumbnail: Url | None = None

    @property
    def best_url(self) -> str | None:
        """The URL of the file without a watermark where the relay offers one, else the plain one."""
        return self.download_url or self.url or None


_NO_MEDIA: Final = Media()


class LumaTask(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """
    One video generation, as the relay reports it.

    ``problem`` is set when the relay's record of this task can't be read; ``state`` is then ``UNKNOWN`` and
    nothing else is set. ``state_text`` is the relay's own word for a state that this provider doesn't know;
    ``failure_reason`` may then be set too.
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
        Every URL of the video, the preferred one first.

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
