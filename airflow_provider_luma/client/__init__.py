# SPDX-License-Identifier: Apache-2.0
"""Call the Luma API of a relay; nothing here imports Airflow."""

from __future__ import annotations

from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.balance import Balance
from airflow_provider_luma.client.models import (
    ExtensionRequest,
    GenerationRequest,
    LumaTask,
    Media,
    TaskState,
    decode_tasks,
)

__all__ = [
    "Balance",
    "ExtensionRequest",
    "GenerationRequest",
    "LumaClient",
    "LumaTask",
    "Media",
    "TaskState",
    "decode_tasks",
]
