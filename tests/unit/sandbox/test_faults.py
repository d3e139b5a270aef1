# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec
import pytest

from airflow_provider_luma.sandbox import faults
from airflow_provider_luma.sandbox.faults import NAMED, Fault

# Arguments for the makers that can't do without.
ARGUMENTS = {"answer": (418,), "status": (500,), "redirect": ("http://127.0.0.1/",), "latency": (0.1,)}


@pytest.mark.parametrize("name", NAMED)
def test_every_fault_survives_the_trip_to_another_process(name: str) -> None:
    fault = NAMED[name](*ARGUMENTS.get(name, ()))
    assert msgspec.json.decode(msgspec.json.encode(fault), type=Fault) == fault


@pytest.mark.parametrize("name", NAMED)
def test_every_fault_is_known_by_the_name_of_its_maker(name: str) -> None:
    assert NAMED[name](*ARGUMENTS.get(name, ())).name == name
    assert NAMED[name].__doc__


def test_every_maker_can_be_named() -> None:
    makers = {
        name
        for name, value in vars(faults).items()
        if callable(value) and getattr(value, "__module__", "") == faults.__name__ and name[0].islower()
    }
    assert makers == set(NAMED)


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (faults.unauthorized(), 401, "new_api_error"),
        (faults.key_quota_exhausted(), 401, "该令牌额度已用尽"),
        (faults.insufficient_user_quota(), 403, "insufficient_user_quota"),
        (faults.pre_consume_token_quota_failed(), 403, "pre_consume_token_quota_failed"),
        (faults.group_denied(), 403, "无权访问模型"),
        (faults.task_not_exist(), 400, "task_not_exist"),
        (faults.invalid_url("/luma/tasks"), 404, "Invalid URL (POST /luma/tasks)"),
        (faults.too_many_requests(), 429, "当前分组上游负载已饱和，请稍后再试"),
        (faults.too_many_requests(body="openai"), 429, "rate_limit_exceeded"),
        (faults.do_request_failed(), 500, "do_request_failed"),
        (faults.model_not_found(), 503, "model_not_found"),
        (faults.ok_with_error(), 200, "error"),
        (faults.ok_without_success(), 200, "success"),
    ],
)
def test_a_relay_error_is_json_with_its_status_and_text(fault: Fault, status: int, text: str) -> None:
    assert fault.status == status
    assert isinstance(json.loads(fault.body or b""), dict)
    assert text in (fault.body or b"").decode()


@pytest.mark.parametrize(
    ("fault", "status"),
    [(faults.bad_gateway(), 502), (faults.gateway_timeout(), 504), (faults.edge_timeout(), 524)],
)
def test_an_edge_proxy_answers_in_html(fault: Fault, status: int) -> None:
    assert fault.status == status
    assert fault.content_type.startswith("text/html")
    assert (fault.body or b"").startswith(b"<html>")


@pytest.mark.parametrize("fault", [faults.glued(), faults.empty(), faults.not_json(), faults.invalid_utf8()])
def test_an_undecodable_body_does_not_decode(fault: Fault) -> None:
    with pytest.raises((ValueError, UnicodeDecodeError)):
        json.loads((fault.body or b"").decode())


def test_retry_after_is_given_in_seconds_or_as_a_date() -> None:
    assert faults.too_many_requests(retry_after=3).headers == (("retry-after", "3"),)
    ((_, date),) = faults.too_many_requests(retry_after=3600, http_date=True).headers
    ahead = parsedate_to_datetime(date) - datetime.now(UTC)
    assert timedelta(minutes=59) < ahead <= timedelta(hours=1)


def test_a_gzip_bomb_unpacks_to_what_it_says() -> None:
    bomb = faults.gzip_bomb(3)
    assert bomb.body is not None
    assert gzip.decompress(bomb.body) == bytes(3 * 1024 * 1024)
    assert len(bomb.body) < 4096


def test_a_fault_knows_whether_it_needs_the_true_answer() -> None:
    assert faults.latency(1).needs_true_answer
    assert faults.truncated().needs_true_answer
    assert faults.reset(0.5).needs_true_answer
    assert not faults.reset().needs_true_answer
    assert not faults.hang().needs_true_answer
    assert not faults.empty().needs_true_answer


@pytest.mark.parametrize("wrong", [{"keep": 1.5}, {"delay": -1.0}, {"drip": -1.0}, {"repeat": 0}])
def test_a_fault_that_makes_no_sense_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Fault(name="wrong", **wrong)  # type: ignore[arg-type]


def test_an_unknown_form_of_a_429_is_an_error() -> None:
    with pytest.raises(ValueError, match="body must be one of message, openai, empty, not 'html'"):
        faults.too_many_requests(body="html")  # type: ignore[arg-type]
