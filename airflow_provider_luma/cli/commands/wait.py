# SPDX-License-Identifier: Apache-2.0
"""``wait``: wait until videos are completed."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.inputs import find_relay, read_ids
from airflow_provider_luma.cli.output import Output, OutputLog
from airflow_provider_luma.text import clean_text, shorten_list
from airflow_provider_luma.waiting.progress import Progress, Report, Verdict, WaitPolicy
from airflow_provider_luma.waiting.time_limit import TimeLimit
from airflow_provider_luma.waiting.tracker import Tracker, follow

_EXITS: dict[Verdict, Exit] = {"done": Exit.OK, "failed": Exit.TASKS_FAILED, "timed_out": Exit.TIMEOUT}


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Wait, and print the ids of the completed videos."""
    ids = read_ids(arguments.ids)
    with output.reserve_stdout():
        settings = find_relay(arguments.conn_id).settings
        policy = WaitPolicy(max_failed=arguments.max_failed, missing_polls=arguments.missing_polls)
        tracker = Tracker(Progress.of(ids), policy, OutputLog(output))
        with settings.client() as client:
            report = follow(
                client,
                tracker,
                interval=arguments.interval,
                limit=TimeLimit(seconds=arguments.timeout),
                max_poll_failures=settings.max_poll_failures,
            )
    _print_problems(tracker.progress, report, arguments.timeout, output)
    if output.as_json:
        output.json(_result(tracker.progress, report.verdict))
    else:
        output.lines(tracker.progress.completed_ids)
    return _EXITS.get(report.verdict, Exit.ERROR)


def _print_problems(progress: Progress, report: Report, timeout: float, output: Output) -> None:
    for task_id, reason in progress.failed.items():
        output.message(f"{task_id}: {clean_text(reason)}", style="red")
    if report.verdict == "timed_out":
        output.message(
            f"Not completed after {timeout:g} s: {shorten_list(progress.open_ids, 100)}. They keep "
            "running at the relay; run the command again to resume waiting.",
            style="red",
        )
    elif report.verdict in ("refused", "unreachable"):
        output.message(report.message, style="red")


def _result(progress: Progress, verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "summary": progress.summary(),
        "completed": progress.completed_ids,
        "failed": progress.failed,
        "open": progress.open_ids,
    }
