# SPDX-License-Identifier: Apache-2.0
"""
Define every command and its options once, for ``airflow luma`` and ``python -m airflow_provider_luma``.

Airflow imports this module for each of its own commands, so it may import nothing but the standard library at
the top; a command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


class Exit(IntEnum):
    """The exit codes of all commands."""

    OK = 0
    ERROR = 1
    USAGE = 2
    TASKS_FAILED = 3
    TIMEOUT = 4
    AMBIGUOUS = 5
    OUTPUT = 6
    INTERRUPTED = 130


EXIT_CODES: Final = {
    Exit.OK: "success",
    Exit.ERROR: "the relay, the network or a file store returned an error",
    Exit.USAGE: "an option, the connection or an environment variable is invalid",
    Exit.TASKS_FAILED: "some videos failed, or the relay doesn't know their ids",
    Exit.TIMEOUT: "the timeout has passed; the videos keep running at the relay",
    Exit.AMBIGUOUS: "unknown outcome of a submit: it may be billed, so check the relay before a new submit",
    Exit.OUTPUT: "standard output can't be written: it is closed, full or has no reader",
    Exit.INTERRUPTED: "interrupted by Ctrl-C; the videos keep running at the relay",
}

_Number = TypeVar("_Number", int, float)

_EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code.value:<4} {text}" for code, text in EXIT_CODES.items())


class Option:
    """An argument of a command, with the interface of Airflow's ``Arg``, so that it serves both parsers."""

    def __init__(self, *flags: str, **keywords: Any) -> None:
        self.flags = flags
        self.keywords = keywords

    def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add this argument to a command's parser."""
        parser.add_argument(*self.flags, **self.keywords)


class RemainingArguments(Option):
    """All arguments that follow the command's name, options included, for a parser of the command's own."""

    def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
        """Stop the parser from taking any option as its own, even ``--help``."""
        parser.prefix_chars = "\0"
        parser.add_argument(*self.flags, nargs=argparse.REMAINDER, **self.keywords)


@dataclass(frozen=True, kw_only=True)
class Command:
    """
    One command.

    :param name: The command's name, and that of its module in ``commands``.
    :param help: One line for the list of commands.
    :param description: The text above the options in ``--help``.
    :param options: Its arguments.
    :param epilog: The text below the options in ``--help``.
    """

    name: str
    help: str
    description: str
    options: tuple[Option, ...]
    epilog: str = _EXIT_CODES

    def run(self, arguments: argparse.Namespace) -> None:
        """Run the command and exit with its exit code."""
        from airflow_provider_luma.cli.run import run

        sys.exit(run(self.name, arguments))


def positive_seconds(text: str) -> float:
    """Parse a number of seconds above 0."""
    return _number(text, float, lambda value: 0 < value < 1e9, "a number of seconds above 0")


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def int_or_any(text: str) -> int | None:
    """Parse a whole number of at least 0, or ``any``, which becomes ``None``."""
    if text == "any":
        return None
    return _number(text, int, lambda value: value >= 0, "a whole number of at least 0, or 'any'")


def _number(text: str, kind: type[_Number], is_valid: Callable[[_Number], bool], expected: str) -> _Number:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_valid(value):
        raise argparse.ArgumentTypeError(f"must be {expected}; got {text!r}")
    return value


def _switch(flag: str, text: str) -> Option:
    return Option(flag, action=argparse.BooleanOptionalAction, default=None, help=text)


def _count(flag: str, text: str, *, default: int | None = None) -> Option:
    return Option(flag, type=positive_int, default=default, metavar="N", help=text)


_CONN_ID = Option(
    "--conn-id",
    metavar="CONN_ID",
    help="Id of the Airflow connection (default: luma_default, unless\nLUMA_API_KEY is set).",
)
_JSON = Option(
    "--json",
    action="store_true",
    help="Print nothing but JSON on standard output; messages go to\nstandard error.",
)
_COMMON = (_CONN_ID, _JSON)
_IDS = Option("ids", nargs="+", metavar="ID", help="Ids of Luma tasks; '-' reads them from standard input.")
_INTERVAL = Option(
    "--interval",
    type=positive_seconds,
    default=15.0,
    metavar="SECONDS",
    help="Seconds between polls (default: 15). Relays update a task\nabout every 15 seconds.",
)

COMMANDS: Final = (
    Command(
        name="check",
        help="Check the connection and the API key, and show the balance",
        description=(
            "Check that the relay can be reached and accepts the API key. Show its response time and, if\n"
            "the relay reports it, the balance of the key. Read-only and free of charge."
        ),
        options=_COMMON,
    ),
    Command(
        name="status",
        help="Show the states of videos",
        description="Show the states of videos in a table. Polling is free of charge.",
        options=(
            _IDS,
            Option(
                "--watch",
                action="store_true",
                help="Poll until all videos have reached a terminal state. With\n"
                "--json, print one line per change.",
            ),
            _INTERVAL,
            *_COMMON,
        ),
    ),
    Command(
        name="generate",
        help="Submit a request for one video; this costs money",
        description=(
            "Submit a request for one video and print its id. THIS COSTS MONEY: the relay bills every\n"
            "request that it accepts. The request is sent exactly once. If the outcome is unknown (exit\n"
            "code 5, also after Ctrl-C), check the relay's task list or bill before you submit it again.\n"
            "The id is printed on standard error, too. Fields without an option keep the relay's defaults."
        ),
        options=(
            Option("prompt", metavar="PROMPT", help="What to generate, 3 to 5000 characters."),
            Option("--model-name", metavar="NAME", help="Model, for example ray-v2."),
            Option("--duration", metavar="TEXT", help="Duration: 5s on most relays, 5 on some."),
            Option("--resolution", metavar="TEXT", help="Resolution: 540p, 720p or 1080p."),
            Option("--aspect-ratio", metavar="W:H", help="Aspect ratio, for example 16:9."),
            Option("--image-url", metavar="URL", help="First frame: a URL, or @FILE to send a local file."),
            Option(
                "--image-end-url",
                metavar="URL",
                help="Last frame: a URL, or @FILE to send a local file. Excludes\n--loop.",
            ),
            _switch("--loop", "Make the video end where it begins."),
            _switch("--expand-prompt", "Let the relay enrich the prompt."),
            Option("--notify-hook", metavar="URL", help="URL that the relay calls when the task changes."),
            Option(
                "--extra-fields",
                metavar="JSON",
                help="More body fields as a JSON object. They are sent unchecked and\n"
                "override the other options.",
            ),
            *_COMMON,
        ),
    ),
    Command(
        name="wait",
        help="Wait until videos are completed",
        description=(
            "Wait until all videos are completed, and print the ids of the completed ones, one per line, in\n"
            "the given order. Polling is free of charge; an interrupted wait can be resumed at any time."
        ),
        options=(
            _IDS,
            Option(
                "--timeout",
                type=positive_seconds,
                default=3600.0,
                metavar="SECONDS",
                help="Seconds to wait in total (default: 3600).",
            ),
            _INTERVAL,
            Option(
                "--max-failed",
                type=int_or_any,
                default=0,
                metavar="N",
                help="How many videos may fail, or 'any' (default: 0).",
            ),
            _count(
                "--missing-polls",
                "How many consecutive polls may omit an id, or report it as\n"
                "completed without a video, before it counts as failed\n(default: 3).",
                default=3,
            ),
            *_COMMON,
        ),
    ),
    Command(
        name="download",
        help="Download the artifacts of videos to a folder",
        description=(
            "Download the artifacts of completed videos to a folder, and print the paths, one per line.\n"
            "Each file is checked and appears only when it is complete; existing files are not downloaded\n"
            "again. Downloads are free of charge. The API key is never sent to an artifact host."
        ),
        options=(
            _IDS,
            Option(
                "--to",
                required=True,
                metavar="DIR",
                help="Folder, created if it doesn't exist, or a URL that fsspec\nsupports: s3://bucket/videos.",
            ),
            Option(
                "--artifact",
                dest="artifacts",
                action="append",
                choices=("video", "video_raw", "thumbnail", "last_frame"),
                help="Artifact to download: video (default), video_raw, thumbnail,\n"
                "last_frame. Can be given more than once.",
            ),
            Option(
                "--file-name",
                metavar="TEXT",
                help="Template of the file names (default: {id}_{artifact}{ext});\nslashes create folders.",
            ),
            Option(
                "--on-existing",
                choices=("skip", "replace", "fail"),
                help="What to do if a file exists: skip it if it is complete\n"
                "(default), replace it, or fail before any download.",
            ),
            _count("--max-bytes", "Largest accepted file size (default: 2 GiB)."),
            _count("--max-concurrency", "How many files to download at a time (default: 8)."),
            *_COMMON,
        ),
    ),
    Command(
        name="sandbox",
        help="Run a local relay that needs no key and costs nothing",
        description=(
            "Run a local relay with the API of the real ones. It bills nothing and serves playable videos.\n"
            "All arguments after 'sandbox' are passed on to it; see 'sandbox --help'."
        ),
        options=(RemainingArguments("arguments", help="Options of the sandbox."),),
        epilog="",
    ),
)

HELP: Final = "Check, submit, wait for and download Luma Dream Machine videos"

DESCRIPTION: Final = """\
Manage Luma Dream Machine videos through an API relay.

Check the connection and show the balance of the API key:
  %(prog)s check
Submit a request for a video, wait for it and download it (only generate costs money):
  ID=$(%(prog)s generate "a paper boat at dawn")
  %(prog)s wait $ID
  %(prog)s download $ID --to videos
Follow its state:
  %(prog)s status $ID --watch
Try all commands without a key and free of charge:
  %(prog)s sandbox

The relay:
  --conn-id names an Airflow connection, as in your Dags: from the environment, a secrets backend
  or the metadata database. Without --conn-id, the variables LUMA_API_KEY and LUMA_BASE_URL
  (default: https://xuedingmao.online) are used if LUMA_API_KEY is set, else the connection
  luma_default. No option takes the key, and no command prints it."""

EPILOG: Final = f"""\
Every command has --json for scripts.

{_EXIT_CODES}"""


def get_luma_cli_commands() -> list[CLICommand]:
    """Return the command group ``airflow luma``, for Airflow 3.2 and later."""
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    subcommands = [
        ActionCommand(
            name=command.name,
            help=command.help,
            func=command.run,
            args=command.options,  # type: ignore[arg-type]
            description=command.description,
            epilog=command.epilog,
        )
        for command in COMMANDS
    ]
    return [
        GroupCommand(name="luma", help=HELP, subcommands=subcommands, description=DESCRIPTION, epilog=EPILOG)
    ]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m airflow_provider_luma``."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw
    )
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.epilog,
            formatter_class=raw,
        )
        for option in command.options:
            option.add_to_parser(subparser)
        subparser.set_defaults(func=command.run)
    return parser
