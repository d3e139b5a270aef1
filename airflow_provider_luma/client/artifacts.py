# SPDX-License-Identifier: Apache-2.0
"""The artifacts of a task: their URLs, why one is missing, and the flat record for the next task of a Dag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from airflow_provider_luma.client.models import LumaTask, Media, TaskState
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.text import clean_text
from airflow_provider_luma.validation import shown

Artifact = Literal["video", "video_raw", "thumbnail", "last_frame"]
"""The files of a task: ``video`` is the preferred one of the completed video."""

ARTIFACTS: Final[tuple[str, ...]] = get_args(Artifact)


def artifact_urls(task: LumaTask | None, artifact: str) -> tuple[str, ...]:
    """Return every URL of one of a task's files, the preferred one first; ``None`` has no URL."""
    if task is None:
        return ()
    if artifact == "video":
        return task.video_urls
    media = getattr(task, artifact) or Media()
    return tuple(dict.fromkeys(url for url in (media.download_url, media.url) if url))


class MissingArtifacts(msgspec.Struct, frozen=True):
    """
    Why a task lacks artifacts that are wanted.

    :param reason: Which ones are missing and why, as the end of a sentence.
    :param retryable: Whether they may exist later.
    """

    reason: str
    retryable: bool


def missing_artifacts(task: LumaTask | None, artifacts: Sequence[str]) -> MissingArtifacts | None:
    """Explain which artifacts a task (``None``: unknown to the relay) lacks; ``None`` if it has them all."""
    if task is None:
        return MissingArtifacts("the relay doesn't know this id", retryable=False)
    if task.problem is not None:
        return MissingArtifacts(task.problem, retryable=True)
    missing = [artifact for artifact in artifacts if not artifact_urls(task, artifact)]
    if not missing:
        return None
    reason = f" ({clean_text(task.failure_reason)})" if task.failure_reason else ""
    return MissingArtifacts(
        f"{task.state}{reason}, no {' and no '.join(missing)}", retryable=task.state is not TaskState.FAILED
    )


class ArtifactRecord(msgspec.Struct, frozen=True):
    """
    One task's files. Sizes are pixels, ``duration`` is seconds, ``created_at`` is ISO 8601 in UTC.

    A field is ``None`` when the relay's answer lacks it. URLs expire, often within the hour.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON primitives."""
        return msgspec.structs.asdict(self)


def check_artifacts(artifacts: Sequence[str]) -> None:
    """Raise ``LumaConfigError`` for anything but a list of artifact names."""
    is_list = isinstance(artifacts, Sequence) and not isinstance(artifacts, str)
    if not is_list or any(artifact not in ARTIFACTS for artifact in artifacts):
        raise LumaConfigError(
            f"artifacts must be a list of any of {', '.join(ARTIFACTS)}; got {shown(artifacts)}."
        )
