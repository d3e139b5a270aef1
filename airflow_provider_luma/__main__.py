# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_luma``: what ``airflow luma`` is, on every Airflow."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_luma.cli.definition import make_parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    parsed = make_parser().parse_args(arguments)
    parsed.func(parsed)


if __name__ == "__main__":
    main()
