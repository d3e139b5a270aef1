# SPDX-License-Identifier: Apache-2.0
"""
``make demo-ui``: a live Airflow with the sandbox relay, the example Dags and some runs to look at.

Everything listens on 127.0.0.1 and is in temporary folders; Ctrl-C stops and removes all of it.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from airflow_provider_luma.sandbox import LumaSandbox
from tests.support.live_airflow import LiveAirflow

EXAMPLE_DAGS = Path(__file__).parents[1] / "example_dags"
PROMPTS = ["a paper boat on a quiet lake at dawn", "a red fox in falling snow", "a city of glass at night"]
MINUTES = 60


def main() -> int:
    console = Console(highlight=False)
    # Without this a plain kill would leave the processes behind.
    signal.signal(signal.SIGTERM, _interrupt)
    # Late moderation makes videos fail.
    sandbox = LumaSandbox(pending_seconds=4, processing_seconds=16, moderation="fail")
    try:
        with sandbox, console.status("Starting Airflow (about half a minute) …") as status:
            env = {"AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection}
            with LiveAirflow(EXAMPLE_DAGS, env=env) as airflow:
                status.update("Starting runs …")
                runs = start_runs(airflow, sandbox)
                status.stop()
                show(console, airflow, sandbox, runs)
                signal.pause()
    except KeyboardInterrupt:
        console.print("\nStopped; nothing was left behind.")
    return 0


def start_runs(airflow: LiveAirflow, sandbox: LumaSandbox) -> list[tuple[str, str, str]]:
    """Trigger runs with different outcomes; return their Dag ids, run ids and outcomes."""
    scenes = [f"a lighthouse in a storm, scene {number}" for number in range(1, 5)]
    slow = [
        sandbox.add_task(prompt=prompt, completes_after=(20 + 5 * number) * MINUTES)
        for number, prompt in enumerate(scenes)
    ]
    wanted: list[tuple[str, dict[str, Any], str]] = [
        ("example_luma_pipeline", {"prompts": PROMPTS}, "succeeds within a minute"),
        ("example_luma_pipeline", {"prompts": [PROMPTS[0], "something nsfw"]}, "one video fails"),
        ("example_luma_wait", {"luma_task_ids": slow}, "waits for half an hour"),
    ]
    return [(dag_id, airflow.trigger(dag_id, conf), what) for dag_id, conf, what in wanted]


def show(
    console: Console, airflow: LiveAirflow, sandbox: LumaSandbox, runs: list[tuple[str, str, str]]
) -> None:
    console.print(f"Airflow  {airflow.base_url}   user [b]admin[/b]   password [b]{airflow.password()}[/b]")
    console.print(f"Relay    {sandbox.base_url}")
    console.print(f"Videos   {airflow.base_url}/plugin/luma-videos   (Browse > Luma videos)")
    table = Table("Dag", "Run", "Outcome", box=None)
    for run in runs:
        table.add_row(*run)
    console.print(table)
    console.print("Press Ctrl-C to stop everything.")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
