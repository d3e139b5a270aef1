# SPDX-License-Identifier: Apache-2.0
"""The client against a relay that does everything relays have been seen to do, over real HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.client import ExtensionRequest, GenerationRequest, LumaClient, TaskState
from airflow_provider_luma.client.http import RelaySession
from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaAuthError,
    LumaBusyError,
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
from airflow_provider_luma.sandbox import LumaSandbox, TaskScript, faults
from tests.support.patience import PATIENCE, until

API_KEY = "sk-a-key-of-this-test"
PROMPT = "a cat that dances"


@pytest.fixture(params=["bare", "envelope"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sandbox(dialect: str) -> Iterator[LumaSandbox]:
    with LumaSandbox(dialect=dialect, api_key=API_KEY, pending_seconds=0, processing_seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox: LumaSandbox) -> Iterator[LumaClient]:
    """A client that waits for any answer and retries nothing."""
    client = LumaClient(
        sandbox.base_url, API_KEY, read_timeout=PATIENCE, submit_timeout=PATIENCE, max_retries=0
    )
    with client:
        yield client


@pytest.fixture
def impatient(sandbox: LumaSandbox) -> Iterator[LumaClient]:
    """A client that gives up at once."""
    with LumaClient(sandbox.base_url, API_KEY, read_timeout=0.5, submit_timeout=0.5, max_retries=0) as client:
        yield client


@pytest.fixture
def task_id(sandbox: LumaSandbox) -> str:
    return sandbox.add_task(state="completed")


Act = Callable[[LumaClient, str], Any]
READS: dict[str, Act] = {
    "batch": lambda client, task_id: client.query([task_id]),
    "single": lambda client, task_id: client.get_task(task_id),
}
SUBMITS: dict[str, Act] = {
    "submit": lambda client, task_id: client.generate(GenerationRequest(prompt=PROMPT)),
    "extend": lambda client, task_id: client.extend(task_id, ExtensionRequest(prompt=PROMPT)),
}
CALLS = READS | SUBMITS

# Fault, class of the error, whether later may help, the relay's words.
Row = tuple[faults.Fault, type[LumaError], bool, str]
ERRORS: list[Row] = [
    (faults.unauthorized(), LumaAuthError, False, "无效的令牌"),
    (faults.key_quota_exhausted(), LumaQuotaError, False, "该令牌额度已用尽"),
    (faults.insufficient_user_quota(), LumaQuotaError, False, "用户额度不足"),
    (faults.pre_consume_token_quota_failed(), LumaQuotaError, False, "令牌额度不足"),
    (faults.group_denied(), LumaForbiddenError, False, "该令牌无权访问模型"),
    (faults.task_not_exist(), LumaTaskNotFoundError, False, "task_not_exist"),
    (faults.bad_request("no such field"), LumaRequestError, False, "no such field"),
    (faults.invalid_url(), LumaEndpointError, False, "Invalid URL (POST /luma/tasks)"),
    (faults.payload_too_large(), LumaRequestError, False, "413 Request Entity Too Large"),
    (faults.too_many_requests(), LumaBusyError, True, "当前分组上游负载已饱和，请稍后再试"),
    (faults.too_many_requests(body="openai"), LumaBusyError, True, "Rate limit reached for requests"),
    (faults.too_many_requests(body="empty"), LumaBusyError, True, "HTTP 429 with an empty body"),
    (faults.do_request_failed(), LumaServerError, True, "do request failed"),
    (faults.model_not_found(), LumaModelUnavailableError, True, "无可用渠道"),
    (faults.glued(), LumaServerError, True, "do request failed"),
    (faults.ok_with_error("moderation is down"), LumaServerError, True, "moderation is down"),
    (faults.ok_without_success("being maintained"), LumaServerError, True, "being maintained"),
    (faults.glued(200), LumaServerError, True, "do request failed"),
]

# These say that something failed, but not whether that was before the upstream accepted the submit.
UNKNOWN_TO_SUBMITS = [fault for fault, kind, *_ in ERRORS if kind is LumaServerError]


@pytest.mark.parametrize("call", CALLS)
class TestErrors:
    @pytest.mark.parametrize(
        ("fault", "kind", "retryable", "words"), ERRORS, ids=lambda value: getattr(value, "name", "")
    )
    def test_each_answer_of_the_relay_has_its_error(
        self,
        client: LumaClient,
        sandbox: LumaSandbox,
        task_id: str,
        call: Any,
        fault: faults.Fault,
        kind: type[LumaError],
        retryable: bool,
        words: str,
    ) -> None:
        sandbox.fail_next(call, fault)

        with pytest.raises(LumaError) as caught:
            CALLS[call](client, task_id)

        if call in SUBMITS and fault in UNKNOWN_TO_SUBMITS:
            assert type(caught.value) is LumaAmbiguousSubmitError
            assert not caught.value.retryable
        else:
            assert type(caught.value) is kind
            assert caught.value.retryable is retryable
        assert words in str(caught.value)
        assert sandbox.count(call) == 1
        assert sandbox.generations == []

    @pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
    def test_a_relay_that_quotes_the_key_does_not_bring_it_into_an_error(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, status: int
    ) -> None:
        message = {"error": {"message": f"rejected: {API_KEY}!", "code": API_KEY}}
        sandbox.fail_next(
            call, faults.answer(status, json.dumps(message), headers={"x-request-id": "abc-123"})
        )

        with pytest.raises(LumaError) as caught:
            CALLS[call](client, task_id)

        assert "rejected: ***!" in str(caught.value)
        assert "abc-123" in str(caught.value)
        assert API_KEY not in repr(caught.value) + str(vars(caught.value))

    def test_a_redirect_is_not_followed(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any
    ) -> None:
        with LumaSandbox() as elsewhere:
            sandbox.fail_next(call, faults.redirect(f"{elsewhere.root_url}/luma/tasks"))

            with pytest.raises(LumaError, match=f"redirects to {elsewhere.root_url}/luma/tasks") as caught:
                CALLS[call](client, task_id)

            error = caught.value.__cause__ if call in SUBMITS else caught.value
            assert isinstance(error, LumaEndpointError)
            assert elsewhere.calls == []
        assert len(sandbox.calls) == 1

    def test_cookies_are_not_sent_back(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any
    ) -> None:
        CALLS[call](client, task_id)
        CALLS[call](client, task_id)

        assert len(sandbox.calls) == 2
        assert all("cookie" not in made.headers for made in sandbox.calls)

    def test_the_headers_are_the_documented_ones(
        self,
        client: LumaClient,
        sandbox: LumaSandbox,
        task_id: str,
        call: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        monkeypatch.setenv("NETRC", str(netrc))

        CALLS[call](client, task_id)

        headers = sandbox.calls[0].headers
        assert headers["authorization"] == f"Bearer {API_KEY}"
        assert headers["accept"] == "application/json"
        assert headers["user-agent"].startswith("airflow-provider-luma/")
        if call != "single":
            assert headers["content-type"] == "application/json"

    def test_a_port_without_a_listener(self, task_id: str, call: Any) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            base_url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            with (
                LumaClient(base_url, API_KEY, max_retries=0) as client,
                pytest.raises(LumaConnectionError, match=f"Can't connect to {base_url}") as caught,
            ):
                CALLS[call](client, task_id)

        assert caught.value.unsent
        assert caught.value.retryable

    def test_a_name_without_an_address(self, task_id: str, call: Any) -> None:
        with (
            LumaClient("https://relay.invalid", API_KEY, max_retries=0) as client,
            pytest.raises(LumaConnectionError, match="can't be resolved") as caught,
        ):
            CALLS[call](client, task_id)

        assert caught.value.unsent


@pytest.mark.parametrize("call", READS)
class TestReads:
    @pytest.mark.parametrize(
        "fault", [faults.bad_gateway(), faults.gateway_timeout(), faults.edge_timeout(), faults.empty(503)]
    )
    def test_an_edge_proxys_page_is_a_passing_fault(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with pytest.raises(LumaServerError) as caught:
            READS[call](client, task_id)

        assert caught.value.retryable
        assert f"HTTP {fault.status}" in str(caught.value)
        assert "<" not in str(caught.value)

    @pytest.mark.parametrize(
        "fault",
        [
            faults.ok_html(),
            faults.empty(),
            faults.not_json(),
            faults.wrong_types(),
            faults.deep_nesting(),
            faults.answer(200, "[" * 100_000),
            faults.answer(200, '"a text"'),
            faults.unframed(0.02),
        ],
        ids=lambda fault: fault.name,
    )
    def test_an_answer_that_makes_no_sense_is_a_response_error(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with pytest.raises(LumaResponseError) as caught:
            READS[call](client, task_id)

        assert caught.value.retryable
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize(
        "fault",
        [faults.drop(), faults.reset(), faults.reset(0.5), faults.truncated(), faults.chunk_cut()],
        ids=lambda fault: f"{fault.name}-{fault.keep}",
    )
    def test_a_connection_that_breaks_is_a_passing_fault(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with pytest.raises(LumaConnectionError, match="broke before the answer was complete") as caught:
            READS[call](client, task_id)

        assert caught.value.retryable
        assert not caught.value.unsent

    @pytest.mark.parametrize("fault", [faults.hang(), faults.stall(), faults.drip(0.01)])
    def test_silence_and_trickles_are_bounded_by_the_read_timeout(
        self, impatient: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with pytest.raises(LumaConnectionError, match="didn't answer in time") as caught:
            READS[call](impatient, task_id)

        assert caught.value.retryable

    @pytest.mark.parametrize("fault", [faults.huge(), faults.gzip_bomb()], ids=lambda fault: fault.name)
    @pytest.mark.parametrize("dialect", ["bare"], indirect=True)
    def test_a_huge_answer_is_not_read_to_its_end(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with pytest.raises(LumaResponseError, match=r"larger than 16\.1 MiB"):
            READS[call](client, task_id)

    @pytest.mark.parametrize(
        "fault",
        [
            faults.too_many_requests(body="empty"),
            faults.do_request_failed(),
            faults.model_not_found(),
            faults.bad_gateway(),
            faults.gateway_timeout(),
            faults.edge_timeout(),
            faults.drop(),
            faults.reset(),
        ],
        ids=lambda fault: fault.name,
    )
    @pytest.mark.parametrize("dialect", ["bare"], indirect=True)
    def test_a_query_is_retried_after_a_passing_fault(
        self, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with LumaClient(sandbox.base_url, API_KEY) as client:
            assert READS[call](client, task_id)

        assert sandbox.count(call) == 2

    @pytest.mark.parametrize(
        "fault",
        [faults.unauthorized(), faults.group_denied(), faults.bad_request(), faults.invalid_url()],
        ids=lambda fault: fault.name,
    )
    @pytest.mark.parametrize("dialect", ["bare"], indirect=True)
    def test_a_query_is_not_retried_after_a_refusal(
        self, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with LumaClient(sandbox.base_url, API_KEY) as client, pytest.raises(LumaError):
            READS[call](client, task_id)

        assert sandbox.count(call) == 1

    @pytest.mark.parametrize("dialect", ["bare"], indirect=True)
    def test_what_does_not_pass_is_given_up_after_the_retries(
        self, sandbox: LumaSandbox, task_id: str, call: Any
    ) -> None:
        sandbox.fail_when(call, faults.do_request_failed())

        with (
            LumaClient(sandbox.base_url, API_KEY, max_retries=1) as client,
            pytest.raises(LumaServerError, match="do request failed"),
        ):
            READS[call](client, task_id)

        assert sandbox.count(call) == 2

    @pytest.mark.parametrize("dialect", ["bare"], indirect=True)
    @pytest.mark.parametrize("http_date", [False, True])
    def test_retry_after_is_honoured(
        self, sandbox: LumaSandbox, task_id: str, call: Any, http_date: bool
    ) -> None:
        sandbox.fail_next(call, faults.too_many_requests(retry_after=3, http_date=http_date))

        with LumaClient(sandbox.base_url, API_KEY) as client:
            assert READS[call](client, task_id)

        first, second = sandbox.calls
        # Sleeping can take longer than asked, never shorter; a date is counted from before the call.
        assert second.monotonic - first.monotonic >= (1 if http_date else 3)

    @pytest.mark.parametrize("dialect", ["bare"], indirect=True)
    def test_a_query_is_retried_after_a_relay_that_hangs_once(
        self, sandbox: LumaSandbox, task_id: str, call: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sandbox.fail_next(call, faults.hang())
        attempt, timeouts = RelaySession._attempt, iter([0.5])

        def impatient_at_first(session: RelaySession, timeout: float, seconds: float) -> Any:
            return attempt(session, next(timeouts, timeout), seconds)

        with LumaClient(sandbox.base_url, API_KEY, read_timeout=PATIENCE) as client:
            monkeypatch.setattr(RelaySession, "_attempt", impatient_at_first)
            assert READS[call](client, task_id)

        assert sandbox.count(call) == 2

    def test_the_retry_after_of_a_busy_relay_reaches_the_caller(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any
    ) -> None:
        sandbox.fail_next(call, faults.too_many_requests(retry_after=17))

        with pytest.raises(LumaBusyError) as caught:
            READS[call](client, task_id)

        assert caught.value.retry_after == 17


class TestBatches:
    def test_the_body_holds_the_ids_and_nothing_else_batch_by_batch(self, sandbox: LumaSandbox) -> None:
        ids = sandbox.add_tasks([TaskScript(state="completed")] * 5)

        with LumaClient(sandbox.base_url, API_KEY, batch_size=2) as client:
            tasks = client.get_tasks([*ids, ids[0]])

        assert list(tasks) == ids
        assert [call.body for call in sandbox.calls] == [
            {"ids": ids[:2]},
            {"ids": ids[2:4]},
            {"ids": ids[4:]},
        ]

    def test_unknown_ids_are_left_out(self, client: LumaClient, task_id: str) -> None:
        assert list(client.get_tasks(["unknown-1", task_id, "unknown-2"])) == [task_id]

    def test_nothing_found_is_an_empty_answer(self, client: LumaClient) -> None:
        assert client.get_tasks(["unknown-1"]) == {}

    def test_a_broken_task_does_not_take_the_others_with_it(
        self, client: LumaClient, sandbox: LumaSandbox
    ) -> None:
        good = sandbox.add_tasks([TaskScript(state="completed")] * 99)
        broken = sandbox.add_task(malformed=True)
        sandbox.add_task(malformed=[[["what is this"]]], unasked=True)

        tasks = client.get_tasks([broken, *good])

        assert [task_id for task_id in good if tasks[task_id].video_url] == good
        assert tasks[broken].state is TaskState.UNKNOWN
        assert tasks[broken].problem

    def test_an_id_that_spoils_its_call_is_found_by_halves(self, sandbox: LumaSandbox) -> None:
        ids = sandbox.add_tasks([TaskScript(state="completed")] * 8)
        sandbox.fail_when("batch", faults.bad_request("ids[3] offends"), ids=[ids[3]])

        with LumaClient(sandbox.base_url, API_KEY, max_retries=0) as client:
            tasks = client.get_tasks(ids)

        assert [task_id for task_id in ids if tasks[task_id].problem] == [ids[3]]
        assert "ids[3] offends" in str(tasks[ids[3]].problem)

    def test_tasks_that_were_not_polled_are_ignored(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str
    ) -> None:
        sandbox.add_task(state="completed", unasked=True)

        assert list(client.get_tasks([task_id])) == [task_id]

    def test_a_task_reported_twice_counts_as_finished_if_one_report_says_so(
        self, client: LumaClient, sandbox: LumaSandbox
    ) -> None:
        task_id = sandbox.add_task(state="completed", answered_twice_as="processing")

        assert client.get_tasks([task_id])[task_id].state is TaskState.COMPLETED

    def test_a_second_document_behind_the_answer_is_ignored(
        self, client: LumaClient, sandbox: LumaSandbox
    ) -> None:
        document = b'[{"id": "luma_gen_abc123", "state": "processing"}]'
        sandbox.fail_next("batch", faults.answer(200, document + b'{"error": {"message": "late"}}'))

        tasks = client.get_tasks(["luma_gen_abc123"])

        assert tasks["luma_gen_abc123"].state is TaskState.PROCESSING

    def test_one_client_serves_many_threads(self, client: LumaClient, sandbox: LumaSandbox) -> None:
        ids = sandbox.add_tasks([TaskScript(state="completed")] * 40)

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda task_id: client.get_tasks([task_id]), ids))

        assert [list(answer) for answer in answers] == [[task_id] for task_id in ids]


class TestSuccess:
    @pytest.mark.parametrize("call", SUBMITS)
    @pytest.mark.parametrize("status", [200, 201])
    def test_a_submit_gives_the_new_task(self, dialect: str, call: str, status: int) -> None:
        with (
            LumaSandbox(dialect=dialect, submit_status=status) as sandbox,
            LumaClient(sandbox.base_url, sandbox.api_key) as client,
        ):
            parent = sandbox.add_task(state="completed")

            task = SUBMITS[call](client, parent)

            (generation,) = sandbox.generations
            assert task.id == generation.id
            assert task.state is TaskState.PENDING
            assert generation.body == {"user_prompt": PROMPT}
            assert generation.parent == (parent if call == "extend" else None)

    def test_only_what_was_set_is_sent(self, client: LumaClient, sandbox: LumaSandbox) -> None:
        client.generate(
            GenerationRequest(
                prompt=PROMPT, model_name="ray-v2", duration="5s", loop=False, extra_fields={"seed": 7}
            )
        )

        assert sandbox.generations[0].body == {
            "user_prompt": PROMPT,
            "model_name": "ray-v2",
            "duration": "5s",
            "loop": False,
            "seed": 7,
        }

    @pytest.mark.parametrize("id_form", ["uuid", "task", "luma_gen"])
    def test_every_form_of_id_goes_through_all_calls(self, dialect: str, id_form: str) -> None:
        settings: dict[str, Any] = {"pending_seconds": 0, "processing_seconds": 0, "prefix": "/a/prefix"}
        with (
            LumaSandbox(dialect=dialect, id_form=id_form, **settings) as sandbox,
            LumaClient(sandbox.base_url, sandbox.api_key) as client,
        ):
            first = client.generate(GenerationRequest(prompt=PROMPT))
            second = client.extend(first.id, ExtensionRequest(prompt=PROMPT))

            assert list(client.get_tasks([second.id, first.id])) == [second.id, first.id]
            assert client.get_task(second.id).video_url
            assert sandbox.count("unknown") == 0

    def test_a_failed_task_has_its_reason(self, client: LumaClient, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(state="failed", fails_with="moderation says no")

        task = client.get_task(task_id)

        assert (task.state, task.failure_reason) == (TaskState.FAILED, "moderation says no")

    def test_a_successful_row_with_a_link_as_its_fail_reason_is_no_failure(
        self, client: LumaClient, task_id: str
    ) -> None:
        task = client.get_task(task_id)

        assert (task.state, task.failure_reason) == (TaskState.COMPLETED, None)


AMBIGUOUS = [
    faults.drop(),
    faults.reset(),
    faults.reset(0.5),
    faults.bad_gateway(),
    faults.gateway_timeout(),
    faults.edge_timeout(),
    faults.empty(500),
    faults.do_request_failed(),
    faults.ok_html(),
    faults.empty(200),
    faults.empty(201),
    faults.not_json(),
    faults.invalid_utf8(),
    faults.wrong_types(),
    faults.deep_nesting(),
    faults.truncated(0.2),
    faults.chunk_cut(0.2),
    faults.unframed(0.02),
    faults.answer(200, "[]", name="no_task"),
    faults.answer(200, '{"code": "success", "data": null}', name="null_task"),
]


@pytest.mark.parametrize("call", SUBMITS)
class TestBilledOnce:
    @pytest.mark.parametrize(
        "fault", AMBIGUOUS, ids=lambda fault: f"{fault.name}-{fault.status}-{fault.keep}"
    )
    def test_a_submit_whose_answer_is_lost_is_ambiguous_and_sent_once(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault, accepted=True)

        with pytest.raises(LumaAmbiguousSubmitError, match="may be running and billed") as caught:
            SUBMITS[call](client, task_id)

        assert not caught.value.retryable
        assert API_KEY not in str(caught.value)
        assert len(sandbox.generations) == 1
        assert sandbox.count(call) == 1

    @pytest.mark.parametrize("fault", [faults.hang(), faults.stall(), faults.drip(0.05)])
    def test_a_submit_whose_answer_takes_too_long_is_ambiguous_and_sent_once(
        self, impatient: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault, accepted=True)

        with pytest.raises(LumaAmbiguousSubmitError, match="didn't answer in time"):
            SUBMITS[call](impatient, task_id)

        # The client gave up without waiting for the relay.
        until(lambda: sandbox.count(call))
        assert len(sandbox.generations) == 1
        assert sandbox.count(call) == 1

    @pytest.mark.parametrize("fault", [faults.drop(), faults.bad_gateway()], ids=lambda fault: fault.name)
    def test_the_client_can_not_know_that_a_submit_was_not_accepted(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with pytest.raises(LumaAmbiguousSubmitError):
            SUBMITS[call](client, task_id)

        assert sandbox.generations == []
        assert sandbox.count(call) == 1

    @pytest.mark.parametrize("dialect", ["bare"], indirect=True)
    def test_a_huge_answer_is_ambiguous(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any
    ) -> None:
        sandbox.fail_next(call, faults.huge(), accepted=True)

        with pytest.raises(LumaAmbiguousSubmitError, match=r"larger than 16\.1 MiB"):
            SUBMITS[call](client, task_id)

        assert sandbox.count(call) == 1

    @pytest.mark.parametrize(
        "fault",
        [faults.too_many_requests(retry_after=1), faults.model_not_found()],
        ids=lambda fault: fault.name,
    )
    def test_a_clean_refusal_may_be_retried_by_the_caller_and_is_not_by_the_client(
        self, sandbox: LumaSandbox, task_id: str, call: Any, fault: faults.Fault
    ) -> None:
        sandbox.fail_next(call, fault)

        with LumaClient(sandbox.base_url, API_KEY) as client:
            with pytest.raises(LumaError) as caught:
                SUBMITS[call](client, task_id)
            assert not isinstance(caught.value, LumaAmbiguousSubmitError)
            assert caught.value.retryable
            assert sandbox.count(call) == 1

            SUBMITS[call](client, task_id)
        assert len(sandbox.generations) == 1

    def test_a_task_that_is_half_legible_is_known_by_its_id(
        self, client: LumaClient, sandbox: LumaSandbox, task_id: str, call: Any
    ) -> None:
        sandbox.fail_next(call, faults.answer(200, '{"id": "luma_gen_abc123", "state": 17}'))

        assert SUBMITS[call](client, task_id).id == "luma_gen_abc123"
