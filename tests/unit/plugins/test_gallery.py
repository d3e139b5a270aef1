# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from airflow_provider_luma.get_provider_info import get_provider_info
from airflow_provider_luma.links.luma import GALLERY_ROUTE
from airflow_provider_luma.plugins.gallery import RECENT_ROUTE, RUN_ROUTE, TASK_ROUTE, URL_PREFIX, LumaPlugin
from airflow_provider_luma.plugins.static_files import FOLDER

ROOT = Path(__file__).parents[3]
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


@pytest.fixture(scope="module")
def client() -> TestClient:
    """A client without credentials for the plugin's mounted apps."""
    mounts = [Mount(app["url_prefix"], app["app"]) for app in LumaPlugin.fastapi_apps]
    return TestClient(Starlette(routes=mounts))


def view(destination: str) -> dict[str, Any]:
    (found,) = [view for view in LumaPlugin.external_views if view["destination"] == destination]
    return dict(found)


class TestPlugin:
    def test_entry_point_and_provider_info_name_it(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        module, _, name = project["entry-points"]["airflow.plugins"]["luma"].partition(":")

        assert (module, name) == (LumaPlugin.__module__, LumaPlugin.__name__)
        assert get_provider_info()["plugins"] == [
            {"name": LumaPlugin.name, "plugin-class": f"{module}.{name}"}
        ]

    def test_it_has_a_tab_on_runs_and_tasks_and_a_page_in_the_navigation(self) -> None:
        assert {view["destination"] for view in LumaPlugin.external_views} == {
            "dag_run",
            "task_instance",
            "nav",
        }

    def test_the_routes_of_its_views_differ(self) -> None:
        assert len({TASK_ROUTE, RUN_ROUTE, RECENT_ROUTE}) == 3
        assert {view["url_route"] for view in LumaPlugin.external_views} == {
            TASK_ROUTE,
            RUN_ROUTE,
            RECENT_ROUTE,
        }

    def test_the_extra_link_uses_the_route_of_the_task_tab(self) -> None:
        assert view("task_instance")["url_route"] == GALLERY_ROUTE

    def test_the_page_uses_the_route_of_the_run_tab(self) -> None:
        assert f'const RUN_ROUTE = "{RUN_ROUTE}";' in (FOLDER / "main.js").read_text()

    def test_urls_are_relative_so_that_airflow_can_have_a_base_path(self) -> None:
        for view in LumaPlugin.external_views:
            for name in ("href", "icon", "icon_dark_mode"):
                assert re.match(r"luma/(\?|$|icon(-dark)?\.svg$)", view[name])

    def test_each_tab_passes_its_run_or_task_instance(self) -> None:
        run = {"dag_id={DAG_ID}", "run_id={RUN_ID}"}

        assert set(view("dag_run")["href"].partition("?")[2].split("&")) == run
        assert set(view("task_instance")["href"].partition("?")[2].split("&")) == {
            *run,
            "task_id={TASK_ID}",
            "map_index={MAP_INDEX}",
        }

    def test_importing_it_imports_no_web_framework(self) -> None:
        """Every ``airflow`` command imports the plugins."""
        code = (
            "import sys; import airflow.plugins_manager; before = set(sys.modules); "
            "import airflow_provider_luma.plugins.gallery; "
            "print(*sorted(set(sys.modules) - before))"
        )
        result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

        # If the package is installed, Airflow has already imported it.
        assert set(result.stdout.split()) - {"airflow_provider_luma"} == {
            "airflow_provider_luma.plugins",
            "airflow_provider_luma.plugins.gallery",
        }


class TestRoutes:
    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
    def test_every_file_is_served_unchanged(self, client: TestClient, path: Path) -> None:
        answer = client.get(f"{URL_PREFIX}/{path.relative_to(FOLDER)}")

        assert answer.status_code == 200
        assert answer.content == path.read_bytes()

    def test_the_folder_serves_the_page(self, client: TestClient) -> None:
        assert client.get(f"{URL_PREFIX}/?dag_id=a&run_id=b").content == (FOLDER / "index.html").read_bytes()

    @pytest.mark.parametrize(
        "path",
        ["absent.js", "../static_files.py", "%2e%2e/static_files.py", "..%2fstatic_files.py", "api"],
    )
    def test_nothing_else_is_served(self, client: TestClient, path: str) -> None:
        assert client.get(f"{URL_PREFIX}/{path}").status_code == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_other_methods_are_refused(self, client: TestClient, method: str) -> None:
        assert client.request(method, f"{URL_PREFIX}/").status_code == 405

    @pytest.mark.parametrize("name", ["", "main.js", "icon.svg"])
    def test_the_headers_restrict_the_page(self, client: TestClient, name: str) -> None:
        headers = client.get(f"{URL_PREFIX}/{name}").headers
        policy = dict(
            rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";") if rule
        )

        assert policy["default-src"] == "'none'"
        assert {rule for rule, sources in policy.items() if "http" in sources} == {"img-src", "media-src"}
        assert all(policy[rule] == "'self'" for rule in ("script-src", "style-src", "connect-src"))
        assert policy["frame-ancestors"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"

    def test_an_unchanged_file_is_not_sent_again(self, client: TestClient) -> None:
        first = client.get(f"{URL_PREFIX}/main.js")
        again = client.get(f"{URL_PREFIX}/main.js", headers={"if-none-match": first.headers["etag"]})

        assert first.headers["cache-control"] == "no-cache"
        assert again.status_code == 304


class TestFiles:
    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
    def test_no_file_refers_to_another_origin(self, path: Path) -> None:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")

        assert not re.search(r"https?://|@import\s*(url|[\"'])|[\"'(]//", text)

    @pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
    def test_no_script_can_turn_text_into_markup_or_code(self, path: Path) -> None:
        risky = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|DOMParser"
        )

        assert not re.search(risky, path.read_text())

    @pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
    def test_every_import_exists_and_is_used(self, path: Path) -> None:
        text = path.read_text()
        for names, module in re.findall(r'import \{([^}]*)\} from "\./([\w.]+)";', text):
            exported = (FOLDER / module).read_text()
            for name in names.replace(" ", "").strip(",").split(","):
                assert re.search(rf"export (async )?(function|class|const) {name}\b", exported), name
                assert len(re.findall(rf"\b{name}\b", text)) > 1, name
