# SPDX-License-Identifier: Apache-2.0
"""Run a command: what goes wrong becomes a message and an exit code, never a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.output import Output
from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaConfigError,
    LumaError,
    LumaTimeoutError,
)


def run(name: str, arguments: argparse.Namespace) -> int:
    """
    Run one command.

    :param name: The command.
    :param arguments: Its arguments.
    :return: The exit code.
    """
    output = Output(as_json=getattr(arguments, "json", False))
    try:
        code: int = import_module(f"airflow_provider_luma.cli.commands.{name}").run(arguments, output)
    except LumaError as error:
        output.error(error)
        return _exit_code(error)
    except KeyboardInterrupt:
        output.say("Interrupted. What was submitted goes on at the relay.")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has read enough; Python must not try again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.ERROR
    return code


def _exit_code(error: LumaError) -> Exit:
    match error:
        case LumaConfigError():
            return Exit.USAGE
        case LumaAmbiguousSubmitError():
            return Exit.AMBIGUOUS
        case LumaTimeoutError():
            return Exit.TIMEOUT
        case _:
            return Exit.ERROR
