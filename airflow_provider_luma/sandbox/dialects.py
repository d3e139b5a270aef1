# SPDX-License-Identifier: Apache-2.0
"""The JSON of tasks in the two families of relays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import UNSET

from airflow_provider_luma.sandbox import media_host
from airflow_provider_luma.sandbox.media_host import FileName
from airflow_provider_luma.sandbox.tasks import Snapshot

MakeUrl = Callable[[str, FileName], str]

_PALETTE = {"grid": "em9csKqXYUgqdHVmmqeZLB8YaFpLjVw2bmFTTElBHhMNTzgodD8eVzUe"}
_STATUSES = {"processing": "IN_PROGRESS", "completed": "SUCCESS", "failed": "FAILURE"}


class Dialect(ABC):
    """Render the answers of one family of relays; ``epoch`` converts a reading of the relay's clock."""

    def __init__(self, url: MakeUrl, epoch: Callable[[float], float]) -> None:
        self._url = url
        self._epoch = epoch

    @abstractmethod
    def tasks(self, snapshots: Sequence[Snapshot]) -> object:
        """Return the answer of a batch query."""

    @abstractmethod
    def task(self, snapshot: Snapshot) -> object:
        """Return the answer of a single query, a submit or an extend."""

    @abstractmethod
    def value(self, value: object) -> object:
        """Return the answer of any other call."""


class Bare(Dialect):
    """Return a task as it is and a batch as an array of tasks."""

    def tasks(self, snapshots: Sequence[Snapshot]) -> object:
        return [self.task(snapshot) for snapshot in snapshots]

    def task(self, snapshot: Snapshot) -> object:
        script = snapshot.task.script
        if script.malformed is not UNSET:
            return _malformed(
                script.malformed, {"id": snapshot.task.id, "state": 7, "video": "none", "created_at": []}
            )
        artifacts = _artifacts(snapshot, self._url)
        body = {
            "artifact": {"created_at": "0001-01-01T00:00:00Z", **artifacts} if snapshot.has_video else None,
            "created_at": _iso(self._epoch(snapshot.task.created)),
            "id": snapshot.task.id,
            "request": snapshot.task.request,
            "state": snapshot.state,
            **artifacts,
        }
        if reason := _failure_reason(snapshot):
            body["failure_reason"] = reason
        return _merge(body, script.overrides)

    def value(self, value: object) -> object:
        return value


class Envelope(Dialect):
    """Put a task into the ``data`` of a numbered row, and every answer under ``code`` and ``message``."""

    def tasks(self, snapshots: Sequence[Snapshot]) -> object:
        rows = [self._row(snapshot) for snapshot in snapshots]
        return self.value(rows or None)

    def task(self, snapshot: Snapshot) -> object:
        return self.value(self._row(snapshot))

    def value(self, value: object) -> object:
        return {"code": "success", "message": "", "data": value}

    def _row(self, snapshot: Snapshot) -> object:
        task, phase = snapshot.task, snapshot.phase
        if task.script.malformed is not UNSET:
            default = {"id": "row", "task_id": task.id, "status": 5, "data": "none"}
            return _malformed(task.script.malformed, default)
        started = phase != "pending"
        terminal = phase in ("completed", "failed")
        video = self._url(task.id, "video.mp4") if snapshot.has_video else None
        row = {
            "id": task.number,
            "task_id": task.id,
            "platform": "luma",
            "action": "EXTEND" if task.parent else "GENERATE",
            "status": self._status(snapshot),
            "fail_reason": video or _failure_reason(snapshot) or "",
            "progress": self._progress(snapshot),
            "submit_time": int(self._epoch(task.created)),
            "start_time": int(self._epoch(task.created)) if started else 0,
            "finish_time": int(self._epoch(snapshot.since)) if terminal else 0,
            "data": self._inner(snapshot) if started else None,
        }
        return _merge(row, task.script.row_overrides)

    def _inner(self, snapshot: Snapshot) -> dict[str, Any]:
        artifacts = _artifacts(snapshot, self._url)
        video = artifacts["video"]
        if video is not None:
            video = {**video, "thumbnail": artifacts["thumbnail"]["url"]}
        del artifacts["thumbnail"]
        inner = {
            "id": snapshot.task.id,
            "state": snapshot.state,
            "created_at": int(self._epoch(snapshot.task.created)),
            "request": snapshot.task.request,
            **artifacts,
            "video": video,
        }
        if reason := _failure_reason(snapshot):
            inner["failure_reason"] = reason
        return _merge(inner, snapshot.task.script.overrides)

    @staticmethod
    def _status(snapshot: Snapshot) -> str:
        if snapshot.phase == "pending":
            # The first moments of a task, before the relay's own queue has it.
            return "NOT_START" if snapshot.now - snapshot.since < 1.0 else "SUBMITTED"
        return _STATUSES.get(snapshot.phase, snapshot.state)

    @staticmethod
    def _progress(snapshot: Snapshot) -> str:
        if snapshot.phase in ("completed", "failed"):
            return "100%"
        if snapshot.phase == "pending":
            return "0%"
        start = snapshot.since - snapshot.task.created
        ends = next((at for at, _ in snapshot.task.states if at > start), None)
        if ends is None:
            return "50%"
        return f"{int(99 * (snapshot.now - snapshot.since) / (ends - start))}%"


DIALECTS: dict[str, type[Dialect]] = {"bare": Bare, "envelope": Envelope}


def _artifacts(snapshot: Snapshot, url: MakeUrl) -> dict[str, Any]:
    if not snapshot.has_video:
        return dict.fromkeys(("last_frame", "thumbnail", "video", "video_raw"))
    task_id, size = snapshot.task.id, {"height": media_host.HEIGHT, "width": media_host.WIDTH}
    video = url(task_id, "video.mp4")
    image = {**size, "media_type": "image"}
    return {
        "last_frame": {**image, "palette": None, "url": url(task_id, "last_frame.jpg")},
        "thumbnail": {**image, "palette": _PALETTE, "url": url(task_id, "thumbnail.jpg")},
        "video": {**size, "download_url": video, "url": video},
        "video_raw": {**size, "duration": media_host.DURATION, "media_type": "video", "url": video},
    }


def _failure_reason(snapshot: Snapshot) -> str | None:
    if snapshot.phase != "failed":
        return None
    return snapshot.task.script.fails_with or "generation failed"


def _malformed(given: object, default: object) -> object:
    return default if given is True else given


def _merge(body: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return ``body`` with the fields of ``overrides`` in place of its own, also within objects."""
    for name, value in overrides.items():
        own = body.get(name)
        body[name] = _merge(dict(own), value) if isinstance(own, dict) and isinstance(value, dict) else value
    return body


def _iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
