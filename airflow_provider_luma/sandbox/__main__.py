# SPDX-License-Identifier: Apache-2.0
"""Run the sandbox as a program: ``python -m airflow_provider_luma.sandbox``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from airflow_provider_luma.sandbox.server import LumaSandbox
from airflow_provider_luma.sandbox.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    host, port, given = options.pop("host"), options.pop("port"), options.pop("settings")
    until_stdin_closes, as_json = options.pop("until_stdin_closes"), options.pop("json")
    try:
        settings = Settings.of({**msgspec.json.decode(given), **options}, strict=False)
    except (ValueError, msgspec.DecodeError) as error:
        parser.error(str(error))
    sandbox = LumaSandbox(host=host, port=port, **msgspec.structs.asdict(settings))

    def announce() -> None:
        if as_json:
            ready = {"base_url": sandbox.base_url, "airflow_connection": sandbox.airflow_connection}
            print(json.dumps(ready), flush=True)
        else:
            print(f"Luma sandbox ready at {sandbox.base_url}")
            print("Point Airflow at it:")
            print(f"  export AIRFLOW_CONN_LUMA_DEFAULT='{sandbox.airflow_connection}'", flush=True)
        if until_stdin_closes:
            threading.Thread(target=_stop_at_end_of_input, args=(sandbox,), daemon=True).start()

    try:
        sandbox.serve(announce)
    except OSError as error:
        parser.error(f"can't listen on {host}:{port}: {error.strerror}")
    return 0


def _stop_at_end_of_input(sandbox: LumaSandbox) -> None:
    # A thread that waits in sys.stdin would hold its lock at the exit.
    while os.read(0, 4096):
        continue
    sandbox.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma.sandbox",
        description="A local Luma relay that bills nothing. Stop it with Ctrl-C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; its clients can steer the sandbox"
    )
    parser.add_argument("--port", type=int, default=8321, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--settings", default="{}", help="JSON object of the options below, which override it"
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="stop when stdin closes, as when the parent process ends",
    )
    parser.add_argument("--json", action="store_true", help="print the address as a line of JSON")
    for field in msgspec.structs.fields(Settings):
        _add_setting(parser, field)
    return parser


def _add_setting(parser: argparse.ArgumentParser, field: msgspec.structs.FieldInfo) -> None:
    kind = msgspec.inspect.type_info(field.type)
    schema: dict[str, Any] = {}
    if isinstance(kind, msgspec.inspect.Metadata):
        schema, kind = kind.extra_json_schema or {}, kind.type
    form: dict[str, Any] = {}
    if isinstance(kind, msgspec.inspect.LiteralType):
        form["choices"] = [str(value) for value in kind.values]
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        form["nargs"] = "*"
    text = f"{schema.get('description', '')} (default: {field.default})"
    parser.add_argument(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **form)


if __name__ == "__main__":
    sys.exit(main())
