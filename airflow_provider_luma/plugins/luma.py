# SPDX-License-Identifier: Apache-2.0
"""
The gallery in Airflow's page: a tab on each Dag run and task instance, and a page of recent runs.

The pages are static files. They read Airflow's own REST API in the viewer's name, so a viewer sees there
what Airflow lets them see, and nothing of ours has to guard data: our routes carry none. Every Airflow
process loads this module, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

URL_PREFIX = "/luma"

TASK_ROUTE = "luma"
RUN_ROUTE = "luma-run"
RECENT_ROUTE = "luma-videos"
"""The last parts of the pages' addresses in Airflow; they must differ from each other."""

# Relative to Airflow's base address, which may hold a path. Airflow fills in the names in braces.
_PAGE = f"{URL_PREFIX.removeprefix('/')}/"
_RUN = "dag_id={DAG_ID}&run_id={RUN_ID}"
_TASK = "task_id={TASK_ID}&map_index={MAP_INDEX}"
_ICONS = {"icon": f"{_PAGE}icon.svg", "icon_dark_mode": f"{_PAGE}icon-dark.svg"}


class GalleryApp:
    """The ASGI app that serves the gallery's files; it loads a web framework when it is first asked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._files(scope, receive, send)

    @cached_property
    def _files(self) -> ASGIApp:
        from airflow_provider_luma.plugins.static_files import GalleryFiles

        return GalleryFiles()


_APPS: list[Any] = [{"name": "luma", "app": GalleryApp(), "url_prefix": URL_PREFIX}]
_VIEWS: list[MutableMapping[str, Any]] = [
    {
        "name": "Luma",
        "destination": "task_instance",
        "url_route": TASK_ROUTE,
        "href": f"{_PAGE}?{_RUN}&{_TASK}",
        **_ICONS,
    },
    {
        "name": "Luma",
        "destination": "dag_run",
        "url_route": RUN_ROUTE,
        "href": f"{_PAGE}?{_RUN}",
        **_ICONS,
    },
    {
        "name": "Luma videos",
        "destination": "nav",
        "category": "browse",
        "url_route": RECENT_ROUTE,
        "href": _PAGE,
        **_ICONS,
    },
]


class LumaPlugin(AirflowPlugin):
    """Adds the gallery to Airflow's page."""

    name = "luma"
    fastapi_apps = _APPS
    external_views = _VIEWS
