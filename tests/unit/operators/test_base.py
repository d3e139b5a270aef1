# SPDX-License-Identifier: Apache-2.0
"""Test how the submit operators treat a first try, a retry, a clear, and a try they know nothing about."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.client.requests import GenerationRequest
from airflow_provider_luma.exceptions import (
    LumaBusyError,
    LumaError,
    LumaInterruptedError,
    LumaQuotaError,
    LumaRequestError,
    LumaStorageError,
)
from airflow_provider_luma.operators import base as submit_module
from airflow_provider_luma.operators.generate import LumaGenerateVideoOperator, LumaGenerateVideosOperator
from airflow_provider_luma.submitting.ledger import Ledger
from airflow_provider_luma.submitting.submitter import Stop, Submitter
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS

needs_a_store = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 brings the task state store")


class Airflow:
    """The task state store of one task instance, and its tries."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.lost: set[str] = set()
        self.number, self.max_tries = 1, 2
        self.keeps = True

    def get(self, key: str, default: Any = None) -> Any:
        return None if key in self.lost else self.values.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        self.values[key] = value

    def retry(self) -> None:
        self.number += 1

    def clear(self, retries: int = 2) -> None:
        self.max_tries = self.number + retries
        self.number += 1

    @property
    def context(self) -> Any:
        instance = SimpleNamespace(
            dag_id="dag",
            run_id="run",
            task_id="submit",
            map_index=-1,
            try_number=self.number,
            max_tries=self.max_tries,
            start_date=datetime.now(UTC),
            xcom_push=lambda key, value: None,
        )
        context: dict[str, Any] = {"ti": instance}
        if self.keeps:
            context["task_state_store"] = self
        return context


class Relay:
    """Accept each prompt, unless it is given an error for it."""

    base_url = "https://relay.example"

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.errors: dict[str, list[Exception]] = {}

    def generate(self, request: GenerationRequest) -> LumaTask:
        self.sent.append(request.prompt)
        if errors := self.errors.get(request.prompt):
            raise errors.pop(0)
        return LumaTask(id=f"id-{len(self.sent)}", state=TaskState.PENDING)


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture
def relay(mocker: Any) -> Relay:
    relay = Relay()
    mocker.patch.object(submit_module, "LumaHook").return_value.client = relay
    return relay


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was logged; Airflow's own loggers may print it."""
    return lambda: caplog.text + "".join(capsys.readouterr())


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    return lambda name, value: monkeypatch.setenv(f"AIRFLOW__STATE_STORE__{name}", value)


def one(**arguments: Any) -> Any:
    return LumaGenerateVideoOperator(task_id="submit", prompt="a red fox", **arguments)


def two(**arguments: Any) -> Any:
    requests = [{"prompt": "first"}, {"prompt": "second"}]
    return LumaGenerateVideosOperator(task_id="submit", requests=requests, **arguments)


def busy(retry_after: float | None = None) -> LumaBusyError:
    return LumaBusyError("The relay is busy.", status=429, retry_after=retry_after)


@needs_a_store
class TestRuns:
    def test_a_retry_after_a_failure_sends_only_the_rest(self, airflow: Airflow, relay: Relay) -> None:
        relay.errors["second"] = [busy()]
        with pytest.raises(LumaBusyError):
            two(retries=2).execute(airflow.context)
        airflow.retry()

        assert two(retries=2).execute(airflow.context) == ["id-1", "id-3"]

    @pytest.mark.parametrize("retries", [0, 2, 5])
    def test_a_clear_of_an_ended_task_submits_again_whatever_retries_is_now(
        self, airflow: Airflow, relay: Relay, retries: int
    ) -> None:
        one(retries=2).execute(airflow.context)
        airflow.clear(retries)

        assert one(retries=retries).execute(airflow.context) == "id-2"

    @pytest.mark.parametrize("retries", [0, 1, 2, 5])
    def test_a_retry_submits_nothing_whatever_retries_is_now(
        self, airflow: Airflow, relay: Relay, retries: int
    ) -> None:
        relay.errors["second"] = [busy()]
        with pytest.raises(LumaBusyError):
            two(retries=2).execute(airflow.context)
        airflow.retry()
        two(retries=retries).execute(airflow.context)

        assert Counter(relay.sent) == {"first": 1, "second": 2}

    def test_a_clear_after_the_last_retry_failed_submits_again(self, airflow: Airflow, relay: Relay) -> None:
        relay.errors["second"] = [busy()]
        airflow.max_tries = 0
        with pytest.raises(LumaBusyError):
            two().execute(airflow.context)
        airflow.clear(retries=0)

        assert two().execute(airflow.context) == ["id-3", "id-4"]

    def test_a_clear_while_it_waits_for_a_retry_submits_nothing_twice(
        self, airflow: Airflow, relay: Relay
    ) -> None:
        relay.errors["second"] = [busy()]
        with pytest.raises(LumaBusyError):
            two().execute(airflow.context)
        airflow.clear()

        assert two().execute(airflow.context) == ["id-1", "id-3"]

    def test_a_clear_while_it_is_deferred_waits_for_the_same_video(
        self, airflow: Airflow, relay: Relay, mocker: Any
    ) -> None:
        defer = mocker.patch.object(LumaGenerateVideoOperator, "defer", side_effect=KeyboardInterrupt)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                one(wait_for_completion=True, deferrable=True).execute(airflow.context)
            airflow.clear()

        assert relay.sent == ["a red fox"]
        assert [call.kwargs["trigger"].luma_task_ids for call in defer.call_args_list] == [["id-1"]] * 2

    def test_a_clear_after_it_was_killed_resumes(self, airflow: Airflow, relay: Relay) -> None:
        operator = two()

        def kill(request: GenerationRequest) -> LumaTask:
            operator.on_kill()
            return LumaTask(id="id-1", state=TaskState.PENDING)

        relay.generate, accept = kill, relay.generate  # type: ignore[method-assign]
        airflow.max_tries = 0
        with pytest.raises(LumaInterruptedError):
            operator.execute(airflow.context)
        relay.generate = accept  # type: ignore[method-assign]
        airflow.clear(retries=0)

        assert two().execute(airflow.context) == ["id-1", "id-1"]
        assert relay.sent == ["second"]

    @pytest.mark.parametrize(
        ("error", "resends"),
        [
            (LumaRequestError("The relay refuses it: no credit.", status=400), 2),
            (LumaQuotaError("No money is left.", status=403), 2),
        ],
    )
    def test_resume_sends_what_was_refused_again_after_a_clear(
        self, airflow: Airflow, relay: Relay, error: LumaError, resends: int
    ) -> None:
        relay.errors["second"] = [error]
        with pytest.raises(AirflowFailException):
            two(on_clear="resume").execute(airflow.context)
        airflow.clear()

        assert two(on_clear="resume").execute(airflow.context) == ["id-1", "id-3"]
        assert Counter(relay.sent) == {"first": 1, "second": resends}

    def test_an_end_that_can_not_be_written_leaves_the_result_alone(
        self, airflow: Airflow, relay: Relay, logged: Callable[[], str], mocker: Any
    ) -> None:
        mocker.patch.object(Ledger, "end", side_effect=OSError("the API server is away"))

        assert one().execute(airflow.context) == "id-1"
        assert "The end of this try could not be written" in logged()
        airflow.clear()
        assert one().execute(airflow.context) == "id-1"
        assert relay.sent == ["a red fox"]


@needs_a_store
class TestLostState:
    def test_an_object_that_is_gone_is_an_error_and_not_an_empty_store(
        self, airflow: Airflow, relay: Relay
    ) -> None:
        one().execute(airflow.context)
        airflow.lost = set(airflow.values)
        airflow.retry()
        with pytest.raises(LumaStorageError, match="has lost the value of 'luma_submits_1_0'"):
            one().execute(airflow.context)

        assert relay.sent == ["a red fox"]

    def test_a_backend_of_another_kind_that_holds_nothing_leaves_a_later_try_ambiguous(
        self, airflow: Airflow, relay: Relay, config: Callable[..., None]
    ) -> None:
        config("BACKEND", "airflow.providers.common.io.state_store.backend.ObjectStorageStateStoreBackend")
        airflow.retry()
        with pytest.raises(AirflowFailException, match="it is unknown what the tries before try 2"):
            one().execute(airflow.context)

        assert relay.sent == []

    def test_a_first_try_with_such_a_backend_is_a_first_try(
        self, airflow: Airflow, relay: Relay, config: Callable[..., None]
    ) -> None:
        config("BACKEND", "airflow.providers.common.io.state_store.backend.ObjectStorageStateStoreBackend")

        assert one().execute(airflow.context) == "id-1"

    def test_resume_after_a_success_that_emptied_the_store_is_ambiguous(
        self,
        airflow: Airflow,
        relay: Relay,
        config: Callable[..., None],
        logged: Callable[[], str],
    ) -> None:
        config("CLEAR_ON_SUCCESS", "True")
        one(on_clear="resume").execute(airflow.context)
        assert "[state_store] clear_on_success is on" in logged()
        airflow.values.clear()
        airflow.clear()
        with pytest.raises(AirflowFailException, match=r"clear_on_success is on.*on_ambiguous='resubmit'"):
            one(on_clear="resume").execute(airflow.context)

        assert relay.sent == ["a red fox"]

    def test_a_clear_that_restarts_needs_no_store(
        self, airflow: Airflow, relay: Relay, config: Callable[..., None]
    ) -> None:
        config("CLEAR_ON_SUCCESS", "True")
        one().execute(airflow.context)
        airflow.values.clear()
        airflow.clear()

        assert one().execute(airflow.context) == "id-2"


class TestWithoutAStore:
    """Test an Airflow before 3.3, which keeps no state between tries."""

    @pytest.fixture(autouse=True)
    def nothing_is_kept(self, airflow: Airflow) -> None:
        airflow.keeps = False

    @pytest.mark.parametrize("retries", [0, 1, 2, 3])
    @pytest.mark.parametrize("max_tries", [0, 1, 2, 3])
    def test_only_the_first_try_is_the_first(
        self, airflow: Airflow, relay: Relay, retries: int, max_tries: int
    ) -> None:
        airflow.max_tries = max_tries
        assert one(retries=retries).execute(airflow.context) == "id-1"
        for airflow.number in (2, 3, 4):
            with pytest.raises(AirflowFailException, match="set on_ambiguous='resubmit' and clear this task"):
                one(retries=retries).execute(airflow.context)

        assert relay.sent == ["a red fox"]

    def test_resubmit_sends_everything_in_a_later_try(self, airflow: Airflow, relay: Relay) -> None:
        airflow.clear()

        assert one(on_ambiguous="resubmit").execute(airflow.context) == "id-1"

    def test_a_stop_ends_the_pause_between_two_retries(self, airflow: Airflow, relay: Relay) -> None:
        relay.errors["a red fox"] = [busy(retry_after=3000)]
        operator = one(retries=2)
        log, waiting = operator.log.warning, threading.Event()

        def note(message: str, *arguments: Any) -> None:
            log(message, *arguments)
            if message.startswith("Retrying in"):
                waiting.set()

        operator.log.warning = note
        killer = threading.Thread(target=lambda: waiting.wait(300) and operator.on_kill())
        killer.start()
        try:
            with pytest.raises(
                AirflowFailException, match="Submitting was stopped before all requests were sent"
            ):
                operator.execute(airflow.context)
        finally:
            waiting.set()
            killer.join()
            operator.log.warning = log

        assert relay.sent == ["a red fox"]

    @pytest.mark.parametrize("retry_after", [0, 1e300, float("inf")])
    def test_a_delay_that_the_relay_asks_for_is_bounded(
        self, airflow: Airflow, relay: Relay, mocker: Any, retry_after: float
    ) -> None:
        pause = mocker.patch.object(Stop, "pause")
        relay.errors["a red fox"] = [busy(retry_after=retry_after)]
        one(retries=1, retry_delay=timedelta(seconds=7)).execute(airflow.context)

        assert mocker.call(7.0 if not retry_after else 3600.0) in pause.call_args_list


class TestStop:
    @pytest.mark.parametrize("keeps", [True, False])
    def test_one_that_comes_before_there_is_anything_to_stop_is_remembered(
        self, airflow: Airflow, relay: Relay, keeps: bool
    ) -> None:
        airflow.keeps = keeps and AIRFLOW_V_3_3_PLUS
        operator = two()
        operator.on_kill()
        with pytest.raises(
            (LumaInterruptedError, AirflowFailException), match="stopped before all requests were sent"
        ):
            operator.execute(airflow.context)

        assert relay.sent == []

    @needs_a_store
    def test_one_that_comes_while_a_submitter_is_made_is_remembered(
        self, airflow: Airflow, relay: Relay, mocker: Any
    ) -> None:
        operator = two()
        make = Submitter

        def kill_after_making(*arguments: Any, **named: Any) -> Any:
            submitter = make(*arguments, **named)
            operator.on_kill()
            return submitter

        mocker.patch.object(submit_module, "Submitter", kill_after_making)
        with pytest.raises(LumaInterruptedError):
            operator.execute(airflow.context)

        assert relay.sent == []

    @needs_a_store
    def test_one_ends_the_wait_for_completion(self, airflow: Airflow, relay: Relay, mocker: Any) -> None:
        operator = one(wait_for_completion=True, deferrable=False, poll_interval=80_000, timeout=80_000)
        submit_module.LumaHook.return_value.settings.max_poll_failures = 3  # type: ignore[attr-defined]
        pause = Stop.pause

        def kill(self: Any, seconds: float, **arguments: Any) -> None:
            if seconds > 1000:
                operator.on_kill()
            pause(self, seconds, **arguments)

        mocker.patch.object(Stop, "pause", kill)
        with pytest.raises(LumaInterruptedError, match="id-1"):
            operator.execute(airflow.context)


def test_what_is_wrong_after_rendering_is_refused_before_anything_is_sent(
    airflow: Airflow, relay: Relay
) -> None:
    airflow.keeps = AIRFLOW_V_3_3_PLUS
    for name, value in (("timeout", float("inf")), ("poll_interval", 0), ("on_clear", "never")):
        operator = one(wait_for_completion=True)
        setattr(operator, name, value)
        with pytest.raises(AirflowFailException, match=f"{name} must be"):
            operator.execute(airflow.context)

    assert relay.sent == []
