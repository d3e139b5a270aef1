# SPDX-License-Identifier: Apache-2.0
"""Test LumaToObjectStorageOperator in Dag runs: what it returns, remembers, logs and leaves behind."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias, ObjectStoragePath, task

from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator
from airflow_provider_luma.sandbox import LumaSandbox, faults
from airflow_provider_luma.sandbox.media_host import media_file
from airflow_provider_luma.transfers.luma_to_object_storage import LumaToObjectStorageOperator
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS
from tests.support import dag_bags
from tests.support.patience import end_execution_timeout

SIZE = 1_000_000
EXAMPLE = Path(__file__).parents[2] / "example_dags" / "example_luma_download.py"


@pytest.fixture
def dialect() -> str:
    return "bare"


@pytest.fixture
def sandbox(dialect: str) -> Iterator[LumaSandbox]:
    with LumaSandbox(dialect=dialect, video_bytes=SIZE) as sandbox:
        yield sandbox


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "videos"


@pytest.fixture
def keep(run_dag: Callable[..., Any], connected: LumaSandbox, folder: Path) -> Callable[..., Any]:
    """Run a Dag of one transfer."""

    def keep(ids: Any, **arguments: Any) -> Any:
        run_arguments = arguments.pop("run_arguments", {})
        with DAG("transfer", schedule=None) as dag:
            LumaToObjectStorageOperator(
                task_id="keep",
                luma_task_ids=ids,
                **{"destination": f"file://{folder}", "retry_delay": timedelta(0), **arguments},
            )
        return run_dag(dag, **run_arguments)

    return keep


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def true_bytes(task_id: str) -> bytes:
    return b"".join(bytes(piece) for piece in media_file(task_id, "video.mp4", SIZE).slices(0, SIZE))


def asset_events() -> list[tuple[str, dict[str, Any]]]:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = session.scalars(select(AssetEvent).order_by(AssetEvent.id)).all()
        return [(event.asset.uri, event.extra) for event in events]


@pytest.mark.parametrize("dialect", ["bare", "envelope"])
@pytest.mark.every_airflow
def test_it_returns_a_record_for_each_file_in_the_order_of_ids_and_artifacts(
    keep: Callable[..., Any], connected: LumaSandbox, folder: Path
) -> None:
    ids = [connected.add_task(state="completed") for _ in range(3)]

    run = keep(ids, artifacts=["video", "thumbnail"])

    records = run.xcom("keep")
    assert [(record["id"], record["artifact"]) for record in records] == [
        (task_id, artifact) for task_id in ids for artifact in ("video", "thumbnail")
    ]
    for record in records:
        extension, content_type = {
            "video": (".mp4", "video/mp4"),
            "thumbnail": (".jpg", "image/jpeg"),
        }[record["artifact"]]
        assert record["path"] == f"file://{folder}/{record['id']}_{record['artifact']}{extension}"
        body = ObjectStoragePath(record["path"]).read_bytes()
        assert (record["bytes"], record["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert record["content_type"] == content_type
        assert record["seconds"] > 0
        assert set(record) == {"id", "artifact", "path", "bytes", "sha256", "content_type", "seconds"}
    assert len(names(folder)) == 6


def test_ids_and_paths_may_be_templates_and_references(
    run_dag: Callable[..., Any], connected: LumaSandbox, folder: Path
) -> None:
    ids = [connected.add_task(state="completed") for _ in range(2)]
    with DAG("transfer", schedule=None, params={"folder": str(folder)}) as dag:

        @task
        def find() -> list[str]:
            return ids

        LumaToObjectStorageOperator(
            task_id="keep",
            luma_task_ids=find(),
            destination="file://{{ params.folder }}/{{ dag.dag_id }}",
            file_name="{{ task.task_id }}-{id}{ext}",
        )

    assert run_dag(dag).state == "success"
    assert names(folder) == sorted(f"transfer/keep-{task_id}.mp4" for task_id in ids)


def test_it_can_be_mapped(run_dag: Callable[..., Any], connected: LumaSandbox, folder: Path) -> None:
    ids = [connected.add_task(state="completed") for _ in range(2)]
    with DAG("transfer", schedule=None) as dag:
        fetch = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=ids)
        LumaToObjectStorageOperator.partial(
            task_id="keep", destination=ObjectStoragePath(f"file://{folder}")
        ).expand(luma_task_ids=fetch.output.map(lambda record: record["id"]))

    run = run_dag(dag)

    assert [run.xcom("keep", map_index=index)[0]["id"] for index in range(2)] == ids


def test_no_ids_are_no_error(keep: Callable[..., Any], connected: LumaSandbox) -> None:
    run = keep([])

    assert (run.state, run.xcom("keep")) == ("success", [])
    assert connected.calls == []


def test_each_file_is_logged_in_one_line(
    keep: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
) -> None:
    ids = [connected.add_task(state="completed") for _ in range(3)]

    keep(ids)

    text = log_text()
    for task_id in ids:
        lines = {line for line in text.splitlines() if f"{task_id}_video.mp4: " in line}
        assert len(lines) >= 1
        assert all("1.0 MiB, downloaded in" in line for line in lines)
    assert "?exp=" not in text


class TestRetries:
    @pytest.mark.every_airflow
    def test_a_retry_downloads_only_what_is_missing(
        self, keep: Callable[..., Any], connected: LumaSandbox, folder: Path
    ) -> None:
        ids = [connected.add_task(state="completed") for _ in range(4)]
        connected.fail_next("media", faults.ok_html(), skip=2)

        run = keep(ids, retries=1, max_concurrency=1)

        assert run.task("keep").try_number == 2
        assert [record["id"] for record in run.xcom("keep")] == ids
        assert len(names(folder)) == 4
        calls = [call for call in connected.calls if call.name == "media"]
        whole = [call for call in calls if "range" not in call.headers]
        assert len(whole) == 5
        if AIRFLOW_V_3_3_PLUS:
            # Files that the first try has recorded need no request.
            assert len(calls) == 5
        else:
            # Without a store, each of the three existing files is compared with its host.
            assert len(calls) == 8

    def test_a_file_that_was_damaged_between_the_tries_is_downloaded_again(
        self, keep: Callable[..., Any], connected: LumaSandbox, folder: Path
    ) -> None:
        good, late = connected.add_task(state="completed"), connected.add_task(state="completed")
        path = folder / f"{good}_video.mp4"

        def damage(call: Any) -> bool:
            body = path.read_bytes()
            path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
            return True

        connected.fail_when("media", faults.media_error(403), damage, ids=[late], times=1)
        connected.fail_when("media", faults.media_error(403), ids=[late], times=1)

        run = keep([good, late], retries=1, max_concurrency=1)

        assert run.task("keep").try_number == 2
        for record in run.xcom("keep"):
            assert (
                hashlib.sha256(ObjectStoragePath(record["path"]).read_bytes()).hexdigest() == record["sha256"]
            )
        expected = hashlib.sha256(true_bytes(good)).hexdigest()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == expected

    @pytest.mark.parametrize("on_existing", ["fail", "replace"])
    def test_files_of_the_previous_try_are_kept(
        self, keep: Callable[..., Any], connected: LumaSandbox, on_existing: str
    ) -> None:
        ids = [connected.add_task(state="completed") for _ in range(3)]
        connected.fail_next("media", faults.ok_html(), skip=1)

        run = keep(ids, on_existing=on_existing, retries=1, max_concurrency=1)

        assert (run.state, run.task("keep").try_number) == ("success", 2)
        assert connected.count("media") == 4

    def test_a_failure_that_no_retry_can_fix_is_final(
        self, keep: Callable[..., Any], connected: LumaSandbox, folder: Path, log_text: Callable[[], str]
    ) -> None:
        good, large = (
            connected.add_task(state="completed"),
            connected.add_task(state="completed", video_bytes=2 * SIZE),
        )

        run = keep([large, good], retries=3, max_bytes=SIZE)

        assert (run.state, run.task("keep").try_number) == ("failed", 1)
        assert names(folder) == [f"{good}_video.mp4"]
        assert "could not be downloaded: 1 of 2" in log_text()

    def test_an_unwanted_existing_file_is_a_final_failure(
        self, keep: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        task_id = connected.add_task(state="completed")
        keep([task_id])

        run = keep([task_id], on_existing="fail", retries=2)

        assert (run.state, run.task("keep").try_number) == ("failed", 1)
        assert "exist: 1 of 1" in log_text()


class TestOutlets:
    @pytest.mark.every_airflow
    def test_an_asset_event_carries_the_records(
        self, keep: Callable[..., Any], connected: LumaSandbox, folder: Path
    ) -> None:
        before = len(asset_events())
        ids = [connected.add_task(state="completed") for _ in range(2)]

        run = keep(ids, outlets=[Asset(name=f"{folder}", uri=f"file://{folder}/as-asset")])

        [(uri, extra)] = asset_events()[before:]
        assert uri == f"file://{folder}/as-asset"
        assert extra["files"] == run.xcom("keep")

    def test_an_alias_gets_the_destination(
        self, keep: Callable[..., Any], connected: LumaSandbox, folder: Path
    ) -> None:
        before = len(asset_events())

        run = keep([connected.add_task(state="completed")], outlets=[AssetAlias("videos")])

        [(uri, extra)] = asset_events()[before:]
        assert uri == f"file://{folder}"
        assert extra["files"] == run.xcom("keep")

    def test_a_failed_task_emits_no_asset_event(
        self, keep: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        before = len(asset_events())
        connected.fail_when("media", faults.media_error(404))

        run = keep([connected.add_task(state="completed")], outlets=[Asset("videos")])

        assert run.state == "failed"
        assert asset_events()[before:] == []


class TestInterrupting:
    def test_a_kill_stops_the_downloads_and_leaves_nothing(
        self, keep: Callable[..., Any], connected: LumaSandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [connected.add_task(state="completed") for _ in range(3)]
        operators: list[LumaToObjectStorageOperator] = []
        execute = LumaToObjectStorageOperator.execute

        def remember(self: LumaToObjectStorageOperator, context: Any) -> Any:
            operators.append(self)
            return execute(self, context)

        monkeypatch.setattr(LumaToObjectStorageOperator, "execute", remember)

        def kill(call: Any) -> bool:
            operators[0].on_kill()
            return True

        connected.fail_when("media", faults.stall(), kill)

        run = keep(ids)

        assert run.state == "failed"
        assert names(folder) == []
        assert not [one for one in threading.enumerate() if one.name.startswith("luma-download")]

    def test_the_tasks_execution_timeout_does_too(
        self, keep: Callable[..., Any], connected: LumaSandbox, folder: Path
    ) -> None:
        connected.fail_when("media", faults.stall(), lambda call: end_execution_timeout())

        run = keep([connected.add_task(state="completed")], execution_timeout=timedelta(hours=1))

        assert run.state == "failed"
        assert names(folder) == []
        assert not [one for one in threading.enumerate() if one.name.startswith("luma-download")]


def test_a_store_that_airflow_has_no_provider_for_is_named(
    keep: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
) -> None:
    run = keep([connected.add_task(state="completed")], destination="nosuch://bucket/videos", retries=1)

    assert (run.state, run.task("keep").try_number) == ("failed", 1)
    assert "got 'nosuch://bucket/videos'" in log_text()


def test_a_host_of_the_private_network_must_be_allowed_in_the_connection(
    keep: Callable[..., Any],
    connected: LumaSandbox,
    connect: Callable[..., None],
    log_text: Callable[[], str],
) -> None:
    url = f"{connected.root_url}/media/task-1/video.mp4".replace("127.0.0.1", "localhost")
    media = {"url": url, "download_url": url}
    videos = {"video": media, "video_raw": media}
    task_id = connected.add_task(state="completed", overrides={**videos, "data": videos})
    served_id = connected.add_task("task-1", state="completed")

    refused = keep([task_id], retries=1)
    connect(connected.base_url, connected.api_key, allowed_artifact_hosts="localhost")
    allowed = keep([task_id])

    assert served_id == "task-1"
    assert (refused.state, refused.task("keep").try_number) == ("failed", 1)
    assert "allowed_artifact_hosts" in log_text()
    assert allowed.state == "success"


def test_hundreds_of_tasks_are_downloaded_with_few_urls_at_a_time(
    keep: Callable[..., Any], connected: LumaSandbox, folder: Path
) -> None:
    from airflow_provider_luma.sandbox import TaskScript

    ids = connected.add_tasks([TaskScript(state="completed", video_bytes=150_000)] * 300)

    run = keep(ids, artifacts=["video", "thumbnail"])

    assert run.state == "success"
    assert len(names(folder)) == 600
    assert len(run.xcom("keep")) == 600
    assert max(len(call.ids) for call in connected.calls if call.name == "batch") == 16
    assert len(json.dumps(run.xcom("keep"))) < 300_000


def test_the_artifact_host_receives_no_key_and_no_cookie(
    run_dag: Callable[..., Any], connected: LumaSandbox, folder: Path
) -> None:
    connected.fail_next("media", faults.media_error(403))
    connected.fail_next("media", faults.truncated(0.5))
    connected.fail_next("media", faults.redirect("?again"))
    dag = dag_bags.load(EXAMPLE).dags[EXAMPLE.stem]
    wait: Any = dag.task_dict["wait"]
    wait.poke_interval = 0.3

    run = run_dag(
        dag, run_conf={"prompts": ["a first video", "a second video"], "folder": f"file://{folder}"}
    )

    assert run.state == "success"
    assert len(names(folder)) == 4
    seen = [call.headers for call in connected.calls if call.name == "media"]
    assert len(seen) == 7
    for headers in seen:
        assert set(headers) <= {"host", "user-agent", "accept", "accept-encoding", "range", "if-range"}
        assert connected.api_key not in str(headers)
