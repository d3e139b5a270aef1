# SPDX-License-Identifier: Apache-2.0
"""Faults in which the relay itself refuses a call or reports an error."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Literal, get_args

import msgspec

from airflow_provider_luma.sandbox.faults import bodies
from airflow_provider_luma.sandbox.faults.fault import API, MEDIA, Fault, one_of, registered

LostUpstream = Literal["deadline", "unmarshal", "closed"]


@registered()
def unauthorized() -> Fault:
    """Return 401: the key is wrong."""
    return bodies.relay_error(401, "无效的令牌 (request id: 20241222133840139sandbox)")


@registered(API)
def key_quota_exhausted() -> Fault:
    """Return 401: the key is right but its quota is used up."""
    message = "该令牌额度已用尽 TokenStatusExhausted[sk-san***key] (request id: 20241222133840139sandbox)"
    return bodies.relay_error(401, message)


@registered(API)
def insufficient_user_quota() -> Fault:
    """Return 403: the account has no money left."""
    message = "用户额度不足, 剩余额度: ＄0.000000 (request id: 20241222133840139sandbox)"
    return bodies.relay_error(403, message, code="insufficient_user_quota")


@registered(API)
def pre_consume_token_quota_failed() -> Fault:
    """Return 403: the key's quota does not cover the price of the submit."""
    message = "令牌额度不足, 需要: ＄0.320000, 剩余: ＄0.010000"
    return bodies.task_error(403, message, code="pre_consume_token_quota_failed")


@registered(API)
def group_denied() -> Fault:
    """Return 403: the key's group may not use this model."""
    return bodies.relay_error(403, "该令牌无权访问模型 luma_video_api")


@registered(API)
def task_not_exist() -> Fault:
    """Return 400: the relay has no such task."""
    return bodies.task_error(400, "task_not_exist", code="task_not_exist")


@registered(message=("invalid request", "rate limit", "insufficient balance"))
def bad_request(message: str = "invalid request", *, code: str = "bad_request") -> Fault:
    """
    Return 400, such as for a refused prompt.

    :param message: The relay's message.
    :param code: The relay's error code.
    """
    return bodies.task_error(400, message, code=code)


@registered()
def invalid_url(path: str = "/luma/tasks", method: str = "POST") -> Fault:
    """Return 404 as a relay does for a path that it does not serve."""
    return bodies.relay_error(404, f"Invalid URL ({method} {path})", type_="invalid_request_error")


@registered(retry_after=(None, 0, 1), body=("message", "openai", "empty"))
def too_many_requests(
    *,
    retry_after: float | None = None,
    http_date: bool = False,
    body: Literal["message", "openai", "empty"] = "message",
) -> Fault:
    """
    Return 429: the relay is busy.

    :param retry_after: Seconds in ``Retry-After``. None leaves the header out.
    :param http_date: Whether ``Retry-After`` is an HTTP date, counted from now.
    :param body: ``message`` (the relay's own), ``openai`` (an OpenAI error) or ``empty``.
    """
    message, code = "Rate limit reached for requests", "rate_limit_exceeded"
    openai = {"error": {"message": message, "type": "requests", "param": None, "code": code}}
    forms = {
        "message": bodies.task_error(429, bodies.BUSY, code=429),
        "openai": bodies.json_answer(429, openai),
        "empty": Fault(status=429, body=b""),
    }
    answer = forms[one_of("body", body, forms)]
    if retry_after is None:
        return answer
    value = formatdate(time.time() + retry_after, usegmt=True) if http_date else f"{retry_after:g}"
    return msgspec.structs.replace(answer, headers=(("retry-after", value),))


@registered(year=(9999, 10_000, 99_999), code=(429, 503))
def far_retry_after(year: int = 9999, *, code: int = 429) -> Fault:
    """
    Return 429 or 503 with a ``Retry-After`` at the end of a year.

    :param year: The year. No calendar has those from 10000.
    :param code: The HTTP status.
    """
    headers = (("retry-after", f"Fri, 31 Dec {year} 23:59:59 GMT"),)
    return msgspec.structs.replace(bodies.task_error(code, bodies.BUSY, code=code), headers=headers)


@registered(API)
def do_request_failed() -> Fault:
    """Return 500: the relay could not reach its upstream."""
    return bodies.task_error(500, "do request failed", code="do_request_failed")


@registered(API, form=get_args(LostUpstream))
def upstream_lost(form: LostUpstream = "deadline") -> Fault:
    """
    Return 500: the relay forwarded the call and got no answer that it understands.

    :param form: Its wait timed out (``deadline``), the answer had another shape (``unmarshal``), or the
        connection broke (``closed``).
    """
    if one_of("form", form, get_args(LostUpstream)) == "unmarshal":
        reason = "json: cannot unmarshal object into Go value of type string"
        return bodies.json_answer(500, {"detail": {"reason": reason}})
    cause = "context deadline exceeded" if form == "deadline" else "http: server closed idle connection"
    message = f'Post "https://upstream.invalid/luma/generations": {cause}'
    return bodies.task_error(500, message, code="do_request_failed")


@registered(API)
def model_not_found(model: str = "luma_video_api") -> Fault:
    """Return 503: the relay has no channel for the model."""
    message = f"分组 default 下模型 {model} 无可用渠道（distributor）"
    return bodies.relay_error(503, message, code="model_not_found")


@registered(MEDIA)
def wants_key() -> Fault:
    """Return 401: the URL of a file leads to the relay's own API, which wants its key."""
    refusal = bodies.relay_error(401, "未提供令牌 (request id: 20241222133840139sandbox)")
    return msgspec.structs.replace(refusal, headers=(("www-authenticate", "Bearer"),))
