# SPDX-License-Identifier: Apache-2.0
"""The same for a Dag that belongs to one team."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

with DAG("luma_secret", schedule=None, tags=["luma"]):

    @task
    def push(ti: Any) -> None:
        ti.xcom_push(
            key="luma_tasks",
            value={"secret-id": {"index": 0, "prompt": "the secret prompt", "submitted_at": None}},
        )

    push()
