# SPDX-License-Identifier: Apache-2.0
"""The flat record of a task's files, as the next task of a pipeline wants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from airflow_provider_luma.client.models import LumaTask, Media
from airflow_provider_luma.exceptions import LumaConfigError

Artifact = Literal["video", "video_raw", "thumbnail", "last_frame"]
"""The files of a task: ``video`` is the preferred one of the finished film."""

ARTIFACTS: Final[tuple[str, ...]] = get_args(Artifact)


def artifact_urls(task: LumaTask, artifact: str) -> tuple[str, ...]:
    """
    Return every URL under which one of a task's files may be found, the preferred one first.

    :param task: The task.
    :param artifact: ``video``, ``video_raw``, ``thumbnail`` or ``last_frame``.
    """
    if artifact == "video":
        return task.video_urls
    media = getattr(task, artifact) or Media()
    return tuple(dict.fromkeys(url for url in (media.download_url, media.url) if url))


class ArtifactRecord(msgspec.Struct, frozen=True):
    """
    One task's files. Sizes are pixels, ``duration`` is seconds, ``created_at`` is ISO 8601 in UTC.

    A field is ``None`` when the relay doesn't tell it. Links expire, often within the hour.
    """

    id: str
    video_url: str | None
    video_raw_url: str | None
    thumbnail_url: str | None
    last_frame_url: str | None
    width: int | float | None
    height: int | float | None
    duration: int | float | None
    prompt: str | None
    aspect_ratio: str | None
    created_at: str | None

    @classmethod
    def of(cls, task: LumaTask) -> ArtifactRecord:
        """Flatten a task."""
        video, raw = task.video or Media(), task.video_raw or Media()
        return cls(
            id=task.id,
            video_url=task.video_url,
            video_raw_url=raw.best_url,
            thumbnail_url=task.thumbnail.best_url if task.thumbnail else None,
            last_frame_url=task.last_frame.best_url if task.last_frame else None,
            width=video.width or raw.width,
            height=video.height or raw.height,
            duration=raw.duration or video.duration,
            prompt=task.prompt,
            aspect_ratio=task.aspect_ratio,
            created_at=task.created_at.isoformat() if task.created_at else None,
        )

    def url(self, artifact: str) -> str | None:
        """Return the link of one artifact."""
        url: str | None = getattr(self, f"{artifact}_url")
        return url

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON primitives."""
        return msgspec.structs.asdict(self)


def check_artifacts(artifacts: Sequence[str]) -> None:
    """
    Check a list of artifact names.

    :raises LumaConfigError: when it isn't one.
    """
    right = f"right is a list of any of {', '.join(ARTIFACTS)}"
    if isinstance(artifacts, str) or not isinstance(artifacts, Sequence):
        raise LumaConfigError(f"artifacts is {artifacts!r}: {right}.")
    for artifact in artifacts:
        if artifact not in ARTIFACTS:
            raise LumaConfigError(f"artifacts holds {artifact!r}: {right}.")
