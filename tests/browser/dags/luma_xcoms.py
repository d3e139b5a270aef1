# SPDX-License-Identifier: Apache-2.0
"""Push the XComs that a test shows in the gallery, without a relay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_luma.operators.generate import LumaGenerateVideoOperator

PARAMS: dict[str, Any] = {"xcoms": {}, "returns": None}


def push_xcoms(context: Mapping[str, Any]) -> Any:
    for key, value in context["params"]["xcoms"].items():
        context["ti"].xcom_push(key=key, value=value)
    return context["params"]["returns"]


class PushXComs(LumaGenerateVideoOperator):
    """Push XComs as a task that the gallery takes for one of the provider's."""

    def execute(self, context: Any) -> Any:
        return push_xcoms(context)


with DAG("luma_xcoms", schedule=None, params=PARAMS, tags=["luma"]):
    PushXComs(task_id="push", prompt="not sent")


with DAG("foreign_xcoms", schedule=None, params=PARAMS, tags=["luma"]):

    @task(task_id="push")
    def push(**context: Any) -> Any:
        return push_xcoms(context)

    push()
