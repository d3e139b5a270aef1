# SPDX-License-Identifier: Apache-2.0
"""Results on standard output, for people or as JSON; everything else on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.text import Text

from airflow_provider_luma.exceptions import LumaApiError, LumaError

_WIDTH_OF_NO_TERMINAL = 200


def plain(text: object) -> Text:
    """Show a text of the relay as it is: no markup, and no control sequence for the terminal."""
    return Text(
        "".join(
            char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in str(text)
        )
    )


class Output:
    """
    Where a command puts what it has to say.

    :param as_json: Whether standard output is for machines.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout
        self.console = Console(
            file=sys.stdout,
            width=None if sys.stdout.isatty() else _WIDTH_OF_NO_TERMINAL,
            highlight=False,
        )
        self._messages = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    @contextmanager
    def alone_on_stdout(self) -> Iterator[None]:
        """Send what others print or log meanwhile to standard error."""
        handlers = [
            handler
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout
        ]
        for handler in handlers:
            handler.setStream(sys.stderr)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            for handler in handlers:
                handler.setStream(self._stdout)

    def say(self, message: object, *, style: str = "") -> None:
        """Tell the person at the terminal something, on standard error."""
        self._messages.print(plain(message), style=style)

    def json(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        print(msgspec.json.encode(value).decode(), file=self._stdout, flush=True)

    def show(self, renderable: RenderableType) -> None:
        """Print a table or the like."""
        self.console.print(renderable)

    def lines(self, lines: list[str]) -> None:
        """Print texts as they are, one a line."""
        for line in lines:
            print(line, file=self._stdout, flush=True)

    def error(self, error: LumaError) -> None:
        """Tell what went wrong: in words, and on standard output too when that is JSON."""
        self.say(error, style="red")
        if self.as_json:
            told = {
                "type": type(error).__name__,
                "message": str(error),
                "retryable": error.retryable,
                "task_ids": list(error.task_ids),
            }
            if isinstance(error, LumaApiError):
                told |= {"status": error.status, "code": error.code, "request_id": error.request_id}
            self.json({"error": told})


class OutputLog:
    """
    A log for the person at the terminal.

    :param output: Where to say it.
    """

    def __init__(self, output: Output) -> None:
        self._output = output

    def info(self, message: Any, /, *args: Any) -> None:
        """Say what goes on."""
        self._output.say(message % args)

    def warning(self, message: Any, /, *args: Any) -> None:
        """Say what goes wrong."""
        self._output.say(message % args, style="yellow")
