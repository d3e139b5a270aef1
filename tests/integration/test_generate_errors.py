# SPDX-License-Identifier: Apache-2.0
"""
Test every answer of a relay to a submit, over real HTTP: how the task ends, and what is billed.

All of them are tasks of one Dag run; every task has two retries.
"""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.exceptions import LumaError
from airflow_provider_luma.operators.generate import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sandbox import Fault, LumaSandbox, faults
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS
from tests.support.once import once_per_run
from tests.support.patience import PATIENCE

#: Seconds that submits without a complete answer wait; all others wait as long as it takes.
SUBMIT_TIMEOUT = 1.0

#: The relay refuses for good. With words of the task's error.
FINAL: dict[str, tuple[Fault, str]] = {
    "401 wrong key": (faults.unauthorized(), "refuses the API key"),
    "401 used up key": (faults.key_quota_exhausted(), "该令牌额度已用尽.*Top it up"),
    "403 no money": (faults.insufficient_user_quota(), "用户额度不足.*Top it up"),
    "403 too little money": (faults.pre_consume_token_quota_failed(), "令牌额度不足.*Top it up"),
    "403 denied": (faults.group_denied(), "该令牌无权访问模型.*group"),
    "400 unknown id": (faults.task_not_exist(), "doesn't know this task id"),
    "400 refused prompt": (faults.bad_request("不良内容", code="moderated"), "不良内容"),
    "404 wrong host": (faults.invalid_url("/luma/generations"), "no Luma API at this address"),
    "413 too large": (faults.payload_too_large(), "HTTP 413"),
}

#: The relay refuses for now.
PASSING: dict[str, Fault] = {
    "429": faults.too_many_requests(),
    "429 as OpenAI says it": faults.too_many_requests(body="openai"),
    "429 without a word": faults.too_many_requests(body="empty"),
    "429 with Retry-After": faults.too_many_requests(retry_after=1),
    "503 no channel": faults.model_not_found(),
}

#: It is unknown whether the relay accepted the request.
AMBIGUOUS: dict[str, Fault] = {
    "read timeout": faults.hang(),
    "read timeout in mid-answer": faults.stall(),
    "an answer that drips": faults.drip(0.5),
    "dropped connection": faults.drop(),
    "reset connection": faults.reset(),
    "reset in mid-answer": faults.reset(keep=0.3),
    "cut answer": faults.truncated(keep=0.05),
    "cut chunks": faults.chunk_cut(keep=0.05),
    "cut without a trace": faults.unframed(keep=0.05),
    "502": faults.bad_gateway(),
    "504": faults.gateway_timeout(),
    "524": faults.edge_timeout(),
    "307 redirect": faults.redirect("https://example.com/"),
    "500": faults.do_request_failed(),
    "500 of two documents": faults.glued(),
    "500 without a word": faults.empty(500),
    "200 with an error": faults.ok_with_error(),
    "200 without success": faults.ok_without_success(),
    "200 without a word": faults.empty(),
    "200 with a web page": faults.ok_html(),
    "200 not JSON": faults.not_json(),
    "200 of wrong types": faults.wrong_types(),
    "200 not UTF-8": faults.invalid_utf8(),
    "200 nested deep": faults.deep_nesting(),
    "200 that never ends": faults.huge(),
    "200 that names nothing": faults.answer(200, '{"code": "success", "message": "", "data": null}'),
}

#: Those that end with the client's timeout.
SILENT = ("read timeout", "read timeout in mid-answer", "an answer that drips")

#: Faults that spoil the relay's true answer, so that it has accepted the request in any case.
NEED_THE_ANSWER = {name for name, fault in AMBIGUOUS.items() if fault.needs_true_answer}


class Error(msgspec.Struct):
    """
    Hold what a try raised.

    :param final: Whether it fails the task for good.
    :param retryable: Whether it is a retryable error of this provider.
    """

    text: str
    final: bool
    retryable: bool

    @classmethod
    def of(cls, error: BaseException) -> Error:
        return cls(
            text=str(error),
            final=isinstance(error, AirflowFailException),
            retryable=isinstance(error, LumaError) and error.retryable,
        )


class Outcome(msgspec.Struct):
    """Hold how a task ended."""

    state: str
    tries: int
    xcom: Any
    luma_tasks: Any
    errors: list[Error]


class Run(msgspec.Struct):
    """Hold how all tasks ended, and how often each prompt was billed and sent."""

    outcomes: dict[str, Outcome]
    counts: dict[str, dict[str, int]]

    def __post_init__(self) -> None:
        self.counts = {name: Counter(counts) for name, counts in self.counts.items()}

    @property
    def billed(self) -> dict[str, int]:
        return self.counts["billed"]

    @property
    def sent(self) -> dict[str, int]:
        return self.counts["sent"]

    def outcome(self, name: str) -> Outcome:
        return self.outcomes[_task_id(name)]

    def state(self, name: str) -> str:
        return self.outcome(name).state

    def tries(self, name: str) -> int:
        return self.outcome(name).tries

    def errors(self, name: str) -> list[Error]:
        return self.outcome(name).errors

    def final_error(self, name: str) -> str:
        """Return the message of the error that failed the task for good, with retries left."""
        (error,) = self.errors(name)
        assert error.final
        assert (self.state(name), self.tries(name)) == ("failed", 1)
        return error.text


def _task_id(name: str) -> str:
    return name.replace(" ", "_").replace("-", "_")


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Run:
    def run_all(file: Path) -> None:
        file.write_bytes(msgspec.json.encode(_run_all(request.getfixturevalue("run_dag"))))

    file = once_per_run(tmp_path_factory, worker_id, "errors.json", run_all)
    return msgspec.json.decode(file.read_bytes(), type=Run)


def _run_all(run_dag: Callable[..., Any]) -> Run:
    errors: dict[str, list[Error]] = {}

    def note(context: Any) -> None:
        errors.setdefault(context["ti"].task_id, []).append(Error.of(context["exception"]))

    with (
        pytest.MonkeyPatch.context() as patch,
        LumaSandbox(dialect="envelope", submit_status=201) as sandbox,
        socket.socket() as closed,
    ):
        client = RelaySettings.client
        patch.setattr(RelaySettings, "client", lambda self: client(self, submit_timeout=self.read_timeout))
        parent = sandbox.add_task(state="completed")
        closed.bind(("127.0.0.1", 0))
        hosts = {
            "luma_default": (sandbox.base_url, PATIENCE),
            "impatient": (sandbox.base_url, SUBMIT_TIMEOUT),
            "refused": (f"http://127.0.0.1:{closed.getsockname()[1]}", PATIENCE),
            "nowhere": ("http://no-such-host.invalid", PATIENCE),
        }
        for conn_id, (host, seconds) in hosts.items():
            connection = {
                "conn_type": "luma",
                "host": host,
                "password": sandbox.api_key,
                "extra": {"read_timeout": seconds},
            }
            patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

        def fail(prompt: str, fault: Fault, *, accepted: bool = False, times: int | None = None) -> None:
            for call in ("submit", "extend"):
                sandbox.fail_when(call, fault, containing=prompt, accepted=accepted, times=times)

        common: dict[str, Any] = {
            "retries": 2,
            "retry_delay": timedelta(0),
            "on_retry_callback": note,
            "on_failure_callback": note,
        }
        with DAG("errors", schedule=None, default_args=common) as dag:

            def generate(name: str, **arguments: Any) -> None:
                LumaGenerateVideoOperator(task_id=_task_id(name), prompt=f"<{name}>", **arguments)

            generate("fine")
            for name, (fault, _) in FINAL.items():
                generate(name)
                fail(f"<{name}>", fault)
            for name, fault in PASSING.items():
                generate(name)
                fail(f"<{name}>", fault, times=1)
            generate("429 for ever")
            fail("<429 for ever>", faults.too_many_requests())
            for name, fault in AMBIGUOUS.items():
                waits = {"luma_conn_id": "impatient"} if name in SILENT else {}
                generate(f"{name} unheard", **waits)
                fail(f"<{name} unheard>", fault)
                generate(f"{name} accepted", **waits)
                fail(f"<{name} accepted>", fault, accepted=True)
            generate("on a closed port", luma_conn_id="refused")
            generate("on an unknown host", luma_conn_id="nowhere")
            LumaExtendVideoOperator(task_id="extend", luma_task_id=parent, prompt="<extend>")
            LumaExtendVideoOperator(
                task_id="extend_stranger", luma_task_id="stranger", prompt="<extend stranger>"
            )
            LumaExtendVideoOperator(task_id="extend_dropped", luma_task_id=parent, prompt="<extend dropped>")
            fail("<extend dropped>", faults.drop(), accepted=True)
        result = run_dag(dag)
        outcomes = {
            task_id: Outcome(
                state=result.task_state(task_id),
                tries=result.task(task_id).try_number,
                xcom=result.xcom(task_id),
                luma_tasks=result.xcom(task_id, "luma_tasks"),
                errors=errors.get(task_id, []),
            )
            for task_id in dag.task_ids
        }
        calls = [call for call in sandbox.calls if call.name in ("submit", "extend")]
        counts: dict[str, dict[str, int]] = {
            "billed": Counter(generation.prompt for generation in sandbox.generations),
            "sent": Counter(call.body["user_prompt"] for call in calls),
        }
        return Run(outcomes, counts)


def test_a_success_is_billed_once_and_returned(run: Run) -> None:
    assert run.billed["<fine>"] == run.billed["<extend>"] == 1
    assert (run.state("fine"), run.tries("fine")) == ("success", 1)
    for name in ("fine", "extend"):
        assert list(run.outcome(name).luma_tasks) == [run.outcome(name).xcom]


def test_no_prompt_is_billed_twice(run: Run) -> None:
    assert [prompt for prompt, count in run.billed.items() if count > 1] == []


@pytest.mark.parametrize("name", FINAL)
def test_a_final_refusal_fails_at_once_with_the_relays_message(run: Run, name: str) -> None:
    assert re.search(FINAL[name][1], run.final_error(name))
    assert (run.sent[f"<{name}>"], run.billed[f"<{name}>"]) == (1, 0)


@pytest.mark.parametrize("name", PASSING)
def test_a_passing_refusal_is_retried_and_billed_once(run: Run, name: str) -> None:
    assert run.state(name) == "success"
    assert (run.sent[f"<{name}>"], run.billed[f"<{name}>"]) == (2, 1)
    if AIRFLOW_V_3_3_PLUS:
        (error,) = run.errors(name)
        assert error.retryable
        assert run.tries(name) == 2


def test_retries_are_limited(run: Run) -> None:
    assert run.state("429 for ever") == "failed"
    assert (run.sent["<429 for ever>"], run.billed["<429 for ever>"]) == (3, 0)


@pytest.mark.parametrize("name", ["on a closed port", "on an unknown host"])
def test_without_a_connection_nothing_was_sent_and_retries_are_used(run: Run, name: str) -> None:
    assert run.state(name) == "failed"
    assert len(run.errors(name)) == (3 if AIRFLOW_V_3_3_PLUS else 1)
    assert "ambiguous" not in run.errors(name)[-1].text
    assert "It is unknown" not in run.errors(name)[-1].text


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("accepted", [False, True], ids=["unheard", "accepted"])
def test_an_ambiguous_outcome_fails_at_once_and_is_not_sent_again(
    run: Run, name: str, accepted: bool
) -> None:
    name = f"{name} {'accepted' if accepted else 'unheard'}"
    error = run.final_error(name)

    assert "it may be running and billed" in error
    assert f"Request 0 (video '<{name}>', sent at 20" in error
    assert "task list or bill" in error
    assert "Clearing this task" in error
    assert run.sent[f"<{name}>"] == 1
    assert run.billed[f"<{name}>"] == (accepted or name.rpartition(" ")[0] in NEED_THE_ANSWER)


def test_an_extension_of_an_unknown_task_is_refused(run: Run) -> None:
    assert "The relay refused the extension of stranger '<extend stranger>'" in run.final_error(
        "extend stranger"
    )


def test_an_extension_whose_answer_is_lost_is_ambiguous(run: Run) -> None:
    assert "It is unknown whether the relay" in run.final_error("extend dropped")
    assert run.billed["<extend dropped>"] == 1
