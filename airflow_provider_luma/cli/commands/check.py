# SPDX-License-Identifier: Apache-2.0
"""``check``: is the relay there, does it take the key, and what is left on it?"""

from __future__ import annotations

import argparse
import time

from rich.table import Table

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.inputs import find_relay
from airflow_provider_luma.cli.output import Output, plain
from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.balance import Balance
from airflow_provider_luma.exceptions import LumaError


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Check, and tell what was found."""
    with output.alone_on_stdout():
        relay = find_relay(arguments.conn_id)
        with relay.settings.client(max_retries=0) as client:
            client.check()
            # The second call shows the relay's own time: the first has also set the connection up.
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
                "balance": balance
                and {
                    "limit_usd": balance.limit_usd,
                    "used_usd": balance.used_usd,
                    "remaining_usd": balance.remaining_usd,
                },
            }
        )
        return Exit.OK
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("Relay", client.base_url),
        ("From", relay.source),
        ("Key", "accepted"),
        ("Answers in", f"{latency * 1000:.0f} ms"),
        ("Balance", _in_words(balance)),
    ):
        table.add_row(name, plain(value))
    output.show(table)
    return Exit.OK


def _balance(client: LumaClient, output: Output) -> Balance | None:
    try:
        return client.get_balance()
    except LumaError as error:
        # Only some relays tell it, and the others say so in many ways.
        output.say(f"No balance: {error}", style="dim")
        return None


def _in_words(balance: Balance | None) -> str:
    if balance is None:
        return "not told by this relay"
    if balance.limit_usd is None:
        return f"without limit (used: {balance.used_usd:.2f} USD)"
    return f"{balance.remaining_usd:.2f} USD left of {balance.limit_usd:.2f} USD"
