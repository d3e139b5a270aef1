# SPDX-License-Identifier: Apache-2.0
"""Steering over HTTP, under ``/sandbox/`` and without a key: what another process does to a relay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_luma.sandbox import faults
from airflow_provider_luma.sandbox.faults import Fault
from airflow_provider_luma.sandbox.relay import Relay, Rule, TaskScript


class NewTasks(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /sandbox/tasks``."""

    tasks: list[TaskScript]


class NewFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    Body of ``POST /sandbox/faults``; a rule in JSON.

    :param fault: all of a fault, or the name of one
    :param options: arguments of a fault that is given by name
    """

    call: str
    fault: Fault | str
    options: dict[str, Any] = {}
    ids: list[str] = []
    containing: str | None = None
    times: int | None = 1
    skip: int = 0
    accepted: bool = False

    def rule(self) -> Rule:
        fault = self.fault
        if isinstance(fault, str):
            if fault not in faults.NAMED:
                raise ValueError(f"fault must be one of {', '.join(faults.NAMED)}, not {fault!r}")
            fault = faults.NAMED[fault](**self.options)
        return Rule(
            call=self.call,
            fault=fault,
            ids=frozenset(self.ids),
            containing=self.containing,
            times=self.times,
            skip=self.skip,
            accepted=self.accepted,
        )


class Advance(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /sandbox/advance``."""

    seconds: float


class WhichTasks(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /sandbox/times``; without ids it means all tasks."""

    ids: list[str] | None = None


def control_routes(relay: Relay) -> list[Route]:
    """The routes that steer ``relay``."""

    async def counts(request: Request) -> object:
        return relay.counts

    async def balance(request: Request) -> object:
        return {"balance_usd": relay.balance, "spent_usd": relay.spent_usd}

    async def calls(request: Request) -> object:
        name = request.query_params.get("name")
        after = int(request.query_params.get("after", 0))
        return [call for call in relay.calls if call.number > after and name in (None, call.name)]

    async def generations(request: Request) -> object:
        return relay.generations

    async def times(request: Request) -> object:
        which = msgspec.json.decode(await request.body(), type=WhichTasks)
        return relay.times(which.ids)

    async def add_tasks(request: Request) -> object:
        return {"ids": relay.add(msgspec.json.decode(await request.body(), type=NewTasks).tasks)}

    async def add_fault(request: Request) -> object:
        relay.add_rule(msgspec.json.decode(await request.body(), type=NewFault).rule())
        return {}

    async def clear_faults(request: Request) -> object:
        relay.clear_rules()
        return {}

    async def advance(request: Request) -> object:
        relay.advance(msgspec.json.decode(await request.body(), type=Advance).seconds)
        return {}

    async def reset(request: Request) -> object:
        relay.reset()
        return {}

    acts = [
        ("GET", "counts", counts),
        ("GET", "balance", balance),
        ("GET", "calls", calls),
        ("GET", "generations", generations),
        ("POST", "times", times),
        ("POST", "tasks", add_tasks),
        ("POST", "faults", add_fault),
        ("DELETE", "faults", clear_faults),
        ("POST", "advance", advance),
        ("POST", "reset", reset),
    ]
    return [Route(f"/sandbox/{name}", _endpoint(act), methods=[method]) for method, name, act in acts]


def _endpoint(act: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            status, value = 200, await act(request)
        except KeyError as error:
            status, value = 404, {"error": f"there is no task {error}"}
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            status, value = 400, {"error": str(error)}
        return Response(msgspec.json.encode(value), status, media_type="application/json")

    return serve
