# SPDX-License-Identifier: Apache-2.0
"""
Turn an error answer of a relay into the error that says what to do.

This module has the only table of the statuses, codes and texts that relays are known to answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from airflow_provider_luma.delays import parse_retry_after
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaAuthError,
    LumaBusyError,
    LumaEndpointError,
    LumaForbiddenError,
    LumaModelUnavailableError,
    LumaQuotaError,
    LumaRequestError,
    LumaResponseError,
    LumaServerError,
    LumaTaskNotFoundError,
)
from airflow_provider_luma.text import Cleaner, clean_text

SUCCESS_CODES: Final = frozenset(
    {"", "success", "succeed", "succeeded", "ok", "0", "200", "201", "202", "null"}
)
"""The codes in the body of an answer that isn't an error, in lower case."""

REFUSING_STATUSES: Final = frozenset({400, 401, 403, 404, 413, 422, 429})
"""The statuses that a relay answers before it calls its upstream."""

QUOTA_CODES: Final = frozenset(
    {"insufficient_user_quota", "pre_consume_token_quota_failed", "insufficient_quota"}
)
REQUEST_CODES: Final = frozenset({"invalid_request", "sensitive_words_detected"})
REFUSING_CODES: Final = QUOTA_CODES | REQUEST_CODES | {"task_not_exist", "model_not_found"}
"""The codes that a relay answers before it calls its upstream, with any status."""

_QUOTA_TEXTS: Final = ("额度已用尽", "额度不足", "余额不足", "insufficient quota", "insufficient balance")
_BUSY_TEXTS: Final = ("负载已饱和", "rate limit", "too many requests")
_AUTH_TEXTS: Final = ("无效的令牌", "未提供令牌", "invalid token", "invalid api key")
_FORBIDDEN_TEXTS: Final = ("无权",)
# With these a relay repeats parts of the request that it refuses, so their text proves nothing.
_ECHOING_STATUSES: Final = frozenset({400, 404, 405, 413, 422})
_GATEWAY_MEMBERS: Final = ("timestamp", "path", "status")
_REQUEST_ID: Final = re.compile(r"\(?request id: ?([A-Za-z0-9_-]{6,64})\)?")
_REQUEST_ID_HEADERS: Final = ("x-oneapi-request-id", "x-request-id", "request-id", "cf-ray")
_MAX_PAGE: Final = 20_000
_MAX_DIGITS: Final = 400
_MAX_TARGET: Final = 200


class ErrorDocument(NamedTuple):
    """
    Hold the contents of an error body, uncleaned.

    :param code: The relay's own code, when it is a word.
    :param number: The code or status in the body, when it is a number.
    :param message: The message; of an HTML page, its visible text.
    :param own_shape: Whether it is a document of the relay itself, not of a gateway in front of it.
    :param is_object: Whether it is a JSON object at all.
    """

    code: str
    number: int | None
    message: str
    own_shape: bool
    is_object: bool


def api_error(
    status: int, headers: Mapping[str, str], body: bytes, *, clean: Cleaner = clean_text, sent: str = ""
) -> LumaApiError:
    """
    Build the error for an error answer: any non-2xx, or a 2xx whose body reports an error.

    :param headers: Its headers, keys in any case.
    :param clean: Makes the relay's texts safe to show, and masks the key in them.
    :param sent: The request's body. A text that it contains may be an echo, and decides nothing.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    document = read_error(body)
    kind, advice = _classify(status, document, sent.lower())
    message, code = clean(document.message), clean(document.code, 80)
    request_id = next((clean(headers[name], 80) for name in _REQUEST_ID_HEADERS if headers.get(name)), None)
    if request_id is None and (found := _REQUEST_ID.search(message)):
        request_id = found.group(1)
    quote = f': "{message}"' if message else " without a message" if body.strip() else " with an empty body"
    named_code = f", code {code}" if code else ""
    reference = f" (request id {request_id})" if request_id and request_id not in message else ""
    target = _redirect_target(status, headers, clean)
    return kind(
        f"The relay returned HTTP {status}{named_code}{quote}{reference}.{target} {advice}",
        status=status,
        code=code,
        relay_message=message,
        request_id=request_id,
        retry_after=parse_retry_after(headers.get("retry-after")),
        well_formed=document.own_shape,
    )


def read_error(body: bytes) -> ErrorDocument:
    """Read an error body."""
    text = body.decode("utf-8-sig", "replace").strip()
    document = first_json(text)
    if not isinstance(document, dict):
        return ErrorDocument("", None, _visible_text(text), own_shape=False, is_object=False)
    inner = document.get("error")
    error = inner if isinstance(inner, dict) else document
    words = [error.get(name) for name in ("message", "detail", "msg", "description", "title")]
    message = next((word for word in [*words, inner] if word), "")
    code = error.get("code") or document.get("code")
    return ErrorDocument(
        code if isinstance(code, str) and not code.strip().isdecimal() else "",
        _number(code) if code else _number(error.get("status")),
        message if isinstance(message, str) and message else text,
        own_shape=_is_own_shape(document),
        is_object=True,
    )


def first_json(text: str) -> Any:
    """
    Decode the first JSON document of a text without leading blanks; some relays append a second one.

    :return: The document, or ``None`` when none is legible.
    """
    try:
        return _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | float:
    # int() raises ValueError for thousands of digits, and the whole document would count as illegible.
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_DECODER: Final = json.JSONDecoder(parse_int=_integer, strict=False)


def _number(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip(), re.ASCII):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_own_shape(document: Mapping[str, Any]) -> bool:
    """Return whether relays answer such documents; those of gateways in front of them look different."""
    error, code = document.get("error"), document.get("code")
    if isinstance(error, dict) or isinstance(document.get("success"), bool):
        return True
    if isinstance(error, str) and error:
        return not any(name in document for name in _GATEWAY_MEMBERS)
    has_words = any(name in document for name in ("message", "msg", "description"))
    return has_words and isinstance(code, str | int) and not isinstance(code, bool)


def _classify(status: int, document: ErrorDocument, sent: str) -> tuple[type[LumaApiError], str]:
    code = document.code.lower()
    in_success = 200 <= status < 300
    if in_success and document.own_shape and document.number in REFUSING_STATUSES:
        # A status in the body of a success means the same as a status of its own.
        status = document.number if document.number in (401, 403, 429) else 400
    text = "" if code or status in _ECHOING_STATUSES else document.message.lower()

    def says(phrases: tuple[str, ...]) -> bool:
        return any(words in text and words not in sent for words in phrases)

    if code in QUOTA_CODES or says(_QUOTA_TEXTS):
        return LumaQuotaError, "The key's quota or balance is used up. Top it up, then run the task again."
    if code == "task_not_exist":
        return LumaTaskNotFoundError, (
            "The relay doesn't know this task id. Check the id, and that the connection is the one that "
            "submitted it."
        )
    if code == "model_not_found":
        return LumaModelUnavailableError, (
            "The relay has no channel for this model. Check model_name and what the key's group may use."
        )
    if status == 401 or (in_success and says(_AUTH_TEXTS)):
        return LumaAuthError, "The relay refuses the API key. Check the connection's password field."
    if status == 403 or (in_success and says(_FORBIDDEN_TEXTS)):
        return LumaForbiddenError, (
            "The key may not do this. Check its group, its allowed addresses and its allowed models at the "
            "relay."
        )
    if status == 429 or says(_BUSY_TEXTS):
        return LumaBusyError, "The relay is busy. Try again later, or send fewer requests at a time."
    if 300 <= status < 400 or status in (404, 405):
        return LumaEndpointError, (
            "There is no Luma API at this address. Check the connection's host (base URL and path prefix)."
        )
    if code in REQUEST_CODES:
        return LumaRequestError, "The relay refuses the request. Correct what its message names."
    if 200 <= status < 300:
        if not document.is_object:
            return LumaResponseError, "The answer can't be understood. Check that the host is a Luma relay."
        return LumaServerError, "The relay reported this error with a success status. Try again later."
    if status >= 500 or status == 408:
        return LumaServerError, "The relay or its upstream failed. Try again later."
    return LumaRequestError, "The relay refuses the request. Correct what its message names."


def _redirect_target(status: int, headers: Mapping[str, str], clean: Cleaner) -> str:
    """Name the target of a redirect, without the parts of its URL that may be secret."""
    if not 300 <= status < 400 or not headers.get("location", "").strip():
        return ""
    # Cutting before cleaning could leave a part of the key that isn't recognised.
    target = re.split(r"[?#]", clean(headers["location"].strip(), 4 * _MAX_TARGET), maxsplit=1)[0]
    target = re.sub(r"//[^/]*@", "//***@", target)
    return f" It redirects to {clean(target, _MAX_TARGET)}, but API calls don't follow redirects."


def _visible_text(text: str) -> str:
    if text[:1] != "<":
        return text
    without_code = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", " ", text[:_MAX_PAGE])
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", without_code)).strip()
