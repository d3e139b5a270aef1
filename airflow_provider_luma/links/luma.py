# SPDX-License-Identifier: Apache-2.0
"""The extra link from a task instance in the Airflow UI to its videos."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

GALLERY_ROUTE = "luma"
"""The route of the gallery's tab on a task instance's page."""


class LumaVideosLink(BaseOperatorLink):
    """
    Link to the gallery with the task instance's videos, in whatever state they are.

    The URLs of the videos themselves are of no use as extra links, because they expire.
    """

    @property
    def name(self) -> str:
        """Return the link's label."""
        return "Luma videos"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Build the URL of the gallery.

        :param operator: The operator of the task.
        :param ti_key: The task instance.
        """
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
        return (
            f"{base}/dags/{quote(ti_key.dag_id, safe='')}/runs/{quote(ti_key.run_id, safe='')}"
            f"/tasks/{quote(ti_key.task_id, safe='')}{mapped}/plugin/{GALLERY_ROUTE}"
        )
