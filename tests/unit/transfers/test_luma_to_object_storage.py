# SPDX-License-Identifier: Apache-2.0
"""Tests of the transfer operator that need no Airflow run."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath

from airflow_provider_luma.download.downloader import FileFailure
from airflow_provider_luma.exceptions import (
    LumaConfigError,
    LumaDownloadError,
    LumaMissingArtifactError,
)
from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator
from airflow_provider_luma.transfers.luma_to_object_storage import LumaToObjectStorageOperator


def operator(**arguments: Any) -> LumaToObjectStorageOperator:
    return LumaToObjectStorageOperator(
        **{"task_id": "keep", "luma_task_ids": ["task_1"], "destination": "s3://bucket/videos", **arguments}
    )


class TestConstruction:
    def test_the_defaults_suit_videos(self) -> None:
        keep = operator()

        assert (keep.artifacts, keep.file_name, keep.on_existing) == (
            ("video",),
            "{id}_{artifact}{ext}",
            "skip",
        )
        assert (keep.max_bytes, keep.file_timeout, keep.max_concurrency) == (2 * 1024**3, 3600, 8)
        assert keep.luma_conn_id == "luma_default"

    def test_ids_paths_names_and_connection_are_templated(self) -> None:
        assert LumaToObjectStorageOperator.template_fields == (
            "luma_task_ids",
            "destination",
            "file_name",
            "luma_conn_id",
        )

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("luma_task_ids", ["../../etc/passwd"]),
            ("luma_task_ids", None),
            ("destination", ""),
            ("destination", " s3://bucket"),
            ("destination", "videos"),
            ("destination", "../videos"),
            ("destination", None),
            ("destination", 7),
            ("artifacts", "video"),
            ("artifacts", ["clip"]),
            ("artifacts", []),
            ("file_name", "../{id}{ext}"),
            ("file_name", "{prompt}{ext}"),
            ("file_name", "video.mp4"),
            ("on_existing", "overwrite"),
            ("max_bytes", 0),
            ("max_bytes", "2 GiB"),
            ("file_timeout", -1),
            ("max_concurrency", 0),
        ],
    )
    def test_an_unusable_argument_is_refused_when_the_dag_is_parsed(self, argument: str, value: Any) -> None:
        with pytest.raises(LumaConfigError, match=argument):
            operator(**{argument: value})

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("luma_task_ids", "{{ params.ids }}"),
            ("destination", "{{ params.folder }}"),
            ("destination", "file://{{ params.folder }}/videos"),
            ("destination", "/data/videos"),
            ("file_name", "{{ ds }}/{id}{ext}"),
            ("file_name", "{{ var.value.name }}"),
        ],
    )
    def test_templates_are_checked_when_they_are_rendered(self, argument: str, value: str) -> None:
        assert getattr(operator(**{argument: value}), argument) == value

    def test_a_path_object_becomes_its_text(self) -> None:
        path = ObjectStoragePath("file:///data/videos")

        assert operator(destination=path).destination == str(path) == "file:///data/videos"

    def test_ids_and_destination_may_come_from_other_tasks(self) -> None:
        with DAG("dag", schedule=None):
            fetch = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=["task_1"])
            keep = operator(luma_task_ids=fetch.output, destination=fetch.output["folder"])  # type: ignore[index]

        assert keep.upstream_task_ids == {"fetch"}


class TestFailures:
    def failed(
        self, *errors: LumaDownloadError | LumaMissingArtifactError, complete: int = 0
    ) -> LumaDownloadError:
        failures = [FileFailure(f"task_{number}", "video", error) for number, error in enumerate(errors)]
        return operator()._failed(failures, complete)

    def test_all_are_named_and_the_others_are_counted(self) -> None:
        error = self.failed(
            LumaDownloadError("one broke.", retryable=False),
            LumaMissingArtifactError("two is missing.", retryable=False),
            complete=5,
        )

        assert "2 of 7. one broke; two is missing. " in str(error)
        assert "s3://bucket/videos: 5;" in str(error)
        assert error.task_ids == ("task_0", "task_1")
        assert not error.retryable

    def test_complete_files_are_mentioned_only_if_there_are_any(self) -> None:
        message = str(self.failed(LumaDownloadError("it broke.", retryable=True)))

        assert message.endswith("1 of 1. it broke.")
        assert "s3://bucket/videos" not in message

    def test_a_retry_can_help_if_it_can_help_one_of_them(self) -> None:
        assert self.failed(
            LumaDownloadError("one.", retryable=False), LumaDownloadError("two.", retryable=True)
        ).retryable

    def test_of_many_the_first_are_named(self) -> None:
        error = self.failed(*[LumaDownloadError(f"broke {n}.", retryable=True) for n in range(1000)])

        assert "broke 19 and 980 more." in str(error)
        assert "broke 20" not in str(error)


def test_parsing_a_dag_does_not_import_the_downloader() -> None:
    program = (
        "import sys, airflow_provider_luma.transfers.luma_to_object_storage;"
        "print([name for name in sys.modules if name.startswith('airflow_provider_luma.download')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == str(
        ["airflow_provider_luma.download", "airflow_provider_luma.download.options"]
    )
