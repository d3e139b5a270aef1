# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.client.requests import GenerationRequest
from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaBusyError,
    LumaConfigError,
    LumaError,
    LumaInterruptedError,
    LumaQuotaError,
    LumaRequestError,
)
from airflow_provider_luma.state import MemoryStore
from airflow_provider_luma.submitting.ledger import Ledger, Try
from airflow_provider_luma.submitting.submission import Submission
from airflow_provider_luma.submitting.submitter import Stop, SubmitPolicy, Submitter
from tests.support.patience import PATIENCE

Answer = Exception | Callable[[], str] | None


def refusal(words: str = "moderated") -> LumaRequestError:
    return LumaRequestError(f"The relay refuses it: {words}.", status=400)


def busy(retry_after: float | None = None) -> LumaBusyError:
    return LumaBusyError("The relay is busy.", status=429, retry_after=retry_after)


def quota() -> LumaQuotaError:
    return LumaQuotaError("No money is left.", status=403)


def ambiguous() -> LumaAmbiguousSubmitError:
    return LumaAmbiguousSubmitError("It is unknown whether the relay took the submission.")


class Relay:
    """
    Stands in for the client: sells a video for each prompt, unless it is told to do something else.

    :param answers: by prompt, what to do the first time: raise, or call and return an id
    """

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[str] = []
        self.at: list[float] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def generate(self, request: GenerationRequest) -> LumaTask:
        with self._lock:
            self.asked.append(request.prompt)
            self.at.append(time.monotonic())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            answer = self.answers.pop(request.prompt, None)
        try:
            if isinstance(answer, Exception):
                raise answer
            task_id = answer() if answer else f"id-{request.prompt}"
        finally:
            with self._lock:
                self._now -= 1
        return LumaTask(id=task_id, state=TaskState.PENDING)


class Store(MemoryStore):
    """
    :param fail_at: the numbers of the writes that fail
    """

    def __init__(self, fail_at: Sequence[int] = ()) -> None:
        super().__init__()
        self.writes = 0
        self.fail_at = set(fail_at)
        self._writing = threading.Lock()

    def set(self, key: str, value: Any) -> None:
        assert self._writing.acquire(blocking=False), "one write at a time"
        try:
            self.writes += 1
            if self.writes in self.fail_at:
                raise OSError("the store is out of order")
            super().set(key, value)
        finally:
            self._writing.release()


def prompts(count: int) -> list[str]:
    return [f"prompt {number}" for number in range(count)]


class Bench:
    """One list of requests that is tried as often as a test wants."""

    def __init__(self, relay: Relay, store: MemoryStore, asked: Sequence[str]) -> None:
        self.relay, self.store, self.prompts = relay, store, list(asked)
        self.current = Try(number=1, max_tries=9)
        self.told: list[tuple[int, str]] = []

    def submitter(
        self, *, conn: str = "here", on_clear: Any = "restart", stop: Stop | None = None, **policy: Any
    ) -> Submitter:
        return Submitter(
            self.relay,  # type: ignore[arg-type]
            [Submission(GenerationRequest(prompt=prompt)) for prompt in self.prompts],
            ledger=Ledger(self.store, current=self.current, on_clear=on_clear),
            connection=conn,
            policy=SubmitPolicy(**policy),
            on_submitted=lambda number, task_id, at: self.told.append((number, task_id)),
            stop=stop,
        )

    def retry(self) -> None:
        """Let the next try be a retry."""
        self.current = msgspec.structs.replace(self.current, number=self.current.number + 1)

    def end_and_clear(self) -> None:
        """Let the present try end for good, and the next one come from a clear."""
        Ledger(self.store, current=self.current).end()
        number = self.current.number
        self.current = Try(number=number + 1, max_tries=number + 9)

    def run(self, **arguments: Any) -> Submitter:
        submitter = self.submitter(**arguments)
        submitter.run()
        return submitter

    def fail(self, kind: type[Exception] = LumaError, **arguments: Any) -> Any:
        with pytest.raises(kind) as caught:
            self.run(**arguments)
        return caught.value

    @property
    def entries(self) -> list[Any]:
        return list(Ledger(self.store, current=self.current).entries.values())


@pytest.fixture
def bench() -> Callable[..., Bench]:
    def make(
        count: int | Sequence[str] = 3,
        answers: dict[str, Answer] | None = None,
        fail_at: Sequence[int] = (),
    ) -> Bench:
        return Bench(Relay(answers), Store(fail_at), prompts(count) if isinstance(count, int) else count)

    return make


class TestPolicy:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"max_failed": -1}, "max_failed must be .*got -1"),
            ({"max_failed": True}, "max_failed"),
            ({"max_failed": 1.5}, "max_failed"),
            ({"max_concurrency": 0}, "max_concurrency must be .*at least 1; got 0"),
            ({"max_concurrency": "2"}, "max_concurrency"),
            ({"submit_interval": -1}, "submit_interval must be .*got -1"),
            ({"submit_interval": "3"}, "submit_interval"),
            ({"submit_interval": float("nan")}, "submit_interval"),
            ({"on_ambiguous": "retry"}, "on_ambiguous must be 'fail' or 'resubmit'; got 'retry'"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(LumaConfigError, match=words):
            SubmitPolicy(**arguments)


class TestFirstTry:
    def test_each_request_is_sent_once_and_ids_keep_the_order(self, bench: Callable[..., Bench]) -> None:
        table = bench(4)

        assert table.run().submitted_ids == [f"id-prompt {n}" for n in range(4)]
        assert table.relay.asked == prompts(4)
        assert table.told == [(n, f"id-prompt {n}") for n in range(4)]

    def test_an_empty_list_sends_and_writes_nothing(self, bench: Callable[..., Bench]) -> None:
        table = bench(0)

        assert table.run().submitted_ids == []
        assert table.store.writes == 0

    def test_equal_requests_are_each_sent(self, bench: Callable[..., Bench]) -> None:
        table = bench(["twin", "twin", "other"])

        assert len(table.run().submitted_ids) == 3
        assert table.relay.asked == ["twin", "twin", "other"]

    def test_the_intent_is_written_before_the_request_is_sent(self, bench: Callable[..., Bench]) -> None:
        table = bench(1)
        seen: list[bool] = []

        def look() -> str:
            seen.extend(entry.has_unknown_outcome for entry in table.entries)
            return "id-0"

        table.relay.answers["prompt 0"] = look
        table.run()

        assert seen == [True]

    def test_an_id_is_booked_before_it_is_told(self, bench: Callable[..., Bench]) -> None:
        table = bench(1)
        submitter = table.submitter()
        seen: list[str | None] = []
        submitter._on_submitted = lambda number, task_id, at: seen.extend(e.task_id for e in table.entries)
        submitter.run()

        assert seen == ["id-prompt 0"]

    @pytest.mark.parametrize("most", [1, 3])
    def test_no_more_are_under_way_than_allowed(self, bench: Callable[..., Bench], most: int) -> None:
        table = bench(9)
        together = threading.Barrier(most)

        def meet(number: int) -> Callable[[], str]:
            def answer() -> str:
                together.wait(timeout=PATIENCE)
                return f"id-{number}"

            return answer

        table.relay.answers = {f"prompt {n}": meet(n) for n in range(9)}

        assert table.run(max_concurrency=most).submitted_ids == [f"id-{n}" for n in range(9)]
        assert table.relay.most_at_once == most

    def test_submits_keep_their_distance(self, bench: Callable[..., Bench]) -> None:
        table = bench(4)
        table.run(submit_interval=0.02, max_concurrency=3)
        gaps = [later - earlier for earlier, later in zip(table.relay.at, table.relay.at[1:], strict=False)]

        assert min(gaps) > 0.01


class TestRetry:
    def test_a_retry_sends_only_what_was_not_sent(self, bench: Callable[..., Bench]) -> None:
        table = bench(5, {"prompt 2": busy()})
        table.fail(LumaBusyError)

        assert table.relay.asked == prompts(3)
        assert table.run().submitted_ids == [f"id-prompt {n}" for n in range(5)]
        assert table.relay.asked == [*prompts(3), *prompts(5)[2:]]

    def test_a_retry_tells_the_ids_of_before_again(self, bench: Callable[..., Bench]) -> None:
        table = bench(2)
        table.run()
        table.told.clear()
        table.run()

        assert table.told == [(0, "id-prompt 0"), (1, "id-prompt 1")]
        assert len(table.relay.asked) == 2

    def test_a_changed_order_buys_nothing(self, bench: Callable[..., Bench]) -> None:
        table = bench(4)
        table.run()
        table.prompts.reverse()

        assert table.run().submitted_ids == [f"id-prompt {n}" for n in (3, 2, 1, 0)]
        assert len(table.relay.asked) == 4

    def test_changed_inputs_buy_what_is_new_and_name_what_goes_on(
        self, bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
    ) -> None:
        table = bench(3)
        table.run()
        table.prompts = ["prompt 0", "something new"]

        assert table.run().submitted_ids == ["id-prompt 0", "id-something new"]
        assert table.relay.asked == [*prompts(3), "something new"]
        assert "inputs have changed" in caplog.text
        assert (
            "2 Luma tasks of the earlier inputs go on and are billed: id-prompt 1, id-prompt 2" in caplog.text
        )

    def test_another_connection_is_a_changed_input(self, bench: Callable[..., Bench]) -> None:
        table = bench(1)
        table.run(conn="here")
        table.run(conn="there")

        assert table.relay.asked == ["prompt 0"] * 2

    def test_an_unchanged_retry_does_not_speak_of_changes(
        self, bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        table = bench(2, {"prompt 1": busy()})
        table.fail(LumaBusyError)
        table.run()

        assert "of 2 requests 1 are submitted, 0 refused, 1 to be sent" in caplog.text
        assert "changed" not in caplog.text


class TestClear:
    def test_a_clear_buys_everything_anew_and_says_so(
        self, bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
    ) -> None:
        table = bench(2)
        table.run()
        table.end_and_clear()
        table.run()

        assert Counter(table.relay.asked) == {"prompt 0": 2, "prompt 1": 2}
        assert "This task was cleared" in caplog.text
        assert "id-prompt 0, id-prompt 1" in caplog.text

    def test_a_retry_after_a_clear_goes_on(self, bench: Callable[..., Bench]) -> None:
        table = bench(2)
        table.run()
        table.end_and_clear()
        table.relay.answers["prompt 1"] = busy()
        table.fail(LumaBusyError)
        table.retry()
        table.run()

        assert Counter(table.relay.asked) == {"prompt 0": 2, "prompt 1": 3}

    def test_continue_sends_only_the_rest(self, bench: Callable[..., Bench]) -> None:
        table = bench(3, {"prompt 1": quota()})
        table.fail(LumaQuotaError)
        table.end_and_clear()

        assert table.run(on_clear="resume").submitted_ids == [f"id-prompt {n}" for n in range(3)]
        assert Counter(table.relay.asked) == {"prompt 0": 1, "prompt 1": 2, "prompt 2": 1}


class TestRefusals:
    def test_tolerated_refusals_leave_the_rest_alone(self, bench: Callable[..., Bench]) -> None:
        table = bench(4, {"prompt 1": refusal(), "prompt 3": refusal("too long")})
        submitter = table.run(max_failed=2)

        assert submitter.submitted_ids == ["id-prompt 0", "id-prompt 2"]
        assert submitter.refused == {
            1: "The relay refuses it: moderated.",
            3: "The relay refuses it: too long.",
        }

    def test_one_more_than_tolerated_stops_at_once(self, bench: Callable[..., Bench]) -> None:
        table = bench(5, {"prompt 0": refusal(), "prompt 2": refusal("too long")})
        error = table.fail(max_failed=1)

        assert not error.retryable
        assert table.relay.asked == prompts(3)
        for words in (
            "refused 2 of 5 requests, max_failed=1",
            "request 2 (video 'prompt 2'): The relay refuses it: too long.",
            "Submitted and billed: 1 (id-prompt 1).",
            "Without an id: 2 (requests 3, 4).",
            "To keep what is submitted, set on_clear='resume' and then clear this task",
        ):
            assert words in str(error)
        assert error.task_ids == ("id-prompt 1",)

    def test_any_number_is_tolerated_if_wanted(self, bench: Callable[..., Bench]) -> None:
        table = bench(3, {prompt: refusal() for prompt in prompts(3)})

        assert table.run(max_failed=None).submitted_ids == []

    def test_a_refusal_is_remembered_by_a_retry(self, bench: Callable[..., Bench]) -> None:
        table = bench(3, {"prompt 0": refusal(), "prompt 2": busy()})
        table.fail(LumaBusyError, max_failed=1)
        submitter = table.run(max_failed=1)

        assert list(submitter.refused) == [0]
        assert table.relay.asked == [*prompts(3), "prompt 2"]

    def test_a_lone_request_fails_with_the_relays_words(self, bench: Callable[..., Bench]) -> None:
        error = bench(1, {"prompt 0": refusal()}).fail()

        assert str(error) == "The video 'prompt 0' was refused: The relay refuses it: moderated."

    def test_used_up_money_stops_the_rest_and_says_what_was_sent(self, bench: Callable[..., Bench]) -> None:
        table = bench(5, {"prompt 2": quota()})
        error = table.fail(LumaQuotaError)

        assert table.relay.asked == prompts(3)
        assert "Submitted and billed: 2 (id-prompt 0, id-prompt 1)." in str(error)
        assert "Without an id: 3 (requests 2, 3, 4)." in str(error)
        assert "To keep what is submitted, set on_clear='resume' and then clear this task" in str(error)
        assert "submits everything again, and it is billed again" in str(error)
        assert len(table.entries) == 2

    def test_with_continue_the_way_on_is_a_clear(self, bench: Callable[..., Bench]) -> None:
        error = bench(5, {"prompt 2": quota()}).fail(LumaQuotaError, on_clear="resume")

        assert "Clear this task (on_clear='resume'): it sends only what has no id" in str(error)
        assert "billed again" not in str(error)

    def test_a_clear_that_continues_sends_refused_ones_again_and_a_retry_does_not(
        self, bench: Callable[..., Bench]
    ) -> None:
        table = bench(3, {"prompt 0": refusal(), "prompt 2": busy()})
        table.fail(LumaBusyError, max_failed=1, on_clear="resume")
        table.retry()
        table.run(max_failed=1, on_clear="resume")
        assert table.relay.asked == [*prompts(3), "prompt 2"]
        table.end_and_clear()

        assert len(table.run(on_clear="resume").submitted_ids) == 3
        assert table.relay.asked == [*prompts(3), "prompt 2", "prompt 0"]

    def test_retry_after_survives(self, bench: Callable[..., Bench]) -> None:
        error = bench(2, {"prompt 1": busy(17)}).fail(LumaBusyError)

        assert error.retryable
        assert error.retry_after == 17
        assert "Request 1 (video 'prompt 1', sent at " in str(error)


class TestAmbiguity:
    def test_it_ends_everything_and_names_request_time_and_ids(self, bench: Callable[..., Bench]) -> None:
        table = bench(4, {"prompt 1": ambiguous()})
        error = table.fail(LumaAmbiguousSubmitError)

        assert not error.retryable
        assert table.relay.asked == prompts(2)
        assert "Request 1 (video 'prompt 1', sent at 20" in str(error)
        assert "Submitted and billed: 1 (id-prompt 0)." in str(error)
        assert "on_ambiguous='resubmit'" in str(error)

    def test_a_retry_sends_nothing_and_says_why(self, bench: Callable[..., Bench]) -> None:
        table = bench(4, {"prompt 1": ambiguous()})
        table.fail(LumaAmbiguousSubmitError)
        error = table.fail(LumaAmbiguousSubmitError)

        assert table.relay.asked == prompts(2)
        assert "broke off in mid-submit: request 1 (video 'prompt 1'), about to be sent at 20" in str(error)
        assert error.task_ids == ("id-prompt 0",)

    def test_an_unclear_request_that_is_no_longer_asked_for_still_ends_the_retry(
        self, bench: Callable[..., Bench]
    ) -> None:
        table = bench(2, {"prompt 1": ambiguous()})
        table.fail(LumaAmbiguousSubmitError)
        table.prompts = ["prompt 0", "prompt 1, rendered otherwise"]
        error = table.fail(LumaAmbiguousSubmitError)

        assert "a request with other inputs, about to be sent at 20" in str(error)
        assert len(table.relay.asked) == 2

    def test_a_clear_forgets_it(self, bench: Callable[..., Bench]) -> None:
        table = bench(2, {"prompt 1": ambiguous()})
        table.fail(LumaAmbiguousSubmitError)
        table.end_and_clear()

        assert len(table.run().submitted_ids) == 2

    def test_a_clear_that_continues_does_not_forget_it(self, bench: Callable[..., Bench]) -> None:
        table = bench(2, {"prompt 1": ambiguous()})
        table.fail(LumaAmbiguousSubmitError)
        table.end_and_clear()
        table.fail(LumaAmbiguousSubmitError, on_clear="resume")
        table.retry()
        table.run(on_clear="resume", on_ambiguous="resubmit")

        assert table.relay.asked == ["prompt 0", "prompt 1", "prompt 1"]

    def test_resubmit_leaves_it_to_a_retry_which_warns(
        self, bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
    ) -> None:
        table = bench(2, {"prompt 0": ambiguous()})
        error = table.fail(LumaAmbiguousSubmitError, on_ambiguous="resubmit")

        assert error.retryable
        assert len(table.run(on_ambiguous="resubmit").submitted_ids) == 2
        assert table.relay.asked == ["prompt 0", "prompt 0", "prompt 1"]
        assert "may be billed twice" in caplog.text

    def test_an_error_that_nobody_foresaw_is_ambiguous(self, bench: Callable[..., Bench]) -> None:
        table = bench(2, {"prompt 0": ZeroDivisionError("oops")})
        error = table.fail(LumaAmbiguousSubmitError)

        assert "unexpected error (ZeroDivisionError('oops'))" in str(error)
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert table.relay.asked == ["prompt 0"]

    def test_what_is_under_way_beside_it_is_still_booked(self, bench: Callable[..., Bench]) -> None:
        table = bench(5)
        under_way, failed = threading.Event(), threading.Event()

        def fail() -> str:
            assert under_way.wait(PATIENCE)
            failed.set()
            raise ambiguous()

        def wait() -> str:
            under_way.set()
            assert failed.wait(PATIENCE)
            return "id-late"

        table.relay.answers = {"prompt 0": wait, "prompt 1": fail}
        error = table.fail(LumaAmbiguousSubmitError, max_concurrency=2)

        assert "id-late" in error.task_ids
        assert "id-late" in [entry.task_id for entry in table.entries]
        assert [entry.has_unknown_outcome for entry in table.entries].count(True) == 1

    def test_it_outweighs_what_a_retry_could_mend(self, bench: Callable[..., Bench]) -> None:
        table = bench(2)
        together = threading.Barrier(2)

        def raising(error: Exception) -> Callable[[], str]:
            def answer() -> str:
                together.wait(PATIENCE)
                raise error

            return answer

        table.relay.answers = {"prompt 0": raising(busy()), "prompt 1": raising(ambiguous())}
        error = table.fail(LumaAmbiguousSubmitError, max_concurrency=2)

        assert "Besides: Request 0 (video 'prompt 0', sent at" in str(error)


class TestStoreTrouble:
    def test_without_a_written_intent_nothing_is_sent(self, bench: Callable[..., Bench]) -> None:
        table = bench(2, fail_at=[1])
        table.fail(OSError)

        assert table.relay.asked == []
        assert len(table.run().submitted_ids) == 2

    def test_an_id_that_can_not_be_booked_is_told_and_logged_and_ends_the_next_try(
        self, bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        table = bench(3, fail_at=[4])
        table.fail(OSError)

        assert table.relay.asked == prompts(2)
        assert table.told == [(0, "id-prompt 0"), (1, "id-prompt 1")]
        assert "Submitted request 1 (video 'prompt 1'): id-prompt 1" in caplog.text
        assert "Submitting was broken off by OSError('the store is out of order')" in caplog.text
        assert "Submitted and billed: 2 (id-prompt 0, id-prompt 1)." in caplog.text
        table.fail(LumaAmbiguousSubmitError)
        assert table.relay.asked == prompts(2)

    def test_a_clean_refusal_that_can_not_be_booked_is_unclear_afterwards(
        self, bench: Callable[..., Bench]
    ) -> None:
        table = bench(1, {"prompt 0": busy()}, fail_at=[2])
        table.fail(OSError)
        table.fail(LumaAmbiguousSubmitError)

        assert table.relay.asked == ["prompt 0"]

    def test_an_id_is_booked_even_if_it_can_not_be_told(self, bench: Callable[..., Bench]) -> None:
        table = bench(2)
        submitter = table.submitter()

        def refuse(number: int, task_id: str, at: str) -> None:
            raise OSError("no XCom today")

        submitter._on_submitted = refuse
        with pytest.raises(OSError, match="no XCom today"):
            submitter.run()

        assert [entry.task_id for entry in table.entries] == ["id-prompt 0"]
        assert table.run().submitted_ids == ["id-prompt 0", "id-prompt 1"]
        assert table.relay.asked == prompts(2)


def ring(alarm: threading.Event) -> None:
    """Interrupt the main thread, as a timer of the process does, and see to it that it was."""
    while not alarm.is_set():
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        # A signal that comes just before the interpreter begins to wait doesn't wake it.
        alarm.wait(0.05)


class TimedOut(BaseException):
    """As Airflow's own timeout, raised by a signal handler in the main thread."""


@pytest.fixture
def alarm() -> Iterator[threading.Event]:
    """Make SIGALRM raise, and tell when it has."""
    rang = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        if not rang.is_set():
            rang.set()
            raise TimedOut

    before = signal.signal(signal.SIGALRM, interrupt)
    yield rang
    signal.signal(signal.SIGALRM, before)


class TestInterruption:
    def test_the_answer_to_what_is_under_way_is_waited_for_and_booked(
        self, bench: Callable[..., Bench], alarm: threading.Event
    ) -> None:
        table = bench(3)

        def interrupted() -> str:
            ring(alarm)
            return "id-late"

        table.relay.answers["prompt 1"] = interrupted
        with pytest.raises(TimedOut):
            table.run()

        assert table.relay.asked == prompts(2)
        assert [entry.task_id for entry in table.entries] == ["id-prompt 0", "id-late"]
        assert table.told[-1] == (1, "id-late")
        assert table.run().submitted_ids == ["id-prompt 0", "id-late", "id-prompt 2"]

    def test_a_pause_is_cut_short(self, bench: Callable[..., Bench], alarm: threading.Event) -> None:
        table = bench(2)

        def interrupt() -> str:
            # The next one waits its turn by then, or will.
            threading.Timer(0.05, ring, [alarm]).start()
            return "id-0"

        table.relay.answers["prompt 0"] = interrupt
        with pytest.raises(TimedOut):
            table.run(submit_interval=3600)

        assert table.relay.asked == ["prompt 0"]

    def test_an_interruption_while_writing_can_not_tear_the_write(
        self, bench: Callable[..., Bench], alarm: threading.Event
    ) -> None:
        table = bench(2)
        whole = table.store.set

        def set_during_alarm(key: str, value: Any) -> None:
            if table.store.writes == 1:
                ring(alarm)
            whole(key, value)

        table.store.set = set_during_alarm  # type: ignore[method-assign]
        with pytest.raises(TimedOut):
            table.run()

        assert [entry.task_id for entry in table.entries] == ["id-prompt 0"]

    def test_stop_sends_nothing_more_and_a_retry_goes_on(self, bench: Callable[..., Bench]) -> None:
        table = bench(4)
        submitter = table.submitter(submit_interval=0)

        def stop() -> str:
            submitter.stop()
            return "id-1"

        table.relay.answers["prompt 1"] = stop
        with pytest.raises(
            LumaInterruptedError, match=r"Submitted and billed: 2 \(id-prompt 0, id-1\)"
        ) as caught:
            submitter.run()

        assert caught.value.retryable
        assert table.run().submitted_ids == ["id-prompt 0", "id-1", "id-prompt 2", "id-prompt 3"]
        assert Counter(table.relay.asked) == dict.fromkeys(prompts(4), 1)

    def test_a_stop_after_the_last_request_changes_nothing(self, bench: Callable[..., Bench]) -> None:
        table = bench(1)
        submitter = table.submitter()

        def stop() -> str:
            submitter.stop()
            return "id-0"

        table.relay.answers["prompt 0"] = stop
        submitter.run()

        assert submitter.submitted_ids == ["id-0"]

    def test_a_stop_from_before_the_submitter_sends_nothing(self, bench: Callable[..., Bench]) -> None:
        table = bench(3)
        stop = Stop()
        stop.ask()
        with pytest.raises(LumaInterruptedError):
            table.run(stop=stop)

        assert table.relay.asked == []

    def test_an_error_stops_one_submitter_and_not_the_next(self, bench: Callable[..., Bench]) -> None:
        table = bench(3, {"prompt 1": busy()})
        stop = Stop()
        table.fail(LumaBusyError, stop=stop)

        assert len(table.run(stop=stop).submitted_ids) == 3

    def test_a_wake_of_before_cuts_no_later_pause_short(self, mocker: Any) -> None:
        clock = mocker.patch("airflow_provider_luma.submitting.submitter.time.monotonic")
        clock.side_effect = [0.0, 0.0, 1.0, 11.0]
        stop = Stop()
        stop.wake()
        stop.pause(10)

        assert clock.call_count >= 3

    def test_stop_before_the_first_request_sends_nothing(self, bench: Callable[..., Bench]) -> None:
        table = bench(3)
        submitter = table.submitter()
        submitter.stop()
        with pytest.raises(LumaInterruptedError):
            submitter.run()

        assert table.relay.asked == []
        assert table.entries == []
