# SPDX-License-Identifier: Apache-2.0
"""The gallery as a person sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FrameLocator, Route, expect

from airflow_provider_luma.sandbox import LumaSandbox
from tests.browser.conftest import PROMPTS
from tests.browser.viewer import PHONE, WAIT_MS, Viewer, run_path, wait_until_played
from tests.support.live_airflow import LiveAirflow

expect.set_options(timeout=WAIT_MS)

PIPELINE = "example_luma_pipeline"
# The sandbox is on Airflow's host, whose files are asked for without cookies; a 404 of it doesn't allow that.
GONE = ("Failed to load resource", "blocked by CORS policy")


def record(sandbox: LumaSandbox, id: str, **fields: Any) -> dict[str, Any]:
    """An artifact record with working links; the sandbox serves any task's files that it knows."""
    task_id = sandbox.add_task(completes_after=0)
    media = f"{sandbox.root_url}/media/{task_id}"
    return {
        "id": id,
        "video_url": f"{media}/video.mp4",
        "thumbnail_url": f"{media}/thumbnail.jpg",
        "prompt": f"prompt of {id}",
        **fields,
    }


def card(gallery: FrameLocator, text: str) -> Any:
    return gallery.locator(".card").filter(has_text=text)


class TestARun:
    def test_its_cards_fill_in_as_the_videos_complete(self, airflow: LiveAirflow, viewer: Viewer) -> None:
        run_id = airflow.trigger(PIPELINE, conf={"prompts": PROMPTS})
        gallery = viewer.open_run(PIPELINE, run_id)

        expect(gallery.locator(".card[data-state='waiting']")).to_have_count(3)
        expect(gallery.get_by_role("status").first).to_have_text("0 of 3 videos completed, 3 waiting")
        expect(gallery.locator(".freshness")).to_contain_text("Refreshes itself")

        expect(gallery.locator(".card[data-state='completed']")).to_have_count(3)
        expect(gallery.locator(".card .poster")).to_have_count(3)
        expect(gallery.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "3")

        expect(gallery.locator("#page")).to_have_attribute("data-active", "false")
        expect(gallery.locator(".freshness")).to_contain_text("Run success")

    def test_it_asks_no_more_when_nothing_runs(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.locator(".card .poster")).to_have_count(3)

        # Time goes on for the page alone.
        viewer.page.clock.install()
        asked: list[str] = []
        viewer.page.on("request", lambda sent: asked.append(sent.url) if "xcomEntries" in sent.url else None)
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.locator(".card .poster")).to_have_count(3)
        first = len(asked)
        viewer.page.clock.run_for(10 * 60 * 1000)

        assert first > 0
        assert len(asked) == first

        gallery.get_by_role("button", name="Refresh").click()
        viewer.page.wait_for_event("requestfinished")
        assert len(asked) > first

    def test_a_card_tells_prompt_size_duration_id_and_files(
        self, viewer: Viewer, finished_run: str, airflow: LiveAirflow
    ) -> None:
        records = airflow.xcom(PIPELINE, finished_run, "fetch")
        gallery = viewer.open_run(PIPELINE, finished_run)

        for told in records:
            shown = card(gallery, told["id"])
            expect(shown.get_by_role("heading")).to_have_text(told["prompt"])
            expect(shown.locator(".badge")).to_have_text("Completed")
            expect(shown.locator(".facts")).to_contain_text("640 × 352")
            expect(shown.locator(".facts")).to_contain_text("3 s")
            expect(shown.get_by_role("link", name="Video")).to_have_attribute("href", told["video_url"])
            expect(shown.get_by_role("link", name="Thumbnail")).to_have_attribute(
                "href", told["thumbnail_url"]
            )

    def test_a_long_prompt_is_folded_and_can_be_read_whole(
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
        film = gallery.locator("video")
        expect(film).to_have_count(1)

        wait_until_played(film, 0.5)

        assert film.evaluate("film => film.controls && !film.paused")

    def test_a_video_goes_on_playing_while_the_page_refreshes(
        self, viewer: Viewer, finished_run: str
    ) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        gallery.locator(".poster").first.click()
        film = gallery.locator("video")
        wait_until_played(film, 0.2)
        film.evaluate("film => { film.dataset.same = 'yes' }")

        with viewer.page.expect_response(lambda answer: "xcomEntries" in answer.url):
            gallery.get_by_role("button", name="Refresh").click()
        wait_until_played(film, 1)

        expect(film).to_have_attribute("data-same", "yes")

    def test_a_link_opens_the_file_in_a_new_tab(
        self, viewer: Viewer, finished_run: str, sandbox: LumaSandbox
    ) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)

        with viewer.page.context.expect_page() as opened:
            gallery.get_by_role("link", name="Thumbnail").first.click()
        opened.value.wait_for_url(f"{sandbox.root_url}/media/**")

        assert opened.value.evaluate("window.opener") is None

    def test_the_id_is_copied_by_its_button(
        self, viewer: Viewer, finished_run: str, airflow: LiveAirflow
    ) -> None:
        viewer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        id = airflow.xcom(PIPELINE, finished_run, "fetch")[0]["id"]
        gallery = viewer.open_run(PIPELINE, finished_run)

        gallery.get_by_role("button", name=f"Copy id {id}").click()

        expect(card(gallery, id).get_by_role("status")).to_have_text("Copied")
        assert viewer.page.evaluate("navigator.clipboard.readText()") == id


class TestATask:
    @pytest.mark.parametrize("task_id", ["wait", "fetch"])
    def test_it_shows_the_videos_that_it_had_to_do_with(
        self, viewer: Viewer, finished_run: str, task_id: str
    ) -> None:
        gallery = viewer.open_task(PIPELINE, finished_run, task_id)

        expect(gallery.locator(".card[data-state='completed']")).to_have_count(3)

    def test_one_without_videos_points_to_the_run(self, viewer: Viewer, finished_run: str) -> None:
        viewer.page.goto(f"{run_path(PIPELINE, finished_run)}/tasks/publish/mapped/0")
        gallery = viewer.open_tab()

        expect(gallery.get_by_role("heading", name="No videos here")).to_be_visible()
        gallery.get_by_role("link", name="All videos of this run").click()

        viewer.page.wait_for_url("**/plugin/luma-run")
        expect(viewer.gallery().locator(".card")).to_have_count(3)


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
        expect(card(gallery, "left-3")).to_contain_text("The run ended before this video did")

        for name, count in {"Failed": 2, "Completed": 2, "Unfinished": 1, "Waiting": 0, "All": 5}.items():
            gallery.get_by_role("radio", name=f"{name} {count}").check()
            expect(gallery.locator(".card")).to_have_count(count)

    def test_waiting_cards_tell_their_age_and_who_waits(
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

    def test_a_list_of_ids_that_airflow_has_cut_is_not_taken_for_all(
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
        expect(gallery.get_by_text("There are more videos than these")).to_be_visible()

    def test_filters_are_moved_by_the_arrow_keys(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        gallery.get_by_role("radio", name="All").focus()

        viewer.page.keyboard.press("ArrowRight")

        expect(gallery.get_by_role("radio", name="Waiting")).to_be_checked()
        expect(gallery.locator(".card")).to_have_count(0)

    def test_an_expired_link_says_how_to_get_a_new_one(
        self, viewer: Viewer, sandbox: LumaSandbox, pushed: Callable[..., str]
    ) -> None:
        viewer.expected_error = "Failed to load resource"
        stale = record(sandbox, "old-1")
        run_id = pushed(returns=[stale], video_urls=[stale["video_url"]])
        viewer.page.route(f"{sandbox.root_url}/media/**", lambda route: route.fulfill(status=403))
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.get_by_text("This link no longer works")).to_be_visible()
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

    def test_a_missing_thumbnail_alone_does_not_make_a_video_expired(
        self, viewer: Viewer, sandbox: LumaSandbox, pushed: Callable[..., str]
    ) -> None:
        viewer.expected_error = GONE
        bare = record(sandbox, "bare-1", thumbnail_url=f"{sandbox.root_url}/media/gone/thumbnail.jpg")
        run_id = pushed(returns=[bare], video_urls=[bare["video_url"]])
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.locator("video")).to_be_visible()
        expect(gallery.locator("video")).to_have_js_property("error", None)
        expect(gallery.locator("video")).to_have_js_property("duration", 3)
        expect(gallery.get_by_text("This link no longer works")).to_have_count(0)

    def test_a_run_without_videos_says_so(self, viewer: Viewer, pushed: Callable[..., str]) -> None:
        gallery = viewer.open_run("luma_xcoms", pushed())

        expect(gallery.get_by_role("heading", name="No videos here")).to_be_visible()

    def test_trouble_with_airflow_is_said_and_waited_out(self, viewer: Viewer, finished_run: str) -> None:
        viewer.expected_error = "Failed to load resource"
        viewer.page.route(
            "**/xcomEntries*", lambda route: route.fulfill(status=500, json={"detail": "broken"})
        )
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.get_by_role("heading", name="Airflow can't show this")).to_be_visible()

        viewer.page.unroute("**/xcomEntries*")
        gallery.get_by_role("button", name="Try again").click()

        expect(gallery.locator(".card")).to_have_count(3)

    def test_loading_is_shown(self, viewer: Viewer, finished_run: str) -> None:
        held: list[Any] = []
        viewer.page.route("**/xcomEntries*", lambda route: held.append(route))
        viewer.page.goto(f"{run_path(PIPELINE, finished_run)}/plugin/luma-run")
        gallery = viewer.page.frame_locator("iframe[title^='Luma']")

        expect(gallery.get_by_role("status")).to_have_text("Loading the videos")
        expect(gallery.locator(".ghost").first).to_be_visible()

        for route in held:
            route.continue_()
        viewer.page.unroute("**/xcomEntries*")
        expect(gallery.locator(".card .poster")).to_have_count(3)

    def test_hundreds_of_videos_come_in_portions(self, viewer: Viewer, pushed: Callable[..., str]) -> None:
        tasks = {
            f"id-{number}": {"index": number, "prompt": f"number {number}", "submitted_at": None}
            for number in range(150)
        }
        gallery = viewer.open_run("luma_xcoms", pushed(luma_tasks=tasks))

        expect(gallery.locator(".card")).to_have_count(60)
        gallery.get_by_role("button", name="Show more (90 left)").click()
        expect(gallery.locator(".card")).to_have_count(120)
        expect(gallery.locator(".card h3").first).to_have_text("number 0")

    def test_a_run_that_is_too_long_to_read_at_once_says_so_and_reads_on(
        self, viewer: Viewer, pushed: Callable[..., str]
    ) -> None:
        """Airflow's own list has one XCom here; its answer says that there are thousands."""

        def answer(route: Route) -> None:
            answered = route.fetch()
            route.fulfill(response=answered, json={**answered.json(), "total_entries": total})

        total = 10_000
        viewer.page.route("**/xcomEntries?*xcom_key=luma_tasks*", answer)
        run_id = pushed(luma_tasks={"id-1": {"index": 0, "prompt": "first", "submitted_at": None}})
        gallery = viewer.open_run("luma_xcoms", run_id)

        expect(gallery.get_by_text("read so far are 1 of 10,000 task instances")).to_be_visible()
        assert viewer.serious_violations(viewer.frame) == []
        total = 1
        gallery.get_by_role("button", name="Load more (1 of 10,000 read)").click()

        expect(gallery.get_by_text("read so far")).to_be_hidden()
        expect(gallery.get_by_role("button", name="Load more")).to_be_hidden()


class TestRecentRuns:
    def test_the_navigation_leads_to_them(self, viewer: Viewer, finished_run: str) -> None:
        # Runs of other tests have lost their pictures.
        viewer.expected_error = GONE
        recent = viewer.open_recent()
        run = recent.locator(".run").filter(has_text=finished_run)

        expect(run).to_contain_text("3 of 3 videos completed")
        expect(run.locator("img")).to_have_count(3)
        run.get_by_role("link", name=PIPELINE).click()

        viewer.page.wait_for_url("**/plugin/luma-run")
        expect(viewer.gallery().locator(".card")).to_have_count(3)


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
        # Runs of other tests have lost their pictures.
        viewer.expected_error = GONE
        viewer.open_recent()
        assert viewer.serious_violations(viewer.frame) == []

    def test_the_keyboard_reaches_everything_and_plays(self, viewer: Viewer, finished_run: str) -> None:
        gallery = viewer.open_run(PIPELINE, finished_run)
        expect(gallery.locator(".poster")).to_have_count(3)
        gallery.get_by_role("radio", name="All").focus()

        viewer.page.keyboard.press("Tab")
        expect(gallery.locator(".poster").first).to_be_focused()
        viewer.page.keyboard.press("Enter")

        expect(gallery.locator("video")).to_be_focused()
        wait_until_played(gallery.locator("video"), 0)

    def test_a_phone_shows_all_of_it_without_sideways_scrolling(
        self, look: Callable[..., Viewer], finished_run: str
    ) -> None:
        page = look(size=PHONE).open_alone(PIPELINE, finished_run)

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
