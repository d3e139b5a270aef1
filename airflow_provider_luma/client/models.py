# SPDX-License-Identifier: Apache-2.0
"""The values that users of the client handle: requests to submit, and tasks with their states and files."""

from __future__ import annotations

from airflow_provider_luma.client.decoder import decode_tasks
from airflow_provider_luma.client.requests import ExtensionRequest, GenerationRequest
from airflow_provider_luma.client.tasks import LumaTask, Media, TaskState, is_task_id

__all__ = [
    "ExtensionRequest",
    "GenerationRequest",
    "LumaTask",
    "Media",
    "TaskState",
    "decode_tasks",
    "is_task_id",
]
