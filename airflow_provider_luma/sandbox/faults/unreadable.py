# SPDX-License-Identifier: Apache-2.0
"""Faults whose body can't be read, is far too large, or contradicts its status."""

from __future__ import annotations

import functools
import gzip
import struct
import zlib

from airflow_provider_luma.sandbox.faults import bodies
from airflow_provider_luma.sandbox.faults.fault import API, MEDIA, Fault, registered

_MIB = 1024 * 1024
_GZIP = (("content-encoding", "gzip"),)
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@registered(API)
def ok_with_error(message: str = "upstream error: generation service is unavailable") -> Fault:
    """Return 200 with ``{"error": …}``."""
    return bodies.relay_error(200, message)


@registered(API)
def ok_without_success(message: str = "the service is being maintained") -> Fault:
    """Return 200 with ``{"success": false}``."""
    return bodies.json_answer(200, {"success": False, "message": message, "data": None})


@registered()
def ok_html() -> Fault:
    """Return 200 with a web page, as a host does that serves its front page on every path."""
    page = (
        b'<!doctype html><html><head><title>API relay</title></head><body><div id="root"></div></body></html>'
    )
    return Fault(status=200, body=page, content_type=bodies.HTML)


@registered(API, code=(200, 500, 502))
def glued(code: int = 500) -> Fault:
    """Return two JSON documents in a row."""
    first = bodies.task_error(code, "do request failed", code="do_request_failed")
    second = bodies.relay_error(code, "bad response status code 502")
    return Fault(status=code, body=(first.body or b"") + (second.body or b""))


@registered(code=(200, 204, 400, 403, 500, 502))
def empty(code: int = 200) -> Fault:
    """Return no body at all."""
    return Fault(status=code, body=b"")


@registered(code=(200, 500))
def not_json(code: int = 200) -> Fault:
    """Return a body that ends inside its JSON, with a length that fits."""
    return Fault(status=code, body=b'[{"id": "4665a07c-7641-4809-a133-107862')


@registered(API, code=(200, 500))
def invalid_utf8(code: int = 200) -> Fault:
    """Return JSON whose text is not UTF-8."""
    return Fault(status=code, body=b'{"code": "success", "message": "\xff\xfe\xd5\xa6", "data": []}')


@registered(API, depth=(100, 10_000))
def deep_nesting(depth: int = 100_000) -> Fault:
    """Return JSON that is nested ``depth`` arrays deep."""
    return Fault(status=200, body=b"[" * depth + b"]" * depth)


@registered(API)
def wrong_types() -> Fault:
    """Return well-formed JSON in which no field has its type."""
    data = {"tasks": "none", "id": [], "state": 7, "video": 1.5}
    return bodies.json_answer(200, {"code": ["success"], "message": 5, "data": data})


@registered(megabytes=(1, 4))
def huge(megabytes: int = 100) -> Fault:
    """Stream ``megabytes`` MiB without a Content-Length, as fast as the client reads."""
    return Fault(status=200, body=b"[0,0,0,0,0,0,0,\n" * (_MIB // 16), repeat=megabytes, ending="chunked")


@registered(API, megabytes=(1, 4))
@functools.cache
def gzip_flood(megabytes: int = 16) -> Fault:
    """Return about ``megabytes`` KiB of gzip that unpack to ``megabytes`` MiB of JSON: many empty objects."""
    flood = b"[" + b"{}," * (megabytes * _MIB // 3) + b"{}]"
    return Fault(status=200, headers=_GZIP, body=gzip.compress(flood, mtime=0))


@registered(MEDIA, megabytes=(1, 4))
@functools.cache
def gzip_bomb(megabytes: int = 1024) -> Fault:
    """Return about ``megabytes`` KiB of gzip that unpack to ``megabytes`` MiB of zeros, as a video."""
    zeros = bytes(_MIB)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    # A full flush makes the packed block independent of what was before, so that it can be repeated.
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = functools.reduce(lambda checksum, _: zlib.crc32(zeros, checksum), range(megabytes), 0)
    trailer = struct.pack("<LL", checksum, megabytes * _MIB % 2**32)
    body = _GZIP_HEADER + block * megabytes + packer.flush() + trailer
    return Fault(status=200, headers=_GZIP, body=body, content_type="video/mp4")
