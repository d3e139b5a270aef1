# SPDX-License-Identifier: Apache-2.0
"""
Results on standard output, for people or as JSON; everything else on standard error.

What comes from outside leaves here clean, whatever came before: no text steers a terminal, and no value stops
a command because it can't be printed. Standard output that can't be written is an error with an exit code of
its own; standard error that can't be written stops nothing.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import TextIOWrapper, UnsupportedOperation
from typing import Any, Final, TextIO, cast

import msgspec
from rich.console import Console, RenderableType
from rich.text import Text

from airflow_provider_luma.exceptions import LumaApiError, LumaError

log = logging.getLogger(__name__)

_WIDTH_OF_NO_TERMINAL: Final = 200
_MAX_MESSAGE: Final = 20_000
_JOINERS: Final = "\u200c\u200d"  # Persian words and emoji need them.
_INT64: Final = range(-(2**63), 2**64)
_INVISIBLE: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_NOT_ASCII: Final = re.compile("[^\x00-\x7e]")


class LumaOutputError(LumaError):
    """Standard output is closed or full, or its reader is gone. What the command did is done all the same."""


def plain(text: object) -> Text:
    """Show a text from outside as it is: no markup, and no character that steers the terminal."""
    return Text(_visible(str(text)))


def _visible(text: str) -> str:
    head = text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"
    if head.isprintable():
        return head
    return "".join(
        char if char.isprintable() or char == "\n" or char in _JOINERS else "\N{REPLACEMENT CHARACTER}"
        for char in head
    )


class _StandardStream:
    """
    A standard stream that may be closed, full or without a reader.

    Python has ``None`` in place of a stream that was closed when the process started.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        # In an ASCII locale a prompt in Chinese must not end the command.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:
        """What rich chooses its characters by."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor, for the terminal's size."""
        if self._stream is None:
            raise UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write a text."""
        with self._trouble():
            if self._stream is None:
                raise ValueError("it is closed")
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._trouble():
            if self._stream is not None:
                self._stream.flush()

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self._discard()
            self._failed(getattr(error, "strerror", None) or str(error), error)

    def _failed(self, why: str, error: Exception) -> None:
        raise LumaOutputError(
            f"Standard output can't be written: {why}. The command's results are lost; what it did is done."
        ) from error

    def _discard(self) -> None:
        # What is left in the buffer would fail again when Python exits, with an exit code of its own.
        try:
            descriptor = self.fileno()
        except (OSError, ValueError):
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


class _Messages(_StandardStream):
    """Standard error: a result must not be lost because a message can't be read."""

    def _failed(self, why: str, error: Exception) -> None:
        self._stream = None
        log.info("Standard error can't be written: %s", why)

    def write(self, text: str) -> int:
        """Write a text, if there is somewhere to write it to."""
        return len(text) if self._stream is None else super().write(text)


class Output:
    """
    Where a command puts what it has to say.

    :param as_json: Whether standard output is for machines.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout
        # Rich and redirect_stdout ask for a whole TextIO and use these few methods of it.
        self._stream = cast("TextIO", _StandardStream(sys.stdout))
        messages = cast("TextIO", _Messages(sys.stderr))
        self.console = Console(
            file=self._stream,
            width=None if self._stream.isatty() else _WIDTH_OF_NO_TERMINAL,
            highlight=False,
        )
        self._messages = Console(file=messages, highlight=False, soft_wrap=True)

    @property
    def mute(self) -> bool:
        """Whether nothing that is printed can reach anybody: both standard streams are closed."""
        return sys.stdout is None and sys.stderr is None

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

    @contextmanager
    def guarded_stdout(self) -> Iterator[None]:
        """Let what others print fail as this command's own output does."""
        with redirect_stdout(self._stream):
            yield

    def say(self, message: object, *, style: str = "") -> None:
        """Tell the person at the terminal something, on standard error."""
        self._messages.print(plain(message), style=style)

    def json(self, value: Any) -> None:
        """Print a value as one line of JSON. What JSON can't hold becomes null, and nothing in it is raw."""
        text = msgspec.json.encode(_encodable(value)).decode()
        utf8 = self._stream.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        self._print((_INVISIBLE if utf8 else _NOT_ASCII).sub(_escaped, text))

    def show(self, renderable: RenderableType) -> None:
        """Print a table or the like."""
        self.console.print(renderable)

    def lines(self, lines: list[str]) -> None:
        """Print texts, one a line."""
        for line in lines:
            self._print(_visible(line))

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
            try:
                self.json({"error": told})
            except LumaOutputError as failure:
                # The exit code must say what happened first: that a video may have been bought, say.
                self.say(failure, style="red")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _encodable(value: Any) -> Any:
    """Replace what would stop the encoder: numbers out of JSON's reach, and halves of surrogate pairs."""
    match value:
        case bool() | None:
            return value
        case str():
            return value.encode("utf-8", "replace").decode() if not value.isascii() else value
        case int():
            return value if value in _INT64 else None
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {_encodable(str(name)): _encodable(item) for name, item in value.items()}
        case list() | tuple():
            return [_encodable(item) for item in value]
        case _:
            return value


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


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
