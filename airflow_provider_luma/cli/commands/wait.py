# SPDX-License-Identifier: Apache-2.0
"""``wait``: until videos are there."""

from __future__ import annotations

import argparse

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.ids import read_ids
from airflow_provider_luma.cli.output import Output, OutputLog
from airflow_provider_luma.cli.relay import find_relay
from airflow_provider_luma.exceptions import shorten_ids
from airflow_provider_luma.text import clean_text
from airflow_provider_luma.waiting.progress import Progress, Verdict, WaitPolicy
from airflow_provider_luma.waiting.time_limit import TimeLimit
from airflow_provider_luma.waiting.tracker import Tracker, follow

_EXITS: dict[Verdict, Exit] = {
    "done": Exit.OK,
    "failed": Exit.TASKS_FAILED,
    "timed_out": Exit.TIMEOUT,
}


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Wait, and print the ids of the completed videos."""
    ids = read_ids(arguments.ids)
    with output.alone_on_stdout():
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
    progress, verdict = tracker.progress, report.verdict
    for task_id, reason in progress.failed.items():
        output.say(f"{task_id}: {clean_text(reason)}", style="red")
    if verdict == "timed_out":
        output.say(
            f"Not finished after {arguments.timeout:g} s: {shorten_ids(progress.open_ids, 100)}. They keep "
            "running at the relay: wait again for them.",
            style="red",
        )
    elif verdict in ("refused", "unreachable"):
        output.say(report.message, style="red")
    if output.as_json:
        output.json(
            {
                "verdict": verdict,
                "summary": progress.summary(),
                "completed": progress.completed_ids,
                "failed": progress.failed,
                "open": progress.open_ids,
            }
        )
    else:
        output.lines(progress.completed_ids)
    return _EXITS.get(verdict, Exit.ERROR)
