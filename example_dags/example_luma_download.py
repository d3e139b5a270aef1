# SPDX-License-Identifier: Apache-2.0
"""Submit prompts, wait without a worker, and keep videos and thumbnails in a local folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task

from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator
from airflow_provider_luma.operators.generate import LumaGenerateVideosOperator
from airflow_provider_luma.sensors.luma import LumaTaskSensor
from airflow_provider_luma.transfers.luma_to_object_storage import LumaToObjectStorageOperator

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", Path.home() / "airflow"))

with DAG(
    "example_luma_download",
    doc_md=__doc__,
    schedule=None,
    tags=["luma", "example"],
    params={
        "prompts": Param(
            ["a paper boat on a quiet lake at dawn", "a red fox in falling snow", "a city of glass at night"],
            type="array",
            items={"type": "string", "minLength": 3},
            description="One video is generated and billed for each.",
        ),
        "folder": Param(
            f"file://{AIRFLOW_HOME}/luma-videos",
            type="string",
            description="Where the files go: a local folder, or any object storage that Airflow knows.",
        ),
    },
) as dag:

    @task
    def requests() -> list[dict[str, str]]:
        return [{"prompt": prompt} for prompt in get_current_context()["params"]["prompts"]]

    submit = LumaGenerateVideosOperator(task_id="submit", requests=requests())
    wait = LumaTaskSensor(task_id="wait", luma_task_ids=submit.output, deferrable=True)
    fetch = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=wait.output)
    keep = LumaToObjectStorageOperator(
        task_id="keep",
        luma_task_ids=wait.output,
        destination="{{ params.folder }}/{{ run_id }}",
        artifacts=["video", "thumbnail"],
        retries=2,
    )

    @task
    def show(files: Any) -> None:
        for file in files:
            print(f"{file['path']}: {file['bytes']} bytes, SHA-256 {file['sha256']}")

    fetch >> keep
    show(keep.output)
