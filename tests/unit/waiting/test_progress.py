# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.client.models import LumaTask, Media, TaskState
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaAuthError,
    LumaConfigError,
    LumaConnectionError,
    LumaEndpointError,
    LumaError,
    LumaForbiddenError,
    LumaQuotaError,
    LumaRequestError,
    LumaUnavailableError,
)
from airflow_provider_luma.waiting.progress import ConsecutiveFailures, Progress, WaitPolicy
from airflow_provider_luma.waiting.time_limit import TimeLimit

STRICT = WaitPolicy()
LIMIT = TimeLimit(seconds=60)
BUSY = LumaConnectionError("the relay is away")
REFUSED = LumaAuthError("the key is wrong", status=401, well_formed=True)
UNUSABLE = LumaConfigError("the connection's host is missing")

VIDEO = Media(url="https://cdn.test/v.mp4")
MISSING = None
STATES = {
    "pending": LumaTask("", TaskState.PENDING),
    "processing": LumaTask("", TaskState.PROCESSING),
    "unknown": LumaTask("", TaskState.UNKNOWN),
    "completed": LumaTask("", TaskState.COMPLETED, video=VIDEO),
    "without video": LumaTask("", TaskState.COMPLETED),
    "failed": LumaTask("", TaskState.FAILED, failure_reason="moderation"),
    "unreadable": LumaTask("", TaskState.UNKNOWN, problem="it is garbage"),
    "missing": MISSING,
}


def answer(states: dict[str, str]) -> dict[str, LumaTask]:
    """An answer of the relay from words for each id."""
    answered = {task_id: STATES[word] for task_id, word in states.items()}
    return {task_id: task for task_id, task in answered.items() if task is not None}


def take_in(
    progress: Progress,
    poll: dict[str, str] | LumaError,
    policy: WaitPolicy = STRICT,
    max_poll_failures: int = 20,
) -> Progress:
    """Take in an answer, or that a poll failed as a whole."""
    if isinstance(poll, LumaError):
        return progress.after({}, policy, asked=(), error=poll, max_poll_failures=max_poll_failures)
    return progress.after(answer(poll), policy)


def after(*polls: str | LumaError, policy: WaitPolicy = STRICT) -> Progress:
    """
    What is known after polls, each written as one word per id: "completed, missing".

    The ids are a, b, c and so on, as many as the first poll has words.
    """
    width = max(len(poll.split(", ")) for poll in polls if isinstance(poll, str))
    progress = Progress.of("abcdefgh"[:width])
    for poll in polls:
        words = dict(zip("abcdefgh", poll.split(", "), strict=False)) if isinstance(poll, str) else poll
        progress = take_in(progress, words, policy)
    return progress


class TestBeginning:
    def test_an_answer_without_news_changes_nothing_at_all(self) -> None:
        progress = after("processing, completed, failed", policy=WaitPolicy(max_failed=1))
        assert progress.after(answer({"a": "processing", "b": "failed", "c": "pending"}), STRICT) is progress

    def test_every_id_is_open_and_none_was_seen(self) -> None:
        progress = Progress.of(["b", "a"])
        assert progress.open_ids == ["b", "a"]
        assert progress.completed_ids == []
        assert progress.summary() == "0/2 completed, 2 not seen yet"
        assert progress.verdict(STRICT) == "waiting"

    def test_repeated_ids_count_once(self) -> None:
        assert Progress.of(["b", "a", "b"]).ids == ("b", "a")

    def test_nothing_to_wait_for_is_done(self) -> None:
        assert Progress.of([]).verdict(STRICT) == "done"
        assert Progress.of([]).verdict(STRICT, timed_out=True) == "done"
        assert Progress.of([]).summary() == "0/0 completed"


class TestTheVerdict:
    @pytest.mark.parametrize(
        ("polls", "policy", "verdict"),
        [
            (["completed, completed"], STRICT, "done"),
            (["completed, processing"], STRICT, "waiting"),
            (["pending, unknown"], STRICT, "waiting"),
            (["completed, failed"], STRICT, "failed"),
            (["processing, failed"], STRICT, "failed"),
            (["processing, failed"], WaitPolicy(max_failed=1), "waiting"),
            (["completed, failed"], WaitPolicy(max_failed=1), "done"),
            (["failed, failed"], WaitPolicy(max_failed=1), "failed"),
            (["failed, failed"], WaitPolicy(max_failed=2), "done"),
            (["failed, failed, processing"], WaitPolicy(max_failed=1), "failed"),
            (["failed, failed"], WaitPolicy(max_failed=None), "done"),
            (["failed, failed, processing"], WaitPolicy(max_failed=None), "waiting"),
            (["failed, completed", "processing, processing"], WaitPolicy(max_failed=1), "done"),
            (["missing"], WaitPolicy(missing_polls=1), "failed"),
            (["missing"] * 2, STRICT, "waiting"),
            (["missing"] * 3, STRICT, "failed"),
            (["missing"] * 3, WaitPolicy(max_failed=1), "done"),
            (["missing", "missing", "pending", "missing", "missing"], STRICT, "waiting"),
            (["missing", "missing", "completed"], STRICT, "done"),
            (["missing", BUSY, "missing", BUSY, "missing"], STRICT, "failed"),
            (["without video"] * 2, STRICT, "waiting"),
            (["without video"] * 3, STRICT, "failed"),
            (["without video", "without video", "completed"], STRICT, "done"),
            (["without video", "without video", "processing", "without video"], STRICT, "waiting"),
            (["without video", "missing", "without video", "missing"], STRICT, "waiting"),
            (["unreadable"] * 2, STRICT, "waiting"),
            (["unreadable"] * 3, STRICT, "failed"),
            (["unreadable", "unreadable", "completed"], STRICT, "done"),
            (["unknown"] * 100, STRICT, "waiting"),
            (["processing"] * 100, STRICT, "waiting"),
            ([REFUSED, "processing"], STRICT, "waiting"),
            (["processing", REFUSED], STRICT, "waiting"),
            (["missing"] + [REFUSED] * 19, STRICT, "waiting"),
            (["missing"] + [REFUSED] * 20, STRICT, "unreachable"),
            (["processing"] + [BUSY, REFUSED] * 10, STRICT, "unreachable"),
            (["processing", REFUSED, "processing"], STRICT, "waiting"),
            (["processing"] + [BUSY] * 19, STRICT, "waiting"),
            (["processing"] + [BUSY] * 20, STRICT, "unreachable"),
            (["processing"] + [BUSY] * 19 + ["processing"] + [BUSY] * 19, STRICT, "waiting"),
            (["processing", UNUSABLE], STRICT, "refused"),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_it_follows_from_the_polls(self, polls: list[Any], policy: WaitPolicy, verdict: str) -> None:
        assert after(*polls, policy=policy).verdict(policy) == verdict

    def test_the_connection_sets_how_many_polls_may_fail(self) -> None:
        progress = take_in(after("processing"), BUSY, max_poll_failures=2)
        assert progress.verdict(STRICT) == "waiting"
        assert take_in(progress, BUSY, max_poll_failures=2).verdict(STRICT) == "unreachable"

    @pytest.mark.parametrize(
        ("polls", "verdict"),
        [
            (["failed, processing", REFUSED], "failed"),
            (["failed, processing", *[BUSY] * 20], "failed"),
            (["completed, completed", REFUSED], "done"),
            (["completed, completed", *[BUSY] * 20], "done"),
            (["processing", UNUSABLE], "refused"),
            (["processing", REFUSED], "timed_out"),
            (["processing", *[BUSY] * 20], "timed_out"),
            (["processing", BUSY], "timed_out"),
            (["processing"], "timed_out"),
            ([BUSY, "missing"], "timed_out"),
        ],
    )
    def test_what_is_certain_comes_before_the_deadline_and_the_deadline_before_passing_failures(
        self, polls: list[Any], verdict: str
    ) -> None:
        assert after(*polls).verdict(STRICT, timed_out=True) == verdict


def refusal(kind: type[LumaApiError], status: int, *, well_formed: bool = False) -> LumaApiError:
    return kind("what the relay said", status=status, well_formed=well_formed)


class TestTheFirstPoll:
    """As long as nothing has worked, an error that says what is wrong is reported at once."""

    @pytest.mark.parametrize(
        ("error", "verdict"),
        [
            (refusal(LumaAuthError, 401, well_formed=True), "refused"),
            (refusal(LumaAuthError, 401), "refused"),
            (refusal(LumaForbiddenError, 403, well_formed=True), "refused"),
            (refusal(LumaQuotaError, 403, well_formed=True), "refused"),
            (refusal(LumaRequestError, 400, well_formed=True), "refused"),
            (refusal(LumaEndpointError, 404), "refused"),
            (refusal(LumaEndpointError, 404, well_formed=True), "refused"),
            (refusal(LumaEndpointError, 405), "refused"),
            (refusal(LumaEndpointError, 301), "refused"),
            (refusal(LumaEndpointError, 308), "refused"),
            (UNUSABLE, "refused"),
            (refusal(LumaForbiddenError, 403), "waiting"),
            (refusal(LumaQuotaError, 403), "waiting"),
            (refusal(LumaRequestError, 400), "waiting"),
            (refusal(LumaEndpointError, 302), "waiting"),
            (refusal(LumaEndpointError, 303), "waiting"),
            (refusal(LumaEndpointError, 307), "waiting"),
            (LumaUnavailableError("the connection can't be read"), "waiting"),
            (BUSY, "waiting"),
        ],
    )
    def test_an_error_of_the_relays_own_is_final_and_a_page_of_a_proxy_only_where_the_host_is_wrong(
        self, error: LumaError, verdict: str
    ) -> None:
        assert take_in(Progress.of("a"), error).verdict(STRICT) == verdict

    def test_a_passing_failure_before_is_no_poll_that_worked(self) -> None:
        assert take_in(take_in(Progress.of("a"), BUSY), REFUSED).verdict(STRICT) == "refused"

    def test_a_connection_that_has_worked_for_others_is_good_for_a_newcomer(self) -> None:
        progress = Progress.of("a").after({}, STRICT, asked=(), error=REFUSED, answered=True)
        assert progress.verdict(STRICT) == "waiting"
        assert take_in(progress, REFUSED).verdict(STRICT) == "waiting"

    def test_a_submit_that_worked_proves_the_connection(self) -> None:
        assert take_in(Progress.of("a", answered=True), REFUSED).verdict(STRICT) == "waiting"

    def test_an_answer_that_leaves_every_id_out_is_a_poll_that_worked(self) -> None:
        assert after("missing", REFUSED).verdict(STRICT) == "waiting"

    def test_a_rescheduled_poll_without_a_memory_is_patient(self) -> None:
        assert take_in(Progress.presumed_missing("a", 1), REFUSED).verdict(STRICT) == "waiting"


class TestUnknownStates:
    """A word that is not understood stands in every later message, with the reason beside it."""

    @staticmethod
    def task(word: str | None, reason: str | None = None) -> LumaTask:
        return LumaTask("", TaskState.UNKNOWN, failure_reason=reason, state_text=word)

    @pytest.mark.parametrize(
        ("word", "reason", "words"),
        [
            ("reviewing", "waiting for\n a person", '"reviewing": waiting for a person'),
            ("reviewing", None, '"reviewing"'),
            (None, "waiting", "waiting"),
            ("\x1b[31mred\u202e", None, '"[31mred"'),
        ],
    )
    def test_they_are_quoted_in_summaries_and_timeouts(
        self, word: str | None, reason: str | None, words: str
    ) -> None:
        progress = Progress.of("ab").after({"a": self.task(word, reason)}, STRICT)
        assert progress.summary() == f"0/2 completed, 1 unknown ({words}), 1 not known to the relay"
        message = progress.report("timed_out", STRICT, limit=LIMIT).message
        assert f"a (unknown, {words}); b (not known to the relay)" in message

    def test_in_a_summary_each_word_stands_once_and_many_are_counted(self) -> None:
        ids = [f"t{n}" for n in range(100)]
        answered = {task_id: self.task(f"word{n // 10}") for n, task_id in enumerate(ids)}
        summary = Progress.of(ids).after(answered, STRICT).summary()
        assert summary == '0/100 completed, 100 unknown ("word0"; "word1"; "word2" and 7 more)'

    def test_the_latest_word_counts_and_a_known_state_ends_it(self) -> None:
        progress = Progress.of("a").after({"a": self.task("one")}, STRICT)
        progress = progress.after({"a": self.task("two")}, STRICT)
        assert progress.summary() == '0/1 completed, 1 unknown ("two")'
        assert progress.after({"a": self.task("two")}, STRICT) is progress
        assert take_in(progress, {"a": "processing"}).summary() == "0/1 completed, 1 processing"

    def test_they_survive_a_failed_poll_and_a_journey_as_json(self) -> None:
        progress = take_in(Progress.of("a").after({"a": self.task("reviewing", "x" * 999)}, STRICT), BUSY)
        again = Progress.from_json("a", json.loads(json.dumps(progress.to_json())))
        assert again == progress
        assert '"reviewing": xxx' in again.report("unreachable", STRICT, limit=LIMIT).message
        assert len(again.summary()) < 400


class TestWhatStaysSettled:
    @pytest.mark.parametrize("later", STATES)
    @pytest.mark.parametrize("settled", ["completed", "failed"])
    def test_a_task_at_its_end_stays_there(self, settled: str, later: str) -> None:
        policy = WaitPolicy(max_failed=None)
        progress = after(settled, *[later] * 5, policy=policy)
        assert progress.open_ids == []
        assert progress.completed_ids == (["a"] if settled == "completed" else [])
        assert progress.failed == ({} if settled == "completed" else {"a": "moderation"})

    @pytest.mark.parametrize("kind", ["missing", "without video", "unreadable"])
    def test_an_id_that_was_given_up_stays_failed_even_if_it_completes(self, kind: str) -> None:
        progress = after(kind, kind, kind, "completed")
        assert list(progress.failed) == ["a"]
        assert progress.completed_ids == []

    def test_completed_without_a_video_is_not_settled_yet(self) -> None:
        progress = after("without video")
        assert progress.open_ids == ["a"]
        assert not progress.is_completed("a")
        assert after("without video", "processing").summary() == "0/1 completed, 1 processing"

    def test_only_open_ids_are_looked_at(self) -> None:
        progress = Progress.of("ab").after(answer({"a": "completed", "x": "failed"}), STRICT)
        assert progress.failed == {}
        assert set(progress.states) == {"a"}


class TestReasons:
    @pytest.mark.parametrize(
        ("polls", "reason"),
        [
            (["failed"], "moderation"),
            (["missing"] * 3, "the relay doesn't know this id (3 answers in a row left it out)"),
            (["without video"] * 3, "completed without a video in 3 answers in a row"),
            (["unreadable"] * 3, "illegible in 3 answers in a row: it is garbage"),
        ],
    )
    def test_each_failed_id_has_its_own(self, polls: list[str], reason: str) -> None:
        assert after(*polls).failed["a"].startswith(reason)

    def test_a_failure_without_a_reason_says_so(self) -> None:
        task = LumaTask("a", TaskState.FAILED)
        assert Progress.of("a").after({"a": task}, STRICT).failed == {"a": "the relay gave no reason"}

    def test_a_long_reason_is_cut(self) -> None:
        failed = LumaTask("a", TaskState.FAILED, failure_reason="x" * 10_000)
        illegible = LumaTask("b", TaskState.UNKNOWN, problem="y" * 10_000)
        policy = WaitPolicy(missing_polls=1)
        progress = Progress.of("ab").after({"a": failed, "b": illegible}, policy)
        assert progress.failed["a"] == "x" * 300 + "…"
        assert len(progress.failed["b"]) < 350


class TestPartOfAnAnswer:
    def test_only_ids_that_were_asked_for_can_be_missing(self) -> None:
        progress = Progress.of("abc")
        for _ in range(3):
            progress = progress.after(answer({"a": "processing"}), STRICT, asked=["a", "b"])
        assert list(progress.failed) == ["b"]
        assert progress.summary() == "0/3 completed, 1 failed, 1 processing, 1 not seen yet"

    def test_the_error_of_the_rest_is_kept_beside_the_answers(self) -> None:
        progress = Progress.of("ab")
        for _ in range(2):
            progress = progress.after(answer({"a": "processing"}), STRICT, asked=["a"], error=BUSY)
            assert progress.poll_failures == ConsecutiveFailures("the relay is away", 0, retryable=True)
        assert progress.states == {"a": TaskState.PROCESSING}

    def test_polls_of_which_a_part_is_answered_never_make_the_relay_unreachable(self) -> None:
        progress = Progress.of("ab")
        for _ in range(1000):
            progress = progress.after(answer({"a": "processing"}), STRICT, asked=["a"], error=BUSY)
        assert progress.verdict(STRICT) == "waiting"
        assert "the relay is away" in progress.report("timed_out", STRICT, limit=LIMIT).message

    def test_a_partial_answer_resets_the_consecutive_failures(self) -> None:
        progress = after("processing, processing", *[BUSY] * 19)
        progress = progress.after(answer({"a": "processing"}), STRICT, asked=["a"], error=BUSY)
        for _ in range(19):
            progress = take_in(progress, BUSY)
        assert progress.verdict(STRICT) == "waiting"
        assert take_in(progress, BUSY).verdict(STRICT) == "unreachable"

    def test_a_whole_answer_resets_the_consecutive_failures(self) -> None:
        assert after("processing", BUSY, "processing").poll_failures is None

    def test_a_failed_poll_counts_and_keeps_what_is_known(self) -> None:
        progress = after("missing, completed", BUSY, BUSY)
        assert progress.poll_failures == ConsecutiveFailures("the relay is away", 2, retryable=True)
        assert progress.anomalies["a"].polls == 1
        assert progress.completed_ids == ["b"]


class TestPresumedMissing:
    def test_what_is_left_out_now_was_left_out_before(self) -> None:
        progress = Progress.presumed_missing("ab", 2).after(answer({"a": "processing"}), STRICT)
        assert list(progress.failed) == ["b"]
        assert "3 answers in a row" in progress.failed["b"]

    @pytest.mark.parametrize("word", ["pending", "processing", "unknown", "completed"])
    def test_what_is_reported_now_has_a_clean_record(self, word: str) -> None:
        progress = Progress.presumed_missing("a", 100).after(answer({"a": word}), STRICT)
        assert progress.anomalies == {}
        assert progress.failed == {}

    @pytest.mark.parametrize("word", ["without video", "unreadable"])
    def test_another_anomaly_has_its_own_count(self, word: str) -> None:
        progress = Progress.presumed_missing("a", 100).after(answer({"a": word}), STRICT)
        assert progress.verdict(STRICT) == "waiting"
        assert progress.anomalies["a"].polls == 1


class TestSummary:
    @pytest.mark.parametrize(
        ("poll", "summary"),
        [
            ("completed, completed", "2/2 completed"),
            ("completed, failed, processing", "1/3 completed, 1 failed, 1 processing"),
            ("pending, processing, unknown", "0/3 completed, 1 pending, 1 processing, 1 unknown"),
            ("missing, missing, completed", "1/3 completed, 2 not known to the relay"),
            ("without video, unreadable", "0/2 completed, 1 completed without a video, 1 illegible"),
        ],
    )
    def test_it_counts_every_id_once(self, poll: str, summary: str) -> None:
        assert after(poll, policy=WaitPolicy(max_failed=None)).summary() == summary

    def test_a_large_one_reads_like_a_sentence(self) -> None:
        words = ["completed"] * 37 + ["failed"] + ["processing"] * 62
        ids = [f"t{n}" for n in range(100)]
        progress = Progress.of(ids).after(answer(dict(zip(ids, words, strict=True))), STRICT)
        assert progress.summary() == "37/100 completed, 1 failed, 62 processing"


class TestReport:
    def test_done_says_how_it_stands(self) -> None:
        policy = WaitPolicy(max_failed=1)
        report = after("completed, failed", policy=policy).report("done", policy, limit=LIMIT)
        assert report.verdict == "done"
        assert report.message == "Luma tasks: 1/2 completed, 1 failed."
        assert report.failed == {"b": "moderation"}

    def test_failed_names_the_ids_their_reasons_and_what_a_retry_would_do(self) -> None:
        report = after("failed, failed, processing").report("failed", STRICT, limit=LIMIT)
        assert "0/3 completed, 2 failed, 1 processing; max_failed=0" in report.message
        assert "a: moderation; b: moderation" in report.message
        assert "submit them again" in report.message
        assert report.failed == {"a": "moderation", "b": "moderation"}

    def test_timed_out_names_the_open_ids_with_their_last_states(self) -> None:
        words = "completed, processing, pending, missing, without video, unreadable"
        progress = after(words)
        message = progress.report("timed_out", STRICT, limit=LIMIT).message
        assert "not finished after the timeout of 60 s: 1/6 completed" in message
        assert (
            "Not finished: b (processing); c (pending); d (not known to the relay); "
            "e (completed without a video); f (illegible)."
        ) in message
        assert "a (" not in message
        assert "The last poll failed" not in message

    def test_timed_out_before_the_first_answer_says_that_nothing_was_seen(self) -> None:
        message = Progress.of("ab").report("timed_out", STRICT, limit=LIMIT).message
        assert "a (not seen yet); b (not seen yet)" in message

    def test_timed_out_after_a_failed_poll_quotes_its_error(self) -> None:
        message = after("processing", BUSY).report("timed_out", STRICT, limit=LIMIT).message
        assert "The last poll failed: the relay is away" in message

    def test_unreachable_quotes_the_error_and_names_the_ids(self) -> None:
        progress = after("processing, completed", *[BUSY] * 20)
        message = progress.report("unreachable", STRICT, limit=LIMIT).message
        assert "20 times in a row" in message
        assert "the relay is away" in message
        assert "1/2 completed, 1 processing; a" in message

    def test_refused_quotes_the_relay(self) -> None:
        message = after("processing", REFUSED).report("refused", STRICT, limit=LIMIT).message
        assert "the key is wrong" in message
        assert "in a row" not in message

    @pytest.mark.parametrize("verdict", ["failed", "timed_out", "refused", "unreachable"])
    def test_of_many_ids_some_are_named_and_the_rest_is_counted(self, verdict: Any) -> None:
        ids = [f"t{n}" for n in range(1000)]
        word = "failed" if verdict == "failed" else "processing"
        progress = take_in(take_in(Progress.of(ids), dict.fromkeys(ids, word)), BUSY)
        message = progress.report(verdict, STRICT, limit=LIMIT).message
        assert "t0" in message
        assert "t999" not in message
        assert "more" in message
        assert len(message) < 3000


class TestJson:
    @pytest.mark.parametrize(
        "polls",
        [
            [""],
            ["completed, failed, processing, missing, without video, unreadable"],
            ["processing", BUSY, BUSY],
            ["processing", REFUSED],
        ],
    )
    def test_what_is_known_survives_a_journey_as_json(self, polls: list[Any]) -> None:
        progress = after(*polls) if polls != [""] else Progress.of("ab")
        data = json.loads(json.dumps(progress.to_json()))
        assert "ids" not in data
        assert Progress.from_json(progress.ids, data) == progress
        assert Progress.from_json(list(progress.ids), data) == progress

    @pytest.mark.parametrize(
        ("stored", "verdict"),
        [
            ({}, "refused"),
            ({"poll_failures": {"text": "busy", "polls": 1, "retryable": True}}, "refused"),
            ({"answered": True}, "waiting"),
        ],
    )
    def test_a_stored_trigger_knows_whether_a_poll_has_worked(
        self, stored: dict[str, Any], verdict: str
    ) -> None:
        assert take_in(Progress.from_json("a", stored), REFUSED).verdict(STRICT) == verdict

    def test_no_knowledge_is_a_beginning(self) -> None:
        assert Progress.from_json(["a", "b"], {}) == Progress.of(["a", "b"])


class TestPolicy:
    @pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None])
    def test_missing_polls_is_a_whole_number_of_at_least_one(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="missing_polls") as caught:
            WaitPolicy(missing_polls=value)
        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize("value", [-1, True, 1.0, "0"])
    def test_max_failed_is_a_whole_number_of_at_least_zero_or_none(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="max_failed") as caught:
            WaitPolicy(max_failed=value)
        assert repr(value) in str(caught.value)

    def test_by_default_nothing_may_fail(self) -> None:
        assert (STRICT.max_failed, STRICT.missing_polls) == (0, 3)


def test_a_hundred_thousand_ids_are_taken_in() -> None:
    ids = [f"t{n}" for n in range(100_000)]
    progress = Progress.of(ids)
    for word in ("missing", "processing", "completed"):
        answered = answer(dict.fromkeys(ids[: len(ids) - 1], word))
        progress = progress.after(answered, STRICT)
        assert progress.verdict(STRICT, timed_out=False) == ("failed" if word == "completed" else "waiting")
    assert progress.summary() == "99999/100000 completed, 1 failed"
    assert Progress.from_json(ids, json.loads(json.dumps(progress.to_json()))) == progress
    assert "t99999" in progress.report("failed", STRICT, limit=LIMIT).message


IDS = "abcd"
POLLS = st.lists(
    st.dictionaries(st.sampled_from(IDS + "x"), st.sampled_from(sorted(STATES)))
    | st.sampled_from([BUSY, REFUSED]),
    max_size=12,
)
POLICIES = st.builds(
    WaitPolicy,
    max_failed=st.none() | st.integers(0, 4),
    missing_polls=st.integers(1, 4),
)
ID_LISTS = st.lists(st.sampled_from(IDS), max_size=6)


class Reference:
    """The rules for one id, written down a second time and as simply as can be."""

    def __init__(self, task_id: str, polls: Iterable[dict[str, str] | LumaError], grace: int) -> None:
        self.fate = "open"
        in_a_row, before = 0, ""
        for poll in polls:
            if isinstance(poll, LumaError) or self.fate != "open":
                continue
            word = poll.get(task_id, "missing")
            in_a_row = in_a_row + 1 if word == before else 1
            before = word
            anomalous = word in ("missing", "without video", "unreadable")
            if word == "completed":
                self.fate = "completed"
            elif word == "failed" or (anomalous and in_a_row >= grace):
                self.fate = "failed"


class TestAnySeriesOfPolls:
    @given(ids=ID_LISTS, polls=POLLS, policy=POLICIES)
    def test_each_id_has_the_fate_that_the_rules_give_it(
        self, ids: list[str], polls: list[Any], policy: WaitPolicy
    ) -> None:
        progress = Progress.of(ids)
        for poll in polls:
            progress = take_in(progress, poll, policy)
        fates = {task_id: Reference(task_id, polls, policy.missing_polls).fate for task_id in progress.ids}
        assert progress.open_ids == [task_id for task_id, fate in fates.items() if fate == "open"]
        assert progress.completed_ids == [task_id for task_id, fate in fates.items() if fate == "completed"]
        assert set(progress.failed) == {task_id for task_id, fate in fates.items() if fate == "failed"}

    @given(ids=ID_LISTS, polls=POLLS, policy=POLICIES)
    def test_what_is_settled_stays_settled(
        self, ids: list[str], polls: list[Any], policy: WaitPolicy
    ) -> None:
        progress = Progress.of(ids)
        for poll in polls:
            later = take_in(progress, poll, policy)
            assert set(progress.completed_ids) <= set(later.completed_ids)
            assert progress.failed.items() <= later.failed.items()
            assert set(later.open_ids) <= set(progress.open_ids)
            progress = later

    @given(ids=ID_LISTS, polls=POLLS, policy=POLICIES)
    def test_every_id_is_open_completed_or_failed_and_only_one_of_them(
        self, ids: list[str], polls: list[Any], policy: WaitPolicy
    ) -> None:
        progress = Progress.of(ids)
        for poll in polls:
            progress = take_in(progress, poll, policy)
            parts = [*progress.open_ids, *progress.completed_ids, *progress.failed]
            assert sorted(parts) == sorted(set(ids))

    @given(
        ids=ID_LISTS,
        polls=POLLS,
        policy=POLICIES,
        max_poll_failures=st.integers(1, 4),
        timed_out=st.booleans(),
    )
    def test_the_verdict_follows_from_the_polls(
        self, ids: list[str], polls: list[Any], policy: WaitPolicy, max_poll_failures: int, timed_out: bool
    ) -> None:
        progress = Progress.of(ids)
        for poll in polls:
            progress = take_in(progress, poll, policy, max_poll_failures)
        verdict = progress.verdict(policy, timed_out=timed_out)
        too_many = policy.max_failed is not None and len(progress.failed) > policy.max_failed
        failures = 0
        for poll in polls:
            failures = failures + 1 if isinstance(poll, LumaError) else 0
        assert (verdict == "failed") == too_many
        assert (verdict == "done") == (not too_many and not progress.open_ids)
        if verdict not in ("failed", "done"):
            refused = bool(polls) and all(isinstance(poll, LumaError) for poll in polls)
            refused = refused and polls[-1] is REFUSED
            assert (verdict == "refused") == refused
            assert (verdict == "timed_out") == (timed_out and not refused)
            unreachable = failures >= max_poll_failures and not refused and not timed_out
            assert (verdict == "unreachable") == unreachable
        assert progress.report(verdict, policy, limit=LIMIT).message

    @given(ids=ID_LISTS, polls=POLLS, policy=POLICIES)
    def test_a_journey_as_json_between_any_two_polls_changes_nothing(
        self, ids: list[str], polls: list[Any], policy: WaitPolicy
    ) -> None:
        progress = Progress.of(ids)
        for poll in polls:
            progress = take_in(progress, poll, policy)
            again = Progress.from_json(progress.ids, json.loads(json.dumps(progress.to_json())))
            assert again == progress

    @given(ids=ID_LISTS, polls=POLLS, policy=POLICIES, random=st.randoms())
    def test_the_order_of_an_answer_does_not_matter(
        self, ids: list[str], polls: list[Any], policy: WaitPolicy, random: Any
    ) -> None:
        progress = shuffled = Progress.of(ids)
        for poll in polls:
            progress = take_in(progress, poll, policy)
            if not isinstance(poll, LumaError):
                poll = dict(random.sample(list(poll.items()), len(poll)))
            shuffled = take_in(shuffled, poll, policy)
        assert shuffled == progress

    @given(ids=ID_LISTS, polls=POLLS, policy=POLICIES, parts=st.integers(1, 3))
    def test_an_answer_in_parts_is_the_whole_answer(
        self, ids: list[str], polls: list[Any], policy: WaitPolicy, parts: int
    ) -> None:
        whole = in_parts = Progress.of(ids)
        for poll in polls:
            whole = take_in(whole, poll, policy)
            if isinstance(poll, LumaError):
                in_parts = take_in(in_parts, poll, policy)
                continue
            wanted = in_parts.open_ids
            for part in range(parts):
                in_parts = in_parts.after(answer(poll), policy, asked=wanted[part::parts])
        assert (in_parts.states, in_parts.anomalies, in_parts.failed) == (
            whole.states,
            whole.anomalies,
            whole.failed,
        )


def test_a_reason_of_several_lines_is_reported_in_one() -> None:
    failed = LumaTask(id="a", state=TaskState.FAILED, failure_reason="moderated:\n  line two")
    assert Progress.of("a").after({"a": failed}, WaitPolicy()).failed == {"a": "moderated: line two"}
