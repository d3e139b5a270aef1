# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_luma.client import LumaTask, Media, TaskState, decode_tasks
from airflow_provider_luma.client.artifacts import (
    ARTIFACTS,
    ArtifactRecord,
    artifact_urls,
    missing_artifacts,
)


def record(**fields: Any) -> ArtifactRecord:
    return ArtifactRecord.of(LumaTask("t1", TaskState.COMPLETED, **fields))


def test_the_record_of_the_seed_has_every_field(seed_task: dict[str, Any]) -> None:
    [task] = decode_tasks(json.dumps([seed_task]).encode())
    assert ArtifactRecord.of(task).to_dict() == {
        "id": seed_task["id"],
        "video_url": seed_task["video"]["download_url"],
        "video_raw_url": seed_task["video_raw"]["url"],
        "thumbnail_url": seed_task["thumbnail"]["url"],
        "last_frame_url": seed_task["last_frame"]["url"],
        "width": 1360,
        "height": 752,
        "duration": 5.04,
        "prompt": "cat dance",
        "aspect_ratio": "16:9",
        "created_at": "2024-12-22T13:38:40.139000+00:00",
    }


def test_what_the_relay_does_not_tell_is_none() -> None:
    assert record().to_dict() == {"id": "t1"} | dict.fromkeys(list(record().to_dict())[1:])


def test_a_record_is_json() -> None:
    found = record(created_at=datetime(2024, 12, 22, tzinfo=UTC), video=Media(url="https://cdn.test/v"))
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_size_and_duration_come_from_whichever_video_tells_them() -> None:
    found = record(video=Media(url="u", duration=5), video_raw=Media(url="u", width=4, height=3))
    assert (found.width, found.height, found.duration) == (4, 3, 5)


@pytest.mark.parametrize("name", ARTIFACTS)
def test_each_artifact_has_its_link(name: str) -> None:
    found = record(**{name: Media(url=f"https://cdn.test/{name}")})
    assert found.to_dict()[f"{name}_url"] == f"https://cdn.test/{name}"


def test_the_thumbnail_inside_the_video_counts() -> None:
    [task] = decode_tasks(b'[{"id": "t1", "video": {"url": "https://c/v", "thumbnail": "https://c/t"}}]')
    assert ArtifactRecord.of(task).thumbnail_url == "https://c/t"


class TestMissingArtifacts:
    @pytest.mark.parametrize(
        ("task", "reason", "retryable"),
        [
            (None, "doesn't know this id", False),
            (
                LumaTask("t1", TaskState.FAILED, failure_reason="moderated"),
                "failed (moderated), no video",
                False,
            ),
            (LumaTask("t1", TaskState.PROCESSING), "processing, no video", True),
            (LumaTask("t1", TaskState.COMPLETED), "completed, no video", True),
            (LumaTask("t1", TaskState.UNKNOWN, problem="illegible"), "illegible", True),
        ],
        ids=["unknown", "failed", "unfinished", "late", "illegible"],
    )
    def test_the_reason_decides_whether_a_retry_can_help(
        self, task: LumaTask | None, reason: str, retryable: bool
    ) -> None:
        missing = missing_artifacts(task, ["video"])
        assert missing is not None
        assert reason in missing.reason
        assert missing.retryable is retryable

    def test_a_task_with_every_wanted_artifact_lacks_none(self) -> None:
        task = LumaTask("t1", TaskState.COMPLETED, video=Media(url="https://cdn.test/v"))
        assert missing_artifacts(task, ["video"]) is None
        assert missing_artifacts(task, []) is None
        assert artifact_urls(task, "video") == ("https://cdn.test/v",)

    def test_each_missing_artifact_is_named(self) -> None:
        missing = missing_artifacts(LumaTask("t1", TaskState.COMPLETED), ["thumbnail", "last_frame"])
        assert missing is not None
        assert missing.reason == "completed, no thumbnail and no last_frame"
