# SPDX-License-Identifier: Apache-2.0
"""Test the transfer to a local S3 server: complete objects or none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from airflow_provider_luma.sandbox import LumaSandbox, faults
from airflow_provider_luma.sandbox.media_host import media_file
from airflow_provider_luma.transfers.luma_to_object_storage import LumaToObjectStorageOperator
from tests.support import dag_bags

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "example_luma_to_s3.py"
BUCKET = "luma-videos"
#: More than a part of a multipart upload.
LARGE = 20_000_000


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3FileSystem]:
    """Return the store with an empty bucket, behind ``aws_default``."""
    connection = {
        "conn_type": "aws",
        "login": "key",
        "password": "secret",
        "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    # Airflow caches stores by name, even one whose server has stopped.
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    s3 = S3FileSystem(key="key", secret="secret", endpoint_url=endpoint, skip_instance_cache=True)
    s3.mkdir(BUCKET)
    yield s3
    s3.rm(BUCKET, recursive=True)


@pytest.fixture
def dialect() -> str:
    return "bare"


@pytest.fixture
def keep(run_dag: Callable[..., Any], connected: LumaSandbox) -> Callable[..., Any]:
    def keep(ids: Any, **arguments: Any) -> Any:
        with DAG("transfer_s3", schedule=None) as dag:
            LumaToObjectStorageOperator(
                task_id="keep",
                luma_task_ids=ids,
                **{
                    "destination": f"s3://aws_default@{BUCKET}/videos",
                    "retry_delay": timedelta(0),
                    **arguments,
                },
            )
        return run_dag(dag)

    return keep


def objects(s3: S3FileSystem) -> list[str]:
    s3.invalidate_cache()
    return sorted(s3.find(BUCKET))


def unfinished_uploads(s3: S3FileSystem) -> list[str]:
    answer = s3.call_s3("list_multipart_uploads", Bucket=BUCKET)
    return [upload["Key"] for upload in answer.get("Uploads", [])]


def true_digest(task_id: str, size: int) -> str:
    file = media_file(task_id, "video.mp4", size)
    return hashlib.sha256(b"".join(bytes(piece) for piece in file.slices(0, size))).hexdigest()


@pytest.mark.parametrize("size", [1_000_000, LARGE], ids=["one part", "several parts"])
def test_files_become_objects(
    keep: Callable[..., Any], connected: LumaSandbox, s3: S3FileSystem, size: int
) -> None:
    ids = [connected.add_task(state="completed", video_bytes=size) for _ in range(3)]

    run = keep(ids, artifacts=["video", "thumbnail"])

    assert run.state == "success"
    assert len(objects(s3)) == 6
    for record in run.xcom("keep"):
        assert record["path"].startswith(f"s3://aws_default@{BUCKET}/videos/{record['id']}_")
        body = s3.cat_file(record["path"].replace("aws_default@", ""))
        assert (len(body), hashlib.sha256(body).hexdigest()) == (record["bytes"], record["sha256"])
        if record["artifact"] == "video":
            assert record["sha256"] == true_digest(record["id"], size)
    assert unfinished_uploads(s3) == []


@pytest.mark.parametrize("size", [1_000_000, LARGE], ids=["one part", "several parts"])
@pytest.mark.parametrize(
    "fault", [faults.truncated(0.9), faults.unframed(0.9), faults.ok_html()], ids=lambda fault: fault.name
)
def test_a_file_that_fails_leaves_no_object_and_no_upload(
    keep: Callable[..., Any], connected: LumaSandbox, s3: S3FileSystem, size: int, fault: faults.Fault
) -> None:
    task_id = connected.add_task(state="completed", video_bytes=size)
    connected.fail_next("media", fault)
    connected.fail_when("media", faults.media_error(410))

    assert keep([task_id]).state == "failed"

    assert objects(s3) == []
    assert unfinished_uploads(s3) == []


@pytest.mark.parametrize("size", [1_000_000, LARGE], ids=["one part", "several parts"])
def test_a_download_that_restarts_ends_in_one_complete_object(
    keep: Callable[..., Any], connected: LumaSandbox, s3: S3FileSystem, size: int
) -> None:
    task_id = connected.add_task(state="completed", video_bytes=size)
    connected.fail_next("media", faults.truncated(0.9))
    connected.fail_next("media", faults.changed_etag())

    [record] = keep([task_id]).xcom("keep")

    assert record["sha256"] == true_digest(task_id, size)
    assert hashlib.sha256(s3.cat_file(objects(s3)[0])).hexdigest() == record["sha256"]
    assert unfinished_uploads(s3) == []


@pytest.mark.parametrize("size", [1_000_000, LARGE], ids=["one part", "several parts"])
def test_a_store_that_fails_at_commit_keeps_the_existing_object(
    keep: Callable[..., Any],
    connected: LumaSandbox,
    s3: S3FileSystem,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
    log_text: Callable[[], str],
) -> None:
    task_id = connected.add_task(state="completed", video_bytes=size)
    key = f"{BUCKET}/videos/{task_id}_video.mp4"
    s3.pipe_file(key, b"what was there")
    call_s3 = S3FileSystem.call_s3

    def fail(self: S3FileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
        if method in ("complete_multipart_upload", "put_object"):
            raise PermissionError("the store does not like it")
        return call_s3(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "call_s3", fail)
    run = keep([task_id], on_existing="replace")
    monkeypatch.undo()

    assert run.state == "failed"
    assert "Can't commit" in log_text()
    assert s3.cat_file(key) == b"what was there"
    assert unfinished_uploads(s3) == []


def test_a_retry_skips_complete_objects(
    keep: Callable[..., Any], connected: LumaSandbox, s3: S3FileSystem
) -> None:
    ids = [connected.add_task(state="completed", video_bytes=1_000_000) for _ in range(3)]
    connected.fail_next("media", faults.ok_html(), skip=2)

    run = keep(ids, retries=1, max_concurrency=1)

    assert (run.state, run.task("keep").try_number) == ("success", 2)
    assert connected.count("media") == 4
    assert len(objects(s3)) == 3


def test_a_missing_bucket_is_named(
    keep: Callable[..., Any], connected: LumaSandbox, s3: S3FileSystem, log_text: Callable[[], str]
) -> None:
    run = keep([connected.add_task(state="completed")], destination="s3://aws_default@no-such-bucket/videos")

    assert run.state == "failed"
    assert "Can't commit s3://aws_default@no-such-bucket/videos/" in log_text()


def test_the_example_keeps_its_videos_in_s3(
    run_dag: Callable[..., Any], connected: LumaSandbox, s3: S3FileSystem
) -> None:
    task_id = connected.add_task(state="completed")
    dag = dag_bags.load(EXAMPLE).dags[EXAMPLE.stem]
    wait: Any = dag.task_dict["wait"]
    wait.poke_interval = 0.3

    run = run_dag(dag, run_conf={"luma_task_ids": [task_id]})

    assert run.state == "success"
    assert objects(s3) == [
        f"{BUCKET}/finished/{task_id}/last_frame.jpg",
        f"{BUCKET}/finished/{task_id}/thumbnail.jpg",
        f"{BUCKET}/finished/{task_id}/video.mp4",
    ]
    assert len(run.xcom("keep")) == 3
