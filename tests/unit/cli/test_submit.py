# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from pytest_mock import MockerFixture

from airflow_provider_luma.cli import submit
from airflow_provider_luma.cli.output import Output
from airflow_provider_luma.cli.submit import submit_once
from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.exceptions import LumaAmbiguousSubmitError, LumaQuotaError

TASK = LumaTask(id="task-1", state=TaskState.PENDING)
WHAT = "the video 'a paper boat' at https://relay.test"


@pytest.fixture
def output() -> Output:
    return Output(as_json=False)


@pytest.fixture
def answer() -> Iterator[threading.Event]:
    """Release the relay's response; the end of the test releases it in any case."""
    event = threading.Event()
    yield event
    event.set()


def test_the_id_is_on_standard_error_and_in_the_log_before_the_result_is_printed(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    output = Output(as_json=False)
    with caplog.at_level(logging.INFO):
        assert submit_once(lambda: TASK, output, what=WHAT) == (TASK, False)

    assert "task-1" in capsys.readouterr().err
    assert "task-1" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_submit_interrupted_before_its_response_is_ambiguous(
    number: signal.Signals,
    output: Output,
    answer: threading.Event,
    mocker: MockerFixture,
) -> None:
    mocker.patch.object(submit, "_GRACE", 0.01)
    before = signal.getsignal(number)

    def send() -> LumaTask:
        os.kill(os.getpid(), number)
        answer.wait()
        return TASK

    with pytest.raises(LumaAmbiguousSubmitError) as caught:
        submit_once(send, output, what=WHAT)

    for part in ("may be running and billed", WHAT, "sent at 20", "before you submit it again"):
        assert part in str(caught.value)
    assert signal.getsignal(number) == before


def test_a_response_within_the_grace_period_after_an_interrupt_counts(
    output: Output, answer: threading.Event, mocker: MockerFixture
) -> None:
    # The message about the interrupt releases the response.
    mocker.patch.object(output, "message", side_effect=lambda *_, **__: answer.set())

    def send() -> LumaTask:
        os.kill(os.getpid(), signal.SIGINT)
        answer.wait()
        return TASK

    assert submit_once(send, output, what=WHAT) == (TASK, True)


def test_a_refusal_is_raised_unchanged(output: Output) -> None:
    refusal = LumaQuotaError("No money.", status=403)

    def send() -> LumaTask:
        raise refusal

    with pytest.raises(LumaQuotaError) as caught:
        submit_once(send, output, what=WHAT)

    assert caught.value is refusal


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), OverflowError("too large"), SystemExit(3)], ids=repr
)
def test_an_unexpected_error_is_ambiguous(output: Output, error: BaseException) -> None:
    def send() -> LumaTask:
        raise error

    with pytest.raises(LumaAmbiguousSubmitError) as caught:
        submit_once(send, output, what=WHAT)

    assert caught.value.__cause__ is error


def test_an_unknown_outcome_names_the_request_to_look_up(output: Output) -> None:
    def send() -> LumaTask:
        raise LumaAmbiguousSubmitError("It is unknown.")

    with pytest.raises(LumaAmbiguousSubmitError, match="a paper boat"):
        submit_once(send, output, what=WHAT)
