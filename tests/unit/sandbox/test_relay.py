# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.sandbox import faults
from airflow_provider_luma.sandbox.relay import Refused, Relay
from airflow_provider_luma.sandbox.rules import RecordedCall, Rule
from airflow_provider_luma.sandbox.settings import Settings
from airflow_provider_luma.sandbox.tasks import TaskScript

START = 1_700_000_000.0


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, **settings: Any) -> Relay:
    return Relay(Settings(**settings), clock=clock, wall=lambda: START)


def add(relay: Relay, **script: Any) -> str:
    return relay.add([TaskScript(**script)])[0]


def states(relay: Relay, *ids: str) -> dict[str, str]:
    return {snapshot.task.id: snapshot.state for snapshot in relay.query(ids)}


def call(relay: Relay, name: Any = "batch", **more: Any) -> RecordedCall:
    return relay.start_call(name, "POST", more.pop("path", "/luma/tasks"), **more)


class TestClock:
    def test_a_task_is_pending_then_processing_then_completed(self, clock: Clock) -> None:
        relay = make(clock, pending_seconds=2, processing_seconds=6)
        task_id = add(relay)
        seen = []
        for moment in (0, 1.9, 2, 7.9, 8, 1000):
            clock.now = 500.0 + moment
            seen.append(states(relay, task_id)[task_id])
        assert seen == ["pending", "pending", "processing", "processing", "completed", "completed"]

    @given(
        st.floats(0, 100),
        st.floats(0, 100),
        st.lists(st.floats(0, 300), min_size=2, max_size=8),
        st.one_of(st.none(), st.floats(0, 200)),
    )
    def test_states_never_go_back_by_themselves(
        self, pending: float, processing: float, moments: list[float], completes_after: float | None
    ) -> None:
        clock = Clock()
        relay = make(clock, pending_seconds=pending, processing_seconds=processing)
        task_id = add(relay, completes_after=completes_after)
        order = ["pending", "processing", "completed"]
        seen = []
        for moment in sorted(moments):
            clock.now = 500.0 + moment
            seen.append(order.index(states(relay, task_id)[task_id]))
        assert seen == sorted(seen)

    def test_completes_after_is_when_it_completes(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, completes_after=3)
        clock.now += 2.9
        assert states(relay, task_id) == {task_id: "processing"}
        clock.now += 0.2
        assert states(relay, task_id) == {task_id: "completed"}

    def test_a_task_without_delays_is_completed_at_once(self, clock: Clock) -> None:
        relay = make(clock, pending_seconds=0, processing_seconds=0)
        task_id = add(relay)
        assert states(relay, task_id) == {task_id: "completed"}

    def test_advance_moves_the_relay_ahead(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay)
        relay.advance(3600)
        assert states(relay, task_id) == {task_id: "completed"}

    def test_time_does_not_run_backwards(self, clock: Clock) -> None:
        with pytest.raises(ValueError, match="seconds must be 0 or more"):
            make(clock).advance(-1)

    def test_a_script_can_return_from_completed_to_processing(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, states=((0.0, "completed"), (1.0, "processing"), (2.0, "completed")))
        seen = []
        for _ in range(3):
            seen.append(states(relay, task_id)[task_id])
            clock.now += 1
        assert seen == ["completed", "processing", "completed"]

    def test_times_are_of_the_terminal_state_and_of_the_first_query_that_returned_it(
        self, clock: Clock
    ) -> None:
        relay = make(clock, pending_seconds=2, processing_seconds=6)
        task_id = add(relay)
        (before,) = relay.times([task_id])
        assert (before.created_at, before.finished_at, before.first_answered_at) == (START, START + 8, None)
        clock.now += 11
        relay.query([task_id])
        clock.now += 5
        relay.query([task_id])
        (after,) = relay.times()
        assert (after.first_answered_at, after.polls, after.state) == (START + 11, 2, "completed")

    def test_a_task_without_a_terminal_state_has_no_such_time(self, clock: Clock) -> None:
        relay = make(clock)
        assert relay.times([add(relay, state="paused")])[0].finished_at is None


class TestScripts:
    def test_unknown_ids_are_left_out(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay)
        assert set(states(relay, task_id, "unknown")) == {task_id}

    def test_an_id_requested_twice_is_answered_once(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay)
        assert len(relay.query([task_id, task_id])) == 1

    def test_a_task_with_a_reason_fails(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, fails_with="moderated")
        relay.advance(100)
        assert states(relay, task_id) == {task_id: "failed"}

    def test_a_task_hidden_for_some_polls_is_in_the_answers_after_them(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, hidden_for=2)
        assert [len(relay.query([task_id])) for _ in range(4)] == [0, 0, 1, 1]

    def test_a_hidden_task_is_in_no_answer(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, hidden=True)
        assert [len(relay.query([task_id])) for _ in range(3)] == [0, 0, 0]
        with pytest.raises(Refused):
            relay.query_one(task_id)

    def test_the_video_can_appear_some_polls_after_completion(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, states=((0.0, "processing"), (1.0, "completed")), without_video_for=2)
        relay.query([task_id])
        clock.now += 1
        assert [relay.query([task_id])[0].has_video for _ in range(4)] == [False, False, True, True]

    def test_peek_counts_no_poll(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, state="completed", without_video_for=1)
        relay.peek(task_id)
        assert not relay.query([task_id])[0].has_video

    def test_a_completed_task_can_stay_without_a_video(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, state="completed", without_video=True)
        assert not any(relay.query([task_id])[0].has_video for _ in range(5))

    def test_a_task_can_be_answered_twice_with_different_states(self, clock: Clock) -> None:
        relay = make(clock)
        task_id = add(relay, state="completed", answered_twice_as="processing")
        assert sorted(snapshot.state for snapshot in relay.query([task_id])) == ["completed", "processing"]

    def test_an_unrequested_task_is_part_of_every_batch_answer(self, clock: Clock) -> None:
        relay = make(clock)
        wanted, unasked = add(relay), add(relay, unasked=True)
        assert set(states(relay, wanted)) == {wanted, unasked}

    def test_a_requested_task_that_every_answer_holds_is_answered_once(self, clock: Clock) -> None:
        relay = make(clock)
        unasked = add(relay, unasked=True)
        assert len(relay.query([unasked])) == 1

    def test_the_order_of_answers_is_shuffled_but_the_same_for_the_same_seed(self, clock: Clock) -> None:
        def order(seed: int) -> list[str]:
            relay = make(clock, seed=seed)
            ids = relay.add([TaskScript(id=f"task-{number}") for number in range(50)])
            return [snapshot.task.id for snapshot in relay.query(ids)]

        assert order(1) == order(1) != order(2)
        assert sorted(order(1)) == sorted(order(2))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"id": "a/b"}, "id must be"),
            ({"id": ""}, "id must be"),
            ({"states": ()}, "the first at 0"),
            ({"states": ((1.0, "pending"),)}, "the first at 0"),
            ({"states": ((0.0, "pending"), (5.0, "x"), (2.0, "completed"))}, "in order of time"),
            ({"state": "completed", "completes_after": 3.0}, "state and completes_after exclude each other"),
            ({"video_bytes": 5}, "video_bytes must be at least"),
        ],
    )
    def test_an_invalid_script_is_an_error(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TaskScript(**wrong)

    def test_an_id_can_be_given_out_once(self, clock: Clock) -> None:
        relay = make(clock)
        add(relay, id="one")
        with pytest.raises(ValueError, match="there is a task 'one' already"):
            add(relay, id="one")

    @pytest.mark.parametrize(
        ("form", "pattern"),
        [("uuid", r"[0-9a-f-]{36}"), ("task", r"task_[0-9a-f]{32}"), ("luma_gen", r"luma_gen_[0-9a-f]{12}")],
    )
    def test_ids_have_the_form_of_the_setting(self, clock: Clock, form: str, pattern: str) -> None:
        import re

        assert re.fullmatch(pattern, add(make(clock, id_form=form)))


class TestSubmits:
    def test_a_submit_is_one_generation_and_costs_its_price(self, clock: Clock) -> None:
        relay = make(clock, balance_usd=1.0, price_usd=0.3)
        body = {"user_prompt": "a cat", "aspect_ratio": "1:1", "extra": [1]}
        snapshot = relay.submit(body)
        assert snapshot.state == "pending"
        assert snapshot.task.request == {"aspect_ratio": "1:1", "prompt": "a cat"}
        (generation,) = relay.generations
        assert (generation.id, generation.body, generation.parent) == (snapshot.task.id, body, None)
        assert generation.prompt == "a cat"
        assert (relay.balance, relay.spent_usd) == (0.7, 0.3)

    def test_a_submit_that_the_balance_does_not_cover_is_refused(self, clock: Clock) -> None:
        relay = make(clock, balance_usd=0.7, price_usd=0.3)
        relay.submit({"user_prompt": "first"})
        relay.submit({"user_prompt": "second"})
        with pytest.raises(Refused) as refusal:
            relay.submit({"user_prompt": "third"})
        assert refusal.value.fault == faults.insufficient_user_quota()
        assert [generation.prompt for generation in relay.generations] == ["first", "second"]

    def test_an_unlimited_key_has_no_balance(self, clock: Clock) -> None:
        relay = make(clock)
        relay.submit({"user_prompt": "a cat"})
        assert relay.balance is None

    @pytest.mark.parametrize("prompt", [None, 5, "", "ab", "x" * 5001])
    def test_a_prompt_of_the_wrong_length_or_type_is_refused(self, clock: Clock, prompt: object) -> None:
        relay = make(clock)
        with pytest.raises(Refused) as refusal:
            relay.submit({"user_prompt": prompt})
        assert refusal.value.fault.status == 400
        assert relay.generations == []

    @pytest.mark.parametrize("length", [3, 5000])
    def test_the_shortest_and_the_longest_prompt_are_accepted(self, clock: Clock, length: int) -> None:
        make(clock).submit({"user_prompt": "x" * length})

    @pytest.mark.parametrize("body", [None, [], "text", 3])
    def test_a_body_that_is_no_object_is_refused(self, clock: Clock, body: object) -> None:
        with pytest.raises(Refused):
            make(clock).submit(body)

    def test_moderation_refuses_and_bills_nothing(self, clock: Clock) -> None:
        relay = make(clock, refused_words=("weapon",))
        with pytest.raises(Refused) as refusal:
            relay.submit({"user_prompt": "a cat with a Weapon"})
        assert refusal.value.fault.status == 400
        assert relay.spent_usd == 0

    def test_moderation_can_fail_a_billed_task(self, clock: Clock) -> None:
        relay = make(clock, refused_words=("weapon",), moderation="fail")
        task_id = relay.submit({"user_prompt": "a cat with a weapon"}).task.id
        relay.advance(100)
        (snapshot,) = relay.query([task_id])
        assert snapshot.phase == "failed"
        assert "moderation" in (snapshot.task.script.fails_with or "")
        assert len(relay.generations) == 1

    def test_a_new_submit_can_be_invisible_for_some_seconds(self, clock: Clock) -> None:
        relay = make(clock, visible_after_seconds=3)
        task_id = relay.submit({"user_prompt": "a cat"}).task.id
        assert relay.query([task_id]) == []
        clock.now += 3
        assert len(relay.query([task_id])) == 1

    def test_an_extend_remembers_its_parent(self, clock: Clock) -> None:
        relay = make(clock)
        parent = add(relay, state="completed", aspect_ratio="9:16")
        snapshot = relay.extend(parent, {"user_prompt": "and then it sleeps"})
        assert (snapshot.task.parent, relay.generations[0].parent) == (parent, parent)
        assert snapshot.task.request["aspect_ratio"] == "9:16"

    @pytest.mark.parametrize(
        ("state", "code"), [(None, "task_not_exist"), ("processing", "task_not_completed")]
    )
    def test_only_a_completed_task_can_be_extended(self, clock: Clock, state: str | None, code: str) -> None:
        relay = make(clock)
        parent = add(relay, state=state) if state else "unknown"
        with pytest.raises(Refused) as refusal:
            relay.extend(parent, {"user_prompt": "and then it sleeps"})
        assert code.encode() in (refusal.value.fault.body or b"")
        assert relay.generations == []


class TestRules:
    def test_a_counted_rule_is_used_up(self, clock: Clock) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="batch", fault=faults.empty(), times=2))
        assert [relay.rules.take(call(relay)) is not None for _ in range(4)] == [True, True, False, False]

    def test_counted_rules_precede_those_without_a_count(self, clock: Clock) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="batch", fault=faults.hang(), times=None))
        relay.rules.add(Rule(call="batch", fault=faults.empty(), times=1))
        relay.rules.add(Rule(call="batch", fault=faults.reset(), times=1))
        matched = [relay.rules.take(call(relay)) for _ in range(4)]
        assert [rule.played.name for rule in matched if rule] == ["empty", "reset", "hang", "hang"]

    def test_skipped_calls_pass(self, clock: Clock) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="batch", fault=faults.empty(), times=1, skip=2))
        assert [relay.rules.take(call(relay)) is not None for _ in range(4)] == [False, False, True, False]

    def test_a_rule_applies_to_its_call_alone(self, clock: Clock) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="submit", fault=faults.empty()))
        assert relay.rules.take(call(relay, "batch")) is None
        assert relay.rules.take(call(relay, "submit")) is not None

    def test_a_rule_can_require_an_id(self, clock: Clock) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="batch", fault=faults.bad_request(), ids=frozenset({"bad"})))
        assert relay.rules.take(call(relay, ids=("good", "fine"))) is None
        assert relay.rules.take(call(relay, ids=("good", "bad"))) is not None

    @pytest.mark.parametrize("text", ['say "hi"', "猫", "line\nbreak"])
    def test_a_rule_can_require_a_text_in_a_prompt(self, clock: Clock, text: str) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="submit", fault=faults.empty(), containing=text))
        assert relay.rules.take(call(relay, "submit", body={"user_prompt": "a dog"})) is None
        assert relay.rules.take(call(relay, "submit", body={"user_prompt": f"a cat: {text}!"})) is not None

    def test_a_rule_can_require_a_text_in_the_path(self, clock: Clock) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="media", fault=faults.empty(), containing="thumbnail.jpg"))
        assert relay.rules.take(call(relay, "media", path="/media/one/video.mp4")) is None
        assert relay.rules.take(call(relay, "media", path="/media/one/thumbnail.jpg")) is not None

    def test_a_rule_plays_unlimited_when_it_has_no_times(self, clock: Clock) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="batch", fault=faults.empty(), times=None))
        assert all(relay.rules.take(call(relay)) is not None for _ in range(5))

    def test_a_rule_can_require_a_function_to_return_true(self, clock: Clock) -> None:
        relay = make(clock)
        relay.rules.add(Rule(call="batch", fault=faults.empty(), predicate=lambda call: len(call.ids) > 1))
        assert relay.rules.take(call(relay, ids=("a",))) is None
        assert relay.rules.take(call(relay, ids=("a", "b"))) is not None

    @pytest.mark.parametrize(
        "wrong", [{"call": "teapot"}, {"times": 0}, {"skip": -1}, {"fault": "earthquake"}]
    )
    def test_an_invalid_rule_is_an_error(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Rule(**{"call": "batch", "fault": faults.empty(), **wrong})


class TestRecords:
    def test_counts_are_complete_when_records_are_capped(self, clock: Clock) -> None:
        relay = make(clock, max_records=3)
        for _ in range(10):
            relay.finish_call(call(relay), status=200)
        assert relay.counts["batch"] == 10
        assert [record.number for record in relay.calls] == [8, 9, 10]

    def test_reset_forgets_everything(self, clock: Clock) -> None:
        relay = make(clock, balance_usd=5)
        task_id = add(relay)
        relay.submit({"user_prompt": "a cat"})
        relay.rules.add(Rule(call="batch", fault=faults.empty()))
        relay.finish_call(call(relay), status=200)
        relay.advance(10)
        relay.reset()
        assert (relay.query([task_id]), relay.generations, relay.calls) == ([], [], [])
        assert sum(relay.counts.values()) == 0
        assert relay.balance == 5
        assert relay.rules.take(call(relay)) is None
        assert relay.now() == clock.now
