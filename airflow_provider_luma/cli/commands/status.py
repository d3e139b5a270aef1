# SPDX-License-Identifier: Apache-2.0
"""``status``: show the states of videos."""

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
from airflow_provider_luma.cli.inputs import find_relay, read_ids
from airflow_provider_luma.cli.output import Output, OutputLog, plain
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
_MAX_NUMBER: Final = 1e9


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Show the table once, or until all tasks are in a terminal state."""
    ids = read_ids(arguments.ids)
    with output.reserve_stdout():
        settings = find_relay(arguments.conn_id).settings
        view = _View(ids, output)
        with settings.client() as client:
            if arguments.watch:
                view.watch(client, settings.max_poll_failures, arguments.interval)
            else:
                view.show(client)
    return Exit.TASKS_FAILED if view.any_failed else Exit.OK


class _View:
    """The last known state of the tasks, as a table or as JSON."""

    def __init__(self, ids: list[str], output: Output) -> None:
        self._progress = Progress.of(ids)
        self._tasks: dict[str, LumaTask] = {}
        self._output = output

    @property
    def any_failed(self) -> bool:
        """Whether a task has failed or is unknown to the relay."""
        return any(self._state(id_) in (TaskState.FAILED.value, _NOT_FOUND) for id_ in self._progress.ids)

    def show(self, client: LumaClient) -> None:
        """Poll once and print the states."""
        self._tasks = client.get_tasks(self._progress.ids)
        self._progress = self._progress.after(self._tasks, WaitPolicy(max_failed=None))
        self._print()

    def watch(self, client: LumaClient, max_poll_failures: int, interval: float) -> None:
        """Poll until all tasks are in a terminal state; on a terminal, update the table in place."""
        in_place = self._output.console.is_terminal and not self._output.as_json
        log = _NullLog() if in_place else OutputLog(self._output)
        tracker = Tracker(self._progress, WaitPolicy(max_failed=None), log)
        shown = ""

        def after_poll(tasks: dict[str, LumaTask]) -> None:
            nonlocal shown
            self._tasks |= tasks
            self._progress = tracker.progress
            if in_place:
                live.update(self._render(), refresh=True)
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
            self._output.show(self._render())

    def _state(self, task_id: str) -> str:
        if task_id in self._progress.failed:
            return TaskState.FAILED.value if task_id in self._tasks else _NOT_FOUND
        task = self._tasks.get(task_id)
        if task is None:
            return _NOT_FOUND
        return "illegible" if task.problem else task.state.value

    def _reason(self, task_id: str) -> str | None:
        task = self._tasks.get(task_id)
        reported = task and (task.failure_reason or task.problem)
        return self._progress.failed.get(task_id) or reported or None

    def _record(self, task_id: str) -> dict[str, Any]:
        task = self._tasks.get(task_id) or LumaTask(id=task_id, state=TaskState.UNKNOWN)
        artifacts = ArtifactRecord.of(task).to_dict()
        return {"id": task_id, "state": self._state(task_id), "reason": self._reason(task_id)} | artifacts

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("ID", no_wrap=True, overflow="fold")
        table.add_column("State", no_wrap=True)
        table.add_column("Size", no_wrap=True)
        table.add_column("Seconds", justify="right", no_wrap=True)
        table.add_column("Created (UTC)", no_wrap=True)
        table.add_column("Prompt or reason")
        for task_id in self._progress.ids:
            table.add_row(*_cells(self._record(task_id)))
        failures = self._progress.poll_failures
        error = plain(f"The last poll failed: {failures.text}" if failures else "")
        return Group(table, Text(), self._render_progress(), error)

    def _render_progress(self) -> Table:
        total, remaining = len(self._progress.ids), len(self._progress.open_ids)
        bar = ProgressBar(total=total, completed=total - remaining, width=40)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(bar, plain(self._progress.summary()))
        return grid


def _cells(record: dict[str, Any]) -> list[Text]:
    state, reason = record["state"], record["reason"]
    width, height, seconds = (_number(record[name]) for name in ("width", "height", "duration"))
    return [
        plain(record["id"]),
        Text(state, style=_STYLES.get(state, "")),
        plain(f"{width:g}x{height:g}" if width and height else ""),
        plain(f"{seconds:.1f}" if seconds else ""),
        plain((record["created_at"] or "")[:16].replace("T", " ")),
        plain(clean_text(record["prompt"] or "", _PROMPT_WIDTH) if reason is None else clean_text(reason)),
    ]


def _number(value: object) -> float | None:
    """Return a size or duration that is possible; another value must not fail the whole table."""
    return float(value) if isinstance(value, int | float) and 0 < value < _MAX_NUMBER else None


class _NullLog:
    """A logger that discards messages, which would disturb a table that is updated in place."""

    def info(self, message: Any, /, *args: Any) -> None:
        """Discard a message."""

    def warning(self, message: Any, /, *args: Any) -> None:
        """Discard a message."""
