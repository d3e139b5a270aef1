# SPDX-License-Identifier: Apache-2.0
"""Theme, accessibility, layout, and the screenshots of the documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from airflow_provider_luma.sandbox import LumaSandbox
from tests.browser.conftest import GONE, PIPELINE, record
from tests.browser.viewer import PHONE, Viewer, run_path, wait_until_played


class TestLooks:
    def test_it_follows_airflows_theme_without_a_reload(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.locator("html")).to_have_attribute("data-theme", "light")
        light = gallery.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")

        viewer.page.get_by_role("button", name="User").click()
        viewer.page.get_by_role("menuitem", name="Appearance").hover()
        viewer.page.get_by_role("menuitemradio", name="Dark Mode").click()

        expect(gallery.locator("html")).to_have_attribute("data-theme", "dark")
        assert gallery.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") != light

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_axe_finds_no_serious_violation(
        self,
        viewer: Viewer,
        sandbox: LumaSandbox,
        pushed: Callable[..., str],
        finished_run: str,
        theme: str,
    ) -> None:
        viewer.page.emulate_media(reduced_motion="reduce")
        viewer.page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
        states = pushed(
            returns=[record(sandbox, "good-1")],
            luma_tasks={"left-2": {"index": 0, "prompt": "left open", "submitted_at": None}},
            failed={"bad-3": "moderated by the relay"},
            video_urls=[],
        )
        for dag_id, run_id in ((PIPELINE, finished_run), ("luma_xcoms", states)):
            gallery = viewer.open_run(dag_id, run_id)
            expect(gallery.locator(".card").first).to_be_visible()
            expect(gallery.locator("html")).to_have_attribute("data-theme", theme)
            assert viewer.serious_violations(viewer.frame) == []
            gallery.get_by_role("button", name="Play").first.click()
            expect(gallery.locator("video")).to_have_count(1)
            assert viewer.serious_violations(viewer.frame) == []
        # The thumbnails of other tests' runs are gone.
        viewer.expected_error = GONE
        viewer.open_recent()
        assert viewer.serious_violations(viewer.frame) == []

    def test_the_keyboard_can_reach_and_play_videos(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.locator(".poster")).to_have_count(3)
        gallery.get_by_role("radio", name="All").focus()

        viewer.page.keyboard.press("Tab")
        expect(gallery.locator(".poster").first).to_be_focused()
        viewer.page.keyboard.press("Enter")

        expect(gallery.locator("video")).to_be_focused()
        wait_until_played(gallery.locator("video"), 0)

    def test_a_phone_shows_it_without_horizontal_scrolling(
        self, look: Callable[..., Viewer], finished_run: str
    ) -> None:
        page = look(size=PHONE).open_standalone(PIPELINE, finished_run)

        expect(page.locator(".card")).to_have_count(3)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        widths = page.locator(".card").evaluate_all("cards => cards.map(card => card.offsetWidth)")
        assert min(widths) > 0.85 * PHONE[0]


class TestScreenshots:
    def test_the_gallery(self, look: Callable[..., Viewer], finished_run: str, pictures: Path) -> None:
        viewer = look(size=(1360, 800))
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.locator(".poster img")).to_have_count(3)
        for image in gallery.locator(".poster img").all():
            expect(image).to_have_js_property("complete", True)

        viewer.page.screenshot(path=pictures / "gallery.png")

    def test_the_graph(self, look: Callable[..., Viewer], finished_run: str, pictures: Path) -> None:
        viewer = look(size=(1360, 560))
        viewer.page.goto(run_path(PIPELINE, finished_run))
        viewer.page.get_by_role("button", name="Show Graph").click()
        node = viewer.page.locator(".react-flow__node").filter(has_text="fetch")
        expect(node).to_contain_text("success")

        viewer.page.screenshot(path=pictures / "graph.png")
