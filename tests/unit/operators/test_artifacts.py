# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath

from airflow_provider_luma.client import LumaTask, Media, TaskState
from airflow_provider_luma.exceptions import LumaConfigError, LumaMissingArtifactError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator

VIDEO = Media(url="https://cdn.test/video.mp4", width=1360, height=752, duration=5.0)
FRAME = Media(url="https://cdn.test/frame.jpg")


class Relay:
    """Return these tasks."""

    def __init__(self, *tasks: LumaTask) -> None:
        self.tasks = {task.id: task for task in tasks}

    def get_tasks(self, ids: list[str]) -> dict[str, LumaTask]:
        return {task_id: self.tasks[task_id] for task_id in ids if task_id in self.tasks}


class Context(dict[str, Any]):
    """A context that keeps the XComs that are pushed."""

    def __init__(self) -> None:
        super().__init__(ti=self)
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Any:
    def fetch(ids: Any, *tasks: LumaTask, context: Context | None = None, **arguments: Any) -> Any:
        monkeypatch.setattr(LumaHook, "client", Relay(*tasks))
        operator = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=ids, **arguments)
        return operator.execute(context or Context())  # type: ignore[arg-type]

    return fetch


class TestArguments:
    def test_defaults(self) -> None:
        operator = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=["a"])

        assert operator.artifacts == ("video",)
        assert operator.manifest_path is None
        assert operator.luma_conn_id == "luma_default"
        assert set(operator.template_fields) == {"luma_task_ids", "luma_conn_id", "manifest_path"}

    @pytest.mark.parametrize("ids", [["no id!"], "a,b", None, 7, {"a": 1}])
    def test_ids_that_can_not_be_are_refused_where_they_are_written(self, ids: Any) -> None:
        with pytest.raises(LumaConfigError, match="luma_task_ids"):
            LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=ids)

    @pytest.mark.parametrize("artifacts", ["video", ["clip"], [None], 7, None, [["video"]]])
    def test_unknown_artifacts_are_refused_with_what_is_right(self, artifacts: Any) -> None:
        with pytest.raises(
            LumaConfigError, match=r"artifacts .* any of video, video_raw, thumbnail, last_frame"
        ):
            LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=["a"], artifacts=artifacts)

    @pytest.mark.parametrize("artifacts", [[], ("video",), ["video", "video_raw", "thumbnail", "last_frame"]])
    def test_known_artifacts_are_taken(self, artifacts: Any) -> None:
        LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=["a"], artifacts=artifacts)

    def test_a_path_object_is_kept_as_text_that_can_be_rendered(self) -> None:
        path = ObjectStoragePath("file:///a/run.jsonl")

        operator = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=["a"], manifest_path=path)

        assert operator.manifest_path == str(path)


class TestExecute:
    def test_one_record_per_id_in_their_order(self, fetch: Any) -> None:
        context = Context()
        tasks = [LumaTask(id=name, state=TaskState.COMPLETED, video=VIDEO) for name in "ab"]

        records = fetch(["b", "a", "b"], *tasks, context=context)

        assert [record["id"] for record in records] == ["b", "a"]
        assert records[0]["video_url"] == VIDEO.url
        assert (records[0]["width"], records[0]["height"], records[0]["duration"]) == (1360, 752, 5.0)
        assert context.xcoms == {"video_urls": [VIDEO.url] * 2}

    def test_a_text_of_a_list_is_a_list(self, fetch: Any) -> None:
        task = LumaTask(id="a", state=TaskState.COMPLETED, video=VIDEO)

        assert [record["id"] for record in fetch("['a']", task)] == ["a"]


class TestMissing:
    @pytest.mark.parametrize(
        ("task", "lack"),
        [
            (None, "a: the relay doesn't know this id"),
            (
                LumaTask(id="a", state=TaskState.FAILED, failure_reason="moderated"),
                "a: failed (moderated), no video",
            ),
        ],
        ids=["unknown", "failed"],
    )
    def test_what_can_not_come_any_more_is_final(self, fetch: Any, task: LumaTask | None, lack: str) -> None:
        with pytest.raises(AirflowFailException) as caught:
            fetch(["a"], *([task] if task else []))

        assert lack in str(caught.value)
        assert isinstance(caught.value.__cause__, LumaMissingArtifactError)
        assert caught.value.__cause__.task_ids == ("a",)

    @pytest.mark.parametrize(
        ("task", "lack"),
        [
            (LumaTask(id="a", state=TaskState.PROCESSING), "a: processing, no video"),
            (LumaTask(id="a", state=TaskState.COMPLETED, last_frame=FRAME), "a: completed, no video"),
            (LumaTask(id="a", state=TaskState.UNKNOWN, problem="illegible"), "a: illegible"),
        ],
        ids=["unfinished", "late", "illegible"],
    )
    def test_what_can_still_come_may_be_retried(self, fetch: Any, task: LumaTask, lack: str) -> None:
        with pytest.raises(LumaMissingArtifactError) as caught:
            fetch(["a"], task)

        assert lack in str(caught.value)
        assert caught.value.retryable

    def test_every_missing_artifact_is_named(self, fetch: Any) -> None:
        task = LumaTask(id="a", state=TaskState.COMPLETED, video=VIDEO)

        with pytest.raises(LumaMissingArtifactError, match="a: completed, no thumbnail and no last_frame"):
            fetch(["a"], task, artifacts=["video", "thumbnail", "last_frame"])
