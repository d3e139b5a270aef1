# SPDX-License-Identifier: Apache-2.0
"""
Print results to standard output, as text or JSON, and everything else to standard error.

All text from outside is made safe here: it can't control a terminal, and no value fails a command because it
can't be printed. Failing to write standard output is an error with its own exit code; failing to write
standard error is ignored.
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

_WIDTH_WITHOUT_TERMINAL: Final = 200
_MAX_MESSAGE: Final = 20_000
_JOINERS: Final = "\u200c\u200d"  # Used in Persian words and emoji.
_INT64: Final = range(-(2**63), 2**64)
_INVISIBLE: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_NOT_ASCII: Final = re.compile("[^\x00-\x7e]")


class LumaOutputError(LumaError):
    """Standard output is closed, full or has no reader. Nothing that the command has done is undone."""


def plain(text: object) -> Text:
    """Make a text safe to print: without markup, and with characters that control a terminal replaced."""
    return Text(_printable(str(text)))


def _printable(text: str) -> str:
    head = text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"
    if head.isprintable():
        return head
    return "".join(
        char if char.isprintable() or char == "\n" or char in _JOINERS else "\N{REPLACEMENT CHARACTER}"
        for char in head
    )


class _StandardStream:
    """Standard output, which may be closed (``None``), full or without a reader."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        # Otherwise a Chinese prompt would fail the command in an ASCII locale.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:
        """Return the encoding, by which rich chooses its characters."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor, by which rich finds the terminal's size."""
        if self._stream is None:
            raise UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write a text; raise LumaOutputError if that fails."""
        with self._guarded():
            if self._stream is None:
                raise ValueError("it is closed")
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        with self._guarded():
            if self._stream is not None:
                self._stream.flush()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self._discard()
            self._fail(getattr(error, "strerror", None) or str(error), error)

    def _fail(self, reason: str, error: Exception) -> None:
        raise LumaOutputError(
            f"Standard output can't be written: {reason}. The results are lost, but nothing is undone."
        ) from error

    def _discard(self) -> None:
        # Otherwise Python fails at exit, with its own exit code, when it flushes the rest of the buffer.
        try:
            descriptor = self.fileno()
        except (OSError, ValueError):
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


class _MessageStream(_StandardStream):
    """Standard error, whose failure must not cost the command's result."""

    def _fail(self, reason: str, error: Exception) -> None:
        self._stream = None
        log.info("Standard error can't be written: %s", reason)

    def write(self, text: str) -> int:
        """Write a text unless the stream is unusable."""
        return len(text) if self._stream is None else super().write(text)


class Output:
    """
    The results and messages of a command.

    :param as_json: Whether results are printed as JSON.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout
        # Rich and redirect_stdout expect a TextIO, but use only the methods defined above.
        self._stream = cast("TextIO", _StandardStream(sys.stdout))
        messages = cast("TextIO", _MessageStream(sys.stderr))
        self.console = Console(
            file=self._stream,
            width=None if self._stream.isatty() else _WIDTH_WITHOUT_TERMINAL,
            highlight=False,
        )
        self._messages = Console(file=messages, highlight=False, soft_wrap=True)

    @property
    def is_closed(self) -> bool:
        """Whether both standard streams are closed, so that no id could be printed."""
        return sys.stdout is None and sys.stderr is None

    @contextmanager
    def reserve_stdout(self) -> Iterator[None]:
        """Redirect what libraries print or log to standard error, to keep standard output for results."""
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
    def guard_stdout(self) -> Iterator[None]:
        """Make what libraries print fail with LumaOutputError, as the command's own output does."""
        with redirect_stdout(self._stream):
            yield

    def message(self, message: object, *, style: str = "") -> None:
        """Print a message to standard error."""
        self._messages.print(plain(message), style=style)

    def json(self, value: Any) -> None:
        """Print a value as one line of JSON. Numbers that JSON can't represent become null."""
        text = msgspec.json.encode(_encodable(value)).decode()
        utf8 = self._stream.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        self._print((_INVISIBLE if utf8 else _NOT_ASCII).sub(_escaped, text))

    def show(self, renderable: RenderableType) -> None:
        """Print a rich renderable, such as a table."""
        self.console.print(renderable)

    def lines(self, lines: list[str]) -> None:
        """Print texts, one per line."""
        for line in lines:
            self._print(_printable(line))

    def error(self, error: LumaError) -> None:
        """Print an error to standard error and, with ``--json``, as an object to standard output."""
        self.message(error, style="red")
        if self.as_json:
            fields = {
                "type": type(error).__name__,
                "message": str(error),
                "retryable": error.retryable,
                "task_ids": list(error.task_ids),
            }
            if isinstance(error, LumaApiError):
                fields |= {"status": error.status, "code": error.code, "request_id": error.request_id}
            try:
                self.json({"error": fields})
            except LumaOutputError as failure:
                # The exit code of the first error counts: it may say that a submit has an unknown outcome.
                self.message(failure, style="red")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _encodable(value: Any) -> Any:
    """Replace what would fail the encoder: numbers that JSON can't represent, and lone surrogates."""
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
    A logger for waits that prints to standard error.

    :param output: The command's output.
    """

    def __init__(self, output: Output) -> None:
        self._output = output

    def info(self, message: Any, /, *args: Any) -> None:
        """Print a message."""
        self._output.message(message % args)

    def warning(self, message: Any, /, *args: Any) -> None:
        """Print a message in yellow."""
        self._output.message(message % args, style="yellow")
