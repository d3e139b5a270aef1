# SPDX-License-Identifier: Apache-2.0
"""Faults of the proxies and gateways in front of a relay, and answers of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from airflow_provider_luma.sandbox.faults import bodies
from airflow_provider_luma.sandbox.faults.fault import JSON, Fault, one_of, registered

Gateway = Literal[
    "aws", "kong", "kong_502", "spring", "spring_502", "problem", "cloudflare", "timeout", "empty"
]

_PROBLEM = "application/problem+json"
_GATEWAYS: dict[Gateway, tuple[int, str]] = {
    "aws": (504, '{"message":"Endpoint request timed out"}'),
    "kong": (504, '{"message":"The upstream server is timing out","request_id":"5c1e3f0a7d"}'),
    "kong_502": (
        502,
        '{"message":"An invalid response was received from the upstream server","request_id":"5c1e3f0a7d"}',
    ),
    "spring": (
        504,
        (
            '{"timestamp":"2024-12-22T13:38:40.139+00:00","path":"/luma/generations","status":504,'
            '"error":"Gateway Timeout","requestId":"a1b2c3d4-17"}'
        ),
    ),
    "spring_502": (
        502,
        (
            '{"timestamp":1734874720139,"status":502,"error":"Bad Gateway",'
            '"message":"Connection prematurely closed BEFORE response","path":"/luma/generations"}'
        ),
    ),
    "problem": (
        504,
        '{"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"upstream timed out"}',
    ),
    "cloudflare": (
        524,
        (
            '{"type":"about:blank","title":"Error 524: A timeout occurred","status":524,'
            '"detail":"The origin web server did not complete the request in time.",'
            '"error_code":524,"retryable":true}'
        ),
    ),
    "timeout": (408, '{"error":{"message":"Request Timeout","type":"timeout","code":408}}'),
    "empty": (500, "{}"),
}


@registered(
    status=(200, 400, 418, 500, 503),
    body=("", "{}", "[]", "null", "oops", '{"message": "unavailable"}', "<html></html>"),
)
def answer(
    status: int,
    body: bytes | str = b"",
    *,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
    name: str = "answer",
) -> Fault:
    """
    Return any answer of your own.

    :param status: The HTTP status.
    :param body: The body; text is sent as UTF-8.
    :param content_type: Content type of the body.
    :param headers: Headers to add.
    :param name: Name in the records of calls.
    """
    raw = body.encode() if isinstance(body, str) else body
    pairs = tuple((headers or {}).items())
    return Fault(name=name, status=status, body=raw, content_type=content_type, headers=pairs)


@registered(code=(206, 400, 500, 502))
def status(code: int) -> Fault:
    """Return the true answer's body under another status."""
    return Fault(status=code)


@registered(location=("/elsewhere", "/login"), code=(301, 302, 307, 308))
def redirect(location: str, *, code: int = 307) -> Fault:
    """Redirect to ``location``."""
    return Fault(status=code, headers=(("location", location),), body=b"")


@registered()
def bad_gateway() -> Fault:
    """Return 502 bodies.HTML as an edge proxy does."""
    return bodies.edge_page(502, "Bad Gateway")


@registered()
def gateway_timeout() -> Fault:
    """Return 504 bodies.HTML as an edge proxy does."""
    return bodies.edge_page(504, "Gateway Time-out")


@registered()
def edge_timeout() -> Fault:
    """Return 524 bodies.HTML: the edge proxy waited too long for the relay."""
    return bodies.edge_page(524, "A timeout occurred")


@registered()
def payload_too_large() -> Fault:
    """Return 413 bodies.HTML as an edge proxy does."""
    return bodies.edge_page(413, "Request Entity Too Large")


@registered(form=get_args(Gateway))
def gateway_json(form: Gateway = "aws") -> Fault:
    """
    Return an error of a gateway in JSON; whether the relay handled the call is unknown.

    :param form: ``aws`` (504), ``kong`` (504), ``kong_502``, ``spring`` (504), ``spring_502``, ``problem``
        (504, RFC 9457), ``cloudflare`` (524), ``timeout`` (408) or ``empty`` (500, ``{}``).
    """
    code, body = _GATEWAYS[one_of("form", form, _GATEWAYS)]
    content_type = _PROBLEM if form in ("problem", "cloudflare") else JSON
    return Fault(status=code, body=body.encode(), content_type=content_type)


@registered()
def challenge_page() -> Fault:
    """Return 403 bodies.HTML: an edge proxy wants to see a browser."""
    page = (
        b'<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title>'
        b'<meta name="robots" content="noindex,nofollow"></head><body><div class="main-wrapper">'
        b"<noscript>Enable JavaScript and cookies to continue</noscript></div></body></html>"
    )
    headers = (("cf-mitigated", "challenge"), ("server", "cloudflare"), ("cf-ray", "8f6a1b2c3d4e5f60-SIN"))
    return Fault(status=403, headers=headers, body=page, content_type=bodies.HTML)


@registered()
def maintenance_redirect(location: str = "/maintenance.html") -> Fault:
    """Redirect (302) to a maintenance page."""
    body = f'<a href="{location}">Found</a>.\n\n'.encode()
    return Fault(status=302, headers=(("location", location),), body=body, content_type=bodies.HTML)


@registered()
def not_found_text() -> Fault:
    """Return 404 in plain text, as a router does that has lost its routes during a deployment."""
    return Fault(status=404, body=b"404 page not found\n", content_type="text/plain; charset=utf-8")
