# SPDX-License-Identifier: Apache-2.0
"""What the end of a submit means: each row of the guide's table, and no resending of what isn't in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.client.certainty import (
    Booked,
    Refused,
    SubmitOutcome,
    Unknown,
    outcome_of_answer,
    outcome_of_connection,
)
from airflow_provider_luma.client.errors import REFUSING_CODES, REFUSING_STATUSES
from airflow_provider_luma.exceptions import (
    LumaBusyError,
    LumaConnectionError,
    LumaModelUnavailableError,
    LumaRequestError,
)
from airflow_provider_luma.text import Cleaner

PAGE = Path(__file__).parents[3] / "docs" / "paying-once.md"
TOO_LATE = (408, 502, 504, 520, 521, 522, 523, 524)
PROMPTS = [
    "insufficient balance",
    "rate limit",
    "余额不足",
    "当前分组上游负载已饱和",
    "无权",
    "too many requests",
]


def rows() -> list[tuple[int, bytes, str]]:
    found = re.findall(r"^\| ([0-9]{3}) \| (?:`(.*)` )?\| ([a-z, ]+) \|$", PAGE.read_text(), re.MULTILINE)
    return [(int(status), body.encode(), outcome) for status, body, outcome in found]


def outcome(end: SubmitOutcome) -> str:
    if isinstance(end, Booked):
        return "booked"
    if isinstance(end, Unknown):
        return "unknown"
    return "refused, retried" if end.error.retryable else "refused"


def end_of(status: int, body: Any, *, sent: str = "") -> SubmitOutcome:
    return outcome_of_answer(
        status, {}, body if isinstance(body, bytes) else json.dumps(body).encode(), sent=sent
    )


class TestTheGuide:
    def test_its_table_is_read(self) -> None:
        assert len(rows()) > 50
        assert {kind for _, _, kind in rows()} == {"booked", "refused", "refused, retried", "unknown"}

    @pytest.mark.parametrize(("status", "body", "expected"), rows())
    def test_each_row_of_its_table_is_true(self, status: int, body: bytes, expected: str) -> None:
        end = end_of(status, body)
        assert outcome(end) == expected
        if isinstance(end, Booked):
            assert end.task.id == "a1b2-c3"

    @pytest.mark.parametrize(("status", "body", "expected"), rows())
    @pytest.mark.parametrize(
        "spell",
        [
            lambda body: b"\xef\xbb\xbf" + body,
            lambda body: b" \r\n" + body + b"\n",
            lambda body: body + b'{"error": {"message": "a second document"}}' if body[:1] == b"{" else body,
        ],
        ids=["a byte order mark", "blanks", "a second document behind it"],
    )
    def test_its_spelling_changes_nothing(
        self, status: int, body: bytes, expected: str, spell: Callable[[bytes], bytes]
    ) -> None:
        assert outcome(end_of(status, spell(body))) == expected


class TestBooked:
    @pytest.mark.parametrize(
        "beside",
        [
            {"error": {"code": 0, "message": ""}},
            {"error": {"code": "insufficient_user_quota", "message": "no money"}},
            {"error": False},
            {"error": []},
            {"error": 0},
            {"error": ""},
            {"success": False},
            {"code": 0},
            {"code": 1},
            {"code": 22},
            {"code": 201},
            {"code": 401},
            {"code": 500},
            {"code": "ok"},
            {"code": "succeed"},
            {"code": "weird"},
            {"message": "rate limit"},
            {"width": "1360", "request": "", "created_at": {}, "progress": float("nan")},
            {"big": 10**400},
        ],
        ids=str,
    )
    @pytest.mark.parametrize(
        "named",
        [
            {"id": "task_0123456789"},
            {"task_id": "task_0123456789"},
            {"task_id": "task_0123456789", "id": 13917},
            {"data": "task_0123456789"},
            {"data": {"id": "task_0123456789", "state": "pending"}},
            {"data": {"id": 13917, "task_id": "task_0123456789", "data": None}},
            {"data": [{"id": "task_0123456789"}]},
            {"result": "task_0123456789"},
            {"result": {"task_id": "task_0123456789"}},
            {"data": {"task": {"id": "task_0123456789"}}},
            {"generation": {"id": "task_0123456789"}},
        ],
        ids=str,
    )
    def test_an_id_is_booked_whatever_stands_beside_it(
        self, beside: dict[str, Any], named: dict[str, Any]
    ) -> None:
        for status in (200, 201, 299):
            end = end_of(status, named | beside)
            assert isinstance(end, Booked)
            assert end.task.id == "task_0123456789"

    @pytest.mark.parametrize(
        "nothing", ["", "null", "None", "undefined", "not an id!", 17, None, [], {}, True]
    )
    def test_what_is_no_id_is_not_booked(self, nothing: Any) -> None:
        for body in ({"id": nothing}, {"task_id": nothing}, {"data": {"id": nothing}}, {"result": nothing}):
            assert not isinstance(end_of(200, body | {"code": 1}), Booked)

    @pytest.mark.parametrize("words", ["failed", "error", "no_money", "busy"])
    def test_a_word_beside_an_unknown_code_is_no_id(self, words: str) -> None:
        assert isinstance(end_of(200, {"code": "E_FAIL", "message": "no", "data": words}), Unknown)

    def test_an_id_in_an_illegible_record_is_booked(self) -> None:
        end = end_of(
            200, b'{"id": "task_0123456789", "state": "pending", "request": {"prompt": "\xff\n\\ud83d"}}'
        )
        assert isinstance(end, Booked)


class TestRefused:
    @pytest.mark.parametrize("prompt", PROMPTS)
    @pytest.mark.parametrize("status", sorted(REFUSING_STATUSES - {401, 403, 429}))
    def test_a_prompt_that_is_repeated_makes_a_refusal_neither_busy_nor_a_matter_of_money(
        self, status: int, prompt: str
    ) -> None:
        end = end_of(status, {"error": {"message": f"moderated: {prompt}", "code": ""}})
        assert isinstance(end, Refused)
        assert not end.error.retryable
        assert status != 400 or type(end.error) is LumaRequestError

    @pytest.mark.parametrize("prompt", PROMPTS)
    @pytest.mark.parametrize("status", [200, 500, 503])
    def test_a_prompt_that_is_repeated_elsewhere_proves_nothing(self, status: int, prompt: str) -> None:
        sent = json.dumps({"user_prompt": f"A SIGN: {prompt.upper()}"}, ensure_ascii=False)
        assert isinstance(end_of(status, {"error": {"message": f"moderated: {prompt}"}}, sent=sent), Unknown)

    @pytest.mark.parametrize("code", sorted(REFUSING_CODES))
    @pytest.mark.parametrize("status", TOO_LATE)
    def test_no_code_makes_a_refusal_of_what_comes_too_late(self, status: int, code: str) -> None:
        assert isinstance(end_of(status, {"code": code, "message": "no", "data": None}), Unknown)

    @pytest.mark.parametrize("code", sorted(REFUSING_CODES))
    def test_a_known_code_in_a_gateways_shape_proves_nothing(self, code: str) -> None:
        assert isinstance(end_of(500, {"code": code}), Unknown)

    def test_a_busy_relay_may_say_how_long(self) -> None:
        end = outcome_of_answer(429, {"Retry-After": "7"}, b"")
        assert isinstance(end, Refused)
        assert isinstance(end.error, LumaBusyError)
        assert end.error.retry_after == 7

    def test_the_error_is_shown_clean(self) -> None:
        key = "sk-the-secret-key"
        for status, body in ((401, f"bad \x1b[1m{key}"), (200, f"<p>\u202e{key}</p>"), (500, f'"{key}"')):
            end = outcome_of_answer(status, {"X-Request-Id": key}, body.encode(), clean=Cleaner(key))
            error = end.why if isinstance(end, Unknown) else end.error if isinstance(end, Refused) else None
            assert key not in repr(error) + repr(vars(error))
            assert str(error).isprintable()


class TestConnections:
    def test_what_was_not_sent_is_refused_and_may_be_sent_again(self) -> None:
        end = outcome_of_connection(LumaConnectionError("no", unsent=True))
        assert outcome(end) == "refused, retried"

    def test_what_may_have_been_sent_is_unknown(self) -> None:
        assert isinstance(outcome_of_connection(LumaConnectionError("no")), Unknown)


NAMES = st.sampled_from(
    ["id", "task_id", "state", "status", "data", "result", "code", "error", "success", "message", "detail"]
)
WORDS = st.sampled_from(
    [
        *PROMPTS,
        *sorted(REFUSING_CODES),
        *map(str, sorted(REFUSING_STATUSES)),
        "success",
        "do_request_failed",
        "t1",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=8)
    | WORDS
    | st.sampled_from([0, 1, *TOO_LATE])
    | st.sampled_from(sorted(REFUSING_STATUSES))
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=10,
)
DOCUMENTS = st.dictionaries(NAMES, JSON, max_size=6).map(lambda value: json.dumps(value).encode())
PAGES = st.text(max_size=30).map(lambda text: f"<html><body>{text}</body></html>".encode("utf-8", "replace"))
BODIES = (
    DOCUMENTS
    | JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    | PAGES
    | (st.text(max_size=20) | WORDS).map(lambda text: text.encode("utf-8", "replace"))
    | st.binary(max_size=30)
    | st.tuples(DOCUMENTS, st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]])
    | st.tuples(DOCUMENTS, DOCUMENTS).map(b"".join)
)
STATUSES = st.integers(200, 599) | st.sampled_from([200, 201, 400, 401, 403, 404, 429, 500, 503, *TOO_LATE])


def says_so(status: int, body: bytes, word: object) -> bool:
    """Whether the first JSON document of a body has *word* as its code."""
    try:
        document = json.JSONDecoder(strict=False).raw_decode(body.decode("utf-8", "replace").strip())[0]
    except ValueError:
        return False
    inner = document.get("error") if isinstance(document, dict) else None
    members = [member for member in (document, inner) if isinstance(member, dict)]
    return any(str(member.get(name)) == str(word) for member in members for name in ("code", "status"))


class TestAnyAnswer:
    @given(status=STATUSES, body=BODIES, prompt=st.sampled_from(["", *PROMPTS]))
    def test_only_what_the_guide_names_is_sent_again(self, status: int, body: bytes, prompt: str) -> None:
        end = end_of(status, body, sent=prompt)

        if outcome(end) == "refused, retried":
            assert isinstance(end, Refused)
            assert status not in TOO_LATE
            assert not 300 <= status < 400
            if isinstance(end.error, LumaModelUnavailableError):
                assert says_so(status, body, "model_not_found")
            else:
                assert isinstance(end.error, LumaBusyError)
                assert status == 429 or (200 <= status < 300 and says_so(status, body, 429))

    @given(status=STATUSES, body=BODIES)
    def test_only_statuses_and_codes_that_the_guide_names_are_refusals(
        self, status: int, body: bytes
    ) -> None:
        end = end_of(status, body)

        if isinstance(end, Refused) and status >= 300:
            assert status in REFUSING_STATUSES or any(says_so(status, body, code) for code in REFUSING_CODES)
        if isinstance(end, Booked):
            assert 200 <= status < 300
