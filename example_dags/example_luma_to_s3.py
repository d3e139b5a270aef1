# SPDX-License-Identifier: Apache-2.0
"""
Keep completed videos in S3, and update the asset that other Dags are scheduled on.

Needs ``apache-airflow-providers-amazon[s3fs]`` and a connection ``aws_default``. Any S3-compatible store
works, with its URL as ``endpoint_url`` in the connection's extra.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, Param

from airflow_provider_luma.sensors.luma import LumaTaskSensor
from airflow_provider_luma.transfers.luma_to_object_storage import LumaToObjectStorageOperator

videos = Asset(name="luma_videos", uri="s3://luma-videos/finished")

with DAG(
    "example_luma_to_s3",
    doc_md=__doc__,
    schedule=None,
    tags=["luma", "example"],
    params={
        "luma_task_ids": Param(
            ["4665a07c-7641-4809-a133-10786201bb56"],
            type="array",
            items={"type": "string"},
            description="Ids of Luma tasks that were submitted elsewhere.",
        ),
    },
) as dag:
    wait = LumaTaskSensor(task_id="wait", luma_task_ids="{{ params.luma_task_ids }}", deferrable=True)
    LumaToObjectStorageOperator(
        task_id="keep",
        luma_task_ids=wait.output,
        destination="s3://aws_default@luma-videos/finished",
        file_name="{id}/{artifact}{ext}",
        artifacts=["video", "thumbnail", "last_frame"],
        retries=2,
        outlets=[videos],
    )
