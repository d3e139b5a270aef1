# SPDX-License-Identifier: Apache-2.0
"""From a task instance in Airflow's page to its videos."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

GALLERY_ROUTE = "luma"
"""Where the gallery hangs below a Dag run's or a task instance's page."""


class LumaVideosLink(BaseOperatorLink):
    """
    Leads to the gallery of the task instance's videos, whatever state it is in.

    The videos' own links aren't used here: they expire.
    """

    @property
    def name(self) -> str:
        """The button's label."""
        return "Luma videos"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Build the address of the gallery.

        :param operator: The task.
        :param ti_key: Its instance.
        """
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
        return (
            f"{base}/dags/{quote(ti_key.dag_id, safe='')}/runs/{quote(ti_key.run_id, safe='')}"
            f"/tasks/{quote(ti_key.task_id, safe='')}{mapped}/plugin/{GALLERY_ROUTE}"
        )
