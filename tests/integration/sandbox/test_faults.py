# SPDX-License-Identifier: Apache-2.0
"""Every fault over a real connection, and what the relay did behind it."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
import requests

from airflow_provider_luma.sandbox import Fault, LumaSandbox, faults
from airflow_provider_luma.sandbox.rewrites import ID_BESIDE_ERROR_FORMS
from tests.support.patience import PATIENCE, until

WHOLE_ANSWERS = [
    faults.unauthorized(),
    faults.key_quota_exhausted(),
    faults.insufficient_user_quota(),
    faults.pre_consume_token_quota_failed(),
    faults.group_denied(),
    faults.task_not_exist(),
    faults.bad_request(),
    faults.invalid_url(),
    faults.payload_too_large(),
    faults.too_many_requests(),
    faults.too_many_requests(body="openai", retry_after=2),
    faults.too_many_requests(body="empty", retry_after=2, http_date=True),
    faults.do_request_failed(),
    faults.model_not_found(),
    faults.bad_gateway(),
    faults.gateway_timeout(),
    faults.edge_timeout(),
    faults.ok_with_error(),
    faults.ok_without_success(),
    faults.ok_html(),
    faults.glued(),
    faults.empty(),
    faults.not_json(),
    faults.invalid_utf8(),
    faults.deep_nesting(),
    faults.wrong_types(),
    faults.redirect("http://127.0.0.1:9/elsewhere"),
    faults.gateway_json("aws"),
    faults.gateway_json("problem"),
    faults.upstream_lost(),
    faults.challenge_page(),
    faults.maintenance_redirect(),
    faults.not_found_text(),
    faults.far_retry_after(),
    faults.answer(418, "short and stout", content_type="text/plain", headers={"x-request-id": "r-1"}),
]
# The exception of requests for each broken connection.
BROKEN = [
    (faults.reset(), requests.ConnectionError),
    (faults.reset(0.5), requests.exceptions.ChunkedEncodingError),
    (faults.drop(), requests.ConnectionError),
    (faults.truncated(), requests.exceptions.ChunkedEncodingError),
    (faults.chunk_cut(), requests.exceptions.ChunkedEncodingError),
    (faults.hang(), requests.ReadTimeout),
    (faults.stall(), requests.ConnectionError),
]


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Fault) else None


@pytest.fixture
def task_id(sandbox: LumaSandbox) -> str:
    return sandbox.add_task(state="completed")


class TestAnswers:
    @pytest.mark.parametrize("fault", WHOLE_ANSWERS, ids=name_of)
    def test_a_fault_with_a_body_is_sent_as_it_is(
        self, sandbox: LumaSandbox, client: Any, task_id: str, fault: Fault
    ) -> None:
        sandbox.fail_next("batch", fault)
        answer = client.batch(task_id)
        assert (answer.status_code, answer.content) == (fault.status, fault.body)
        assert answer.headers["content-type"] == fault.content_type
        assert all(answer.headers[name] == value for name, value in fault.headers)
        assert (sandbox.calls[-1].status, sandbox.calls[-1].fault) == (fault.status, fault.name)
        assert client.batch(task_id).json()[0]["id"] == task_id

    def test_the_true_answer_can_have_another_status(
        self, sandbox: LumaSandbox, client: Any, task_id: str
    ) -> None:
        sandbox.fail_next("batch", faults.status(206))
        answer = client.batch(task_id)
        assert (answer.status_code, answer.json()[0]["id"]) == (206, task_id)

    def test_the_true_answer_can_be_rewritten(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        sandbox.fail_next("batch", faults.byte_order_mark())
        assert client.batch(task_id).content.startswith(b"\xef\xbb\xbf[")
        sandbox.fail_next("batch", faults.other_letter_case())
        assert client.batch(task_id).json()[0]["id"] == task_id.upper()
        assert client.batch(task_id).json()[0]["id"] == task_id

    def test_a_refusal_is_not_rewritten(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_next("media", faults.odd_fields())
        assert client.media("unknown").status_code == 404

    def test_a_gzip_flood_unpacks_to_many_times_what_is_sent(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_next("batch", faults.gzip_flood(2))
        answer = client.batch("one")
        assert len(answer.content) > 900 * int(answer.headers["content-length"])

    def test_a_huge_body_is_streamed_without_a_length(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_next("batch", faults.huge(100))
        with client.batch("one", stream=True) as answer:
            assert answer.headers["transfer-encoding"] == "chunked"
            assert sum(map(len, answer.iter_content(1024 * 1024))) == 100 * 1024 * 1024

    def test_a_client_may_leave_in_the_middle_of_a_huge_body(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_next("batch", faults.huge(10_000))
        with client.batch("one", stream=True) as answer:
            next(answer.iter_content(1024))
        assert client.batch("one").json() == []


class TestConnections:
    @pytest.mark.parametrize(("fault", "error"), BROKEN, ids=name_of)
    def test_a_broken_connection_breaks_and_the_next_call_works(
        self, sandbox: LumaSandbox, client: Any, task_id: str, fault: Fault, error: type[Exception]
    ) -> None:
        sandbox.fail_next("batch", fault)
        client.timeout = 0.5 if fault.name in ("hang", "stall") else PATIENCE
        with pytest.raises(error):
            client.batch(task_id)
        until(lambda: sandbox.calls)
        assert sandbox.calls[-1].status == (None if fault.silent else 200)
        client.timeout = PATIENCE
        assert client.batch(task_id).json()[0]["id"] == task_id

    def test_a_reset_is_a_reset(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_next("batch", faults.reset())
        with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
            client.batch("one")

    def test_an_unframed_answer_looks_complete(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        whole = client.batch(task_id).content
        sandbox.fail_next("batch", faults.unframed(0.5))
        answer = client.batch(task_id)
        assert answer.status_code == 200
        assert len(answer.content) == len(whole) // 2
        assert not {"content-length", "transfer-encoding"} & {name.lower() for name in answer.headers}

    def test_a_drip_is_sent_byte_by_byte(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_next("batch", faults.drip(0.01))
        with client.batch("one", stream=True) as answer:
            assert list(answer.raw.stream(1)) == [b"[", b"]"]

    def test_headers_can_be_sent_byte_by_byte_and_the_answer_is_whole(
        self, sandbox: LumaSandbox, client: Any, task_id: str
    ) -> None:
        sandbox.fail_next("batch", faults.trickled_headers(0.001))
        assert client.batch(task_id).json()[0]["id"] == task_id
        assert client.batch(task_id).json()[0]["id"] == task_id

    def test_a_client_may_leave_in_the_middle_of_trickled_headers(
        self, sandbox: LumaSandbox, client: Any
    ) -> None:
        sandbox.fail_next("batch", faults.trickled_headers(0.05))
        with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
            request = (
                f"GET /luma/generations/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sandbox.api_key}"
            )
            connection.sendall(
                f"{request}\r\n\r\n".replace("GET /luma/generations/x", "POST /luma/tasks").encode()
            )
            assert connection.recv(1) == b"H"
        assert client.batch("one").json() == []

    def test_a_late_answer_is_the_true_answer(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        sandbox.fail_next("batch", faults.latency(0.2))
        begin = time.monotonic()
        assert client.batch(task_id).json()[0]["id"] == task_id
        assert time.monotonic() - begin >= 0.2

    def test_all_answers_can_be_late(self, client_of: Any) -> None:
        with LumaSandbox(latency_seconds=0.1) as sandbox:
            client = client_of(sandbox)
            begin = time.monotonic()
            client.batch("one")
            client.batch("one")
            assert time.monotonic() - begin >= 0.2


class TestSubmits:
    AMBIGUOUS = (
        faults.drop(),
        faults.reset(),
        faults.hang(),
        faults.bad_gateway(),
        faults.gateway_timeout(),
        faults.edge_timeout(),
        faults.not_json(),
        faults.empty(),
        faults.ok_html(),
    )

    @pytest.mark.parametrize("accepted", [False, True])
    @pytest.mark.parametrize("call", ["submit", "extend"])
    @pytest.mark.parametrize("fault", AMBIGUOUS, ids=name_of)
    def test_a_fault_hides_whether_the_relay_accepted_the_submit(
        self, sandbox: LumaSandbox, client: Any, task_id: str, fault: Fault, call: Any, accepted: bool
    ) -> None:
        sandbox.fail_next(call, fault, accepted=accepted)
        client.timeout = 0.3 if fault.name == "hang" else PATIENCE
        try:
            answer = client.submit() if call == "submit" else client.extend(task_id)
            outcome: object = (answer.status_code, answer.content)
        except requests.RequestException:
            outcome = None
        assert outcome == (None if fault.silent else (fault.status, fault.body))
        until(lambda: sandbox.count(call))
        assert len(sandbox.generations) == accepted
        assert sandbox.spent_usd == (0.32 if accepted else 0)
        assert sandbox.calls[-1].generation == (sandbox.generations[0].id if accepted else None)

    @pytest.mark.parametrize("form", ID_BESIDE_ERROR_FORMS)
    def test_a_submit_whose_id_is_beside_an_error_is_accepted(
        self, sandbox: LumaSandbox, client: Any, form: Any
    ) -> None:
        sandbox.fail_next("submit", faults.id_beside_error(form))
        answer = client.submit()
        (generation,) = sandbox.generations
        assert generation.id in answer.text
        assert answer.status_code == 200

    @pytest.mark.parametrize("accepted", [False, True])
    @pytest.mark.parametrize("fault", [faults.gateway_json(), faults.upstream_lost()], ids=name_of)
    def test_a_gateway_hides_whether_the_submit_was_accepted(
        self, sandbox: LumaSandbox, client: Any, fault: Fault, accepted: bool
    ) -> None:
        sandbox.fail_next("submit", fault, accepted=accepted)
        assert client.submit().content == fault.body
        assert len(sandbox.generations) == accepted

    def test_a_truncated_answer_hides_an_accepted_submit(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_next("submit", faults.truncated())
        with pytest.raises(requests.RequestException):
            client.submit()
        assert len(sandbox.generations) == 1

    def test_a_submit_that_the_relay_would_refuse_is_not_accepted_behind_a_fault(
        self, sandbox: LumaSandbox, client: Any
    ) -> None:
        sandbox.fail_next("submit", faults.bad_gateway(), accepted=True)
        client.submit("ab")
        assert sandbox.generations == []


class TestConditions:
    def test_a_fault_can_depend_on_an_id(self, sandbox: LumaSandbox, client: Any, task_id: str) -> None:
        sandbox.fail_when("batch", faults.bad_request(), ids=["poison"])
        assert [client.batch(*ids).status_code for ids in ((task_id,), (task_id, "poison"), (task_id,))] == [
            200,
            400,
            200,
        ]

    def test_faults_are_played_in_the_order_in_which_they_were_queued(
        self, sandbox: LumaSandbox, client: Any
    ) -> None:
        sandbox.fail_next("batch", faults.do_request_failed(), times=2)
        sandbox.fail_next("batch", faults.too_many_requests())
        assert [client.batch("one").status_code for _ in range(4)] == [500, 500, 429, 200]

    def test_a_fault_can_depend_on_a_text_in_the_prompt(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_when("submit", faults.model_not_found(), containing="unicorn")
        assert [client.submit(prompt).status_code for prompt in ("a cat", "a unicorn")] == [200, 503]

    def test_a_fault_can_depend_on_a_function(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_when("batch", faults.payload_too_large(), lambda call: len(call.ids) > 2)
        assert [client.batch(*"ab").status_code, client.batch(*"abc").status_code] == [200, 413]

    def test_faults_can_be_cleared(self, sandbox: LumaSandbox, client: Any) -> None:
        sandbox.fail_when("batch", faults.empty(500))
        sandbox.clear_faults()
        assert client.batch("one").status_code == 200

    @pytest.mark.parametrize(
        "call", ["batch", "single", "submit", "extend", "download_url", "billing", "unknown"]
    )
    def test_every_call_can_fail(self, sandbox: LumaSandbox, client: Any, call: Any) -> None:
        sandbox.fail_next(call, faults.answer(418))
        acts = {
            "batch": lambda: client.batch("one"),
            "single": lambda: client.single("one"),
            "submit": client.submit,
            "extend": lambda: client.extend("one"),
            "download_url": lambda: client.request("GET", "/luma/generations/one/download_video_url"),
            "billing": lambda: client.request("GET", "/v1/dashboard/billing/usage"),
            "unknown": lambda: client.request("GET", "/nowhere"),
        }
        assert acts[call]().status_code == 418
