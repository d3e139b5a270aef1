# SPDX-License-Identifier: Apache-2.0
"""One live Airflow with a sandbox relay for all browser tests, and its users in a browser."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FrameLocator, expect

from airflow_provider_luma.sandbox import LumaSandbox
from tests.browser.viewer import DESKTOP, WAIT_MS, Viewer, chromium
from tests.support.live_airflow import LiveAirflow

expect.set_options(timeout=WAIT_MS)

HERE = Path(__file__).parent
EXAMPLE_DAGS = HERE.parents[1] / "example_dags"
PIPELINE = "example_luma_pipeline"
# Files on Airflow's host, such as the sandbox's, are loaded with CORS, which its 404 doesn't allow.
GONE = ("Failed to load resource", "blocked by CORS policy")
PROMPTS = ["a paper boat on a quiet lake at dawn", "a red fox in falling snow", "a city of glass at night"]
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


def record(sandbox: LumaSandbox, id: str, **fields: Any) -> dict[str, Any]:
    """Return an artifact record whose URLs the sandbox serves."""
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


@pytest.fixture(scope="session")
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox(pending_seconds=2, processing_seconds=4) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def airflow(sandbox: LumaSandbox) -> Iterator[LiveAirflow]:
    """Start Airflow with ``admin``, ``rita`` of team red (owns ``luma_secret``) and ``bert`` of team blue."""
    bundles = [
        {"name": "examples", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(EXAMPLE_DAGS)}},
        {"name": "tests", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(HERE / "dags")}},
        {
            "name": "red",
            "classpath": LOCAL_BUNDLE,
            "kwargs": {"path": str(HERE / "team_dags")},
            "team_name": "red",
        },
    ]
    environment = {
        "AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection,
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
    }

    def create_teams(airflow: LiveAirflow) -> None:
        for team in ("red", "blue"):
            airflow.run_cli("teams", "create", team)

    with LiveAirflow(
        EXAMPLE_DAGS,
        env=environment,
        users={"admin": "admin", "rita": "viewer:red", "bert": "viewer:blue"},
        before_start=create_teams,
    ) as airflow:
        yield airflow


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def look(browser: Browser, airflow: LiveAirflow, sandbox: LumaSandbox) -> Iterator[Callable[..., Viewer]]:
    """
    Open a browser for a user: ``look(user="admin", size=DESKTOP)``.

    At the end, no console may hold an unexpected error, and no browser may have called another origin.
    """
    viewers: list[Viewer] = []

    def look(user: str | None = "admin", size: tuple[int, int] = DESKTOP) -> Viewer:
        viewers.append(Viewer(browser, airflow, user, size))
        return viewers[-1]

    yield look
    for viewer in viewers:
        viewer.close()
    for viewer in viewers:
        assert viewer.unexpected_errors == []
        assert viewer.origins <= {airflow.base_url, sandbox.root_url}


@pytest.fixture
def viewer(look: Callable[..., Viewer]) -> Viewer:
    """An administrator with a desktop's screen."""
    return look()


@pytest.fixture(scope="session")
def finished_run(airflow: LiveAirflow) -> str:
    """A run of ``example_luma_pipeline`` with three completed videos."""
    run_id = airflow.trigger(PIPELINE, conf={"prompts": PROMPTS})
    assert airflow.wait_for_run(PIPELINE, run_id) == "success"
    return run_id


@pytest.fixture
def pushed(airflow: LiveAirflow) -> Callable[..., str]:
    """Run a Dag that pushes XComs and returns a value, and return its run id: ``pushed(returns, key=…)``."""

    def pushed(returns: Any = None, *, dag_id: str = "luma_xcoms", **xcoms: Any) -> str:
        run_id = airflow.trigger(dag_id, conf={"xcoms": xcoms, "returns": returns})
        assert airflow.wait_for_run(dag_id, run_id) == "success"
        return run_id

    return pushed


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for screenshots; ``make screenshots`` sets it to the documentation's."""
    folder = os.environ.get("LUMA_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("pictures")
