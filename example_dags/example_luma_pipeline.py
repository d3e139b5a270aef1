# SPDX-License-Identifier: Apache-2.0
"""Submit prompts, wait without a worker, and pass each video to a mapped task."""

from __future__ import annotations

from airflow.sdk import DAG, Param, get_current_context, task

from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator
from airflow_provider_luma.operators.generate import LumaGenerateVideosOperator
from airflow_provider_luma.sensors.luma import LumaTaskSensor

with DAG(
    "example_luma_pipeline",
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
    },
) as dag:

    @task
    def requests() -> list[dict[str, str]]:
        return [{"prompt": prompt} for prompt in get_current_context()["params"]["prompts"]]

    # Retries are safe: they resume with the first request that was not sent.
    submit = LumaGenerateVideosOperator(task_id="submit", requests=requests(), retries=3)
    wait = LumaTaskSensor(task_id="wait", luma_task_ids=submit.output, deferrable=True)
    fetch = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=wait.output)

    @task(map_index_template="{{ task.op_kwargs['video_url'].rsplit('/', 1)[-1] }}")
    def publish(video_url: str) -> str:
        print("Ready to publish:", video_url)
        return video_url

    publish.expand(video_url=fetch.output.map(lambda record: record["video_url"]))
