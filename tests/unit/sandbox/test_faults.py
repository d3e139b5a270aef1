# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import json
import math
import pkgutil
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, get_args

import msgspec
import pytest

from airflow_provider_luma.sandbox import faults
from airflow_provider_luma.sandbox.faults import NAMED, CallName, Fault, Gateway, random_faults
from airflow_provider_luma.sandbox.rewrites import ID_BESIDE_ERROR_FORMS

# Arguments of the faults that require some.
ARGUMENTS: dict[str, tuple[object, ...]] = {
    "answer": (418,),
    "status": (500,),
    "redirect": ("http://127.0.0.1/",),
    "latency": (0.1,),
}


@pytest.mark.parametrize("name", NAMED)
def test_every_fault_round_trips_through_json(name: str) -> None:
    fault = NAMED[name](*ARGUMENTS.get(name, ()))
    assert msgspec.json.decode(msgspec.json.encode(fault), type=Fault) == fault


@pytest.mark.parametrize("name", NAMED)
def test_every_fault_is_named_after_its_function(name: str) -> None:
    assert NAMED[name](*ARGUMENTS.get(name, ())).name == name
    assert NAMED[name].__doc__


def test_every_function_that_makes_a_fault_is_registered_and_public() -> None:
    public = {
        name
        for name, value in vars(faults).items()
        if isinstance(value, FunctionType) and returns_fault(value)
    }
    assert public == set(NAMED)
    for module in pkgutil.iter_modules(faults.__path__):
        if module.name != "bodies":
            inner = vars(import_module(f"{faults.__name__}.{module.name}"))
            assert {
                name for name, value in inner.items() if name[0] != "_" and returns_fault(value)
            } <= public


def returns_fault(value: object) -> bool:
    return getattr(value, "__annotations__", {}).get("return") == "Fault"


def test_the_documentation_lists_every_fault() -> None:
    page = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall("`([a-z_0-9]+)`", row)) == sorted(NAMED)


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


@pytest.mark.parametrize(
    "wrong", [{"keep": 1.5}, {"delay": -1.0}, {"drip": -1.0}, {"header_drip": -1.0}, {"repeat": 0}]
)
def test_an_invalid_fault_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Fault(name="wrong", **wrong)  # type: ignore[arg-type]


def test_an_unknown_form_of_a_429_is_an_error() -> None:
    with pytest.raises(ValueError, match="body must be one of message, openai, empty; got 'html'"):
        faults.too_many_requests(body="html")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("maker", "options"),
    [
        ("gateway_json", {"form": "nginx"}),
        ("upstream_lost", {"form": "nginx"}),
        ("id_beside_error", {"form": "nginx"}),
        ("link_in_row", {"field": "url"}),
        ("dead_preferred_link", {"code": 500}),
    ],
)
def test_an_unknown_option_of_a_fault_is_an_error_that_lists_the_known(
    maker: str, options: dict[str, Any]
) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{name} must be one of .+; got {value!r}\."):
        NAMED[maker](**options)


@pytest.mark.parametrize("form", get_args(Gateway))
def test_a_gateway_answers_in_json_that_is_not_the_relays(form: Gateway) -> None:
    fault = faults.gateway_json(form)
    body = json.loads(fault.body or b"")
    assert fault.status in (408, 500, 502, 504, 524)
    assert isinstance(body, dict)
    assert "data" not in body
    assert not isinstance(body.get("code"), str)


def test_a_gzip_flood_is_a_thousand_times_larger_unpacked() -> None:
    flood = faults.gzip_flood(1)
    assert flood.body is not None
    unpacked = gzip.decompress(flood.body)
    assert len(unpacked) >= 1024 * 1024 - 3
    assert len(flood.body) < len(unpacked) / 900
    assert all(record == {} for record in json.loads(unpacked))


@pytest.mark.parametrize("year", [9999, 10_000, 99_999])
def test_a_delay_can_lie_beyond_what_dates_can_hold(year: int) -> None:
    assert faults.far_retry_after(year).headers == (("retry-after", f"Fri, 31 Dec {year} 23:59:59 GMT"),)


class TestRandomFaults:
    def test_the_same_seed_draws_the_same(self) -> None:
        assert random_faults(7, count=50) == random_faults(7, count=50)
        assert random_faults(7, count=50) != random_faults(8, count=50)

    def test_every_fault_is_drawn_for_some_call(self) -> None:
        drawn: set[str] = set()
        for call in get_args(CallName):
            drawn |= {fault.name for fault in random_faults(1, call=call, count=2000)}
        assert drawn == set(NAMED)

    @pytest.mark.parametrize(
        ("call", "never"),
        [
            ("batch", {"other_total", "wants_key", "id_beside_error"}),
            ("submit", {"expired_token", "link_in_row"}),
            ("media", {"odd_fields", "task_not_exist", "dead_preferred_link", "id_beside_error"}),
        ],
    )
    def test_a_call_never_gets_a_fault_of_another_kind_of_call(self, call: CallName, never: set[str]) -> None:
        assert never.isdisjoint(fault.name for fault in random_faults(1, call=call, count=1000))

    def test_faults_can_be_excluded(self) -> None:
        assert "hang" not in {fault.name for fault in random_faults(1, count=1000, exclude=["hang"])}
        with pytest.raises(ValueError, match="exclude must name faults; got hung"):
            random_faults(1, exclude=["hung"])
        with pytest.raises(ValueError, match="exclude must leave a fault"):
            random_faults(1, exclude=list(NAMED))

    def test_no_drawn_fault_takes_long_by_itself_or_much_memory(self) -> None:
        for fault in random_faults(3, count=1000):
            assert fault.delay <= 0.1
            assert max(fault.drip, fault.header_drip) <= 0.001
            assert len(fault.body or b"") * fault.repeat <= 4 * 1024 * 1024


TASK: dict[str, Any] = {
    "id": "4665a07c-7641",
    "state": "completed",
    "artifact": None,
    "created_at": "2024-12-22T13:38:40.139Z",
    "request": {"prompt": "a cat"},
    "thumbnail": {"url": "https://cdn/t.jpg", "width": 640},
    "last_frame": {"url": "https://cdn/l.jpg", "width": 640},
    "video": {"url": "https://cdn/v.mp4", "download_url": "https://cdn/v.mp4", "width": 640},
    "video_raw": {"url": "https://cdn/v.mp4", "duration": 3.0},
}
REWRITING = {fault.name: fault for fault in random_faults(2, count=900) if fault.rewrite}


def row(data: object) -> dict[str, Any]:
    return {"id": 13917, "task_id": TASK["id"], "status": "SUCCESS", "fail_reason": "", "data": data}


def enveloped(data: object) -> dict[str, Any]:
    return {"code": "success", "message": "", "data": data}


def rewritten(fault: Fault, answer: object) -> Any:
    assert fault.rewrite is not None
    return json.loads(fault.rewrite.apply(json.dumps(answer).encode()))


class TestRewrites:
    @pytest.mark.parametrize("answer", [[TASK], enveloped([row(TASK)])], ids=["bare", "envelope"])
    def test_a_row_is_swept_around_a_stale_inner_state(self, answer: object) -> None:
        (swept,) = rewritten(faults.stale_inner_state("timed out"), answer)["data"]
        assert (swept["status"], swept["fail_reason"]) == ("FAILURE", "timed out")
        assert (swept["data"]["state"], swept["data"]["video"]) == ("processing", None)
        assert swept["task_id"] == swept["data"]["id"] == TASK["id"]

    @pytest.mark.parametrize("field", ["fail_reason", "result_url"])
    @pytest.mark.parametrize(
        "answer", [TASK, [TASK], enveloped([row(TASK)])], ids=["one", "bare", "envelope"]
    )
    def test_the_only_url_is_in_the_row(self, answer: object, field: Any) -> None:
        data = rewritten(faults.link_in_row(field), answer)["data"]
        moved = data[0] if isinstance(data, list) else data
        assert moved[field] == "https://cdn/v.mp4"
        assert json.dumps(moved).count("v.mp4") == 1

    def test_an_odd_field_changes_no_id_state_or_url(self) -> None:
        changed = set()
        for seed in range(200):
            (task,) = rewritten(faults.odd_fields(seed), [TASK])
            changed |= {name for name, value in task.items() if value != TASK.get(name)}
            assert (task["id"], task["state"]) == (TASK["id"], TASK["state"])
            assert task["video"]["url"] == TASK["video"]["url"]
        assert {"artifact", "created_at", "request", "thumbnail", "video", "video_raw"} <= changed

    def test_odd_fields_hold_invalid_json_values(self) -> None:
        answers = [rewritten(faults.odd_fields(seed), [TASK])[0] for seed in range(200)]
        assert any(isinstance(task.get("liked"), float) and math.isnan(task["liked"]) for task in answers)
        assert any("\ud83d" in str(task["request"].get("prompt")) for task in answers if task["request"])

    def test_a_task_before_its_start_is_an_odd_value_in_its_row(self) -> None:
        answers = [rewritten(faults.odd_fields(seed), enveloped([row(None)])) for seed in range(20)]
        assert {str(answer["data"][0]["data"]) for answer in answers} == {"", "[]"}

    @pytest.mark.parametrize("form", ID_BESIDE_ERROR_FORMS)
    @pytest.mark.parametrize(
        "answer", [TASK, enveloped(row(TASK)), enveloped(row(None))], ids=["bare", "row", "new row"]
    )
    def test_the_id_is_beside_something_like_an_error(self, answer: object, form: Any) -> None:
        text = json.dumps(rewritten(faults.id_beside_error(form), answer))
        assert TASK["id"] in text
        assert '"code": "success"' not in text

    def test_ids_are_in_the_other_letter_case(self) -> None:
        (bare,) = rewritten(faults.other_letter_case(), [TASK])
        (swapped,) = rewritten(faults.other_letter_case(), enveloped([row(TASK)]))["data"]
        assert bare["id"] == swapped["task_id"] == swapped["data"]["id"] == "4665A07C-7641"
        assert swapped["id"] == 13917

    def test_the_preferred_url_is_refused_and_the_next_stays(self) -> None:
        (task,) = rewritten(faults.dead_preferred_link(404), [TASK])
        assert task["video"]["download_url"] == "https://cdn/v.mp4?refused=404"
        assert task["video"]["url"] == "https://cdn/v.mp4"

    def test_a_byte_order_mark_precedes_the_answer(self) -> None:
        rewrite = faults.byte_order_mark().rewrite
        assert rewrite is not None
        assert rewrite.apply(b"[]") == b"\xef\xbb\xbf[]"

    @pytest.mark.parametrize("name", sorted(set(REWRITING) - {"byte_order_mark"}))
    @pytest.mark.parametrize(
        "answer",
        [[], {}, None, enveloped(None), {"code": "task_not_exist", "message": "", "data": None}],
        ids=["no tasks", "object", "null", "no rows", "error"],
    )
    def test_an_answer_without_a_task_is_left_alone(self, name: str, answer: object) -> None:
        assert rewritten(REWRITING[name], answer) == answer
