# SPDX-License-Identifier: Apache-2.0
"""The wire: a client of the relays' Luma API that knows nothing of Airflow."""

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
