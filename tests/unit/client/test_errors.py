# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma import exceptions
from airflow_provider_luma.client.errors import api_error
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

USED_UP = "该令牌额度已用尽 (request id: 20241222abc)"
SATURATED = "当前分组上游负载已饱和，请稍后再试"
HTML = "<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"


def openai_style(message: str, code: Any = "") -> dict[str, Any]:
    return {"error": {"message": message, "type": "new_api_error", "code": code}}


def relay_style(code: Any, message: str = "the relay's words") -> dict[str, Any]:
    return {"code": code, "message": message, "data": None}


def error_of(status: int, body: Any = b"", headers: dict[str, str] | None = None) -> LumaApiError:
    if isinstance(body, str):
        body = body.encode()
    return api_error(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode())


TABLE = {
    "a wrong key": (401, openai_style("无效的令牌"), LumaAuthError, False, "API key"),
    "a used up key": (401, openai_style(USED_UP), LumaQuotaError, False, "Top it up"),
    "no money": (403, relay_style("insufficient_user_quota"), LumaQuotaError, False, "Top it up"),
    "no money before": (403, relay_style("pre_consume_token_quota_failed"), LumaQuotaError, False, "Top it"),
    "no money, nested code": (
        403,
        openai_style("no", "insufficient_user_quota"),
        LumaQuotaError,
        False,
        "Top",
    ),
    "a denied group": (403, openai_style("group denied"), LumaForbiddenError, False, "its group"),
    "a page that denies": (403, HTML, LumaForbiddenError, False, "allowed addresses"),
    "an unknown id": (400, relay_style("task_not_exist"), LumaTaskNotFoundError, False, "Check the id"),
    "a bad request": (400, relay_style("invalid_request"), LumaRequestError, False, "Correct what"),
    "a validation error": (422, {"detail": "prompt too long"}, LumaRequestError, False, "Correct what"),
    "a body too large": (413, HTML, LumaRequestError, False, "Correct what"),
    "a wrong path": (404, openai_style("Invalid URL (POST /luma/tasks)"), LumaEndpointError, False, "host"),
    "a wrong method": (405, b"", LumaEndpointError, False, "host"),
    "a redirect": (302, HTML, LumaEndpointError, False, "host"),
    "a permanent redirect": (308, b"", LumaEndpointError, False, "host"),
    "a busy relay": (429, relay_style("rate", SATURATED), LumaBusyError, True, "busy"),
    "a busy relay, nested": (429, openai_style(SATURATED), LumaBusyError, True, "busy"),
    "a busy relay without a word": (429, b"", LumaBusyError, True, "busy"),
    "a busy relay that says 500": (500, openai_style(SATURATED), LumaBusyError, True, "busy"),
    "a timeout of the relay": (408, b"", LumaServerError, True, "Try again later"),
    "a failed upstream": (500, relay_style("do_request_failed"), LumaServerError, True, "Try again later"),
    "a model without a channel": (
        503,
        openai_style("no channel", "model_not_found"),
        LumaModelUnavailableError,
        True,
        "model_name",
    ),
    "an edge 502": (502, HTML, LumaServerError, True, "Try again later"),
    "an edge 504": (504, HTML, LumaServerError, True, "Try again later"),
    "an edge 524": (524, HTML, LumaServerError, True, "Try again later"),
    "a success that is an error": (200, openai_style("boom"), LumaServerError, True, "success status"),
    "a success that is HTML": (200, HTML, LumaResponseError, True, "can't be understood"),
}


class TestTheTable:
    @pytest.mark.parametrize(("status", "body", "kind", "retryable", "advice"), TABLE.values(), ids=TABLE)
    def test_each_row_has_its_class_its_retryability_and_its_advice(
        self, status: int, body: Any, kind: type[LumaApiError], retryable: bool, advice: str
    ) -> None:
        error = error_of(status, body)
        assert type(error) is kind
        assert error.retryable is retryable
        assert error.status == status
        assert f"HTTP {status}" in str(error)
        assert advice in str(error)

    def test_the_classes_of_answers_tell_alone_whether_a_retry_can_help(self) -> None:
        kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type)]
        answers = [kind for kind in kinds if issubclass(kind, LumaApiError)]
        assert {kind for kind in answers if kind.retryable} == {
            LumaBusyError,
            LumaModelUnavailableError,
            LumaResponseError,
            LumaServerError,
        }


class TestWords:
    @pytest.mark.parametrize(
        ("body", "code", "words"),
        [
            (openai_style("无效的令牌", "bad_key"), "bad_key", "无效的令牌"),
            (relay_style("do_request_failed", "EOF"), "do_request_failed", "EOF"),
            ({"code": 42, "msg": "words"}, "", "words"),
            ({"error": "words"}, "", "words"),
            ({"error": {"message": None, "code": None}}, "", '{"error": {"message": null, "code": null}}'),
            ({"error": {"message": ["a"]}}, "", '{"error": {"message": ["a"]}}'),
        ],
    )
    def test_an_error_document_is_quoted_and_well_formed(self, body: Any, code: str, words: str) -> None:
        error = error_of(500, body)
        assert error.code == code
        assert error.relay_message == words
        assert f'"{words}"' in str(error)
        assert (f"code {code}" in str(error)) is bool(code)
        assert error.well_formed

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", ""),
            (b" \r\n ", ""),
            (b"Bad gateway", "Bad gateway"),
            (b"502 Bad Gateway", "502 Bad Gateway"),
            (b"[1]", "[1]"),
            (b'"text"', '"text"'),
            (b'{"error": {"message": "cut', '{"error": {"message": "cut'),
            (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2),
            (b'{"unheard": "of"}', '{"unheard": "of"}'),
            (b'{"detail": "words"}', "words"),
            (b'{"message": "Endpoint request timed out"}', "Endpoint request timed out"),
            (b'{"timestamp": 1, "status": 502, "error": "Bad Gateway", "path": "/luma"}', "Bad Gateway"),
            (b'{"type": "about:blank", "title": "Bad Gateway", "status": 502}', "Bad Gateway"),
        ],
    )
    def test_anything_else_is_quoted_and_not_well_formed(self, body: bytes, words: str) -> None:
        error = error_of(500, body)
        assert (error.code, error.relay_message, error.well_formed) == ("", words, False)
        assert words in str(error)

    def test_an_error_without_a_word_says_so(self) -> None:
        assert "HTTP 500 with an empty body." in str(error_of(500))

    def test_of_html_only_the_visible_text_is_quoted(self) -> None:
        page = (
            "<!DOCTYPE html>\n<html><head><style>b {x: y}</style><script>if (a < b) evil()</script></head>"
            "<body>\n<h1>502</h1>\n  <b class='x'>Bad\tgateway</b></body></html>"
        )
        error = error_of(502, page)
        assert error.relay_message == "502 Bad gateway"
        assert not error.well_formed

    def test_the_first_of_two_glued_documents_is_read(self) -> None:
        error = error_of(500, json.dumps(openai_style("first", "one")) + json.dumps(openai_style("second")))
        assert (error.code, error.relay_message, error.well_formed) == ("one", "first", True)

    @pytest.mark.parametrize("body", ["x" * 100_000, openai_style("x" * 100_000), f"<p>{'x' * 10_000}</p>"])
    def test_long_words_are_cut(self, body: Any) -> None:
        error = error_of(500, body)
        assert error.relay_message == "x" * 500 + "…"
        assert len(str(error)) < 700

    def test_words_cannot_forge_log_lines(self) -> None:
        error = error_of(500, openai_style("one\r\ntwo\x1b[31m\u2028three\ud800", "co\nde"))
        assert error.relay_message == "one two[31m three"
        assert str(error).isprintable()

    @pytest.mark.parametrize("status", [400, 500])
    def test_deep_nesting_is_harmless(self, status: int) -> None:
        assert error_of(status, b'{"error":' * 100_000).relay_message.startswith('{"error":')

    @given(
        status=st.integers(200, 599),
        headers=st.dictionaries(
            st.sampled_from(["Retry-After", "X-Request-Id", "retry-after"]),
            st.text(alphabet=st.characters(max_codepoint=255)),
        ),
        body=st.binary()
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["error", "code", "message", "detail", "msg"]), inner)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
    def test_no_answer_is_too_strange_for_an_error(
        self, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        error = api_error(status, headers, body)
        assert isinstance(error, LumaApiError)
        assert clean_text(str(error), 10_000) == str(error)
        assert error.retry_after is None or error.retry_after >= 0


class TestRequestId:
    @pytest.mark.parametrize("header", ["X-Oneapi-Request-Id", "x-request-id", "Request-Id", "CF-RAY"])
    def test_it_comes_from_the_headers_and_is_named(self, header: str) -> None:
        error = error_of(500, openai_style("boom"), {header: "req-1234567"})
        assert error.request_id == "req-1234567"
        assert "(request id req-1234567)" in str(error)

    def test_the_relays_own_comes_before_that_of_the_edge(self) -> None:
        headers = {"cf-ray": "edge", "x-oneapi-request-id": "relay"}
        assert error_of(500, headers=headers).request_id == "relay"

    def test_it_comes_from_the_words_too_and_is_not_repeated(self) -> None:
        error = error_of(401, openai_style(USED_UP))
        assert error.request_id == "20241222abc"
        assert str(error).count("20241222abc") == 1

    def test_there_may_be_none(self) -> None:
        error = error_of(500, openai_style("boom"))
        assert error.request_id is None
        assert "request id" not in str(error)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("7", 7.0),
            (" 7 ", 7.0),
            ("7\x1f", 7.0),
            ("0", 0.0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
            ("", None),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("²", None),
            ("Sun, 99 Nov 9999 99:99:99 GMT", None),
            ("Mon, 01 Jan 0001 00:00:00 -0000", 0.0),
            ("9" * 10, 3600.0),
            ("9" * 5000, 3600.0),
            ("Fri, 31 Dec 9999 23:59:59 -9999", None),
        ],
    )
    def test_seconds_and_dates_are_read_and_garbage_is_not(self, value: str, seconds: float | None) -> None:
        assert error_of(429, headers={"Retry-After": value}).retry_after == seconds

    def test_a_date_to_come_is_that_many_seconds_away(self) -> None:
        error = error_of(429, headers={"retry-after": formatdate(time.time() + 100, usegmt=True)})
        assert error.retry_after is not None
        assert 90 < error.retry_after <= 100

    def test_without_the_header_there_is_none(self) -> None:
        assert error_of(429).retry_after is None


KEY = "sk-Abc123/x+y-the-secret"


class TestWhatDecides:
    @pytest.mark.parametrize("words", ["insufficient balance", "rate limit", "余额不足", "负载已饱和"])
    @pytest.mark.parametrize("status", [400, 404, 413, 422])
    def test_words_in_the_refusal_of_a_request_may_be_an_echo_and_decide_nothing(
        self, status: int, words: str
    ) -> None:
        error = error_of(status, openai_style(f"your prompt {words!r} was moderated"))
        assert not isinstance(error, LumaQuotaError | LumaBusyError)
        assert not error.retryable

    @pytest.mark.parametrize("words", ["insufficient balance", "rate limit", "无权", "无效的令牌"])
    def test_words_that_were_sent_decide_nothing_whatever_the_status(self, words: str) -> None:
        for status in (200, 401, 403, 429, 500):
            body = json.dumps(openai_style(f"no: {words}"), ensure_ascii=False).encode()
            with_echo = api_error(status, {}, body, sent=f'{{"user_prompt":"A sign: {words.title()}"}}')
            without_words = error_of(status, openai_style("no"))
            assert type(with_echo) is type(without_words)

    @pytest.mark.parametrize("words", ["insufficient balance", "rate limit"])
    def test_words_beside_a_code_decide_nothing(self, words: str) -> None:
        error = error_of(500, relay_style("do_request_failed", words))
        assert type(error) is LumaServerError

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ({"success": False, "message": "无权进行此操作"}, LumaForbiddenError),
            ({"success": False, "message": "无效的令牌"}, LumaAuthError),
            ({"code": 401, "message": "no"}, LumaAuthError),
            ({"code": "401", "msg": "no"}, LumaAuthError),
            ({"error": {"code": 403, "message": "no"}}, LumaForbiddenError),
            ({"code": 429, "message": "no"}, LumaBusyError),
            ({"code": 404, "message": "no"}, LumaRequestError),
            ({"code": 422, "message": "no"}, LumaRequestError),
        ],
    )
    def test_a_refusal_in_the_body_of_a_success_is_that_refusal(
        self, body: Any, kind: type[LumaApiError]
    ) -> None:
        error = error_of(200, body)
        assert type(error) is kind
        assert error.status == 200

    @pytest.mark.parametrize("code", [0, 1, 42, 10**30, True, 1.5, "0", None])
    def test_any_other_number_in_the_body_of_a_success_is_no_refusal(self, code: Any) -> None:
        assert type(error_of(200, {"code": code, "message": "no"})) is LumaServerError

    def test_a_byte_order_mark_is_skipped(self) -> None:
        assert error_of(403, b"\xef\xbb\xbf" + b'{"code": "insufficient_user_quota"}').code


class TestRedirects:
    @pytest.mark.parametrize(
        ("location", "shown"),
        [
            ("https://www.relay.test/luma/tasks", "https://www.relay.test/luma/tasks"),
            ("https://relay.test/x?token=secret#frag", "https://relay.test/x"),
            ("/login?next=/secret", "/login"),
            ("https://me:secret@relay.test/x", "https://***@relay.test/x"),
            ("https://relay.test/\x1b[31m\u202ered", "https://relay.test/[31mred"),
        ],
    )
    def test_the_target_is_named_without_what_may_be_secret(self, location: str, shown: str) -> None:
        error = error_of(301, b"", {"Location": location})
        assert f"It redirects to {shown}, but API calls" in str(error)
        assert "secret" not in str(error)

    def test_a_target_is_cut(self) -> None:
        assert len(str(error_of(302, b"", {"location": "https://relay.test/" + "x" * 100_000}))) < 600

    def test_none_is_named_where_there_is_none(self) -> None:
        assert "redirects to" not in str(error_of(302, b""))
        assert "redirects to" not in str(error_of(404, b"", {"Location": "https://relay.test/"}))


class TestTheKeyIsMasked:
    @pytest.mark.parametrize(
        "spelled",
        [
            KEY,
            "".join(f"\\u{ord(char):04x}" for char in KEY),
            KEY.replace("/", "\\/"),
            KEY.replace("/", "%2F").replace("+", "%2b"),
            KEY.replace("/", "&#47;").replace("-", "&#x2D;"),
        ],
    )
    @pytest.mark.parametrize("where", ["message", "code", "header", "page", "broken JSON", "target"])
    def test_in_each_spelling_wherever_it_is_quoted(self, spelled: str, where: str) -> None:
        body: Any = b"no"
        headers = {}
        match where:
            case "message":
                body = f'{{"error": {{"message": "bad key {spelled}"}}}}'
            case "code":
                body = f'{{"code": "{spelled}", "message": "no"}}'
            case "header":
                headers = {"X-Request-Id": f"id-{spelled}"}
            case "page":
                body = f"<p>bad key {spelled}</p>"
            case "broken JSON":
                body = f'{{"error": {{"message": "bad key {spelled}'
            case "target":
                headers = {"Location": f"https://relay.test/{spelled}"}
        error = api_error(302, headers, body.encode() if isinstance(body, str) else body, clean=Cleaner(KEY))
        seen = repr(error) + repr(vars(error))
        for escape in (spelled, spelled.replace("\\", "\\\\"), KEY):
            assert escape not in seen
        assert "***" in seen
