# SPDX-License-Identifier: Apache-2.0
"""Answers that rewrite the true one, can't be read, are far too large, or contradict their status."""

from __future__ import annotations

import functools
import gzip
import struct
import zlib
from typing import Literal, get_args

from airflow_provider_luma.sandbox.faults import bodies
from airflow_provider_luma.sandbox.faults.fault import API, MEDIA, CallName, Fault, one_of, registered
from airflow_provider_luma.sandbox.rewrites import (
    ID_BESIDE_ERROR_FORMS,
    ByteOrderMark,
    DeadPreferredLink,
    IdBesideError,
    IdBesideErrorForm,
    LinkInRow,
    OddFields,
    OtherLetterCase,
    RefusalStatus,
    StaleInnerState,
)

_QUERIES: tuple[CallName, ...] = ("batch", "single")
_ONE_TASK: tuple[CallName, ...] = ("single", "submit", "extend")
_TASKS: tuple[CallName, ...] = ("batch", *_ONE_TASK)
_ROW_FIELDS = ("fail_reason", "result_url")
_MIB = 1024 * 1024
_GZIP = (("content-encoding", "gzip"),)
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@registered(_TASKS)
def stale_inner_state(reason: str = "任务超时") -> Fault:
    """
    Report tasks as failed in their rows while the tasks in them are still processing.

    Bare tasks are put into rows. The relay reports this while the fault lasts: use ``fail_when`` for tasks
    that stay failed.

    :param reason: The relay's reason.
    """
    return Fault(rewrite=StaleInnerState(reason=reason))


@registered(_QUERIES, field=_ROW_FIELDS)
def link_in_row(field: Literal["fail_reason", "result_url"] = "fail_reason") -> Fault:
    """
    Put the only URL of a video into a field of its row; bare tasks are put into rows.

    :param field: The row's field.
    """
    return Fault(rewrite=LinkInRow(field=one_of("field", field, _ROW_FIELDS)))


@registered(_TASKS, seed=range(10_000))
def odd_fields(seed: int = 0) -> Fault:
    """
    Put a meaningless value into one field of each task; ids, states and URLs stay.

    Such as a width as text, a duration of ``"5s"``, an empty text or list instead of an object, NaN, a lone
    surrogate in a prompt, a reason that is an object.

    :param seed: Seed that chooses the fields and their values.
    """
    return Fault(rewrite=OddFields(seed=seed))


@registered(_ONE_TASK, form=ID_BESIDE_ERROR_FORMS)
def id_beside_error(form: IdBesideErrorForm = "error_code_zero") -> Fault:
    """
    Put an error that means none beside the id of a submit, an extend or a single query.

    The relay accepts and bills the submit in any case.

    :param form: ``error_code_zero``, ``error_false``, ``error_zero``, ``error_empty_list``,
        ``code_one_result``, ``code_ok``, ``code_succeed``, ``code_201``, ``code_202`` or ``success_false``.
    """
    return Fault(rewrite=IdBesideError(form=one_of("form", form, ID_BESIDE_ERROR_FORMS)))


@registered(_TASKS)
def other_letter_case() -> Fault:
    """Return ids in the other letter case."""
    return Fault(rewrite=OtherLetterCase())


@registered(_QUERIES, code=get_args(RefusalStatus))
def dead_preferred_link(code: RefusalStatus = 403) -> Fault:
    """
    Return a ``download_url`` that the media host always refuses, beside a ``url`` that works.

    :param code: The media host's status.
    """
    return Fault(rewrite=DeadPreferredLink(status=one_of("code", code, get_args(RefusalStatus))))


@registered(API)
def byte_order_mark() -> Fault:
    """Return the true answer after a UTF-8 byte order mark."""
    return Fault(rewrite=ByteOrderMark())


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
