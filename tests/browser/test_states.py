# SPDX-License-Identifier: Apache-2.0
"""The states of videos, runs and of the page itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Route, expect

from airflow_provider_luma.sandbox import LumaSandbox
from tests.browser.conftest import GONE, PIPELINE, card, record
from tests.browser.viewer import Viewer, run_path, wait_until_played
from tests.support.live_airflow import LiveAirflow


class TestStates:
    def test_every_state_has_its_card_and_its_filter(
        self, viewer: Viewer, sandbox: LumaSandbox, pushed: Callable[..., str]
    ) -> None:
        run_id = pushed(
            returns=[record(sandbox, "good-1"), record(sandbox, "good-2")],
            luma_tasks={
                "good-1": {"index": 0, "prompt": "first", "submitted_at": "2026-01-01T00:00:00+00:00"},
                "left-3": {"index": 1, "prompt": "left open", "submitted_at": "2026-01-01T00:00:00+00:00"},
                "bad-4": {"index": 2, "prompt": "a failure", "submitted_at": "2026-01-01T00:00:00+00:00"},
            },
            refused=[{"index": 3, "prompt": "a refusal", "reason": "the balance is used up"}],
            failed={"bad-4": "moderated by the relay"},
            video_urls=[],
        )
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.get_by_role("status").first).to_have_text(
            "2 of 5 videos completed, 2 failed, 1 unfinished"
        )
        expect(card(gallery, "bad-4")).to_contain_text("moderated by the relay")
        expect(card(gallery, "a refusal")).to_contain_text("the balance is used up")
        expect(card(gallery, "a refusal")).to_contain_text("Refused")
        expect(card(gallery, "left-3")).to_contain_text("The Dag run ended before this video was completed")

        for name, count in {"Failed": 2, "Completed": 2, "Unfinished": 1, "Waiting": 0, "All": 5}.items():
            gallery.get_by_role("radio", name=f"{name} {count}").check()
            expect(gallery.locator(".card")).to_have_count(count)

    def test_waiting_cards_show_their_age_and_the_waiting_task(
        self, airflow: LiveAirflow, viewer: Viewer, sandbox: LumaSandbox
    ) -> None:
        ids = [sandbox.add_task(completes_after=3600) for _ in range(3)]
        run_id = airflow.trigger("example_luma_wait", conf={"luma_task_ids": ids})
        airflow.wait_for_task("example_luma_wait", run_id, "wait", states=["deferred"])
        gallery = viewer.open_run("example_luma_wait", run_id)

        expect(gallery.get_by_role("status").first).to_have_text("0 of 3 videos completed, 3 waiting")
        expect(card(gallery, ids[0])).to_contain_text("Waiting for ")
        age = card(gallery, ids[0]).locator("time")
        first = age.inner_text()
        expect(age).not_to_have_text(first)
        card(gallery, ids[0]).get_by_role("link", name="wait").click()

        viewer.page.wait_for_url("**/tasks/wait")

    def test_a_truncated_list_of_ids_is_not_taken_for_complete(
        self, viewer: Viewer, pushed: Callable[..., str]
    ) -> None:
        cut = (
            "Truncated. You can change this behaviour in [core]max_templated_field_length. ['a-1', 'b-2', 'c-"
        )

        def answer(route: Route) -> None:
            answered = route.fetch()
            body = answered.json()
            for instance in body["task_instances"]:
                instance |= {"state": "failed", "rendered_fields": {"luma_task_ids": cut}}
            route.fulfill(response=answered, json=body)

        viewer.page.route("**/taskInstances?*", answer)
        run_id = pushed()
        gallery = viewer.open_task("luma_xcoms", run_id, "push")

        expect(gallery.locator(".card")).to_have_count(2)
        expect(gallery.get_by_text("Some videos are missing")).to_be_visible()

    def test_the_arrow_keys_change_the_filter(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        gallery.get_by_role("radio", name="All").focus()

        viewer.page.keyboard.press("ArrowRight")

        expect(gallery.get_by_role("radio", name="Waiting")).to_be_checked()
        expect(gallery.locator(".card")).to_have_count(0)

    def test_an_expired_url_says_how_to_fetch_a_new_one(
        self, viewer: Viewer, sandbox: LumaSandbox, pushed: Callable[..., str]
    ) -> None:
        viewer.expected_error = "Failed to load resource"
        stale = record(sandbox, "old-1")
        run_id = pushed(returns=[stale], video_urls=[stale["video_url"]])
        viewer.page.route(f"{sandbox.root_url}/media/**", lambda route: route.fulfill(status=403))
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.get_by_text("This URL no longer works")).to_be_visible()
        expect(card(gallery, "old-1")).to_contain_text("Clear the task push to fetch new ones")
        assert viewer.serious_violations(viewer.frame) == []

        viewer.page.unroute(f"{sandbox.root_url}/media/**")
        gallery.get_by_role("button", name="Try again").click()
        wait_until_played(gallery.locator("video"), 0)

    def test_the_task_to_clear_is_one_click_away(
        self, viewer: Viewer, sandbox: LumaSandbox, pushed: Callable[..., str]
    ) -> None:
        viewer.expected_error = GONE
        gone = f"{sandbox.root_url}/media/gone/video.mp4"
        run_id = pushed(
            returns=[record(sandbox, "old-1", video_url=gone, thumbnail_url=None)], video_urls=[gone]
        )
        gallery = viewer.open_run("luma_xcoms", run_id)

        gallery.get_by_role("link", name="push").click()

        viewer.page.wait_for_url("**/tasks/push")

    def test_a_missing_thumbnail_does_not_mean_that_the_video_expired(
        self, viewer: Viewer, sandbox: LumaSandbox, pushed: Callable[..., str]
    ) -> None:
        viewer.expected_error = GONE
        bare = record(sandbox, "bare-1", thumbnail_url=f"{sandbox.root_url}/media/gone/thumbnail.jpg")
        run_id = pushed(returns=[bare], video_urls=[bare["video_url"]])
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.locator("video")).to_be_visible()
        expect(gallery.locator("video")).to_have_js_property("error", None)
        expect(gallery.locator("video")).to_have_js_property("duration", 3)
        expect(gallery.get_by_text("This URL no longer works")).to_have_count(0)

    def test_a_run_without_videos_says_so(self, viewer: Viewer, pushed: Callable[..., str]) -> None:
        gallery = viewer.open_run("luma_xcoms", pushed())

        expect(gallery.get_by_role("heading", name="No videos in this Dag run")).to_be_visible()

    def test_an_error_of_airflow_is_shown_and_can_be_retried(self, viewer: Viewer, finished_run: str) -> None:
        viewer.expected_error = "Failed to load resource"
        viewer.page.route(
            "**/xcomEntries*", lambda route: route.fulfill(status=500, json={"detail": "broken"})
        )
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.get_by_role("heading", name="Airflow returned an error")).to_be_visible()

        viewer.page.unroute("**/xcomEntries*")
        gallery.get_by_role("button", name="Try again").click()

        expect(gallery.locator(".card")).to_have_count(3)

    def test_loading_is_shown(self, viewer: Viewer, finished_run: str) -> None:
        held: list[Any] = []
        viewer.page.route("**/xcomEntries*", lambda route: held.append(route))
        viewer.page.goto(f"{run_path(PIPELINE, finished_run)}/plugin/luma-run")
        gallery = viewer.page.frame_locator("iframe[title^='Luma']")

        expect(gallery.get_by_role("status")).to_have_text("Loading videos")
        expect(gallery.locator(".ghost").first).to_be_visible()

        for route in held:
            route.continue_()
        viewer.page.unroute("**/xcomEntries*")
        expect(gallery.locator(".card .poster")).to_have_count(3)

    def test_hundreds_of_videos_are_shown_in_pages(self, viewer: Viewer, pushed: Callable[..., str]) -> None:
        tasks = {
            f"id-{number}": {"index": number, "prompt": f"number {number}", "submitted_at": None}
            for number in range(150)
        }
        gallery = viewer.open_run("luma_xcoms", pushed(luma_tasks=tasks))

        expect(gallery.locator(".card")).to_have_count(60)
        gallery.get_by_role("button", name="Show more (90 left)").click()
        expect(gallery.locator(".card")).to_have_count(120)
        expect(gallery.locator(".card h3").first).to_have_text("number 0")

    def test_a_run_that_is_too_long_for_one_load_says_so_and_loads_more(
        self, viewer: Viewer, pushed: Callable[..., str]
    ) -> None:
        """The response is changed to say that there are thousands of XComs, though there is only one."""

        def answer(route: Route) -> None:
            answered = route.fetch()
            route.fulfill(response=answered, json={**answered.json(), "total_entries": total})

        total = 10_000
        viewer.page.route("**/xcomEntries?*xcom_key=luma_tasks*", answer)
        run_id = pushed(luma_tasks={"id-1": {"index": 0, "prompt": "first", "submitted_at": None}})
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.get_by_text("1 of 10,000 task instances were read")).to_be_visible()
        assert viewer.serious_violations(viewer.frame) == []
        total = 1
        gallery.get_by_role("button", name="Load more (1 of 10,000 read)").click()

        expect(gallery.get_by_text("task instances were read")).to_be_hidden()
        expect(gallery.get_by_role("button", name="Load more")).to_be_hidden()
