# SPDX-License-Identifier: Apache-2.0
"""
Everything that can go wrong between a relay and its client, as values.

A :class:`Fault` says what goes over the wire instead of (or around) the relay's true answer. It says nothing
about when that happens or whether the relay accepted the job: that is up to ``fail_next`` and ``fail_when``.

``NAMED`` holds the constructors by name, for ``POST /sandbox/faults``.
"""

from __future__ import annotations

import functools
import gzip
import random
import struct
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from email.utils import formatdate
from typing import Any, Literal, TypeVar, get_args

import msgspec

from airflow_provider_luma.sandbox.rewrites import (
    ID_BESIDE_ERROR_FORMS,
    ByteOrderMark,
    DeadPreferredLink,
    IdBesideError,
    IdBesideErrorForm,
    LinkInRow,
    OddFields,
    OtherLetterCase,
    Rewrite,
    StaleInnerState,
)

CallName = Literal["batch", "single", "submit", "extend", "download_url", "billing", "media", "unknown"]
Ending = Literal[
    "whole", "chunked", "short", "truncated", "chunk_cut", "unframed", "stalled", "reset", "closed"
]
Gateway = Literal[
    "aws", "kong", "kong_502", "spring", "spring_502", "problem", "cloudflare", "timeout", "empty"
]
LostUpstream = Literal["deadline", "unmarshal", "closed"]

_T = TypeVar("_T")
_JSON = "application/json; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_MIB = 1024 * 1024
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One way in which an answer goes wrong.

    :param name: how records of calls name it
    :param status: HTTP status; None keeps the true answer's
    :param headers: headers added to the answer
    :param body: bytes sent instead of the true answer; None sends the true answer
    :param content_type: of ``body``
    :param repeat: how many times ``body`` is sent in a row, as one streamed body
    :param delay: seconds before anything is sent
    :param rewrite: what is changed in the true answer
    :param drip: seconds between any two bytes of the body; 0 sends it at once
    :param header_drip: seconds between any two bytes of the status line and the headers
    :param ending: ``whole``; ``chunked`` (whole, without Content-Length); ``short`` (cut, with a
        Content-Length that fits what comes);
        ``truncated`` (Content-Length promises more than comes), ``chunk_cut`` (a
        chunked body without its last chunk), ``unframed`` (neither length nor chunks: the close is the end),
        ``stalled`` (silence until the client goes), ``reset`` (a TCP RST) or ``closed`` (a plain close)
    :param keep: the part of the body, 0 to 1, that is sent before an ending that cuts it; with
        ``stalled``, ``reset`` and ``closed`` a 0 means that not even the status line is sent
    :param ranges: False makes media answers ignore ``Range`` and not offer it
    :param etag: the ETag that media claim to have
    :param total_off: by how many bytes the total in a Content-Range differs from the file's size
    """

    name: str
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = _JSON
    repeat: int = 1
    rewrite: Rewrite | None = None
    delay: float = 0.0
    drip: float = 0.0
    header_drip: float = 0.0
    ending: Ending = "whole"
    keep: float = 1.0
    ranges: bool = True
    etag: str | None = None
    total_off: int = 0

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise ValueError(f"repeat must be at least 1, not {self.repeat!r}")
        for name in ("delay", "drip", "header_drip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more seconds; got {getattr(self, name)!r}")
        if not 0 <= self.keep <= 1:
            raise ValueError(f"keep must be a part of the body between 0 and 1, not {self.keep!r}")

    @property
    def silent(self) -> bool:
        """Whether not even a status line is sent."""
        return self.ending in ("stalled", "reset", "closed") and self.keep == 0

    @property
    def needs_true_answer(self) -> bool:
        """Whether the relay's true answer is what goes wrong on its way."""
        return self.body is None and not self.silent


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)


def _new_api_error(message: str, *, code: str = "", type_: str = "new_api_error") -> bytes:
    return _encode({"error": {"message": message, "type": type_, "param": "", "code": code}})


def _task_error(code: str | int, message: str) -> bytes:
    return _encode({"code": code, "message": message, "data": None})


def _edge_page(status: int, title: str) -> bytes:
    return (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    ).encode()


_PROBLEM = "application/problem+json"
_GATEWAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "aws": (504, {"message": "Endpoint request timed out"}),
    "kong": (504, {"message": "The upstream server is timing out", "request_id": "5c1e3f0a7d"}),
    "kong_502": (
        502,
        {"message": "An invalid response was received from the upstream server", "request_id": "5c1e3f0a7d"},
    ),
    "spring": (
        504,
        {
            "timestamp": "2024-12-22T13:38:40.139+00:00",
            "path": "/luma/generations",
            "status": 504,
            "error": "Gateway Timeout",
            "requestId": "a1b2c3d4-17",
        },
    ),
    "spring_502": (
        502,
        {
            "timestamp": 1734874720139,
            "status": 502,
            "error": "Bad Gateway",
            "message": "Connection prematurely closed BEFORE response",
            "path": "/luma/generations",
        },
    ),
    "problem": (
        504,
        {"type": "about:blank", "title": "Gateway Timeout", "status": 504, "detail": "upstream timed out"},
    ),
    "cloudflare": (
        524,
        {
            "type": "about:blank",
            "title": "Error 524: A timeout occurred",
            "status": 524,
            "detail": "The origin web server did not complete the request in time.",
            "error_code": 524,
            "retryable": True,
        },
    ),
    "timeout": (408, {"error": {"message": "Request Timeout", "type": "timeout", "code": 408}}),
    "empty": (500, {}),
}


def _one_of(name: str, value: _T, allowed: Collection[Any]) -> _T:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}.")
    return value


def answer(
    status: int,
    body: bytes | str = b"",
    *,
    content_type: str = _JSON,
    headers: Mapping[str, str] | None = None,
    name: str = "answer",
) -> Fault:
    """Any answer of your own."""
    raw = body.encode() if isinstance(body, str) else body
    return Fault(
        name=name, status=status, body=raw, content_type=content_type, headers=tuple((headers or {}).items())
    )


def unauthorized() -> Fault:
    """401: the key is wrong."""
    return Fault(
        name="unauthorized",
        status=401,
        body=_new_api_error("无效的令牌 (request id: 20241222133840139sandbox)"),
    )


def key_quota_exhausted() -> Fault:
    """401: the key is right but its quota is used up."""
    message = "该令牌额度已用尽 TokenStatusExhausted[sk-san***key] (request id: 20241222133840139sandbox)"
    return Fault(name="key_quota_exhausted", status=401, body=_new_api_error(message))


def insufficient_user_quota() -> Fault:
    """403: the account has no money left."""
    message = "用户额度不足, 剩余额度: ＄0.000000 (request id: 20241222133840139sandbox)"
    return Fault(
        name="insufficient_user_quota",
        status=403,
        body=_new_api_error(message, code="insufficient_user_quota"),
    )


def pre_consume_token_quota_failed() -> Fault:
    """403: the key's quota does not cover the price of the job."""
    message = "令牌额度不足, 需要: ＄0.320000, 剩余: ＄0.010000"
    return Fault(
        name="pre_consume_token_quota_failed",
        status=403,
        body=_task_error("pre_consume_token_quota_failed", message),
    )


def group_denied() -> Fault:
    """403: the key's group may not use this model."""
    return Fault(name="group_denied", status=403, body=_new_api_error("该令牌无权访问模型 luma_video_api"))


def task_not_exist() -> Fault:
    """400: the relay knows no such task."""
    return Fault(name="task_not_exist", status=400, body=_task_error("task_not_exist", "task_not_exist"))


def bad_request(message: str = "invalid request", *, code: str = "bad_request") -> Fault:
    """400 with words of your own, e.g. a refused prompt."""
    return Fault(name="bad_request", status=400, body=_task_error(code, message))


def invalid_url(path: str = "/luma/tasks", method: str = "POST") -> Fault:
    """404: what a relay says to a path that it does not have."""
    body = _new_api_error(f"Invalid URL ({method} {path})", type_="invalid_request_error")
    return Fault(name="invalid_url", status=404, body=body)


def payload_too_large() -> Fault:
    """413 in the words of an edge proxy."""
    return Fault(
        name="payload_too_large",
        status=413,
        body=_edge_page(413, "Request Entity Too Large"),
        content_type=_HTML,
    )


def too_many_requests(
    *,
    retry_after: float | None = None,
    http_date: bool = False,
    body: Literal["message", "openai", "empty"] = "message",
) -> Fault:
    """
    429: busy.

    :param retry_after: seconds in ``Retry-After``; None leaves the header out
    :param http_date: gives ``Retry-After`` as an HTTP date, counted from this call
    :param body: the relay's own message, an OpenAI-style error, or nothing
    """
    headers: tuple[tuple[str, str], ...] = ()
    if retry_after is not None:
        value = formatdate(time.time() + retry_after, usegmt=True) if http_date else f"{retry_after:g}"
        headers = (("retry-after", value),)
    bodies = {
        "message": _task_error(429, "当前分组上游负载已饱和，请稍后再试"),
        "openai": _encode(
            {
                "error": {
                    "message": "Rate limit reached for requests",
                    "type": "requests",
                    "param": None,
                    "code": "rate_limit_exceeded",
                }
            }
        ),
        "empty": b"",
    }
    if body not in bodies:
        raise ValueError(f"body must be one of {', '.join(bodies)}, not {body!r}")
    return Fault(name="too_many_requests", status=429, headers=headers, body=bodies[body])


def far_retry_after(year: int = 9999, *, code: int = 429) -> Fault:
    """429 or 503 whose ``Retry-After`` is the last second of a year; from 10000 on no calendar has it."""
    return Fault(
        name="far_retry_after",
        status=code,
        headers=(("retry-after", f"Fri, 31 Dec {year} 23:59:59 GMT"),),
        body=_task_error(code, "当前分组上游负载已饱和，请稍后再试"),
    )


def do_request_failed() -> Fault:
    """500: the relay could not reach what stands behind it."""
    return Fault(
        name="do_request_failed", status=500, body=_task_error("do_request_failed", "do request failed")
    )


def upstream_lost(form: LostUpstream = "deadline") -> Fault:
    """
    500: the relay had sent the call on and got no answer that it understands.

    :param form: its wait ended (``deadline``), the answer had another shape (``unmarshal``), or the
        connection broke (``closed``)
    """
    sent_to = 'Post "https://upstream.invalid/luma/generations"'
    bodies = {
        "deadline": _task_error("do_request_failed", f"{sent_to}: context deadline exceeded"),
        "unmarshal": _encode(
            {"detail": {"reason": "json: cannot unmarshal object into Go value of type string"}}
        ),
        "closed": _task_error("do_request_failed", f"{sent_to}: http: server closed idle connection"),
    }
    return Fault(name="upstream_lost", status=500, body=bodies[_one_of("form", form, bodies)])


def model_not_found(model: str = "luma_video_api") -> Fault:
    """503: the relay has no channel for the model."""
    message = f"分组 default 下模型 {model} 无可用渠道（distributor）"
    return Fault(name="model_not_found", status=503, body=_new_api_error(message, code="model_not_found"))


def bad_gateway() -> Fault:
    """502 in the words of an edge proxy."""
    return Fault(name="bad_gateway", status=502, body=_edge_page(502, "Bad Gateway"), content_type=_HTML)


def gateway_timeout() -> Fault:
    """504 in the words of an edge proxy."""
    return Fault(
        name="gateway_timeout", status=504, body=_edge_page(504, "Gateway Time-out"), content_type=_HTML
    )


def edge_timeout() -> Fault:
    """524: the edge proxy waited too long for the relay."""
    return Fault(
        name="edge_timeout", status=524, body=_edge_page(524, "A timeout occurred"), content_type=_HTML
    )


def gateway_json(form: Gateway = "aws") -> Fault:
    """
    An error of a gateway in front of the relay, in JSON: what happened behind it is unknown.

    :param form: ``aws`` (504), ``kong`` (504), ``kong_502``, ``spring`` (504), ``spring_502``, ``problem``
        (504, RFC 9457), ``cloudflare`` (524), ``timeout`` (408) or ``empty`` (500, ``{}``)
    """
    code, body = _GATEWAYS[_one_of("form", form, _GATEWAYS)]
    content_type = _PROBLEM if form in ("problem", "cloudflare") else _JSON
    return Fault(name="gateway_json", status=code, body=_encode(body), content_type=content_type)


def challenge_page() -> Fault:
    """403: an edge proxy wants to see a browser."""
    page = (
        b'<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title>'
        b'<meta name="robots" content="noindex,nofollow"></head><body><div class="main-wrapper">'
        b"<noscript>Enable JavaScript and cookies to continue</noscript></div></body></html>"
    )
    headers = (("cf-mitigated", "challenge"), ("server", "cloudflare"), ("cf-ray", "8f6a1b2c3d4e5f60-SIN"))
    return Fault(name="challenge_page", status=403, headers=headers, body=page, content_type=_HTML)


def maintenance_redirect(location: str = "/maintenance.html") -> Fault:
    """302 to a page that says that the relay is being maintained."""
    return Fault(
        name="maintenance_redirect",
        status=302,
        headers=(("location", location),),
        body=f'<a href="{location}">Found</a>.\n\n'.encode(),
        content_type=_HTML,
    )


def not_found_text() -> Fault:
    """404 in plain text, as a router says it that has lost its routes during a deployment."""
    return Fault(
        name="not_found_text",
        status=404,
        body=b"404 page not found\n",
        content_type="text/plain; charset=utf-8",
    )


def status(code: int) -> Fault:
    """The true answer's body under another status."""
    return Fault(name="status", status=code)


def redirect(location: str, *, code: int = 307) -> Fault:
    """A redirect to ``location``."""
    return Fault(name="redirect", status=code, headers=(("location", location),), body=b"")


def ok_with_error(message: str = "upstream error: generation service is unavailable") -> Fault:
    """200 with ``{"error": …}``."""
    return Fault(name="ok_with_error", status=200, body=_new_api_error(message))


def ok_without_success(message: str = "the service is being maintained") -> Fault:
    """200 with ``{"success": false}``."""
    return Fault(
        name="ok_without_success",
        status=200,
        body=_encode({"success": False, "message": message, "data": None}),
    )


def ok_html() -> Fault:
    """200 with a web page, as from a host that serves its front page on every path."""
    page = (
        b'<!doctype html><html><head><title>API relay</title></head><body><div id="root"></div></body></html>'
    )
    return Fault(name="ok_html", status=200, body=page, content_type=_HTML)


def stale_inner_state(reason: str = "任务超时") -> Fault:
    """
    The true answer with rows that the relay has swept as failed, around tasks that are still processing.

    Bare tasks are put into rows. The tasks have failed for good, as far as the relay says so: with
    ``fail_when`` it says so each time.
    """
    return Fault(name="stale_inner_state", rewrite=StaleInnerState(reason=reason))


def link_in_row(field: Literal["fail_reason", "result_url"] = "fail_reason") -> Fault:
    """The true answer with the only link to a video in a field of its row. Bare tasks are put into rows."""
    return Fault(
        name="link_in_row", rewrite=LinkInRow(field=_one_of("field", field, ("fail_reason", "result_url")))
    )


def odd_fields(seed: int = 0) -> Fault:
    """
    The true answer with one field in each task that has no sense, and no bearing.

    Such as a width as text, a duration of ``"5s"``, an empty text or list instead of an object, NaN, a lone
    surrogate in a prompt, a reason that is an object. Ids, states and links stay.

    :param seed: chooses the fields and their values
    """
    return Fault(name="odd_fields", rewrite=OddFields(seed=seed))


def id_beside_error(form: IdBesideErrorForm = "error_code_zero") -> Fault:
    """
    The true answer to a submit, an extend or a single query with an error beside the id that means none.

    A job is taken and billed in any case.

    :param form: ``error_code_zero``, ``error_false``, ``error_zero``, ``error_empty_list``,
        ``code_one_result``, ``code_ok``, ``code_succeed``, ``code_201``, ``code_202`` or ``success_false``
    """
    return Fault(
        name="id_beside_error", rewrite=IdBesideError(form=_one_of("form", form, ID_BESIDE_ERROR_FORMS))
    )


def other_letter_case() -> Fault:
    """The true answer with its ids in the other letter case."""
    return Fault(name="other_letter_case", rewrite=OtherLetterCase())


def dead_preferred_link(code: Literal[400, 401, 403, 404, 410] = 403) -> Fault:
    """
    The true answer with a ``download_url`` that the media host refuses for ever; ``url`` lives.

    :param code: the media host's status
    """
    return Fault(
        name="dead_preferred_link",
        rewrite=DeadPreferredLink(status=_one_of("code", code, (400, 401, 403, 404, 410))),
    )


def byte_order_mark() -> Fault:
    """The true answer after a UTF-8 byte order mark."""
    return Fault(name="byte_order_mark", rewrite=ByteOrderMark())


def glued(code: int = 500) -> Fault:
    """Two JSON documents glued together."""
    first = _task_error("do_request_failed", "do request failed")
    return Fault(name="glued", status=code, body=first + _new_api_error("bad response status code 502"))


def empty(code: int = 200) -> Fault:
    """No body at all."""
    return Fault(name="empty", status=code, body=b"")


def not_json(code: int = 200) -> Fault:
    """A body that breaks off inside its JSON, with a length that fits it."""
    return Fault(name="not_json", status=code, body=b'[{"id": "4665a07c-7641-4809-a133-107862')


def invalid_utf8(code: int = 200) -> Fault:
    """JSON whose text is not UTF-8."""
    return Fault(
        name="invalid_utf8",
        status=code,
        body=b'{"code": "success", "message": "\xff\xfe\xd5\xa6", "data": []}',
    )


def deep_nesting(depth: int = 100_000) -> Fault:
    """JSON nested ``depth`` arrays deep."""
    return Fault(name="deep_nesting", status=200, body=b"[" * depth + b"]" * depth)


def wrong_types() -> Fault:
    """Well-formed JSON in which nothing has the type that it should have."""
    body = _encode(
        {"code": ["success"], "message": 5, "data": {"tasks": "none", "id": [], "state": 7, "video": 1.5}}
    )
    return Fault(name="wrong_types", status=200, body=body)


def huge(megabytes: int = 100) -> Fault:
    """A body of ``megabytes`` MiB without a Content-Length, streamed as fast as the client takes it."""
    return Fault(
        name="huge", status=200, body=b"[0,0,0,0,0,0,0,\n" * (_MIB // 16), repeat=megabytes, ending="chunked"
    )


def latency(seconds: float) -> Fault:
    """The true answer, late."""
    return Fault(name="latency", delay=seconds)


def hang() -> Fault:
    """No answer for as long as the client waits."""
    return Fault(name="hang", ending="stalled", keep=0.0)


def stall(keep: float = 0.5) -> Fault:
    """The beginning of the true answer, then silence for as long as the client waits."""
    return Fault(name="stall", ending="stalled", keep=keep)


def reset(keep: float = 0.0) -> Fault:
    """The connection is reset (TCP RST): before the answer, or after a part of its body."""
    return Fault(name="reset", ending="reset", keep=keep)


def drop() -> Fault:
    """The connection is closed without an answer."""
    return Fault(name="drop", ending="closed", keep=0.0)


def truncated(keep: float = 0.5) -> Fault:
    """The true answer with its Content-Length, cut short."""
    return Fault(name="truncated", ending="truncated", keep=keep)


def chunk_cut(keep: float = 0.5) -> Fault:
    """The true answer as a chunked body without its last chunk."""
    return Fault(name="chunk_cut", ending="chunk_cut", keep=keep)


def unframed(keep: float = 0.5) -> Fault:
    """The true answer without Content-Length or chunks, cut short: HTTP can't tell that it is incomplete."""
    return Fault(name="unframed", ending="unframed", keep=keep)


def drip(seconds: float = 1.0) -> Fault:
    """The true answer, one byte every ``seconds``."""
    return Fault(name="drip", drip=seconds)


def trickled_headers(seconds: float = 1.0) -> Fault:
    """The true answer, its status line and headers one byte every ``seconds``."""
    return Fault(name="trickled_headers", header_drip=seconds)


def media_error(code: int = 403) -> Fault:
    """What a storage host says to a link that lapsed (400, 401, 403) or a file that is gone (404, 410)."""
    names = {400: "ExpiredToken", 401: "Unauthorized", 403: "AccessDenied", 404: "NoSuchKey", 410: "Gone"}
    name = names.get(code, "Error")
    words = "The provided token has expired." if code == 400 else name
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{name}</Code><Message>{words}</Message></Error>'
    )
    return Fault(name="media_error", status=code, body=body.encode(), content_type="application/xml")


def expired_token() -> Fault:
    """400 ``ExpiredToken``: what a store of the S3 kind says to a link whose signing key has lapsed."""
    return msgspec.structs.replace(media_error(400), name="expired_token")


def wants_key() -> Fault:
    """401: the link leads to the relay's own API, which wants its key."""
    return Fault(
        name="wants_key",
        status=401,
        headers=(("www-authenticate", "Bearer"),),
        body=_new_api_error("未提供令牌 (request id: 20241222133840139sandbox)"),
    )


@functools.cache
def gzip_bomb(megabytes: int = 1024) -> Fault:
    """About ``megabytes`` KiB with ``Content-Encoding: gzip`` that unpack to ``megabytes`` MiB of zeros."""
    zeros = bytes(_MIB)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    # A full flush makes the packed block independent of what was before, so that it can be repeated.
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = functools.reduce(lambda checksum, _: zlib.crc32(zeros, checksum), range(megabytes), 0)
    trailer = struct.pack("<LL", checksum, megabytes * _MIB % 2**32)
    return Fault(
        name="gzip_bomb",
        status=200,
        headers=(("content-encoding", "gzip"),),
        body=_GZIP_HEADER + block * megabytes + packer.flush() + trailer,
        content_type="video/mp4",
    )


@functools.cache
def gzip_flood(megabytes: int = 16) -> Fault:
    """About ``megabytes`` KiB of gzip that unpack to ``megabytes`` MiB of JSON: an array of empty objects."""
    flood = b"[" + b"{}," * (megabytes * _MIB // 3) + b"{}]"
    return Fault(
        name="gzip_flood",
        status=200,
        headers=(("content-encoding", "gzip"),),
        body=gzip.compress(flood, mtime=0),
    )


def no_ranges() -> Fault:
    """The true file from a host that ignores ``Range``."""
    return Fault(name="no_ranges", ranges=False)


def other_total(by: int = 1_000_000) -> Fault:
    """The true file; the Content-Range of a part claims a total that is ``by`` bytes off."""
    return Fault(name="other_total", total_off=by)


def short_part(keep: float = 0.5) -> Fault:
    """
    The true file or part of it, cut, with a Content-Length that fits what comes.

    Only the Content-Range of a part, or the file itself, shows that it is not whole.
    """
    return Fault(name="short_part", ending="short", keep=keep)


def changed_etag(etag: str = '"changed"') -> Fault:
    """The true file under another ETag, as if it had been replaced since."""
    return Fault(name="changed_etag", etag=etag)


NAMED: dict[str, Callable[..., Fault]] = {
    maker.__name__: maker
    for maker in (
        answer,
        unauthorized,
        key_quota_exhausted,
        insufficient_user_quota,
        pre_consume_token_quota_failed,
        group_denied,
        task_not_exist,
        bad_request,
        invalid_url,
        payload_too_large,
        too_many_requests,
        do_request_failed,
        model_not_found,
        bad_gateway,
        gateway_timeout,
        edge_timeout,
        gateway_json,
        upstream_lost,
        challenge_page,
        maintenance_redirect,
        not_found_text,
        far_retry_after,
        status,
        redirect,
        ok_with_error,
        ok_without_success,
        ok_html,
        id_beside_error,
        stale_inner_state,
        link_in_row,
        odd_fields,
        other_letter_case,
        dead_preferred_link,
        byte_order_mark,
        glued,
        empty,
        not_json,
        invalid_utf8,
        deep_nesting,
        wrong_types,
        huge,
        latency,
        hang,
        stall,
        reset,
        drop,
        truncated,
        chunk_cut,
        unframed,
        drip,
        trickled_headers,
        media_error,
        expired_token,
        wants_key,
        gzip_bomb,
        gzip_flood,
        no_ranges,
        changed_etag,
        other_total,
        short_part,
    )
}

_MEDIA_ONLY = frozenset(
    {
        "changed_etag",
        "expired_token",
        "gzip_bomb",
        "media_error",
        "no_ranges",
        "other_total",
        "short_part",
        "wants_key",
    }
)
_API_ONLY = frozenset(
    {
        "byte_order_mark",
        "deep_nesting",
        "do_request_failed",
        "glued",
        "group_denied",
        "gzip_flood",
        "insufficient_user_quota",
        "invalid_utf8",
        "key_quota_exhausted",
        "model_not_found",
        "ok_with_error",
        "ok_without_success",
        "pre_consume_token_quota_failed",
        "task_not_exist",
        "upstream_lost",
        "wrong_types",
    }
)
_TASKS_ONLY = frozenset({"odd_fields", "other_letter_case", "stale_inner_state"})
_LINKS_ONLY = frozenset({"dead_preferred_link", "link_in_row"})
_ONE_TASK_ONLY = frozenset({"id_beside_error"})
# What random_faults may choose for the parameters of a maker; kept small where it costs time or memory.
_DRAWN: dict[str, dict[str, Sequence[Any]]] = {
    "answer": {
        "status": (200, 400, 418, 500, 503),
        "body": ("", "{}", "[]", "null", "oops", '{"message": "unavailable"}', "<html></html>"),
    },
    "bad_request": {"message": ("invalid request", "rate limit", "insufficient balance")},
    "chunk_cut": {"keep": (0.0, 0.3, 0.9)},
    "dead_preferred_link": {"code": (400, 401, 403, 404, 410)},
    "deep_nesting": {"depth": (100, 10_000)},
    "drip": {"seconds": (0.0001, 0.001)},
    "empty": {"code": (200, 204, 400, 403, 500, 502)},
    "far_retry_after": {"year": (9999, 10_000, 99_999), "code": (429, 503)},
    "gateway_json": {"form": get_args(Gateway)},
    "glued": {"code": (200, 500, 502)},
    "gzip_bomb": {"megabytes": (1, 4)},
    "gzip_flood": {"megabytes": (1, 4)},
    "huge": {"megabytes": (1, 4)},
    "id_beside_error": {"form": ID_BESIDE_ERROR_FORMS},
    "invalid_utf8": {"code": (200, 500)},
    "latency": {"seconds": (0.01, 0.1)},
    "link_in_row": {"field": ("fail_reason", "result_url")},
    "media_error": {"code": (400, 401, 403, 404, 410)},
    "not_json": {"code": (200, 500)},
    "odd_fields": {"seed": range(10_000)},
    "other_total": {"by": (-1, 1, 1_000_000)},
    "redirect": {"location": ("/elsewhere", "/login"), "code": (301, 302, 307, 308)},
    "reset": {"keep": (0.0, 0.5)},
    "short_part": {"keep": (0.0, 0.3, 0.9)},
    "stall": {"keep": (0.0, 0.5)},
    "status": {"code": (206, 400, 500, 502)},
    "too_many_requests": {"retry_after": (None, 0, 1), "body": ("message", "openai", "empty")},
    "trickled_headers": {"seconds": (0.0001, 0.001)},
    "truncated": {"keep": (0.0, 0.3, 0.9)},
    "unframed": {"keep": (0.3, 0.9)},
    "upstream_lost": {"form": get_args(LostUpstream)},
}


def _suits(name: str, call: CallName) -> bool:
    """Say whether this kind of call has been seen to fail in the way that a maker is named for."""
    if call == "media":
        return name not in _API_ONLY | _TASKS_ONLY | _LINKS_ONLY | _ONE_TASK_ONLY
    if name in _MEDIA_ONLY:
        return False
    if name in _TASKS_ONLY:
        return call in ("batch", "single", "submit", "extend")
    if name in _LINKS_ONLY:
        return call in ("batch", "single")
    if name in _ONE_TASK_ONLY:
        return call in ("single", "submit", "extend")
    return True


def random_faults(
    seed: int, *, call: CallName = "batch", count: int = 10, exclude: Collection[str] = ()
) -> list[Fault]:
    """
    Draw ``count`` faults from all that this kind of call can have; the same seed draws the same.

    Queue them with ``fail_next(call, fault)``. Some last for as long as the client waits (``hang``,
    ``stall``), and ``stale_inner_state`` says that the tasks have failed: exclude what the test is not about.

    :param exclude: names of makers that are left out
    :raises ValueError: when nothing is left to draw from, or for an unknown name
    """
    if unknown := sorted(set(exclude) - set(NAMED)):
        raise ValueError(f"exclude must name faults; got {', '.join(unknown)}.")
    names = [name for name in NAMED if _suits(name, call) and name not in exclude]
    if not names:
        raise ValueError("exclude must leave a fault to draw from; got the names of all.")
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [_draw(chance.choice(names), chance) for _ in range(count)]


def _draw(name: str, chance: random.Random) -> Fault:
    return NAMED[name](**{key: chance.choice(values) for key, values in _DRAWN.get(name, {}).items()})
