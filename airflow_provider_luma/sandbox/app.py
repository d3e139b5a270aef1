# SPDX-License-Identifier: Apache-2.0
"""The APIs and the steering routes of a sandbox as one ASGI application."""

from __future__ import annotations

import hmac
import secrets
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from airflow_provider_luma.sandbox import faults
from airflow_provider_luma.sandbox.api import (
    JSON_HEADERS,
    Call,
    Incoming,
    LumaApi,
    MediaApi,
    Reply,
    fault_reply,
)
from airflow_provider_luma.sandbox.control import control_routes
from airflow_provider_luma.sandbox.delivery import Answer
from airflow_provider_luma.sandbox.faults.fault import NO_FAULT, CallName
from airflow_provider_luma.sandbox.media_host import FileUrls
from airflow_provider_luma.sandbox.relay import Refused, Relay
from airflow_provider_luma.sandbox.rules import RecordedCall
from airflow_provider_luma.sandbox.steering import Sandbox

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def make_app(sandbox: Sandbox) -> ASGIApp:
    """Return the application that serves a sandbox of this process."""
    relay, settings = sandbox.relay, sandbox.settings
    urls = FileUrls(
        settings.media_base_url or sandbox.root_url,
        lambda: relay.epoch(relay.now()),
        expire_after=settings.links_expire_after,
        uses=settings.link_uses,
    )
    apis = (LumaApi(relay, urls), MediaApi(relay, urls))
    routes = [
        Route(call.path, _Endpoint(call, relay).serve, methods=[call.method])
        for api in apis
        for call in api.calls()
    ]
    # Last, and for all methods, so that a known path with the wrong method is as unknown as on a true relay.
    unknown = Call("", "/{path:path}", "unknown", _unknown)
    anything_else = Route(unknown.path, _Endpoint(unknown, relay).serve, methods=_METHODS)
    return Router(routes=[*routes, *control_routes(sandbox), anything_else], redirect_slashes=False)


class _Endpoint:
    """Record a call, choose its fault, let the relay act, and send what the fault leaves of the answer."""

    def __init__(self, call: Call, relay: Relay) -> None:
        self._name = call.name
        self._handler = call.handler
        self._relay = relay
        self._key = f"Bearer {relay.settings.api_key}".encode()
        self._needs_key = call.name not in ("media", "unknown")

    async def serve(self, request: Request) -> Response:
        try:
            raw_body = await request.body()
        except ClientDisconnect:
            # The client has left, and a submit whose body never came in full is not accepted.
            return Response()
        record = _start_call(self._relay, self._name, request, raw_body)
        rule = self._relay.rules.take(record)
        fault = rule.played if rule else NO_FAULT
        reply = self._reply(Incoming(record, request, fault), accepted=rule is not None and rule.accepted)
        status = fault.status or reply.status
        sent = None if fault.silent else status
        self._relay.finish_call(record, status=sent, fault=fault.name or None, generation=reply.generation)
        latency = self._relay.settings.latency_seconds if self._needs_key else 0.0
        headers = (*reply.headers, *fault.headers, _cookie())
        return Answer(status, headers, reply.pieces, reply.length, delay=latency + fault.delay, fault=fault)

    def _reply(self, call: Incoming, *, accepted: bool) -> Reply:
        fault = call.fault
        if not fault.needs_true_answer:
            generation = self._act(call).generation if accepted else None
            return fault_reply(fault)._replace(generation=generation)
        reply = self._act(call)
        if fault.rewrite is None or reply.headers != JSON_HEADERS:
            return reply
        body = fault.rewrite.apply(b"".join(reply.pieces))
        return reply._replace(pieces=(body,), length=len(body))

    def _act(self, call: Incoming) -> Reply:
        key = call.request.headers.get("authorization", "").encode()
        try:
            if self._needs_key and not hmac.compare_digest(key, self._key):
                raise Refused(faults.unauthorized())
            return self._handler(call)
        except Refused as refusal:
            return fault_reply(refusal.fault)


def _unknown(call: Incoming) -> Reply:
    raise Refused(faults.invalid_url(call.request.url.path, call.record.method))


def _start_call(relay: Relay, name: CallName, request: Request, raw_body: bytes) -> RecordedCall:
    body = _decoded(raw_body)
    task_id = request.path_params.get("id")
    ids: tuple[str, ...] = (task_id,) if task_id else ()
    if name == "batch" and isinstance(body, dict) and isinstance(body.get("ids"), list):
        ids = tuple(task_id for task_id in body["ids"] if isinstance(task_id, str))
    url = request.url
    return relay.start_call(
        name,
        request.method,
        f"{url.path}?{url.query}" if url.query else url.path,
        ids=ids,
        body=body,
        headers={key.decode("latin-1"): value.decode("latin-1") for key, value in request.headers.raw},
    )


def _decoded(raw_body: bytes) -> Any:
    if not raw_body:
        return None
    try:
        return msgspec.json.decode(raw_body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return raw_body.decode(errors="replace")


def _cookie() -> tuple[str, str]:
    return "set-cookie", f"session={secrets.token_hex(8)}; Path=/; HttpOnly"
