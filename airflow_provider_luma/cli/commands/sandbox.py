# SPDX-License-Identifier: Apache-2.0
"""``sandbox``: run a local relay."""

from __future__ import annotations

import argparse

from airflow_provider_luma.cli.output import Output
from airflow_provider_luma.sandbox.__main__ import main


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Serve until Ctrl-C."""
    with output.guard_stdout():
        return main(arguments.arguments)
