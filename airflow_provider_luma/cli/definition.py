# SPDX-License-Identifier: Apache-2.0
"""
Every command with its options, once for both ways to call it.

Airflow imports this module at each of its own commands, so it imports nothing but argparse, and what a
command needs only when the command runs.
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
    """What a command's exit code says."""

    OK = 0
    ERROR = 1
    USAGE = 2
    TASKS_FAILED = 3
    TIMEOUT = 4
    AMBIGUOUS = 5
    OUTPUT = 6
    INTERRUPTED = 130


EXIT_CODES: Final = {
    Exit.OK: "done",
    Exit.ERROR: "the relay, the network or a file store refuses or fails",
    Exit.USAGE: "an option, the connection or a variable is unusable",
    Exit.TASKS_FAILED: "some videos failed, or the relay doesn't know them",
    Exit.TIMEOUT: "the time is over; the videos keep running at the relay",
    Exit.AMBIGUOUS: "it is unknown whether a video was bought: don't buy it again before you have looked",
    Exit.OUTPUT: "standard output can't be written: closed, full, or its reader is gone",
    Exit.INTERRUPTED: "interrupted by Ctrl-C; the videos keep running at the relay",
}

_Number = TypeVar("_Number", int, float)

_EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code.value:<4} {text}" for code, text in EXIT_CODES.items())


class Option:
    """An argument of a command. It has what Airflow's own ``Arg`` has, so that it serves both parsers."""

    def __init__(self, *flags: str, **keywords: Any) -> None:
        self.flags = flags
        self.keywords = keywords

    def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add this argument to a command's parser."""
        parser.add_argument(*self.flags, **self.keywords)


class Everything(Option):
    """Takes all that follows the command's name, options too, for a parser of the command's own."""

    def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
        """Let the parser take nothing for an option of its own, not even ``--help``."""
        parser.prefix_chars = "\0"
        parser.add_argument(*self.flags, nargs=argparse.REMAINDER, **self.keywords)


@dataclass(frozen=True, kw_only=True)
class Command:
    """
    One command.

    :param name: Its name, and that of its module below ``commands``.
    :param help: It in one line.
    :param description: What a user must know, the costs above all.
    :param options: Its arguments.
    :param epilog: What stands at the end of its help.
    """

    name: str
    help: str
    description: str
    options: tuple[Option, ...]
    epilog: str = _EXIT_CODES

    def run(self, arguments: argparse.Namespace) -> None:
        """Run it and leave with its exit code."""
        from airflow_provider_luma.cli.run import run

        sys.exit(run(self.name, arguments))


def positive_seconds(text: str) -> float:
    """Read a number of seconds above zero."""
    return _number(text, float, lambda value: 0 < value < 1e9, "a number of seconds above 0")


def positive_int(text: str) -> int:
    """Read a whole number above zero."""
    return _number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def tolerated(text: str) -> int | None:
    """Read how many may fail: a whole number, or ``any``."""
    if text == "any":
        return None
    return _number(text, int, lambda value: value >= 0, "a whole number of at least 0, or 'any'")


def _number(text: str, kind: type[_Number], is_right: Callable[[_Number], bool], right: str) -> _Number:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_right(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {right}")
    return value


_CONN_ID = Option(
    "--conn-id",
    metavar="CONN_ID",
    help="Id of the Airflow connection; luma_default when it isn't given\nand LUMA_API_KEY isn't set.",
)
_JSON = Option(
    "--json",
    action="store_true",
    help="Print JSON on standard output, and nothing else there;\nmessages go to standard error.",
)
_IDS = Option("ids", nargs="+", metavar="ID", help="Ids of Luma tasks; '-' reads them from standard input.")
_INTERVAL = Option(
    "--interval",
    type=positive_seconds,
    default=15.0,
    metavar="SECONDS",
    help="Seconds between polls (default: 15). Relays move a task's state\nabout every 15 seconds.",
)

COMMANDS: Final = (
    Command(
        name="check",
        help="Check connection and key, and tell what is left on the key",
        description=(
            "Check that the relay can be reached and accepts the key. Tells how fast it answers and, where\n"
            "the relay tells it, what is left on the key. Read-only and free of charge."
        ),
        options=(_CONN_ID, _JSON),
    ),
    Command(
        name="status",
        help="Show where videos stand",
        description="Show where videos stand, in a table. Asking is free of charge.",
        options=(
            _IDS,
            Option(
                "--watch",
                action="store_true",
                help="Look on until all have come to their end. With --json, print\na line at every change.",
            ),
            _INTERVAL,
            _CONN_ID,
            _JSON,
        ),
    ),
    Command(
        name="generate",
        help="Buy a video; this costs money",
        description=(
            "Submit one video and print its id. THIS COSTS MONEY: the relay bills every video it takes.\n"
            "The request is sent exactly once. When it stays unknown whether the relay accepted it (exit\n"
            "code 5, also after Ctrl-C), look into the relay's task list or bill\n"
            "before you send it again. The id is printed on standard error, too.\n"
            "What isn't given is left to the relay."
        ),
        options=(
            Option("prompt", metavar="PROMPT", help="What to generate, 3 to 5000 characters."),
            Option("--model-name", metavar="NAME", help="For example ray-v2."),
            Option("--duration", metavar="TEXT", help="5s on most relays, 5 on some."),
            Option("--resolution", metavar="TEXT", help="540p, 720p or 1080p."),
            Option("--aspect-ratio", metavar="W:H", help="For example 16:9."),
            Option(
                "--image-url",
                metavar="URL",
                help="First frame: its URL, or @FILE to send a picture of this machine.",
            ),
            Option(
                "--image-end-url",
                metavar="URL",
                help="Last frame, in the same way. Not together with --loop.",
            ),
            Option(
                "--loop",
                action=argparse.BooleanOptionalAction,
                default=None,
                help="Make the end meet the beginning.",
            ),
            Option(
                "--expand-prompt",
                action=argparse.BooleanOptionalAction,
                default=None,
                help="Let the relay enrich the prompt.",
            ),
            Option(
                "--notify-hook", metavar="URL", help="Address that the relay calls when the task changes."
            ),
            Option(
                "--extra-fields",
                metavar="JSON",
                help="Further body fields as a JSON object, sent unchecked; they win\nover the others.",
            ),
            _CONN_ID,
            _JSON,
        ),
    ),
    Command(
        name="wait",
        help="Wait until videos are there",
        description=(
            "Wait until all videos are there, and print the ids of the completed ones, one a line, in the\n"
            "order given. Asking is free of charge; an interrupted wait can be begun again at any time."
        ),
        options=(
            _IDS,
            Option(
                "--timeout",
                type=positive_seconds,
                default=3600.0,
                metavar="SECONDS",
                help="How long to wait (default: 3600).",
            ),
            _INTERVAL,
            Option(
                "--max-failed",
                type=tolerated,
                default=0,
                metavar="N",
                help="How many may fail, or 'any' (default: 0).",
            ),
            Option(
                "--missing-polls",
                type=positive_int,
                default=3,
                metavar="N",
                help=(
                    "How many answers in a row may leave an id out, or tell it\n"
                    "completed without a video, before it counts as failed (default: 3)."
                ),
            ),
            _CONN_ID,
            _JSON,
        ),
    ),
    Command(
        name="download",
        help="Keep the files of videos in a folder",
        description=(
            "Download the files of completed videos into a folder, and print their paths, one a line.\n"
            "Each file is checked and appears only when it is whole; what is there already is not\n"
            "fetched again. Downloads are free of charge, and the key goes to no artifact host."
        ),
        options=(
            _IDS,
            Option(
                "--to",
                required=True,
                metavar="DIR",
                help="The folder; made when it isn't there. Or an address that fsspec\nknows: s3://bucket/videos.",
            ),
            Option(
                "--artifact",
                dest="artifacts",
                action="append",
                choices=("video", "video_raw", "thumbnail", "last_frame"),
                help="Which file of each video: video (default), video_raw, thumbnail,\n"
                "last_frame. May be given more than once.",
            ),
            Option(
                "--file-name",
                metavar="TEXT",
                help="How files are named (default: {id}_{artifact}{ext}); slashes\nmake folders.",
            ),
            Option(
                "--on-existing",
                choices=("skip", "replace", "fail"),
                help="What to do about a file that is there: skip it if it is whole\n"
                "(default), replace it, or fail before anything is fetched.",
            ),
            Option(
                "--max-bytes",
                type=positive_int,
                metavar="N",
                help="The largest file that is taken (default: 2 GiB).",
            ),
            Option(
                "--max-concurrency",
                type=positive_int,
                metavar="N",
                help="How many files are fetched at a time (default: 8).",
            ),
            _CONN_ID,
            _JSON,
        ),
    ),
    Command(
        name="sandbox",
        help="Run a local relay: no key, no cost",
        description=(
            "Run a local relay that speaks like the real ones, bills nobody and serves playable videos.\n"
            "Everything after 'sandbox' is passed on to it: see 'sandbox --help'."
        ),
        options=(Everything("arguments", help="Options of the sandbox."),),
        epilog="",
    ),
)

HELP: Final = "Check, submit, wait for and download Luma Dream Machine videos"

DESCRIPTION: Final = """\
Luma Dream Machine videos through an API relay.

Is all set up, and what is left on the key?
  %(prog)s check
Buy a video, wait for it, keep it (buying alone costs money):
  ID=$(%(prog)s generate "a paper boat at dawn")
  %(prog)s wait $ID
  %(prog)s download $ID --to videos
Look on meanwhile:
  %(prog)s status $ID --watch
Try all this without a key or a cent:
  %(prog)s sandbox

Which relay:
  --conn-id names an Airflow connection, as in your Dags: from the environment, a secrets backend
  or the metadata database. Without --conn-id, the variables LUMA_API_KEY and LUMA_BASE_URL
  (default: https://xuedingmao.online) are used if LUMA_API_KEY is set, else the connection
  luma_default. The key is never taken from the command line, and never printed."""

EPILOG: Final = f"""\
Every command takes --json, for machines.

{_EXIT_CODES}"""


def get_luma_cli_commands() -> list[CLICommand]:
    """Return the group ``airflow luma``, for Airflow 3.2 and newer."""
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
        prog="python -m airflow_provider_luma",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=raw,
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
