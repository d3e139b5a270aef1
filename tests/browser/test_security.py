# SPDX-License-Identifier: Apache-2.0
"""Who sees what in the gallery, and hostile text and URLs in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from airflow_provider_luma.plugins.gallery import URL_PREFIX, LumaPlugin
from airflow_provider_luma.plugins.static_files import FOLDER
from airflow_provider_luma.sandbox import LumaSandbox
from tests.browser.viewer import Viewer, run_path, wait_until_played
from tests.support.live_airflow import LiveAirflow
from tests.support.patience import PATIENCE

MARKUP = "<img src=x onerror=alert(1)>"
SCRIPT = "javascript:alert(1)"


@pytest.fixture(scope="session")
def secret_run(airflow: LiveAirflow) -> str:
    run_id = airflow.trigger("luma_secret")
    assert airflow.wait_for_run("luma_secret", run_id) == "success"
    return run_id


class TestAnonymous:
    def test_every_mounted_file_is_the_same_for_all_users(self, airflow: LiveAirflow) -> None:
        """The routes serve the package's files unchanged, so they contain no data."""
        assert [app["url_prefix"] for app in LumaPlugin.fastapi_apps] == [URL_PREFIX]
        files = [path for path in FOLDER.rglob("*") if path.is_file()]
        assert files
        for path in files:
            answer = requests.get(
                f"{airflow.base_url}{URL_PREFIX}/{path.relative_to(FOLDER)}", timeout=PATIENCE
            )
            assert answer.status_code == 200
            assert answer.content == path.read_bytes()
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")

    @pytest.mark.parametrize(
        "path",
        ["/absent", "/../static_files.py", "/%2e%2e/static_files.py", "/..%2f__init__.py", "/api/v2/dags"],
    )
    def test_nothing_else_is_mounted(self, airflow: LiveAirflow, path: str) -> None:
        answer = requests.get(f"{airflow.base_url}{URL_PREFIX}{path}", timeout=PATIENCE)

        assert answer.status_code == 404 or answer.text.startswith("<!doctype html>")
        assert "SPDX" not in answer.text

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_other_methods_are_refused(self, airflow: LiveAirflow, method: str) -> None:
        assert (
            requests.request(method, f"{airflow.base_url}{URL_PREFIX}/", timeout=PATIENCE).status_code == 405
        )

    def test_the_page_only_offers_to_sign_in(self, look: Callable[..., Viewer], secret_run: str) -> None:
        anonymous = look(user=None)
        anonymous.expected_error = "401"
        page = anonymous.open_standalone("luma_secret", secret_run)

        expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
        assert "secret prompt" not in page.content()


class TestUserOfAnotherTeam:
    def test_a_run_of_another_teams_dag_is_not_shown(
        self, look: Callable[..., Viewer], secret_run: str
    ) -> None:
        bert = look("bert")
        bert.expected_error = "403"
        page = bert.open_standalone("luma_secret", secret_run)

        expect(page.get_by_role("heading", name="Permission denied")).to_be_visible()
        assert "secret" not in page.locator("body").inner_text()

    def test_the_recent_runs_omit_it(self, look: Callable[..., Viewer], secret_run: str) -> None:
        expect(look("rita").open_recent().locator(".run").filter(has_text=secret_run)).to_have_count(1)
        bert = look("bert")
        bert.open_recent()

        assert "luma_secret" not in bert.frame.content()

    def test_the_team_itself_sees_it(self, look: Callable[..., Viewer], secret_run: str) -> None:
        gallery = look("rita").open_run("luma_secret", secret_run)

        expect(gallery.get_by_role("heading", name="the secret prompt")).to_be_visible()


class TestHostileText:
    def test_markup_and_scripts_from_the_relay_are_shown_as_text(
        self, viewer: Viewer, airflow: LiveAirflow, sandbox: LumaSandbox
    ) -> None:
        links = {"url": SCRIPT, "download_url": SCRIPT}
        marked = sandbox.add_task(prompt=MARKUP, completes_after=0, overrides={"thumbnail": {"url": SCRIPT}})
        scripted = sandbox.add_task(
            prompt="a scripted link", completes_after=0, overrides={"video": links, "thumbnail": links}
        )
        run_id = airflow.trigger("example_luma_wait", conf={"luma_task_ids": [marked, scripted]})
        airflow.wait_for_run("example_luma_wait", run_id)
        gallery = viewer.open_run("example_luma_wait", run_id)

        expect(gallery.get_by_role("heading", name=MARKUP)).to_be_visible()
        self._check_harmless(viewer)

    def test_markup_and_scripts_that_got_into_xcoms_are_shown_as_text(
        self, viewer: Viewer, pushed: Callable[..., str]
    ) -> None:
        """The page doesn't rely on what the provider's Python code has cleaned."""
        hostile = {
            "id": MARKUP,
            "video_url": SCRIPT,
            "video_raw_url": f"data:text/html,{MARKUP}",
            "thumbnail_url": f"  {SCRIPT}",
            "last_frame_url": "//127.0.0.1:1/x.jpg",
            "prompt": MARKUP,
            "width": MARKUP,
            "height": {"a": 1},
            "duration": "1e999",
            "aspect_ratio": MARKUP,
            "created_at": MARKUP,
        }
        run_id = pushed(
            returns=[hostile, None, 7, [], {"id": ["x"]}, {"id": "__proto__", "prompt": MARKUP}],
            luma_tasks={MARKUP: {"index": "x", "prompt": MARKUP, "submitted_at": MARKUP}, "constructor": 5},
            refused=[{"index": MARKUP, "prompt": MARKUP, "reason": MARKUP}, "nonsense"],
            failed={"bad": MARKUP, "worse": {"a": MARKUP}},
            video_urls=[SCRIPT],
        )
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.locator(".reason").filter(has_text=MARKUP).first).to_be_visible()
        expect(gallery.get_by_role("heading", name=MARKUP).first).to_be_visible()
        self._check_harmless(viewer)

    def test_urls_into_airflow_are_not_loaded(
        self, viewer: Viewer, pushed: Callable[..., str], airflow: LiveAirflow
    ) -> None:
        """Loading Airflow's sign-out URL as a thumbnail would sign the user out."""
        inside = f"{airflow.base_url}/auth/logout"
        bare = {"id": "inside-1", "video_url": inside, "thumbnail_url": inside, "prompt": "a trap"}
        mixed = {**bare, "id": "inside-2", "video_url": "https://cdn.test/v.mp4", "last_frame_url": inside}
        requested: list[str] = []
        viewer.page.on("request", lambda request: requested.append(request.url))
        viewer.page.route("https://cdn.test/**", lambda route: route.fulfill(status=404))
        viewer.expected_error = "Failed to load resource"
        run_id = pushed(returns=[bare, mixed], video_urls=[])
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.get_by_role("heading", name="a trap")).to_have_count(2)
        expect(gallery.get_by_text("no usable URL")).to_be_visible()
        expect(gallery.get_by_text("This URL no longer works")).to_be_visible()
        assert inside not in gallery.locator("body").inner_html()
        viewer.open_recent()
        assert not [url for url in requested if "logout" in url]
        viewer.page.goto("/")
        expect(viewer.page.get_by_role("link", name="Dags").first).to_be_visible()
        viewer.origins.discard("https://cdn.test")

    def test_other_ports_of_airflows_host_get_no_cookies(
        self, viewer: Viewer, finished_run: str, sandbox: LumaSandbox
    ) -> None:
        cookies: list[str] = []
        viewer.page.on(
            "request",
            lambda sent: (
                cookies.append(sent.all_headers().get("cookie", ""))
                if sent.url.startswith(sandbox.root_url)
                else None
            ),
        )
        gallery = viewer.open_run("example_luma_pipeline", finished_run)
        expect(gallery.locator(".poster img")).to_have_count(3)
        gallery.locator(".poster").first.click()
        wait_until_played(gallery.locator("video"), 0)

        assert cookies
        assert set(cookies) == {""}

    def test_xcoms_of_other_operators_with_the_same_keys_are_ignored(
        self, viewer: Viewer, pushed: Callable[..., str]
    ) -> None:
        run_id = pushed(
            returns=["someone", "a@b.test", {"id": "someone-else"}],
            dag_id="foreign_xcoms",
            failed={"someone": "undeliverable"},
        )
        gallery = viewer.open_run("foreign_xcoms", run_id)

        expect(gallery.get_by_role("heading", name="No videos in this Dag run")).to_be_visible()

    def test_characters_that_change_the_reading_direction_are_removed(
        self, viewer: Viewer, pushed: Callable[..., str]
    ) -> None:
        run_id = pushed(failed={"bad-1": "gpj\u202egnp\u009b31m"})
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.locator(".reason")).to_have_text("gpjgnp31m")
        expect(gallery.locator(".reason")).to_have_attribute("dir", "auto")

    @pytest.mark.parametrize("name", ["a+b~c:d.e", "luma-run", "-"])
    def test_any_run_id_works(self, viewer: Viewer, airflow: LiveAirflow, name: str) -> None:
        run_id = airflow.trigger(
            "luma_xcoms", run_id=name, conf={"xcoms": {"failed": {"x": "a reason"}}, "returns": None}
        )
        airflow.wait_for_run("luma_xcoms", run_id)
        viewer.page.goto(f"{run_path('luma_xcoms', run_id)}/plugin/luma-run")

        expect(viewer.gallery().get_by_text("a reason")).to_be_visible()

    def _check_harmless(self, viewer: Viewer) -> None:
        frame = viewer.frame
        assert frame.locator("img[src='x']").count() == 0
        addresses = frame.evaluate(
            "[...document.querySelectorAll('[src], [href], [poster]')]"
            ".flatMap(element => ['src', 'href', 'poster'].map(name => element.getAttribute(name)))"
            ".filter(Boolean)"
        )
        allowed = ("http://", "https://")
        assets = {path.name for path in Path(FOLDER).iterdir()}
        assert [link for link in addresses if not link.startswith(allowed) and link not in assets] == []
        # No script ran, and the content security policy had nothing to block.
        assert viewer.errors == []


class TestFraming:
    def test_no_other_origin_can_frame_it(
        self, viewer: Viewer, airflow: LiveAirflow, sandbox: LumaSandbox
    ) -> None:
        viewer.page.route(
            f"{sandbox.root_url}/framing",
            lambda route: route.fulfill(
                content_type="text/html", body=f"<iframe src='{airflow.base_url}{URL_PREFIX}/'></iframe>"
            ),
        )
        viewer.expected_error = "frame-ancestors"
        viewer.page.goto(f"{sandbox.root_url}/framing")

        framed = viewer.page.frames[1]
        framed.wait_for_load_state()
        assert framed.url.startswith("chrome-error:")
