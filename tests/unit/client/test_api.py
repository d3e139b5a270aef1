# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_luma.client import ExtensionRequest, GenerationRequest, LumaClient, TaskState
from airflow_provider_luma.client.api import DEFAULT_BATCH_SIZE, answer_bound
from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaAuthError,
    LumaBusyError,
    LumaConfigError,
    LumaConnectionError,
    LumaEndpointError,
    LumaError,
    LumaForbiddenError,
    LumaModelUnavailableError,
    LumaQuotaError,
    LumaRequestError,
    LumaResponseError,
    LumaServerError,
    LumaTaskNotFoundError,
)

HTML = "<html><body>502 Bad Gateway</body></html>"
NOT_EXIST = {"code": "task_not_exist", "message": "task not exist", "data": None}
RESET = ConnectionResetError(104, "Connection reset by peer")


def client(**options: Any) -> LumaClient:
    return LumaClient("http://relay.test", "sk-key", **{"max_retries": 0, **options})


def task(task_id: str, state: str = "processing", **fields: Any) -> dict[str, Any]:
    return {"id": task_id, "state": state, **fields}


def error_document(message: str, code: str = "") -> dict[str, Any]:
    return {"error": {"message": message, "type": "new_api_error", "code": code}}


class Knowing:
    """Answers batch queries for the ids it knows and refuses those with an id that it can't stand."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, known: Sequence[str], refused: dict[str, Any]
    ) -> None:
        self.asked: list[list[str]] = []
        self.known, self.refused = known, refused
        monkeypatch.setattr("airflow_provider_luma.client.http.RelaySession.read", self.read)

    def read(self, method: str, path: str, body: Any, *, max_bytes: int) -> bytes:
        assert max_bytes == answer_bound(len(body["ids"]))
        assert (method, path, list(body)) == ("POST", "/luma/tasks", ["ids"])
        self.asked.append(body["ids"])
        for task_id in body["ids"]:
            if task_id in self.refused:
                raise self.refused[task_id]
        return json.dumps(
            [task(task_id) for task_id in reversed(self.known) if task_id in body["ids"]]
        ).encode()


class TestGetTasks:
    def test_one_call_asks_for_ids_alone(self, relay: Any) -> None:
        relay.answers([task("t1"), task("t2", "completed")])
        found = client().get_tasks(["t1", "t2"])
        assert {task_id: t.state for task_id, t in found.items()} == {
            "t1": TaskState.PROCESSING,
            "t2": TaskState.COMPLETED,
        }
        [sent] = relay.sent
        assert (sent.method, sent.target, sent.body) == ("POST", "/luma/tasks", b'{"ids":["t1","t2"]}')

    def test_no_ids_are_no_call(self, relay: Any) -> None:
        assert client().get_tasks([]) == {}
        assert relay.sent == []

    def test_repeated_ids_are_asked_for_once(self, relay: Any) -> None:
        relay.answers([task("t1")])
        assert list(client().get_tasks(iter(["t1", "t1", "t1"]))) == ["t1"]
        assert relay.sent[0].json == {"ids": ["t1"]}

    def test_the_order_is_that_of_the_ids_and_not_of_the_answer(self, relay: Any) -> None:
        relay.answers([task("c"), task("a"), task("b")])
        assert list(client().get_tasks(["b", "a", "c"])) == ["b", "a", "c"]

    def test_unknown_ids_are_left_out(self, relay: Any) -> None:
        relay.answers([task("t2")])
        assert list(client().get_tasks(["t1", "t2", "t3"])) == ["t2"]

    @pytest.mark.parametrize(
        "answer", [{"code": "success", "data": None}, [], {"code": "success", "data": []}]
    )
    def test_nothing_known_is_nothing_found(self, relay: Any, answer: Any) -> None:
        relay.answers(answer)
        assert client().get_tasks(["t1"]) == {}

    def test_tasks_that_no_call_asked_for_are_ignored(self, relay: Any) -> None:
        relay.answers([task("other"), task("t1")])
        assert list(client().get_tasks(["t1"])) == ["t1"]

    @pytest.mark.parametrize("states", [("processing", "completed"), ("completed", "processing")])
    def test_of_a_task_that_is_reported_twice_the_finished_state_wins(
        self, relay: Any, states: tuple[str, str]
    ) -> None:
        relay.answers([task("t1", state) for state in states])
        assert client().get_tasks(["t1"])["t1"].state is TaskState.COMPLETED

    def test_of_two_finished_states_the_first_wins(self, relay: Any) -> None:
        relay.answers([task("t1", "failed"), task("t1", "completed")])
        assert client().get_tasks(["t1"])["t1"].state is TaskState.FAILED

    def test_an_id_that_comes_back_in_another_letter_case_is_the_one_asked_for(self, relay: Any) -> None:
        relay.answers([task("ABC-1", "completed"), task("def-2")])
        found = client().get_tasks(["abc-1", "DEF-2"])
        assert {task_id: (t.id, t.state) for task_id, t in found.items()} == {
            "abc-1": ("abc-1", TaskState.COMPLETED),
            "DEF-2": ("DEF-2", TaskState.PROCESSING),
        }

    @pytest.mark.parametrize("order", [1, -1])
    def test_an_exact_id_wins_over_one_in_another_letter_case(self, relay: Any, order: int) -> None:
        relay.answers([task("ABC", "completed"), task("abc")][::order])
        assert client().get_tasks(["abc"])["abc"].state is TaskState.PROCESSING

    def test_ids_that_differ_in_their_letter_case_alone_are_not_confused(self, relay: Any) -> None:
        relay.answers([task("aB", "completed")])
        assert client().get_tasks(["ab", "AB"]) == {}

    def test_texts_are_free_of_the_key_in_any_spelling(self, relay: Any) -> None:
        relay.answers(r'[{"id": "t1", "state": "failed", "failure_reason": "\u0073k-0123456789 is bad"}]')
        with LumaClient("http://relay.test", "sk-0123456789", max_retries=0) as keyed:
            assert keyed.get_tasks(["t1"])["t1"].failure_reason == "*** is bad"

    def test_a_flood_of_records_is_not_read_to_its_end(
        self, relay: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        relay.answers(b"[" + b'{"id":"t1"},' * 200_000 + b'{"id":"t2"}]')
        assert list(client().get_tasks(["t1", "t2"])) == ["t1"]
        assert "more than 1008 records" in caplog.text

    def test_ids_are_asked_for_in_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = [f"t{n}" for n in range(250)]
        knowing = Knowing(monkeypatch, known=ids, refused={})
        assert list(client().get_tasks(ids)) == ids
        assert knowing.asked == [ids[:100], ids[100:200], ids[200:]]

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 1000])
    def test_the_size_of_a_batch_is_configurable(
        self, monkeypatch: pytest.MonkeyPatch, batch_size: int
    ) -> None:
        ids = [f"t{n}" for n in range(7)]
        knowing = Knowing(monkeypatch, known=ids, refused={})
        assert list(client(batch_size=batch_size).get_tasks(ids)) == ids
        assert knowing.asked == [ids[start : start + batch_size] for start in range(0, 7, batch_size)]

    def test_an_id_that_the_relay_refuses_is_found_by_halving_and_returned_as_a_problem(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [f"t{n}" for n in range(100)]
        refused = {"t37": LumaRequestError("t37 is bad", status=400)}
        knowing = Knowing(monkeypatch, known=ids, refused=refused)
        found = client().get_tasks(ids)
        assert list(found) == ids
        assert (found["t37"].state, found["t37"].problem) == (TaskState.UNKNOWN, "t37 is bad")
        assert all(found[task_id].problem is None for task_id in ids if task_id != "t37")
        assert len(knowing.asked) <= 15

    def test_a_relay_that_refuses_every_call_is_found_out_without_asking_for_every_id(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [f"t{n}" for n in range(100)]
        error = LumaRequestError("the service is closed", status=400)
        unused_id = "00000000-0000-4000-8000-000000000000"
        knowing = Knowing(monkeypatch, known=[], refused=dict.fromkeys([*ids, unused_id], error))
        with pytest.raises(LumaRequestError, match="the service is closed"):
            client().get_tasks(ids)
        assert len(knowing.asked) == 8
        assert knowing.asked[-1] == [unused_id]

    def test_however_many_ids_are_refused_the_good_one_is_found(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [f"t{n}" for n in range(100)]
        refused = {id_: LumaRequestError(f"{id_} is bad", status=400) for id_ in ids if id_ != "t37"}
        Knowing(monkeypatch, known=ids, refused=refused)
        found = client().get_tasks(ids)
        assert [task_id for task_id in ids if found[task_id].problem is None] == ["t37"]

    def test_an_id_that_the_relay_reports_as_unknown_is_left_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refused = {
            task_id: LumaTaskNotFoundError("not exist", status=400, code="task_not_exist")
            for task_id in ("t0", "t3")
        }
        Knowing(monkeypatch, known=["t1", "t2"], refused=refused)
        assert list(client().get_tasks(["t0", "t1", "t2", "t3"])) == ["t1", "t2"]

    def test_a_whole_batch_of_unknown_ids_is_nothing_found(self, relay: Any) -> None:
        for _ in range(3):
            relay.answers(NOT_EXIST, status=400)
        assert client().get_tasks(["t1", "t2"]) == {}

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (401, error_document("无效的令牌"), LumaAuthError),
            (403, error_document("no"), LumaForbiddenError),
            (404, error_document("Invalid URL"), LumaEndpointError),
            (429, "", LumaBusyError),
            (500, error_document("boom"), LumaServerError),
            (200, HTML, LumaResponseError),
            (200, error_document("boom"), LumaServerError),
        ],
    )
    def test_a_call_that_fails_as_a_whole_is_not_repeated_in_halves(
        self, relay: Any, status: int, body: Any, kind: type[LumaError]
    ) -> None:
        relay.answers(body, status=status)
        with pytest.raises(kind):
            client().get_tasks(["t1", "t2"])
        assert len(relay.sent) == 1

    @pytest.mark.parametrize("task_id", ["", "../x", "a b", "x" * 129, None, 5, "{{ ids }}"])
    def test_an_id_of_no_known_form_is_refused_before_anything_is_sent(
        self, relay: Any, task_id: Any
    ) -> None:
        with pytest.raises(LumaConfigError, match="is not a Luma task id") as caught:
            client().get_tasks(["t1", task_id])
        assert repr(task_id) in str(caught.value)
        assert relay.sent == []

    def test_a_text_is_not_taken_for_a_list_of_its_letters(self, relay: Any) -> None:
        with pytest.raises(LumaConfigError, match="list"):
            client().get_tasks("abc")
        assert relay.sent == []


class TestGetTask:
    def test_a_task_is_asked_for_by_its_path(self, relay: Any, seed_task: dict[str, Any]) -> None:
        relay.answers(seed_task)
        found = client().get_task(seed_task["id"])
        assert found.video_url == seed_task["video"]["download_url"]
        assert (relay.sent[0].method, relay.sent[0].target) == ("GET", f"/luma/generations/{seed_task['id']}")

    @pytest.mark.parametrize(
        ("status", "body"), [(400, NOT_EXIST), (200, {"code": "success", "data": None}), (200, [])]
    )
    def test_an_unknown_task_is_an_error_that_no_retry_can_mend(
        self, relay: Any, status: int, body: Any
    ) -> None:
        relay.answers(body, status=status)
        with pytest.raises(LumaTaskNotFoundError, match="doesn't know") as caught:
            client().get_task("t1")
        assert not caught.value.retryable

    def test_a_task_that_cannot_be_read_is_an_error_that_names_it(self, relay: Any) -> None:
        relay.answers({"id": "t1", "state": 5})
        with pytest.raises(LumaResponseError, match="t1") as caught:
            client().get_task("t1")
        assert caught.value.task_ids == ("t1",)

    def test_an_id_cannot_lead_to_another_path(self, relay: Any) -> None:
        for task_id in ("../tasks", "a/b", "a?b", ""):
            with pytest.raises(LumaConfigError):
                client().get_task(task_id)
        assert relay.sent == []


class TestSubmits:
    def test_a_generation_sends_only_what_was_set(self, relay: Any) -> None:
        relay.answers(task("new", "pending"), status=201)
        created = client().generate(GenerationRequest(prompt="cat dance", aspect_ratio="16:9"))
        assert (created.id, created.state) == ("new", TaskState.PENDING)
        [sent] = relay.sent
        assert (sent.method, sent.target) == ("POST", "/luma/generations")
        assert sent.json == {"user_prompt": "cat dance", "aspect_ratio": "16:9"}

    def test_an_extension_sends_only_what_was_set(self, relay: Any) -> None:
        relay.answers({"code": "success", "data": task("new", "queued")})
        created = client().extend("t1", ExtensionRequest(prompt="cat sleeps"))
        assert (created.id, created.state) == ("new", TaskState.PENDING)
        [sent] = relay.sent
        assert (sent.method, sent.target) == ("POST", "/luma/generations/t1/extend")
        assert sent.json == {"user_prompt": "cat sleeps"}

    @pytest.mark.parametrize("answer", [{"code": "success", "data": "new"}, {"id": "new", "state": 5}])
    def test_the_id_is_all_that_is_needed_of_the_answer(self, relay: Any, answer: Any) -> None:
        relay.answers(answer)
        assert client().generate(GenerationRequest(prompt="cat")).id == "new"

    def test_an_extension_of_no_task_is_refused_before_anything_is_sent(self, relay: Any) -> None:
        with pytest.raises(LumaConfigError):
            client().extend("a b", ExtensionRequest(prompt="cat"))
        assert relay.sent == []


def submits() -> list[Any]:
    return [
        pytest.param(lambda c: c.generate(GenerationRequest(prompt="cat")), id="generate"),
        pytest.param(lambda c: c.extend("t1", ExtensionRequest(prompt="cat")), id="extend"),
    ]


@pytest.mark.parametrize("submit", submits())
class TestPayingOnce:
    @pytest.mark.parametrize(
        "error",
        [
            ConnectionRefusedError(111, "Connection refused"),
            socket.gaierror(-2, "Name or service not known"),
            TimeoutError("timed out"),
            OSError(101, "Network is unreachable"),
        ],
        ids=["refused", "DNS", "connect timeout", "no network"],
    )
    def test_what_was_never_sent_is_safe_to_repeat(self, relay: Any, submit: Any, error: Exception) -> None:
        relay.cannot_be_reached(error)
        with pytest.raises(LumaConnectionError) as caught:
            submit(client(max_retries=3))
        assert caught.value.retryable
        assert caught.value.unsent
        assert len(relay.peers) == 1

    @pytest.mark.parametrize(
        ("status", "body", "kind", "retryable"),
        [
            (429, error_document("busy"), LumaBusyError, True),
            (429, "", LumaBusyError, True),
            (503, error_document("no channel", "model_not_found"), LumaModelUnavailableError, True),
            (400, error_document("bad prompt"), LumaRequestError, False),
            (400, "bad prompt", LumaRequestError, False),
            (401, error_document("无效的令牌"), LumaAuthError, False),
            (401, error_document("该令牌额度已用尽"), LumaQuotaError, False),
            (403, {"code": "insufficient_user_quota", "message": "no money"}, LumaQuotaError, False),
            (403, HTML, LumaForbiddenError, False),
            (404, error_document("Invalid URL (POST /luma/generations)"), LumaEndpointError, False),
        ],
    )
    def test_what_the_relay_says_it_did_not_take_is_a_clean_refusal(
        self, relay: Any, submit: Any, status: int, body: Any, kind: type[LumaError], retryable: bool
    ) -> None:
        relay.answers(body, status=status)
        with pytest.raises(kind) as caught:
            submit(client(max_retries=3))
        assert type(caught.value) is kind
        assert caught.value.retryable is retryable
        assert len(relay.sent) == 1

    @pytest.mark.parametrize(
        "fault", [TimeoutError("timed out"), RESET, None], ids=["timeout", "reset", "eof"]
    )
    @pytest.mark.parametrize(
        "received", [(), (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",)], ids=["silent", "begun"]
    )
    def test_a_connection_that_breaks_is_ambiguous(
        self, relay: Any, submit: Any, received: tuple[bytes, ...], fault: Exception | None
    ) -> None:
        relay.says(*received, fault=fault)
        with pytest.raises(LumaAmbiguousSubmitError, match="may be running and billed") as caught:
            submit(client(max_retries=3))
        assert isinstance(caught.value.__cause__, LumaConnectionError)
        assert not caught.value.retryable
        assert len(relay.sent) == 1

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (502, HTML),
            (504, HTML),
            (524, HTML),
            (500, ""),
            (500, "Internal Server Error"),
            (503, '{"error": {"message": "cut'),
            (408, HTML),
            (200, HTML),
            (200, ""),
            (200, "{}"),
            (200, '{"unheard": "of"}'),
            (200, '{"id": "new", "state": "pend'[:8]),
            (200, "[1]"),
            (200, '{"state": "pending"}'),
            (201, "created"),
            (204, ""),
            (200, '{"code": "success", "data": null}'),
            (200, "[]"),
            (302, ""),
            (500, '{"code": "do_request_failed", "message": "EOF", "data": null}'),
            (502, json.dumps(error_document("bad upstream"))),
            (503, json.dumps(error_document("one")) + json.dumps(error_document("two"))),
            (200, json.dumps(error_document("boom"))),
            (200, '{"success": false, "message": "boom"}'),
        ],
    )
    def test_an_answer_that_does_not_say_whether_it_was_taken_is_ambiguous(
        self, relay: Any, submit: Any, status: int, body: str
    ) -> None:
        relay.answers(body, status=status)
        with pytest.raises(LumaAmbiguousSubmitError, match="before you submit it again") as caught:
            submit(client(max_retries=3))
        assert not caught.value.retryable
        assert len(relay.sent) == 1

    @pytest.mark.parametrize("status", [200, 500])
    def test_an_answer_that_is_too_large_is_ambiguous(self, relay: Any, submit: Any, status: int) -> None:
        relay.answers(b" " * 2000 + b"{}", status=status)
        http = client()
        http._session._max_body_bytes = 1000
        with pytest.raises(LumaAmbiguousSubmitError, match="larger than"):
            submit(http)


@pytest.mark.parametrize("submit", ["generate", "extend"])
class TestWhatCannotBeSent:
    @pytest.mark.parametrize(
        "fields",
        [
            {"prompt": "a cat \ud83d"},
            {"prompt": "cat", "notify_hook": "https://relay.test/\udc00"},
            {"prompt": "cat", "extra_fields": {"seed": float("nan")}},
            {"prompt": "cat", "extra_fields": {"style": [float("-inf")]}},
            {"prompt": "cat", "extra_fields": {"seed": 10**400}},
            {"prompt": "cat", "extra_fields": {"seed": object()}},
        ],
        ids=[
            "a surrogate in the prompt",
            "a surrogate in a link",
            "NaN",
            "infinity",
            "400 digits",
            "an object",
        ],
    )
    def test_is_refused_before_a_connection_is_made(
        self, relay: Any, submit: str, fields: dict[str, Any]
    ) -> None:
        submits: dict[str, Any] = {
            "generate": lambda: client().generate(GenerationRequest(**fields)),
            "extend": lambda: client().extend("t1", ExtensionRequest(**fields)),
        }
        with pytest.raises(LumaConfigError, match="can't be sent as JSON"):
            submits[submit]()
        assert relay.peers == []


class TestHowLargeAnAnswerMayBe:
    def test_a_batch_whose_tasks_have_the_longest_prompts_is_taken(self, relay: Any) -> None:
        ids = [f"t{n}" for n in range(100)]
        relay.answers([task(task_id, prompt="x" * 60_000) for task_id in ids])
        assert len(client().get_tasks(ids)) == 100

    def test_it_grows_with_the_ids_that_are_asked_for(self) -> None:
        assert answer_bound(1_001) - answer_bound(1) >= 1_000 * 60_000

    def test_an_answer_that_repeats_the_image_of_the_request_is_taken(self, relay: Any) -> None:
        relay.answers([task("t1", request={"prompt": "a cat", "image_url": "A" * 13_500_000})])
        assert client().get_tasks(["t1"])["t1"].prompt == "a cat"

    def test_a_bomb_is_not_unpacked_beyond_it(self, relay: Any) -> None:
        bomb = gzip.compress(b"[" + b"{}," * 6_000_000 + b"{}]")
        relay.answers(bomb, headers={"Content-Encoding": "gzip"})
        with pytest.raises(LumaResponseError, match="larger than"):
            client().get_tasks(["t1"])

    def test_a_compressed_answer_that_breaks_off_is_not_whole(self, relay: Any) -> None:
        relay.answers(gzip.compress(b'[{"id": "t1"}]' * 1000)[:-20], headers={"Content-Encoding": "gzip"})
        with pytest.raises(LumaConnectionError, match="broke before the answer was complete"):
            client().get_task("t1")


class TestCheck:
    def test_it_is_one_query_for_an_id_that_no_relay_knows(self, relay: Any) -> None:
        relay.answers([])
        assert client().check() == "The relay at http://relay.test answers and accepts the API key."
        assert relay.sent[0].json == {"ids": ["00000000-0000-4000-8000-000000000000"]}

    def test_a_relay_that_answers_unknown_ids_with_an_error_is_fine_too(self, relay: Any) -> None:
        relay.answers(NOT_EXIST, status=400)
        assert "accepts the API key" in client().check()

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (401, error_document("无效的令牌"), LumaAuthError),
            (404, error_document("Invalid URL (POST /luma/tasks)"), LumaEndpointError),
            (200, HTML, LumaResponseError),
            (400, error_document("bad"), LumaRequestError),
        ],
    )
    def test_what_is_wrong_is_raised(self, relay: Any, status: int, body: Any, kind: type[LumaError]) -> None:
        relay.answers(body, status=status)
        with pytest.raises(kind):
            client().check()


class TestGetBalance:
    def test_it_is_two_reads(self, relay: Any) -> None:
        relay.answers({"hard_limit_usd": 20})
        relay.answers({"total_usage": 150})
        assert client().get_balance().remaining_usd == 18.5
        assert [(sent.method, sent.target) for sent in relay.sent] == [
            ("GET", "/v1/dashboard/billing/subscription"),
            ("GET", "/v1/dashboard/billing/usage"),
        ]

    def test_a_relay_without_these_routes_is_distinguished(self, relay: Any) -> None:
        relay.answers(error_document("Invalid URL (GET /v1/dashboard/billing/subscription)"), status=404)
        with pytest.raises(LumaEndpointError):
            client().get_balance()


class TestTheClient:
    def test_its_address_is_normalised(self) -> None:
        assert LumaClient("relay.test/", "sk-key").base_url == "https://relay.test"

    def test_it_closes_its_connections_at_the_end(self, relay: Any) -> None:
        relay.answers([])
        with client() as luma:
            luma.get_tasks(["t1"])
            adapters: Any = luma._session._session.adapters.values()
            pools = [adapter.poolmanager.pools for adapter in adapters]
            assert sum(map(len, pools)) == 1
        assert sum(map(len, pools)) == 0

    def test_its_batch_size_is_a_hundred(self) -> None:
        assert client().batch_size == DEFAULT_BATCH_SIZE == 100

    @pytest.mark.parametrize("value", [0, -1, True, "100", 1.0, None])
    def test_an_unusable_batch_size_is_refused(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="batch_size") as caught:
            client(batch_size=value)
        assert repr(value) in str(caught.value)

    def test_it_cleans_texts_of_its_relay(self) -> None:
        luma = LumaClient("https://relay.test", "sk-a-long-key")
        assert luma.clean("one\x1b[1m\nsk\\u002da-long-key") == "one[1m ***"

    def test_the_key_is_in_no_repr(self) -> None:
        assert "sk-key" not in repr(client()) + repr(vars(client()))
