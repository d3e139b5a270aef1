# SPDX-License-Identifier: Apache-2.0
"""Which ids are polled when, and in which calls: values in, values out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from math import ceil, inf
from typing import Any

import pytest

from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.delays import MAX_DELAY
from airflow_provider_luma.exceptions import (
    LumaAuthError,
    LumaBusyError,
    LumaConnectionError,
    LumaError,
    LumaForbiddenError,
    LumaRequestError,
    LumaResponseError,
    LumaServerError,
    LumaTaskNotFoundError,
)
from airflow_provider_luma.waiting.backoff import MAX_BACKOFF
from airflow_provider_luma.waiting.calls import Call, PollResult, Waiter
from airflow_provider_luma.waiting.quarantine import MAX_QUARANTINE_BATCHES
from airflow_provider_luma.waiting.schedule import Schedule, spread

NEVER = 1e9
JITTER = 0.5
BOOM = LumaServerError("boom", status=500)
HANG = LumaConnectionError("no answer in time")
DOWN = LumaConnectionError("connection refused", unsent=True)
NO_SUCH = LumaTaskNotFoundError("no such task", status=400)
BAD = LumaRequestError("this id is bad", status=400)


def tasks(ids: Iterable[str]) -> dict[str, LumaTask]:
    return {task_id: LumaTask(id=task_id, state=TaskState.PROCESSING) for task_id in ids}


def seeded() -> random.Random:
    return random.Random(1)  # noqa: S311


def names(count: int, prefix: str = "t") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


class Clock:
    """A schedule, the time, and a relay that answers at once."""

    def __init__(self, batch_size: int = 100) -> None:
        self.now = 1000.0
        self.schedule = Schedule(batch_size, seeded())
        self.poison: dict[str, LumaError] = {}
        self.down: LumaError | None = None
        self.refuses_all = False
        self.probes = 0
        self.sizes: list[list[int]] = []
        self.asked: list[list[str]] = []

    def join(self, ids: Iterable[str] | str, interval: float = 15, deadline: float = NEVER) -> Waiter:
        ids = [ids] if isinstance(ids, str) else ids
        return self.schedule.join(ids, interval=interval, deadline=deadline, now=self.now)

    def begin(self) -> list[Call]:
        """Move on to the next round, and begin it."""
        self.now = max(self.schedule.next_round(), self.now)
        assert self.now < inf
        calls = self.schedule.begin_round(self.now)
        self.sizes.append([len(call.ids) for call in calls])
        self.asked.append([task_id for call in calls for task_id in call.ids])
        return calls

    def end(self, call: Call, error: LumaError | None = None) -> dict[Waiter, PollResult]:
        ids = self.schedule.take_turn(call)
        error = error or self.down or next((self.poison[id_] for id_ in ids if id_ in self.poison), None)
        if isinstance(error, LumaRequestError) and not self.refuses_all:
            self.probes += self.schedule.needs_check(call, error)
            return self.schedule.refuse(call, error, now=self.now)
        if error is not None:
            return self.schedule.fail(call, error, now=self.now)
        return self.schedule.succeed(call, tasks(ids), now=self.now)

    def round(self) -> dict[Waiter, PollResult]:
        """Move on to the next round, and make it."""
        answers: dict[Waiter, PollResult] = {}
        for call in self.begin():
            for waiter, answer in self.end(call).items():
                assert waiter not in answers
                answers[waiter] = answer
        return answers

    def served_until(self, end: float) -> dict[Waiter, list[float]]:
        """Make all rounds until a time; when was who served?"""
        served: dict[Waiter, list[float]] = {}
        while self.schedule.next_round() <= end:
            for waiter in self.round():
                served.setdefault(waiter, []).append(self.now)
        return served


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestRounds:
    def test_without_waiters_there_is_no_round(self, clock: Clock) -> None:
        assert clock.schedule.next_round() == inf
        assert clock.schedule.open_ids == set()

    def test_the_first_answer_comes_one_interval_after_joining_and_a_little_jitter(
        self, clock: Clock
    ) -> None:
        clock.join("t1", interval=15)
        begin = clock.schedule.next_round()
        assert 1015 < begin <= 1015 + JITTER

    def test_an_answer_is_whole_and_next_time_is_one_interval_later(self, clock: Clock) -> None:
        waiter = clock.join(["t1", "t2"], interval=15)
        answers = clock.round()
        assert answers == {waiter: PollResult(tasks(["t1", "t2"]), ["t1", "t2"], None)}
        assert clock.schedule.next_round() == clock.now + 15

    def test_while_a_waiter_is_being_served_it_has_no_next_round(self, clock: Clock) -> None:
        waiter = clock.join("t1")
        clock.begin()
        assert waiter.calls
        assert clock.schedule.next_round() == inf

    def test_an_id_that_the_relay_leaves_out_was_asked_for_all_the_same(self, clock: Clock) -> None:
        waiter = clock.join(["t1", "t2"])
        [call] = clock.begin()
        assert clock.schedule.succeed(call, tasks(["t2"]), now=clock.now) == {
            waiter: PollResult(tasks(["t2"]), ["t1", "t2"], None)
        }

    def test_a_task_that_was_not_polled_reaches_no_waiter(self, clock: Clock) -> None:
        waiter = clock.join("t1")
        [call] = clock.begin()
        answers = clock.schedule.succeed(call, tasks(["t1", "stranger"]), now=clock.now)
        assert answers[waiter].tasks == tasks(["t1"])

    @pytest.mark.parametrize("ids", [1, 9, 10, 11, 95, 1000])
    def test_a_round_makes_exactly_as_many_calls_as_full_batches_need(self, ids: int) -> None:
        clock = Clock(batch_size=10)
        for task_id in names(ids):
            clock.join(task_id)
        clock.round()
        assert len(clock.sizes[0]) == -(-ids // 10)

    def test_a_waiter_of_many_batches_is_answered_once_with_all_of_them(self) -> None:
        clock = Clock(batch_size=10)
        waiter = clock.join(names(25))
        calls = clock.begin()
        assert [len(call.ids) for call in calls] == [10, 10, 5]
        assert clock.end(calls[2]) == {}
        assert clock.end(calls[0]) == {}
        assert set(clock.end(calls[1])[waiter].asked) == set(names(25))

    def test_the_batch_size_may_change_between_rounds(self, clock: Clock) -> None:
        clock.join(names(30))
        clock.round()
        clock.schedule.batch_size = 10
        clock.round()
        assert clock.sizes == [[30], [10, 10, 10]]


class TestSharing:
    def test_newcomers_of_about_the_same_time_share_their_first_round(self, clock: Clock) -> None:
        waiters = [clock.join(f"t{n}") for n in range(1000)]
        assert set(clock.round()) == set(waiters)
        assert clock.sizes == [[100] * 10]

    def test_a_burst_of_newcomers_is_spread_over_its_own_length(self, clock: Clock) -> None:
        for n in range(1000):
            clock.now = 1000 + n * 0.003
            clock.join(f"t{n}")
        served = clock.served_until(1000 + 3 + 15 + JITTER)
        moments = Counter(times[0] for times in served.values())
        assert len(served) == 1000
        assert 6 <= len(moments) <= 12
        assert max(moments.values()) < 250

    def test_after_its_first_answer_a_newcomer_goes_with_the_common_rounds(self, clock: Clock) -> None:
        early = clock.join("early", interval=15)
        clock.now += 7
        late = clock.join("late", interval=15)
        assert list(clock.round()) == [early]
        assert list(clock.round()) == [late]
        assert set(clock.round()) == {early, late}
        assert set(clock.round()) == {early, late}

    def test_an_id_that_fifty_wait_for_is_polled_once_and_returned_to_all(self, clock: Clock) -> None:
        waiters = [clock.join(["shared", f"own{n}"]) for n in range(50)]
        answers = clock.round()
        assert Counter(clock.asked[0])["shared"] == 1
        assert len(clock.asked[0]) == 51
        assert all(answers[waiter].tasks.keys() == {"shared", f"own{n}"} for n, waiter in enumerate(waiters))

    def test_an_id_leaves_when_it_is_settled_for_all_who_asked(self, clock: Clock) -> None:
        one, two = clock.join(["shared", "one"]), clock.join(["shared", "two"])
        clock.round()
        clock.schedule.settle(one, ["one"])
        clock.round()
        clock.schedule.settle(two, ["two"])
        clock.round()
        assert [set(asked) for asked in clock.asked] == [
            {"shared", "one", "two"},
            {"shared", "one", "two"},
            {"one", "two"},
        ]
        assert clock.schedule.open_ids == {"one", "two"}

    def test_a_waiter_hears_of_no_id_that_it_has_settled(self, clock: Clock) -> None:
        one, two = clock.join(["shared", "one"]), clock.join(["shared"])
        clock.schedule.settle(one, ["one"])
        answers = clock.round()
        assert answers[one].asked == ["one"]
        assert answers[two].asked == ["shared"]

    def test_a_waiter_that_is_due_while_its_id_is_in_flight_gets_that_calls_answer(
        self, clock: Clock
    ) -> None:
        one = clock.join("shared")
        clock.now += 5
        two = clock.join("shared")
        [call] = clock.begin()
        assert clock.begin() == []
        assert clock.end(call).keys() == {one, two}

    def test_those_who_wait_for_few_ids_come_first(self) -> None:
        clock = Clock(batch_size=10)
        clock.join(names(100, "many"))
        clock.join("one")
        clock.join(["two", "three"])
        calls = clock.begin()
        assert calls[0].ids[:3] == ["one", "two", "three"]
        assert [call.priority for call in calls] == [1, *[100] * 10]

    def test_a_place_in_the_round_does_not_go_back_when_others_settle(self, clock: Clock) -> None:
        waiters = [clock.join([f"a{n}", f"b{n}", f"c{n}"]) for n in range(50)]
        clock.round()
        for n, waiter in enumerate(waiters[1:], start=1):
            clock.schedule.settle(waiter, [f"a{n}"])
        clock.round()
        assert clock.asked[1][:4] == ["a0", "b0", "c0", "a1"]


class TestIntervals:
    def test_different_intervals_are_served_in_time_and_hardly_more_often_than_asked(
        self, clock: Clock
    ) -> None:
        waiters = [clock.join(f"t{n}", interval=interval) for n, interval in enumerate((10, 15, 37, 60))]
        served = clock.served_until(2000)
        for waiter in waiters:
            gaps = [after - before for before, after in pairwise(served[waiter])]
            assert max(gaps) <= waiter.interval
            assert min(gaps) > waiter.interval - 10 - JITTER
        assert len(clock.asked) <= 1000 / 10 + len(waiters)

    def test_one_impatient_waiter_does_not_hurry_the_others(self, clock: Clock) -> None:
        clock.join("hasty", interval=1)
        patient = clock.join("patient", interval=100)
        served = clock.served_until(2000)
        assert len(served[patient]) <= 11

    def test_the_deadline_brings_a_last_answer_for_that_waiter_alone(self, clock: Clock) -> None:
        other = clock.join("other", interval=15)
        waiter = clock.join("t1", interval=15, deadline=1020)
        assert set(clock.round()) == {other, waiter}
        assert list(clock.round()) == [waiter]
        assert clock.now == 1020
        assert clock.asked[-1] == ["t1"]

    def test_a_deadline_before_the_first_interval_comes_first(self, clock: Clock) -> None:
        clock.join("t1", interval=15, deadline=1004)
        assert clock.schedule.next_round() == 1004

    def test_deadlines_one_after_the_other_make_no_common_rounds(self, clock: Clock) -> None:
        for n in range(100):
            clock.join(f"t{n}", interval=50, deadline=1060 + n / 10)
        clock.served_until(1075)
        assert sum(map(len, clock.asked)) == 200

    def test_a_waiter_that_stays_after_its_deadline_is_not_served_without_pause(self, clock: Clock) -> None:
        clock.join("t1", interval=15, deadline=1004)
        clock.round()
        assert clock.schedule.next_round() == 1004 + 15


class TestLeaving:
    def test_the_ids_of_a_waiter_that_left_are_not_polled(self, clock: Clock) -> None:
        one, two = clock.join("one"), clock.join("two")
        clock.schedule.leave(one)
        assert list(clock.round()) == [two]
        assert clock.asked == [["two"]]

    def test_leaving_twice_is_harmless(self, clock: Clock) -> None:
        waiter = clock.join("one")
        clock.schedule.leave(waiter)
        clock.schedule.leave(waiter)
        assert clock.schedule.next_round() == inf

    def test_a_call_whose_waiters_left_before_its_turn_asks_for_nothing(self, clock: Clock) -> None:
        waiter = clock.join("one")
        [call] = clock.begin()
        clock.schedule.leave(waiter)
        assert clock.schedule.take_turn(call) == []
        assert clock.schedule.drop(call) == {}

    def test_a_call_asks_only_for_what_is_still_waited_for_at_its_turn(self, clock: Clock) -> None:
        one, two = clock.join(["one", "shared"]), clock.join(["two", "shared"])
        [call] = clock.begin()
        clock.schedule.leave(one)
        assert set(clock.schedule.take_turn(call)) == {"two", "shared"}
        assert set(clock.end(call)[two].asked) == {"two", "shared"}

    def test_an_id_that_was_dropped_from_a_call_is_not_taken_for_left_out_by_it(self, clock: Clock) -> None:
        one, two = clock.join("one"), clock.join("two")
        late = clock.join("one", interval=16)
        clock.schedule.leave(late)
        [call] = clock.begin()
        clock.schedule.leave(one)
        late = clock.join("one", interval=1)
        assert clock.schedule.take_turn(call) == ["two"]
        clock.begin()
        assert list(clock.end(call)) == [two]
        assert late.calls

    def test_a_waiter_that_leaves_in_flight_gets_no_answer(self, clock: Clock) -> None:
        one, two = clock.join("shared"), clock.join("shared")
        [call] = clock.begin()
        clock.schedule.leave(one)
        assert list(clock.end(call)) == [two]


class TestPoisonousIds:
    """Ids that make every call fail that carries them."""

    @staticmethod
    def rounds_until_alone(clock: Clock, waiters: dict[str, Waiter]) -> int:
        """Make rounds until every innocent waiter got through in one, and only they."""
        for rounds in range(1, 30):
            answers = clock.round()
            through = {waiter for waiter, answer in answers.items() if answer.error is None}
            if through == {waiter for task_id, waiter in waiters.items() if task_id not in clock.poison}:
                return rounds
        raise AssertionError("the poisonous ids never stood alone")

    @pytest.mark.parametrize("error", [BOOM, HANG, LumaResponseError("html", status=200)], ids=repr)
    def test_one_is_alone_after_four_rounds_when_other_calls_get_through(
        self, clock: Clock, error: LumaError
    ) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(500)}
        clock.poison = {"t137": error}
        assert self.rounds_until_alone(clock, waiters) <= 4
        assert all(len(sizes) <= 5 + 6 for sizes in clock.sizes)

    @pytest.mark.parametrize("poison", [["t3"], ["t3", "t97"], ["t3", "t30", "t60", "t97"]])
    def test_they_are_found_in_a_single_batch_as_well(self, clock: Clock, poison: list[str]) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(100)}
        clock.poison = dict.fromkeys(poison, BOOM)
        assert self.rounds_until_alone(clock, waiters) <= 20

    def test_of_two_ids_the_good_one_gets_through_whichever_it_is(self, clock: Clock) -> None:
        for bad in ("t0", "t1"):
            clock = Clock()
            waiters = {task_id: clock.join(task_id) for task_id in names(2)}
            clock.poison = {bad: BOOM}
            assert self.rounds_until_alone(clock, waiters) <= 7

    def test_one_good_id_among_many_bad_ones_is_found_before_anyone_gives_up(self, clock: Clock) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(12)}
        clock.poison = dict.fromkeys(names(11), BOOM)
        assert self.rounds_until_alone(clock, waiters) <= 13

    def test_one_in_every_batch_delays_no_waiter_for_long(self) -> None:
        clock = Clock(batch_size=10)
        waiters = {task_id: clock.join(task_id) for task_id in names(80)}
        clock.poison = dict.fromkeys(names(80)[::10], BOOM)
        assert self.rounds_until_alone(clock, waiters) <= 10

    def test_alone_it_costs_one_call_a_round(self, clock: Clock) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(500)}
        clock.poison = {"t137": BOOM}
        self.rounds_until_alone(clock, waiters)
        clock.round()
        assert sorted(clock.sizes[-1]) == [1, 99, 100, 100, 100, 100]

    def test_one_that_recovers_goes_back_into_a_full_batch(self, clock: Clock) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(200)}
        clock.poison = {"t137": BOOM}
        self.rounds_until_alone(clock, waiters)
        clock.poison = {}
        clock.round()
        clock.round()
        assert clock.sizes[-1] == [100, 100]

    def test_what_is_known_of_an_id_is_forgotten_with_its_last_waiter(self, clock: Clock) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(200)}
        clock.poison = {"t137": BOOM}
        self.rounds_until_alone(clock, waiters)
        clock.schedule.leave(waiters["t137"])
        clock.round()
        assert clock.schedule.quarantine.depths == {}

    def test_however_many_they_are_a_round_stays_bounded(self, clock: Clock) -> None:
        for task_id in names(2000):
            clock.join(task_id)
        clock.poison = dict.fromkeys(names(2000)[::7], BOOM)
        for _ in range(40):
            clock.round()
        assert max(map(len, clock.sizes)) <= 20 + 2 * MAX_QUARANTINE_BATCHES

    def test_a_relay_that_fails_at_random_is_not_asked_much_more_for_it(self, clock: Clock) -> None:
        rng = seeded()
        for task_id in names(2000):
            clock.join(task_id)
        for _ in range(50):
            for call in clock.begin():
                clock.end(call, BOOM if rng.random() < 0.5 else None)
        assert sum(map(len, clock.sizes)) <= 50 * (20 + 2 * MAX_QUARANTINE_BATCHES)

    @pytest.mark.parametrize(
        "error", [LumaForbiddenError("no", status=403), LumaBusyError("busy", status=429), DOWN], ids=repr
    )
    def test_an_error_that_no_id_causes_quarantines_no_id(self, clock: Clock, error: LumaError) -> None:
        clock.join(names(200))
        for _ in range(2):
            first, second = clock.begin()
            clock.end(first)
            clock.end(second, error)
        assert clock.sizes == [[100, 100]] * 2


class TestRefusedIds:
    """Ids for which the relay refuses every call that carries them, and says so at once."""

    @pytest.mark.parametrize("error", [NO_SUCH, BAD], ids=repr)
    def test_one_is_alone_after_four_rounds_also_in_the_only_batch_and_stays_alone(
        self, clock: Clock, error: LumaError
    ) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(100)}
        clock.poison = {"t37": error}
        for _ in range(3):
            clock.round()
        answers = clock.round()
        assert answers[waiters["t36"]] == PollResult(tasks(["t36"]), ["t36"], None)
        assert sum(map(len, clock.sizes)) <= 1 + 4 + 6 + 8
        clock.round()
        clock.round()
        assert [sorted(sizes) for sizes in clock.sizes[-2:]] == [[1, 99]] * 2

    def test_one_that_is_not_there_was_asked_for_and_left_out(self, clock: Clock) -> None:
        waiter = clock.join("t1")
        clock.poison = {"t1": NO_SUCH}
        assert clock.round() == {waiter: PollResult({}, ["t1"], None)}

    def test_one_that_is_refused_alone_is_illegible_for_its_owner(self, clock: Clock) -> None:
        waiter = clock.join("t1")
        clock.poison = {"t1": BAD}
        answer = clock.round()[waiter]
        assert (answer.asked, answer.error) == (["t1"], None)
        assert answer.tasks["t1"].problem == "this id is bad"

    def test_when_all_are_unknown_each_is_found_so(self, clock: Clock) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(1000)}
        clock.poison = dict.fromkeys(names(1000), NO_SUCH)
        for _ in range(4):
            answers = clock.round()
        assert answers == {waiter: PollResult({}, [task_id], None) for task_id, waiter in waiters.items()}

    def test_whether_an_id_is_why_is_needs_check_until_a_call_of_the_round_gets_through(
        self, clock: Clock
    ) -> None:
        clock.join(names(300))
        first, second, third = clock.begin()
        assert clock.schedule.needs_check(first, BAD)
        assert not clock.schedule.needs_check(first, NO_SUCH)
        assert not clock.schedule.needs_check(first, BOOM)
        clock.end(second)
        assert not clock.schedule.needs_check(third, BAD)

    def test_a_relay_that_refuses_every_call_quarantines_no_id(self, clock: Clock) -> None:
        waiter = clock.join(names(100))
        clock.refuses_all, clock.down = True, BAD
        for _ in range(2):
            assert clock.round() == {waiter: PollResult({}, [], BAD)}
        assert clock.sizes == [[100]] * 2
        assert clock.schedule.is_unanswered

    def test_one_refused_call_in_the_midst_of_good_ones_costs_its_waiters_one_poll(
        self, clock: Clock
    ) -> None:
        waiters = [clock.join(task_id) for task_id in names(100)]
        clock.round()
        clock.down = BAD
        assert clock.round() == dict.fromkeys(waiters, PollResult({}, [], BAD))
        clock.down = None
        for _ in range(2):
            assert all(answer.error is None for answer in clock.round().values())
        assert clock.sizes == [[100], [100], [25] * 4, [100]]

    def test_what_is_known_of_one_is_forgotten_with_its_last_waiter(self, clock: Clock) -> None:
        waiters = {task_id: clock.join(task_id) for task_id in names(2)}
        clock.poison = {"t0": NO_SUCH}
        for _ in range(4):
            clock.round()
        clock.schedule.leave(waiters["t0"])
        clock.round()
        assert (clock.schedule.quarantine.depths, clock.schedule.quarantine.refused) == ({}, set())


class TestLastLook:
    """However rare rounds have become, a waiter is asked for once more at its deadline."""

    def test_it_comes_while_the_relay_asks_to_be_left_alone_for_the_one_alone(self, clock: Clock) -> None:
        clock.join("other", interval=5)
        waiter = clock.join("t1", interval=5, deadline=1100)
        [call] = clock.begin()
        clock.end(call, LumaBusyError("busy", status=429, retry_after=1000))
        busy_until = clock.now + 1000

        [look] = clock.begin()

        assert (clock.now, list(look.waiters)) == (1100, [waiter])
        assert clock.schedule.busy(clock.now, look) is None
        assert clock.schedule.busy(clock.now) is not None
        clock.end(look)
        clock.schedule.leave(waiter)
        assert clock.schedule.next_round() == busy_until

    def test_it_comes_while_no_call_gets_through(self, clock: Clock) -> None:
        waiter = clock.join("t1", interval=15, deadline=1300)
        clock.down = BOOM
        while clock.now < 1300:
            answers = clock.round()
        assert (clock.now, list(answers)) == (1300, [waiter])
        assert clock.schedule.next_round() > 1300

    def test_many_of_them_one_after_the_other_do_not_put_off_the_next_round(self, clock: Clock) -> None:
        other = clock.join("other", interval=15)
        for n in range(1000):
            clock.join(f"t{n}", interval=15, deadline=1100 + n)
        clock.down = BOOM
        served = clock.served_until(2100)
        gaps = [after - before for before, after in pairwise(served[other])]
        assert max(gaps) <= MAX_BACKOFF + 15


class TestRelayDown:
    @pytest.mark.parametrize("error", [BOOM, HANG, DOWN, LumaBusyError("busy", status=429)], ids=repr)
    def test_rounds_become_rarer_up_to_a_bound(self, clock: Clock, error: LumaError) -> None:
        clock.join(names(10), interval=15)
        clock.down = error
        moments = []
        for _ in range(12):
            clock.round()
            moments.append(clock.now)
        gaps = [after - before for before, after in pairwise(moments)]
        assert gaps[0] == pytest.approx(15, abs=4)
        assert gaps[1] == pytest.approx(26, abs=4)
        assert all(0.7 * MAX_BACKOFF <= gap <= MAX_BACKOFF for gap in gaps[4:])
        assert len(set(gaps[4:])) > 1

    def test_an_interval_longer_than_the_bound_stays_as_it_is(self, clock: Clock) -> None:
        clock.join(names(10), interval=1000)
        clock.down = BOOM
        clock.round()
        before = clock.now
        for _ in range(5):
            clock.round()
        assert clock.now - before == pytest.approx(5 * 1000, rel=0.1)

    def test_calls_do_not_multiply(self, clock: Clock) -> None:
        clock.join(names(1000))
        clock.down = BOOM
        for _ in range(30):
            clock.round()
        assert max(map(len, clock.sizes)) <= 10 + MAX_QUARANTINE_BATCHES
        assert sum(map(len, clock.sizes)) <= 30 * 10 + 10 * MAX_QUARANTINE_BATCHES

    def test_one_success_ends_the_back_off(self, clock: Clock) -> None:
        clock.join(names(10), interval=15)
        clock.down = BOOM
        for _ in range(8):
            clock.round()
        assert clock.schedule.is_unanswered
        clock.down = None
        clock.round()
        assert not clock.schedule.is_unanswered
        assert clock.schedule.next_round() == clock.now + 15

    def test_the_many_failures_of_one_round_count_once(self, clock: Clock) -> None:
        clock.join(names(1000), interval=15)
        clock.down = BOOM
        clock.round()
        before = clock.now
        clock.round()
        assert clock.now - before <= 15

    def test_every_waiter_gets_the_error(self, clock: Clock) -> None:
        waiters = [clock.join(task_id) for task_id in names(3)]
        clock.down = BOOM
        assert clock.round() == dict.fromkeys(waiters, PollResult({}, [], BOOM))

    def test_of_a_waiter_in_two_calls_the_answered_part_counts(self) -> None:
        clock = Clock(batch_size=2)
        waiter = clock.join(names(4))
        first, second = clock.begin()
        clock.end(first)
        answer = clock.end(second, BOOM)[waiter]
        assert answer == PollResult(tasks(first.ids), first.ids, BOOM)


class TestRetryAfter:
    @staticmethod
    def busy(seconds: float) -> LumaBusyError:
        return LumaBusyError("busy", status=429, retry_after=seconds)

    def test_it_holds_for_every_waiter(self, clock: Clock) -> None:
        clock.join("t1", interval=5)
        clock.join("t2", interval=7)
        error = self.busy(60)
        [call] = [call for call in clock.begin() if call.ids == ["t1"]]
        clock.end(call, error)
        assert clock.schedule.next_round() == clock.now + 60
        assert clock.schedule.busy(clock.now + 59) is error
        assert clock.schedule.busy(clock.now + 61) is None

    def test_also_when_others_got_through(self) -> None:
        clock = Clock(batch_size=1)
        clock.join(["t1", "t2"], interval=5)
        first, second = clock.begin()
        clock.end(first, self.busy(60))
        clock.end(second)
        assert clock.schedule.next_round() == clock.now + 60

    def test_it_is_bounded(self, clock: Clock) -> None:
        clock.join("t1", interval=5)
        clock.end(clock.begin()[0], self.busy(1e6))
        assert clock.schedule.next_round() == clock.now + MAX_DELAY

    def test_the_longest_counts(self) -> None:
        clock = Clock(batch_size=1)
        clock.join(["t1", "t2"], interval=5)
        first, second = clock.begin()
        clock.end(first, self.busy(60))
        clock.end(second, self.busy(2))
        assert clock.schedule.next_round() == clock.now + 60

    def test_a_call_that_it_held_back_has_its_error(self) -> None:
        clock = Clock(batch_size=1)
        waiter = clock.join(["t1", "t2"])
        first, second = clock.begin()
        error = self.busy(60)
        clock.end(first, error)
        assert clock.schedule.drop(second, error) == {waiter: PollResult({}, [], error)}


class TestFailEveryone:
    def test_every_waiter_is_answered_due_or_not_and_calls_in_flight_are_forgotten(self) -> None:
        clock = Clock(batch_size=1)
        error = LumaAuthError("wrong key", status=401)
        busy, idle = clock.join(["t1", "t2"]), clock.join("t3", interval=100)
        first, second = clock.begin()
        clock.end(first)
        assert clock.schedule.fail_all(error) == {
            busy: PollResult(tasks(["t1"]), ["t1"], error),
            idle: PollResult({}, [], error),
        }
        assert clock.schedule.take_turn(second) == []
        assert clock.schedule.succeed(second, tasks(["t2"]), now=clock.now) == {}
        assert not busy.calls

    def test_a_waiter_that_stays_is_served_again(self, clock: Clock) -> None:
        waiter = clock.join("t1")
        clock.begin()
        clock.schedule.fail_all(LumaAuthError("wrong key", status=401))
        assert clock.round() == {waiter: PollResult(tasks(["t1"]), ["t1"], None)}


class TestFailUnanswered:
    def test_those_to_whom_nothing_was_answered_are_notified_and_the_others_stay(self, clock: Clock) -> None:
        served = clock.join("t1", interval=15)
        clock.round()
        answered_elsewhere = clock.schedule.join(
            ["t2"], interval=15, deadline=NEVER, now=clock.now, answered=True
        )
        newcomer, idle = clock.join("t3"), clock.join("t4", interval=100)
        error = LumaAuthError("wrong key", status=401)
        while newcomer.ids and not newcomer.calls:
            calls = clock.begin()
        answers: dict[Waiter, PollResult] = {}
        for call in calls:
            answers |= clock.schedule.fail(call, error, now=clock.now)

        assert clock.schedule.fail_unanswered(error) == dict.fromkeys(
            (newcomer, idle), PollResult({}, [], error)
        )
        assert not {served, answered_elsewhere} & clock.schedule.fail_unanswered(error).keys()


class TestSpread:
    @pytest.mark.parametrize("count", [1, 2, 5, 100, 1000])
    @pytest.mark.parametrize("interval", [0.02, 0.2, 5, 15, 1000])
    def test_calls_follow_one_another_and_are_done_with_long_before_the_next_round(
        self, count: int, interval: float
    ) -> None:
        calls: list[Any] = list(range(count))
        groups = spread(calls, interval, seeded(), concurrency=4)
        delays = [delay for delay, _ in groups]
        assert [call for _, group in groups for call in group] == calls
        assert all(len(group) <= 4 for _, group in groups)
        assert len(groups) == ceil(count / 4)
        assert delays == sorted(set(delays))
        assert delays[0] >= 0
        assert delays[-1] <= min(interval / 5, count / 50)

    def test_a_place_in_time_depends_on_those_before_alone(self) -> None:
        many: list[Any] = list(range(100))
        before, after = (
            [(delay, call) for delay, group in spread(calls, 15, seeded(), concurrency=4) for call in group]
            for calls in (many, many[:50])
        )
        assert before[:50] == after

    def test_no_calls_are_spread_to_nothing(self) -> None:
        assert spread([], 15, seeded(), concurrency=4) == []


def test_a_hundred_thousand_ids_of_one_waiter_delay_no_other() -> None:
    clock = Clock()
    many = clock.join(names(100_000, "many"), interval=15)
    few = clock.join("few", interval=15)
    calls = clock.begin()
    assert len(calls) == 1001
    assert [call for call in calls if few in call.waiters] == [min(calls, key=lambda call: call.priority)]
    served: Callable[[Call], bool] = lambda call: few in clock.end(call)  # noqa: E731
    assert served(calls[0])
    assert many.calls
    assert clock.schedule.next_round() == clock.now + 15
    assert [call.ids for call in clock.begin()] == [["few"]]
