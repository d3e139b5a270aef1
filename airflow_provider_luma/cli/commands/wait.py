# SPDX-License-Identifier: Apache-2.0
"""``wait``: wait until videos are completed."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.follow import follow
from airflow_provider_luma.cli.inputs import find_relay, read_ids
from airflow_provider_luma.cli.output import Output, OutputLog
from airflow_provider_luma.exceptions import shorten_ids
from airflow_provider_luma.text import clean_text
from airflow_provider_luma.waiting.progress import Progress, Verdict, WaitPolicy
from airflow_provider_luma.waiting.tracker import Tracker

_EXITS: dict[Verdict, Exit] = {
    "done": Exit.OK,
    "failed": Exit.TASKS_FAILED,
    "timed_out": Exit.TIMEOUT,
}


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Wait, and print the ids of the completed videos."""
    ids = read_ids(arguments.ids)
    with output.reserve_stdout():
        settings = find_relay(arguments.conn_id).settings
        policy = WaitPolicy(
            max_failed=arguments.max_failed,
            missing_polls=arguments.missing_polls,
            max_poll_failures=settings.max_poll_failures,
        )
        tracker = Tracker(Progress.of(ids), policy, OutputLog(output))
        with settings.client() as client:
            verdict = follow(client, tracker, interval=arguments.interval, timeout=arguments.timeout)
    _print_problems(tracker, verdict, arguments.timeout, output)
    if output.as_json:
        output.json(_result(tracker.progress, verdict))
    else:
        output.lines(tracker.progress.completed_ids)
    return _EXITS.get(verdict, Exit.ERROR)


def _print_problems(tracker: Tracker, verdict: Verdict, timeout: float, output: Output) -> None:
    for task_id, reason in tracker.progress.failed.items():
        output.message(f"{task_id}: {clean_text(reason)}", style="red")
    if verdict == "timed_out":
        output.message(
            f"Not completed after {timeout:g} s: {shorten_ids(tracker.progress.open_ids, 100)}. They keep "
            "running at the relay; run the command again to resume waiting.",
            style="red",
        )
    elif verdict in ("refused", "unreachable"):
        output.message(tracker.report(verdict, waited="").message, style="red")


def _result(progress: Progress, verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "summary": progress.summary(),
        "completed": progress.completed_ids,
        "failed": progress.failed,
        "open": progress.open_ids,
    }
