# SPDX-License-Identifier: Apache-2.0
"""Submit a video, extend it, and fetch the URLs of both."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator
from airflow_provider_luma.operators.generate import LumaExtendVideoOperator, LumaGenerateVideoOperator

with DAG(
    "example_luma_extend",
    doc_md=__doc__,
    schedule=None,
    tags=["luma", "example"],
    params={
        "prompt": Param("a red fox in falling snow", type="string", minLength=3),
        "continuation": Param(
            "the fox looks up and runs into the forest",
            type="string",
            minLength=3,
            description="Both the video and its continuation are generated and billed.",
        ),
    },
    default_args={"retries": 3},
) as dag:
    submit = LumaGenerateVideoOperator(
        task_id="submit", prompt="{{ params.prompt }}", wait_for_completion=True, deferrable=True
    )
    extend = LumaExtendVideoOperator(
        task_id="extend",
        luma_task_id="{{ ti.xcom_pull('submit')['id'] }}",
        prompt="{{ params.continuation }}",
        wait_for_completion=True,
        deferrable=True,
    )
    fetch = LumaFetchArtifactsOperator(
        task_id="fetch",
        luma_task_ids=["{{ ti.xcom_pull('submit')['id'] }}", "{{ ti.xcom_pull('extend')['id'] }}"],
    )

    @task
    def show(records: Any) -> None:
        for record in records:
            print(record["prompt"], record["video_url"])

    submit >> extend >> fetch
    show(fetch.output)
