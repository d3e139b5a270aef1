# SPDX-License-Identifier: Apache-2.0
"""Run a command, and turn its errors into a message and an exit code instead of a traceback."""

from __future__ import annotations

import argparse
from importlib import import_module

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.output import LumaOutputError, Output
from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaConfigError,
    LumaError,
    LumaInterruptedError,
    LumaTimeoutError,
)


def run(name: str, arguments: argparse.Namespace) -> int:
    """
    Run a command.

    :param name: The command.
    :param arguments: Its parsed arguments.
    :return: The exit code.
    """
    output = Output(as_json=getattr(arguments, "json", False))
    try:
        return _run(name, arguments, output)
    except LumaOutputError as error:
        output.message(error, style="red")
        return Exit.OUTPUT


def _run(name: str, arguments: argparse.Namespace, output: Output) -> int:
    try:
        code: int = import_module(f"airflow_provider_luma.cli.commands.{name}").run(arguments, output)
    except LumaOutputError:
        raise
    except LumaError as error:
        output.error(error)
        return _exit_code(error)
    except KeyboardInterrupt:
        output.error(LumaInterruptedError("Interrupted. Submitted videos keep running at the relay."))
        return Exit.INTERRUPTED
    return code


def _exit_code(error: LumaError) -> Exit:
    match error:
        case LumaConfigError():
            return Exit.USAGE
        case LumaAmbiguousSubmitError():
            return Exit.AMBIGUOUS
        case LumaTimeoutError():
            return Exit.TIMEOUT
        case LumaInterruptedError():
            return Exit.INTERRUPTED
        case _:
            return Exit.ERROR
