# SPDX-License-Identifier: Apache-2.0
"""
Add the gallery to the Airflow UI: a tab on Dag runs and task instances, and a page of recent runs.

The gallery consists of static files that call Airflow's REST API as the signed-in user, so users see what
Airflow permits them to see, and the routes below serve no data that must be protected. Every Airflow process
loads this module, so it imports as little as possible.
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
"""Last part of each view's URL in the Airflow UI; Airflow requires that they differ."""

# Relative to Airflow's base URL, which may have a path. Airflow fills in the names in braces.
_PAGE = f"{URL_PREFIX.removeprefix('/')}/"
_RUN = "dag_id={DAG_ID}&run_id={RUN_ID}"
_TASK = "task_id={TASK_ID}&map_index={MAP_INDEX}"
_ICONS = {"icon": f"{_PAGE}icon.svg", "icon_dark_mode": f"{_PAGE}icon-dark.svg"}


class GalleryApp:
    """Serve the gallery's files as an ASGI app that imports Starlette at the first request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._files(scope, receive, send)

    @cached_property
    def _files(self) -> ASGIApp:
        from airflow_provider_luma.plugins.static_files import GalleryFiles

        return GalleryFiles()


_APPS: list[Any] = [{"name": "luma", "app": GalleryApp(), "url_prefix": URL_PREFIX}]


def _view(name: str, destination: str, route: str, query: str = "", **more: str) -> MutableMapping[str, Any]:
    view = {"name": name, "destination": destination, "url_route": route, "href": f"{_PAGE}{query}"}
    return view | more | _ICONS


_VIEWS = [
    _view("Luma", "task_instance", TASK_ROUTE, f"?{_RUN}&{_TASK}"),
    _view("Luma", "dag_run", RUN_ROUTE, f"?{_RUN}"),
    _view("Luma videos", "nav", RECENT_ROUTE, category="browse"),
]


class LumaPlugin(AirflowPlugin):
    """Add the gallery to the Airflow UI."""

    name = "luma"
    fastapi_apps = _APPS
    external_views = _VIEWS
