# SPDX-License-Identifier: Apache-2.0
"""The gallery of a Dag run and of a task instance, and the recent runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from airflow_provider_luma.sandbox import LumaSandbox
from tests.browser.conftest import GONE, PIPELINE, PROMPTS, card
from tests.browser.viewer import Viewer, run_path, wait_until_played
from tests.support.live_airflow import LiveAirflow


class TestRun:
    def test_its_cards_are_updated_as_the_videos_complete(self, airflow: LiveAirflow, viewer: Viewer) -> None:
        run_id = airflow.trigger(PIPELINE, conf={"prompts": PROMPTS})
        gallery = viewer.open_run(PIPELINE, run_id)

        expect(gallery.locator(".card[data-state='waiting']")).to_have_count(3)
        expect(gallery.get_by_role("status").first).to_have_text("0 of 3 videos completed, 3 waiting")
        expect(gallery.locator(".freshness")).to_contain_text("Refreshing automatically")

        expect(gallery.locator(".card[data-state='completed']")).to_have_count(3)
        expect(gallery.locator(".card .poster")).to_have_count(3)
        expect(gallery.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "3")

        expect(gallery.locator("#page")).to_have_attribute("data-active", "false")
        expect(gallery.locator(".freshness")).to_contain_text("Dag run: success")

    def test_it_stops_refreshing_when_the_run_has_ended(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.locator(".card .poster")).to_have_count(3)

        # Only the page's clock is advanced.
        viewer.page.clock.install()
        requested: list[str] = []
        viewer.page.on(
            "request", lambda request: requested.append(request.url) if "xcomEntries" in request.url else None
        )
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.locator(".card .poster")).to_have_count(3)
        first = len(requested)
        viewer.page.clock.run_for(10 * 60 * 1000)

        assert first > 0
        assert len(requested) == first

        gallery.get_by_role("button", name="Refresh").click()
        viewer.page.wait_for_event("requestfinished")
        assert len(requested) > first

    def test_a_card_shows_prompt_size_duration_id_and_files(
        self, viewer: Viewer, finished_run: str, airflow: LiveAirflow
    ) -> None:
        records = airflow.xcom(PIPELINE, finished_run, "fetch")
        gallery = viewer.open_run(PIPELINE, finished_run)

        for record in records:
            shown = card(gallery, record["id"])
            expect(shown.get_by_role("heading")).to_have_text(record["prompt"])
            expect(shown.locator(".badge")).to_have_text("Completed")
            expect(shown.locator(".facts")).to_contain_text("640 × 352")
            expect(shown.locator(".facts")).to_contain_text("3 s")
            expect(shown.get_by_role("link", name="Video")).to_have_attribute("href", record["video_url"])
            expect(shown.get_by_role("link", name="Thumbnail")).to_have_attribute(
                "href", record["thumbnail_url"]
            )

    def test_a_long_prompt_is_folded_and_can_be_unfolded(
        self, viewer: Viewer, pushed: Callable[..., str]
    ) -> None:
        prompt = "waves break on the rocks " * 20
        run_id = pushed(luma_tasks={"long-1": {"index": 0, "prompt": prompt, "submitted_at": None}})
        gallery = viewer.open_run("luma_xcoms", run_id)
        heading = card(gallery, "long-1").get_by_role("heading")
        cut = heading.evaluate("element => element.clientHeight < element.scrollHeight")

        gallery.get_by_role("button", name="Show all").click()

        assert cut
        assert heading.evaluate("element => element.clientHeight >= element.scrollHeight")

    def test_a_video_plays_in_its_card(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        gallery.locator(".poster").first.click()
        player = gallery.locator("video")
        expect(player).to_have_count(1)

        wait_until_played(player, 0.5)

        assert player.evaluate("player => player.controls && !player.paused")

    def test_a_video_keeps_playing_while_the_page_refreshes(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        gallery.locator(".poster").first.click()
        player = gallery.locator("video")
        wait_until_played(player, 0.2)
        player.evaluate("player => { player.dataset.same = 'yes' }")

        with viewer.page.expect_response(lambda answer: "xcomEntries" in answer.url):
            gallery.get_by_role("button", name="Refresh").click()
        wait_until_played(player, 1)

        expect(player).to_have_attribute("data-same", "yes")

    def test_a_link_opens_the_file_in_a_new_tab(
        self, viewer: Viewer, finished_run: str, sandbox: LumaSandbox
    ) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)

        with viewer.page.context.expect_page() as opened:
            gallery.get_by_role("link", name="Thumbnail").first.click()
        opened.value.wait_for_url(f"{sandbox.root_url}/media/**")

        assert opened.value.evaluate("window.opener") is None

    def test_a_button_copies_the_id(self, viewer: Viewer, finished_run: str, airflow: LiveAirflow) -> None:
        viewer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        id = airflow.xcom(PIPELINE, finished_run, "fetch")[0]["id"]
        gallery = viewer.open_run(PIPELINE, finished_run)

        gallery.get_by_role("button", name=f"Copy id {id}").click()

        expect(card(gallery, id).get_by_role("status")).to_have_text("Copied")
        assert viewer.page.evaluate("navigator.clipboard.readText()") == id


class TestTask:
    @pytest.mark.parametrize("task_id", ["wait", "fetch"])
    def test_it_shows_the_videos_of_the_task(self, viewer: Viewer, finished_run: str, task_id: str) -> None:
        gallery = viewer.open_task(PIPELINE, finished_run, task_id)

        expect(gallery.locator(".card[data-state='completed']")).to_have_count(3)

    def test_one_without_videos_links_to_the_run(self, viewer: Viewer, finished_run: str) -> None:
        viewer.page.goto(f"{run_path(PIPELINE, finished_run)}/tasks/publish/mapped/0")
        gallery = viewer.open_tab()

        expect(gallery.get_by_role("heading", name="No videos in this task instance")).to_be_visible()
        gallery.get_by_role("link", name="All videos of this Dag run").click()

        viewer.page.wait_for_url("**/plugin/luma-run")
        expect(viewer.gallery().locator(".card")).to_have_count(3)


class TestRecentRuns:
    def test_the_navigation_links_to_them(self, viewer: Viewer, finished_run: str) -> None:
        # The thumbnails of other tests' runs are gone.
        viewer.expected_error = GONE
        recent = viewer.open_recent()
        run = recent.locator(".run").filter(has_text=finished_run)

        expect(run).to_contain_text("3 of 3 videos completed")
        expect(run.locator("img")).to_have_count(3)
        run.get_by_role("link", name=PIPELINE).click()

        viewer.page.wait_for_url("**/plugin/luma-run")
        expect(viewer.gallery().locator(".card")).to_have_count(3)
