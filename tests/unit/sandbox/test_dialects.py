# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import Any, cast

import pytest

from airflow_provider_luma.sandbox.dialects import DIALECTS
from airflow_provider_luma.sandbox.relay import Relay
from airflow_provider_luma.sandbox.settings import Settings
from airflow_provider_luma.sandbox.tasks import TaskScript

_IMAGE = {"height": int, "media_type": str, "palette": object, "url": str, "width": int}
_VIDEO = {"download_url": str, "height": int, "url": str, "width": int}
_VIDEO_RAW = {"duration": float, "height": int, "media_type": str, "url": str, "width": int}
_MEDIA = {"last_frame": _IMAGE, "thumbnail": _IMAGE, "video": _VIDEO, "video_raw": _VIDEO_RAW}
# The shape of a completed task as the relay's own documentation shows it.
COMPLETED = {
    "artifact": {"created_at": str, **_MEDIA},
    "created_at": str,
    "id": str,
    "request": {"aspect_ratio": str, "prompt": str},
    "state": str,
    **_MEDIA,
}


def fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, dict):
        return value.keys() == shape.keys() and all(fits(value[name], shape[name]) for name in shape)
    return isinstance(value, shape)


class Rendered:
    """A relay with a clock of its own, and its answer for its one task."""

    def __init__(self, dialect: str, **script: Any) -> None:
        self.now = 0.0
        self.relay = Relay(Settings(), clock=lambda: self.now, wall=lambda: 1_734_874_720.139)
        self.dialect = DIALECTS[dialect](lambda task_id, name: f"http://h/{task_id}/{name}", self.relay.epoch)
        (self.id,) = self.relay.add([TaskScript(**script)])

    def batch(self, *ids: str) -> Any:
        return self.dialect.tasks(self.relay.query(ids or (self.id,)))


class TestBare:
    def test_a_completed_task_has_exactly_the_documented_shape(self) -> None:
        (task,) = Rendered("bare", id="one", state="completed").batch()
        assert fits(task, COMPLETED)
        assert task["artifact"]["created_at"] == "0001-01-01T00:00:00Z"
        assert task["created_at"] == "2024-12-22T13:38:40.139Z"
        assert task["video"]["download_url"] == "http://h/one/video.mp4"
        assert task["last_frame"]["palette"] is None
        assert isinstance(task["thumbnail"]["palette"]["grid"], str)

    @pytest.mark.parametrize("state", ["pending", "processing", "failed", "paused"])
    def test_before_completion_there_are_no_artifacts(self, state: str) -> None:
        (task,) = Rendered("bare", state=state).batch()
        assert [task[name] for name in ("artifact", "video", "video_raw", "thumbnail", "last_frame")] == [
            None
        ] * 5
        assert task["state"] == state

    def test_a_failed_task_has_a_reason(self) -> None:
        (task,) = Rendered("bare", state="failed", fails_with="moderated").batch()
        assert task["failure_reason"] == "moderated"

    def test_nothing_found_is_an_empty_array(self) -> None:
        assert Rendered("bare").batch("unknown") == []

    def test_overrides_go_as_deep_as_they_are_given(self) -> None:
        (task,) = Rendered(
            "bare", state="completed", overrides={"video": {"download_url": ""}, "thumbnail": None, "new": 1}
        ).batch()
        assert (task["video"]["download_url"], task["thumbnail"], task["new"]) == ("", None, 1)
        assert task["video"]["url"]

    @pytest.mark.parametrize("value", [5, None, "text", [], {"id": 3}])
    def test_a_malformed_task_is_the_scripted_value(self, value: object) -> None:
        assert Rendered("bare", malformed=value).batch() == [value]

    def test_a_malformed_task_keeps_its_id_by_default(self) -> None:
        rendered = Rendered("bare", malformed=True)
        (task,) = rendered.batch()
        assert task["id"] == rendered.id
        assert not isinstance(task["state"], str)

    @pytest.mark.parametrize("state", ["succeeded", "COMPLETED"])
    def test_another_word_for_completed_has_artifacts_too(self, state: str) -> None:
        (task,) = Rendered("bare", state=state).batch()
        assert task["state"] == state
        assert task["video"]


class TestEnvelope:
    def row(self, **script: Any) -> dict[str, Any]:
        answer = Rendered("envelope", **script).batch()
        assert (answer["code"], answer["message"]) == ("success", "")
        return cast("dict[str, Any]", answer["data"][0])

    def test_a_row_is_numbered_and_names_its_task_apart(self) -> None:
        row = self.row(id="one", state="completed")
        assert isinstance(row["id"], int)
        assert (row["task_id"], row["data"]["id"], row["platform"]) == ("one", "one", "luma")

    @pytest.mark.parametrize(
        ("state", "status"),
        [
            ("processing", "IN_PROGRESS"),
            ("completed", "SUCCESS"),
            ("failed", "FAILURE"),
            ("paused", "paused"),
        ],
    )
    def test_the_status_is_in_the_row_and_the_state_in_the_task(self, state: str, status: str) -> None:
        row = self.row(state=state)
        assert (row["status"], row["data"]["state"]) == (status, state)

    def test_before_its_start_a_task_is_only_a_row(self) -> None:
        rendered = Rendered("envelope", state="pending")
        first = rendered.batch()["data"][0]
        rendered.now = 1.5
        then = rendered.batch()["data"][0]
        assert (first["status"], then["status"]) == ("NOT_START", "SUBMITTED")
        assert first["data"] is then["data"] is None
        assert (first["progress"], first["start_time"], first["finish_time"]) == ("0%", 0, 0)

    def test_progress_grows_to_a_hundred_percent(self) -> None:
        rendered = Rendered("envelope")
        seen = []
        for moment in (0, 2, 4, 6, 7.9, 8):
            rendered.now = moment
            seen.append(rendered.batch()["data"][0]["progress"])
        assert all(re.fullmatch(r"\d+%", progress) for progress in seen)
        numbers = [int(progress[:-1]) for progress in seen]
        assert numbers == sorted(numbers)
        assert (numbers[0], numbers[-1]) == (0, 100)
        assert 0 < numbers[2] < 100

    def test_success_carries_the_video_in_fail_reason(self) -> None:
        row = self.row(id="one", state="completed")
        assert row["fail_reason"] == "http://h/one/video.mp4"
        assert "failure_reason" not in row["data"]

    def test_a_failure_has_its_reason_in_row_and_task(self) -> None:
        row = self.row(state="failed", fails_with="moderated")
        assert row["fail_reason"] == row["data"]["failure_reason"] == "moderated"

    def test_the_thumbnail_is_a_text_inside_the_video(self) -> None:
        task = self.row(id="one", state="completed")["data"]
        assert task["video"]["thumbnail"] == "http://h/one/thumbnail.jpg"
        assert "thumbnail" not in task

    def test_times_are_epoch_integers(self) -> None:
        row = self.row(state="completed")
        assert row["submit_time"] == row["finish_time"] == row["data"]["created_at"] == 1_734_874_720

    def test_nothing_found_is_null(self) -> None:
        assert Rendered("envelope").batch("unknown") == {"code": "success", "message": "", "data": None}

    def test_row_and_task_can_be_overridden_apart(self) -> None:
        row = self.row(state="completed", row_overrides={"status": None}, overrides={"state": None})
        assert (row["status"], row["data"]["state"]) == (None, None)

    def test_a_malformed_row_keeps_its_task_id_by_default(self) -> None:
        assert self.row(id="one", malformed=True)["task_id"] == "one"
