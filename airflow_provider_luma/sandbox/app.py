# SPDX-License-Identifier: Apache-2.0
"""The relay's calls, the media host and the steering routes as one ASGI application."""

from __future__ import annotations

import hmac
import itertools
import secrets
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from airflow_provider_luma.sandbox import faults, media_host
from airflow_provider_luma.sandbox.control import control_routes
from airflow_provider_luma.sandbox.delivery import Answer, Piece
from airflow_provider_luma.sandbox.dialects import DIALECTS
from airflow_provider_luma.sandbox.faults import CallName, Fault
from airflow_provider_luma.sandbox.relay import UNLIMITED_USD, RecordedCall, Refused, Relay, Snapshot
from airflow_provider_luma.sandbox.rewrites import Rewrite

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_JSON_HEADERS = (("content-type", "application/json; charset=utf-8"),)


class Reply(NamedTuple):
    """What the relay itself has to say, before any fault touches it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: Iterable[Piece]
    length: int
    generation: str | None = None


Handler = Callable[[RecordedCall, Request, Fault | None], Reply]


def make_app(relay: Relay, root_url: str) -> ASGIApp:
    """
    The application that serves ``relay``.

    :param root_url: where it is served, without a path; media links start with it unless a setting says
        otherwise
    """
    settings = relay.settings
    links = media_host.Links(
        settings.media_base_url or root_url,
        lambda: relay.epoch(relay.now()),
        expire_after=settings.links_expire_after,
        uses=settings.link_uses,
    )
    dialect = DIALECTS[settings.dialect]
    expected_key = f"Bearer {settings.api_key}".encode()

    def one(snapshot: Snapshot) -> object:
        return dialect.task(snapshot, links.url, relay.epoch)

    def batch(call: RecordedCall, request: Request, fault: Fault | None) -> Reply:
        ids = call.body.get("ids") if isinstance(call.body, dict) else None
        if not isinstance(ids, list) or not all(isinstance(task_id, str) for task_id in ids):
            raise Refused(faults.bad_request("ids must be an array of task ids", code="invalid_request"))
        return _json(200, dialect.tasks(relay.query(ids), links.url, relay.epoch))

    def single(call: RecordedCall, request: Request, fault: Fault | None) -> Reply:
        return _json(200, one(relay.query_one(call.ids[0])))

    def submit(call: RecordedCall, request: Request, fault: Fault | None) -> Reply:
        snapshot = relay.submit(call.body)
        return _json(settings.submit_status, one(snapshot), generation=snapshot.task.id)

    def extend(call: RecordedCall, request: Request, fault: Fault | None) -> Reply:
        snapshot = relay.extend(call.ids[0], call.body)
        return _json(settings.submit_status, one(snapshot), generation=snapshot.task.id)

    def download_url(call: RecordedCall, request: Request, fault: Fault | None) -> Reply:
        snapshot = relay.peek(call.ids[0])
        if snapshot is None:
            raise Refused(faults.task_not_exist())
        if not snapshot.has_video:
            raise Refused(faults.bad_request("the task has no video", code="video_not_ready"))
        return _json(200, dialect.value({"url": links.url(snapshot.task.id, "video.mp4")}))

    def billing(call: RecordedCall, request: Request, fault: Fault | None) -> Reply:
        # These two are OpenAI's own routes on every relay, and never enveloped.
        if request.url.path.endswith("/usage"):
            return _json(200, {"object": "list", "total_usage": round(relay.spent_usd * 100, 4)})
        limit = UNLIMITED_USD if settings.balance_usd is None else settings.balance_usd
        return _json(
            200,
            {
                "object": "billing_subscription",
                "has_payment_method": True,
                "soft_limit_usd": limit,
                "hard_limit_usd": limit,
                "system_hard_limit_usd": limit,
                "access_until": 0,
            },
        )

    def media(call: RecordedCall, request: Request, fault: Fault | None) -> Reply:
        snapshot = relay.peek(call.ids[0])
        name: Any = request.path_params["name"]
        if snapshot is None or not snapshot.has_video or name not in media_host.CONTENT_TYPES:
            raise Refused(faults.media_error(404))
        refused_with = request.query_params.get("refused")
        if refused_with is not None:
            raise Refused(faults.media_error(int(refused_with)))
        if not links.holds(request.url.path, request.url.query, use=call.method == "GET"):
            raise Refused(faults.media_error(settings.lapsed_link_status))
        size = snapshot.task.script.video_bytes or settings.video_bytes
        file = media_host.media_file(call.ids[0], name, size)
        answer = media_host.media_answer(
            file,
            call.headers,
            ranges=fault is None or fault.ranges,
            etag=fault.etag if fault else None,
            total_off=fault.total_off if fault else 0,
        )
        return Reply(
            answer.status,
            tuple(answer.headers.items()),
            file.slices(answer.start, answer.stop),
            answer.stop - answer.start,
        )

    def unknown(call: RecordedCall, request: Request, fault: Fault | None) -> Reply:
        raise Refused(faults.invalid_url(request.url.path, call.method))

    def endpoint(name: CallName, handler: Handler) -> Callable[[Request], Any]:
        needs_key = name not in ("media", "unknown")

        async def serve(request: Request) -> Response:
            try:
                raw_body = await request.body()
            except ClientDisconnect:
                # Nobody is left to answer, and a job whose order never fully came is not taken.
                return Response()
            call = _start_call(relay, name, request, raw_body)
            rule = relay.matching_rule(call)
            fault = rule.fault if rule else None

            def act() -> Reply:
                key = request.headers.get("authorization", "").encode()
                try:
                    if needs_key and not hmac.compare_digest(key, expected_key):
                        raise Refused(faults.unauthorized())
                    return handler(call, request, fault)
                except Refused as refusal:
                    return _spoken(refusal.fault)

            if fault is None or fault.needs_true_answer:
                reply = act()
                generation = reply.generation
                if fault and fault.rewrite and reply.headers == _JSON_HEADERS:
                    reply = _rewritten(reply, fault.rewrite)
            else:
                generation = act().generation if rule and rule.accepted else None
                reply = _spoken(fault)
            status = (fault and fault.status) or reply.status
            relay.finish_call(
                call,
                status=None if fault and fault.silent else status,
                fault=fault.name if fault else None,
                generation=generation,
            )
            headers = (*reply.headers, *(fault.headers if fault else ()), _cookie())
            delay = (settings.latency_seconds if needs_key else 0.0) + (fault.delay if fault else 0.0)
            return Answer(status, headers, reply.pieces, reply.length, delay=delay, fault=fault)

        return serve

    prefix = settings.prefix
    api: list[tuple[str, str, CallName, Handler]] = [
        ("POST", f"{prefix}/luma/tasks", "batch", batch),
        ("GET", f"{prefix}/luma/generations/{{id}}", "single", single),
        ("POST", f"{prefix}/luma/generations", "submit", submit),
        ("POST", f"{prefix}/luma/generations/{{id}}/extend", "extend", extend),
        ("GET", f"{prefix}/luma/generations/{{id}}/download_video_url", "download_url", download_url),
        ("GET", f"{prefix}/v1/dashboard/billing/subscription", "billing", billing),
        ("GET", f"{prefix}/v1/dashboard/billing/usage", "billing", billing),
        ("GET", "/media/{id}/{name}", "media", media),
    ]
    routes = [Route(path, endpoint(name, handler), methods=[method]) for method, path, name, handler in api]
    # Last, and for all methods, so that a known path with the wrong method is as unknown as on a true relay.
    anything_else = Route("/{path:path}", endpoint("unknown", unknown), methods=_METHODS)
    return Router(routes=[*routes, *control_routes(relay), anything_else], redirect_slashes=False)


def _start_call(relay: Relay, name: CallName, request: Request, raw_body: bytes) -> RecordedCall:
    body: Any = None
    if raw_body:
        try:
            body = msgspec.json.decode(raw_body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = raw_body.decode(errors="replace")
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


def _json(status: int, value: object, *, generation: str | None = None) -> Reply:
    raw = msgspec.json.encode(value)
    return Reply(status, _JSON_HEADERS, (raw,), len(raw), generation)


def _rewritten(reply: Reply, rewrite: Rewrite) -> Reply:
    body = rewrite.apply(b"".join(reply.pieces))
    return reply._replace(pieces=(body,), length=len(body))


def _spoken(fault: Fault) -> Reply:
    """The answer that a fault with a body of its own spells out."""
    body = fault.body or b""
    headers = (("content-type", fault.content_type),)
    return Reply(fault.status or 200, headers, itertools.repeat(body, fault.repeat), len(body) * fault.repeat)


def _cookie() -> tuple[str, str]:
    return "set-cookie", f"session={secrets.token_hex(8)}; Path=/; HttpOnly"
