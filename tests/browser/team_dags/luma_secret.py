# SPDX-License-Identifier: Apache-2.0
"""Push an XCom in a Dag that belongs to one team."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_luma.operators.generate import LumaGenerateVideoOperator


class PushSecret(LumaGenerateVideoOperator):
    """Push an XCom as a task that the gallery takes for one of the provider's."""

    def execute(self, context: Any) -> None:
        context["ti"].xcom_push(
            key="luma_tasks",
            value={"secret-id": {"index": 0, "prompt": "the secret prompt", "submitted_at": None}},
        )


with DAG("luma_secret", schedule=None, tags=["luma"]):
    PushSecret(task_id="push", prompt="not sent")
