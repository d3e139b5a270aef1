# SPDX-License-Identifier: Apache-2.0
"""``check``: check the connection and the API key, and show the balance."""

from __future__ import annotations

import argparse
import time
from typing import Final

from rich.table import Table

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.inputs import find_relay
from airflow_provider_luma.cli.output import Output, plain
from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.balance import Balance
from airflow_provider_luma.exceptions import LumaError

_AMOUNTS: Final = ("limit_usd", "used_usd", "remaining_usd")


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Check the relay and print the result."""
    with output.reserve_stdout():
        relay = find_relay(arguments.conn_id)
        with relay.settings.client(max_retries=0) as client:
            client.check()
            # Only the second call is timed: the first one also opens the connection.
            started = time.perf_counter()
            client.check()
            latency = time.perf_counter() - started
            balance = _balance(client, output)
    if output.as_json:
        output.json(
            {
                "base_url": client.base_url,
                "source": relay.source,
                "latency_seconds": round(latency, 4),
                "balance": balance and {name: getattr(balance, name) for name in _AMOUNTS},
            }
        )
        return Exit.OK
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("Relay", client.base_url),
        ("Source", relay.source),
        ("API key", "accepted"),
        ("Response time", f"{latency * 1000:.0f} ms"),
        ("Balance", _describe(balance)),
    ):
        table.add_row(name, plain(value))
    output.show(table)
    return Exit.OK


def _balance(client: LumaClient, output: Output) -> Balance | None:
    try:
        return client.get_balance()
    except LumaError as error:
        # Relays that report no balance refuse the call in many ways; the check must not fail for it.
        output.message(f"The balance is not available: {error}", style="dim")
        return None


def _describe(balance: Balance | None) -> str:
    if balance is None:
        return "not reported by this relay"
    if balance.limit_usd is None:
        return f"unlimited ({balance.used_usd:.2f} USD used)"
    return f"{balance.remaining_usd:.2f} of {balance.limit_usd:.2f} USD remaining"
