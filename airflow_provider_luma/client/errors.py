# SPDX-License-Identifier: Apache-2.0
"""
From a relay's error answer to the error that says what to do.

The table of statuses, codes and texts that relays are known to answer lives here and nowhere else.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

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

_MAX_QUOTE: Final = 500
_QUOTA_CODES: Final = {"insufficient_user_quota", "pre_consume_token_quota_failed", "insufficient_quota"}
_QUOTA_TEXTS: Final = ("额度已用尽", "额度不足", "余额不足", "insufficient quota", "insufficient balance")
_BUSY_TEXTS: Final = ("负载已饱和", "rate limit", "too many requests")
_REQUEST_ID: Final = re.compile(r"\(?request id: ?([A-Za-z0-9_-]{6,64})\)?")
_REQUEST_ID_HEADERS: Final = ("x-oneapi-request-id", "x-request-id", "request-id", "cf-ray")


class _Told(NamedTuple):
    """What an error body says."""

    code: str
    message: str
    well_formed: bool


def api_error(status: int, headers: Mapping[str, str], body: bytes) -> LumaApiError:
    """
    Build the error for an answer that is one: any non-2xx, or a 2xx whose body reports an error.

    :param status: HTTP status of the answer.
    :param headers: Its headers, keys in any case.
    :param body: Its body, free of the API key.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    told = _told(body)
    kind, advice = _classify(status, told)
    request_id = next((_cut(headers[name]) for name in _REQUEST_ID_HEADERS if headers.get(name)), None)
    if request_id is None and (found := _REQUEST_ID.search(told.message)):
        request_id = found.group(1)
    quote = f': "{told.message}"' if told.message else " without a word"
    code = f", code {told.code}" if told.code else ""
    reference = f" (request id {request_id})" if request_id and request_id not in told.message else ""
    return kind(
        f"The relay answered HTTP {status}{code}{quote}{reference}. {advice}",
        status=status,
        code=told.code,
        relay_message=told.message,
        request_id=request_id,
        retry_after=_retry_after(headers.get("retry-after")),
        well_formed=told.well_formed,
    )


def _classify(status: int, told: _Told) -> tuple[type[LumaApiError], str]:
    text = told.message.lower()
    if told.code in _QUOTA_CODES or any(words in text for words in _QUOTA_TEXTS):
        return LumaQuotaError, "The key's quota or balance is used up: top it up, then run the task again."
    if told.code == "task_not_exist":
        return LumaTaskNotFoundError, (
            "The relay doesn't know this task id: check the id and that the connection is the one that "
            "submitted it."
        )
    if told.code == "model_not_found":
        return LumaModelUnavailableError, (
            "The relay has no channel for this model: check model_name and what the key's group may use."
        )
    if status == 401:
        return LumaAuthError, "The relay refuses the API key: check the connection's password field."
    if status == 403:
        return LumaForbiddenError, (
            "The key may not do this: check its group, its allowed addresses and its allowed models at "
            "the relay."
        )
    if status == 429 or any(words in text for words in _BUSY_TEXTS):
        return LumaBusyError, "The relay is busy: try again later, or send fewer requests at a time."
    if 300 <= status < 400 or status in (404, 405):
        return LumaEndpointError, (
            "There is no Luma API at this address: check the connection's host (base URL and path prefix)."
        )
    if 200 <= status < 300:
        if not told.well_formed:
            return LumaResponseError, "The answer can't be understood: check that the host is a Luma relay."
        return LumaServerError, "The relay reported this error with a success status; try again later."
    if status >= 500 or status == 408:
        return LumaServerError, "The relay or something behind it failed: try again later."
    return LumaRequestError, "The relay refuses the request: correct what its message names."


def _told(body: bytes) -> _Told:
    text = body.decode("utf-8", "replace").strip()
    document = _first_json(text)
    if not isinstance(document, dict):
        return _Told("", _cut(_visible_text(text)), well_formed=False)
    inner = document.get("error")
    error = inner if isinstance(inner, dict) else document
    message = error.get("message") or error.get("detail") or error.get("msg") or ""
    if not message and isinstance(inner, str):
        message = inner
    code = error.get("code")
    return _Told(
        _cut(code, 80) if isinstance(code, str) else "",
        _cut(message if isinstance(message, str) and message else text),
        well_formed=True,
    )


def _first_json(text: str) -> Any:
    """Decode the first document of *text*; some relays glue a second one behind it."""
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _visible_text(text: str) -> str:
    if text[:1] != "<":
        return text
    without_code = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", " ", text[:20_000])
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", without_code)).strip()


def _cut(text: str, limit: int = _MAX_QUOTE) -> str:
    text = "".join(char if char.isprintable() else " " for char in text[: limit + 1])
    return text if len(text) <= limit else f"{text[:limit]}…"


def _retry_after(value: str | None) -> float | None:
    """Read ``Retry-After``: seconds or an HTTP date."""
    if not value:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
