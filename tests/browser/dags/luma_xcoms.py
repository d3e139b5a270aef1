# SPDX-License-Identifier: Apache-2.0
"""Push the XComs that a test wants to see in the gallery, without a relay in between."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

with DAG("luma_xcoms", schedule=None, params={"xcoms": {}, "returns": None}, tags=["luma"]):

    @task
    def push(params: dict[str, Any], ti: Any) -> Any:
        for key, value in params["xcoms"].items():
            ti.xcom_push(key=key, value=value)
        return params["returns"]

    push()
