# SPDX-License-Identifier: Apache-2.0
"""Wait for videos that something else has submitted, and fetch their URLs: the smallest pipeline."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator
from airflow_provider_luma.sensors.luma import LumaTaskSensor

with DAG(
    "example_luma_wait",
    doc_md=__doc__,
    schedule=None,
    tags=["luma", "example"],
    params={
        "luma_task_ids": Param(
            ["4665a07c-7641-4809-a133-10786201bb56"],
            type="array",
            items={"type": "string"},
            description="Ids of the Luma tasks to wait for.",
        )
    },
) as dag:
    wait = LumaTaskSensor(
        task_id="wait", luma_task_ids="{{ params.luma_task_ids | tojson }}", deferrable=True
    )
    fetch = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=wait.output)

    @task
    def show(records: Any) -> None:
        for record in records:
            print(record["id"], record["video_url"])

    show(fetch.output)
