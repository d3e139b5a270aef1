# SPDX-License-Identifier: Apache-2.0
"""Answers of relays, decoded."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_luma.client import LumaTask, decode_tasks


def decode(value: Any) -> list[LumaTask]:
    return decode_tasks(json.dumps(value).encode())


def decode_one(**fields: Any) -> LumaTask:
    [task] = decode([{"id": "t1", "state": "completed", **fields}])
    return task


def envelope(*rows: Any, **fields: Any) -> dict[str, Any]:
    return {"code": "success", "message": "", "data": list(rows), **fields}


def row(task: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": 13917,
        "task_id": "t1",
        "platform": "luma",
        "action": "generate",
        "status": "IN_PROGRESS",
        "fail_reason": "",
        "progress": "40%",
        "submit_time": 1734874720,
        "start_time": 1734874721,
        "finish_time": 0,
        "data": task,
        **fields,
    }
