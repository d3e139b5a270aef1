# SPDX-License-Identifier: Apache-2.0
"""Submit one video at most once, wait for it without a worker, and return its URLs, all in one task."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_luma.operators.generate import LumaGenerateVideoOperator

with DAG(
    "example_luma_generate",
    doc_md=__doc__,
    schedule=None,
    tags=["luma", "example"],
    params={
        "prompt": Param(
            "a paper boat on a quiet lake at dawn",
            type="string",
            minLength=3,
            description="One video is generated and billed.",
        ),
    },
) as dag:
    # Retries are safe: they resume with the same video.
    video = LumaGenerateVideoOperator(
        task_id="video",
        prompt="{{ params.prompt }}",
        model_name="ray-v2",
        aspect_ratio="16:9",
        wait_for_completion=True,
        deferrable=True,
        retries=3,
    )

    @task
    def show(record: Any) -> None:
        print(record["id"], record["video_url"])

    show(video.output)
