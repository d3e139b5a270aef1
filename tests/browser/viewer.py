# SPDX-License-Identifier: Apache-2.0
"""A user of Airflow in a browser, and the errors and requests of that browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Frame, FrameLocator, Locator, Page, sync_playwright

from tests.support.live_airflow import LiveAirflow
from tests.support.patience import PATIENCE

FLAGS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
DESKTOP: Final = (1440, 900)
PHONE: Final = (390, 844)
WAIT_MS: Final = 1000 * PATIENCE
WCAG: Final = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's own Chromium, headless, on a fresh profile."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("chromium is missing; `make test-browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=WAIT_MS)
        yield browser
        browser.close()


class Viewer:
    """
    A user of Airflow in a browser context of their own.

    :param user: The user to sign in as. ``None`` stays anonymous.
    """

    def __init__(
        self, browser: Browser, airflow: LiveAirflow, user: str | None, size: tuple[int, int] = DESKTOP
    ) -> None:
        self.airflow = airflow
        self.errors: list[str] = []
        #: Parts of the errors that a test provokes.
        self.expected_error: str | tuple[str, ...] = ()
        self.origins: set[str] = set()
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, locale="en-US", base_url=airflow.base_url
        )
        context.set_default_timeout(WAIT_MS)
        self.page: Page = context.new_page()
        if user is not None:
            self._sign_in(user)
        # Airflow's login page makes requests that fail until the user has signed in.
        self.page.on(
            "console", lambda entry: self.errors.append(entry.text) if entry.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self._refuse(dialog))
        context.on("request", lambda request: self._note_origin(request.url))

    def close(self) -> None:
        self.page.context.close()

    def _sign_in(self, user: str) -> None:
        self.page.goto("/")
        self.page.fill("input[name=username]", user)
        self.page.fill("input[name=password]", self.airflow.password(user))
        self.page.click("button[type=submit]")
        self.page.get_by_role("link", name="Dags").first.wait_for()

    def _refuse(self, dialog: Any) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note_origin(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about"):
            self.origins.add(f"{parts.scheme}://{parts.netloc}")

    @property
    def unexpected_errors(self) -> list[str]:
        expected = self.expected_error
        parts = (expected,) if isinstance(expected, str) else expected
        return [error for error in self.errors if not any(part in error for part in parts)]

    # The gallery

    def open_run(self, dag_id: str, run_id: str) -> FrameLocator:
        """Open a Dag run's page and its Luma tab, as users do."""
        self.page.goto(run_path(dag_id, run_id))
        return self.open_tab()

    def open_task(self, dag_id: str, run_id: str, task_id: str) -> FrameLocator:
        """Open a task instance's page and its Luma tab."""
        self.page.goto(f"{run_path(dag_id, run_id)}/tasks/{task_id}")
        return self.open_tab()

    def open_recent(self) -> FrameLocator:
        """Open the page of recent runs from the navigation."""
        self.page.goto("/")
        self.page.get_by_role("button", name="Browse").click()
        self.page.get_by_role("menuitem", name="Luma videos").click()
        return self.gallery()

    def open_standalone(self, dag_id: str, run_id: str) -> Page:
        """Open the gallery outside the Airflow UI."""
        self.page.goto(f"/luma/?dag_id={dag_id}&run_id={quote(run_id, safe='')}")
        self.page.locator("#page:not([aria-busy])").wait_for()
        return self.page

    def open_tab(self) -> FrameLocator:
        """Open the Luma tab of the current page."""
        self.page.get_by_role("link", name="Luma", exact=True).click()
        return self.gallery()

    def gallery(self) -> FrameLocator:
        """Return the gallery in the current page, once it has loaded."""
        gallery = self.page.frame_locator("iframe[title^='Luma']")
        gallery.locator("#page:not([aria-busy])").wait_for()
        return gallery

    @property
    def frame(self) -> Frame:
        """Return the frame of the gallery."""
        return next(frame for frame in self.page.frames if "/luma/" in frame.url)

    def serious_violations(self, where: Page | Frame) -> list[str]:
        """Return the violations that axe-core rates as serious or worse, with their elements."""
        violations = Axe().run(where, options=WCAG).response["violations"]
        return [
            f"{violation['id']}: {violation['help']} {[node['target'] for node in violation['nodes']]}"
            for violation in violations
            if violation["impact"] in ("serious", "critical")
        ]


def wait_until_played(player: Locator, seconds: float) -> None:
    """Wait until a video element has played for so many seconds."""
    player.evaluate(
        """(player, seconds) => new Promise((done) => {
            const look = () => (player.currentTime > seconds ? done() : requestAnimationFrame(look));
            look();
        })""",
        seconds,
    )


def run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/runs/{quote(run_id, safe=':+')}"
