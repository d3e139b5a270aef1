# SPDX-License-Identifier: Apache-2.0
"""
Everything that can go wrong between a relay and its client, as values.

A :class:`Fault` says what goes over the wire instead of (or around) the relay's true answer. It says nothing
about when that happens or whether the relay took the job: that is up to ``fail_next`` and ``fail_when``.

``NAMED`` holds the constructors by name, for ``POST /sandbox/faults``.
"""

from __future__ import annotations

import functools
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Literal

import msgspec

Ending = Literal["whole", "chunked", "truncated", "chunk_cut", "unframed", "stalled", "reset", "closed"]

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
    :param drip: seconds between any two bytes of the body; 0 sends it at once
    :param ending: ``whole``; ``chunked`` (whole, without Content-Length);
        ``truncated`` (Content-Length promises more than comes), ``chunk_cut`` (a
        chunked body without its last chunk), ``unframed`` (neither length nor chunks: the close is the end),
        ``stalled`` (silence until the client goes), ``reset`` (a TCP RST) or ``closed`` (a plain close)
    :param keep: the part of the body, 0 to 1, that is sent before an ending that cuts it; with
        ``stalled``, ``reset`` and ``closed`` a 0 means that not even the status line is sent
    :param ranges: False makes media answers ignore ``Range`` and not offer it
    :param etag: the ETag that media claim to have
    """

    name: str
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = _JSON
    repeat: int = 1
    delay: float = 0.0
    drip: float = 0.0
    ending: Ending = "whole"
    keep: float = 1.0
    ranges: bool = True
    etag: str | None = None

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise ValueError(f"repeat must be at least 1, not {self.repeat!r}")
        if self.delay < 0 or self.drip < 0:
            raise ValueError(
                f"delay and drip must be seconds, 0 or more, not {self.delay!r} and {self.drip!r}"
            )
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


def do_request_failed() -> Fault:
    """500: the relay could not reach what stands behind it."""
    return Fault(
        name="do_request_failed", status=500, body=_task_error("do_request_failed", "do request failed")
    )


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


def media_error(code: int = 403) -> Fault:
    """What a storage host says to a link that lapsed (401, 403) or a file that is gone (404, 410)."""
    names = {401: "Unauthorized", 403: "AccessDenied", 404: "NoSuchKey", 410: "Gone"}
    name = names.get(code, "Error")
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{name}</Code><Message>{name}</Message></Error>'
    )
    return Fault(name="media_error", status=code, body=body.encode(), content_type="application/xml")


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


def no_ranges() -> Fault:
    """The true file from a host that ignores ``Range``."""
    return Fault(name="no_ranges", ranges=False)


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
        status,
        redirect,
        ok_with_error,
        ok_without_success,
        ok_html,
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
        media_error,
        gzip_bomb,
        no_ranges,
        changed_etag,
    )
}
