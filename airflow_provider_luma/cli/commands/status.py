# SPDX-License-Identifier: Apache-2.0
"""``status``: where videos stand."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from math import inf
from typing import Any, Final

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.ids import read_ids
from airflow_provider_luma.cli.output import Output, OutputLog, plain
from airflow_provider_luma.cli.relay import find_relay
from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.artifacts import ArtifactRecord
from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.exceptions import LumaUnavailableError
from airflow_provider_luma.text import clean_text
from airflow_provider_luma.waiting.progress import Progress, WaitPolicy
from airflow_provider_luma.waiting.time_limit import TimeLimit
from airflow_provider_luma.waiting.tracker import Tracker, follow

_NOT_FOUND: Final = "not found"
_STYLES: Final = {
    TaskState.COMPLETED.value: "green",
    TaskState.FAILED.value: "red",
    TaskState.PROCESSING.value: "cyan",
    _NOT_FOUND: "red",
}
_PROMPT_WIDTH: Final = 60
_MOST: Final = 1e9


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Show the table; once, or until all have come to their end."""
    ids = read_ids(arguments.ids)
    with output.alone_on_stdout():
        settings = find_relay(arguments.conn_id).settings
        view = _View(ids, output)
        with settings.client() as client:
            if arguments.watch:
                view.look_on(client, settings.max_poll_failures, arguments.interval)
            else:
                view.look(client)
    return Exit.TASKS_FAILED if view.bad else Exit.OK


class _View:
    """The tasks as they were seen last, and how they are shown."""

    def __init__(self, ids: list[str], output: Output) -> None:
        self._progress = Progress.of(ids)
        self._tasks: dict[str, LumaTask] = {}
        self._output = output

    @property
    def bad(self) -> bool:
        """Whether a task failed or is not known to the relay."""
        return any(self._standing(id_) in (TaskState.FAILED.value, _NOT_FOUND) for id_ in self._progress.ids)

    def look(self, client: LumaClient) -> None:
        """Ask once and show it."""
        self._tasks = client.get_tasks(self._progress.ids)
        self._progress = self._progress.after(self._tasks, WaitPolicy(max_failed=None))
        self._print()

    def look_on(self, client: LumaClient, max_poll_failures: int, interval: float) -> None:
        """Show it again and again, in place where there is a terminal."""
        in_place = self._output.console.is_terminal and not self._output.as_json
        log = _Silence() if in_place else OutputLog(self._output)
        tracker = Tracker(self._progress, WaitPolicy(max_failed=None), log)
        shown = ""

        def after_poll(tasks: dict[str, LumaTask]) -> None:
            nonlocal shown
            self._tasks |= tasks
            self._progress = tracker.progress
            if in_place:
                live.update(self._rendered(), refresh=True)
            elif self._output.as_json and shown != tracker.last_summary:
                self._print()
            shown = tracker.last_summary

        live = Live(console=self._output.console, auto_refresh=False, transient=True)
        with live if in_place else nullcontext():
            report = follow(
                client,
                tracker,
                interval=interval,
                limit=TimeLimit(seconds=inf),
                max_poll_failures=max_poll_failures,
                after_poll=after_poll,
            )
        if report.verdict != "done":
            raise LumaUnavailableError(report.message)
        if not self._output.as_json:
            self._print()

    def _print(self) -> None:
        if self._output.as_json:
            self._output.json([self._record(task_id) for task_id in self._progress.ids])
        else:
            self._output.show(self._rendered())

    def _standing(self, task_id: str) -> str:
        if task_id in self._progress.failed:
            return TaskState.FAILED.value if task_id in self._tasks else _NOT_FOUND
        task = self._tasks.get(task_id)
        if task is None:
            return _NOT_FOUND
        return "illegible" if task.problem else task.state.value

    def _reason(self, task_id: str) -> str | None:
        task = self._tasks.get(task_id)
        told = task and (task.failure_reason or task.problem)
        return self._progress.failed.get(task_id) or told or None

    def _record(self, task_id: str) -> dict[str, Any]:
        task = self._tasks.get(task_id) or LumaTask(id=task_id, state=TaskState.UNKNOWN)
        record = ArtifactRecord.of(task).to_dict()
        del record["id"]
        return {
            "id": task_id,
            "state": self._standing(task_id),
            "reason": self._reason(task_id),
            **record,
        }

    def _rendered(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("ID", no_wrap=True, overflow="fold")
        table.add_column("State", no_wrap=True)
        table.add_column("Size", no_wrap=True)
        table.add_column("Seconds", justify="right", no_wrap=True)
        table.add_column("Created (UTC)", no_wrap=True)
        table.add_column("Prompt, or why it failed")
        for task_id in self._progress.ids:
            state, record = self._standing(task_id), self._record(task_id)
            reason, prompt = record["reason"], record["prompt"] or ""
            width, height = _number(record["width"]), _number(record["height"])
            seconds = _number(record["duration"])
            table.add_row(
                plain(task_id),
                Text(state, style=_STYLES.get(state, "")),
                f"{width:g}x{height:g}" if width and height else "",
                f"{seconds:.1f}" if seconds else "",
                plain((record["created_at"] or "")[:16].replace("T", " ")),
                plain(clean_text(reason) if reason is not None else clean_text(prompt, _PROMPT_WIDTH)),
            )
        done, total = len(self._progress.ids) - len(self._progress.open_ids), len(self._progress.ids)
        footer = Table.grid(padding=(0, 1))
        footer.add_row(ProgressBar(total=total, completed=done, width=40), plain(self._progress.summary()))
        failures = self._progress.poll_failures
        last = f"The last poll failed: {failures.text}" if failures else ""
        return Group(table, Text(), footer, plain(last))


def _number(value: object) -> float | None:
    """Return a size or duration that a video can have; anything else is not worth losing the table for."""
    return float(value) if isinstance(value, int | float) and 0 < value < _MOST else None


class _Silence:
    """A log for those who look at the table."""

    def info(self, message: Any, /, *args: Any) -> None:
        """Say nothing."""

    def warning(self, message: Any, /, *args: Any) -> None:
        """Say nothing."""
