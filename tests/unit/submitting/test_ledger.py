# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.exceptions import LumaStorageError
from airflow_provider_luma.state import MemoryStore
from airflow_provider_luma.submitting.ledger import PAGE_SIZE, Entry, Ledger, OnClear, Try

AT = "2026-01-02T03:04:05+00:00"
TRY = Try(number=1, max_tries=2)


class JsonStore(MemoryStore):
    """Keep values as JSON, and count reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.writes = self.largest = 0
        self.fails = False

    def get(self, key: str) -> Any:
        self.reads += 1
        value = super().get(key)
        return None if value is None else json.loads(value)

    def set(self, key: str, value: Any) -> None:
        if self.fails:
            raise OSError("the store can't be written")
        self.writes += 1
        text = json.dumps(value)
        self.largest = max(self.largest, len(text))
        super().set(key, text)  # type: ignore[arg-type]


@pytest.fixture
def store() -> JsonStore:
    return JsonStore()


def fill(ledger: Ledger, count: int, prefix: str = "key") -> None:
    for number in range(count):
        ledger.intend(f"{prefix}-{number}", AT)
        ledger.submitted(f"{prefix}-{number}", f"{prefix}-task-{number}")


class TestEntries:
    def test_a_new_ledger_is_empty_and_writes_nothing(self, store: JsonStore) -> None:
        assert Ledger(store, current=TRY).entries == {}
        assert (store.reads, store.writes) == (1, 0)

    def test_an_intent_is_there_before_anything_is_known(self, store: JsonStore) -> None:
        Ledger(store, current=TRY).intend("a", AT)

        (entry,) = Ledger(store, current=TRY).entries.values()
        assert entry == Entry(at=AT)
        assert entry.has_unknown_outcome

    def test_a_submit_keeps_the_time_of_its_intent(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        ledger.intend("a", AT)
        ledger.submitted("a", "task-1")

        assert Ledger(store, current=TRY).entries == {"a": Entry(at=AT, task_id="task-1")}
        assert not Ledger(store, current=TRY).entries["a"].has_unknown_outcome

    def test_a_refusal_is_kept_and_cut(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        ledger.intend("a", AT)
        ledger.refused("a", "no " * 1000)

        refused = Ledger(store, current=TRY).entries["a"].refused
        assert refused is not None
        assert refused.endswith("… (3000 characters)")
        assert not Ledger(store, current=TRY).entries["a"].has_unknown_outcome

    def test_a_forgotten_intent_is_gone(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 1)
        ledger.intend("a", AT)
        ledger.forget("a")

        assert list(Ledger(store, current=TRY).entries) == ["key-0"]

    def test_what_was_never_intended_can_not_have_an_outcome(self, store: JsonStore) -> None:
        with pytest.raises(KeyError):
            Ledger(store, current=TRY).submitted("a", "task-1")

    def test_an_intent_can_be_repeated(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, PAGE_SIZE + 3)
        ledger.intend("key-0", "later")

        assert Ledger(store, current=TRY).entries["key-0"] == Entry(at="later")
        assert len(Ledger(store, current=TRY).entries) == PAGE_SIZE + 3


class TestPages:
    @pytest.mark.parametrize("count", [PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE + 7])
    def test_entries_come_back_in_the_order_of_their_intents(self, store: JsonStore, count: int) -> None:
        fill(Ledger(store, current=TRY), count)

        found = Ledger(store, current=TRY).entries
        assert [entry.task_id for entry in found.values()] == [f"key-task-{n}" for n in range(count)]

    def test_three_hundred_submits_are_read_with_thirteen_calls(self, store: JsonStore) -> None:
        fill(Ledger(store, current=TRY), 300)
        store.reads = 0

        assert len(Ledger(store, current=TRY).entries) == 300
        assert store.reads == 300 // PAGE_SIZE + 1

    def test_each_submit_is_two_writes_and_each_further_page_one_of_a_size_that_airflow_likes(
        self, store: JsonStore
    ) -> None:
        ledger = Ledger(store, current=TRY)
        for number in range(60):
            ledger.intend(f"{number:024}_1", AT)
            ledger.refused(f"{number:024}_1", "当前分组上游负载已饱和，请稍后再试" * 20)

        assert store.writes == 120 + 2
        assert store.largest < 64 * 1024

    def test_a_page_that_was_emptied_hides_none_behind_it(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        for number in range(PAGE_SIZE):
            ledger.intend(f"gone-{number}", AT)
        ledger.intend("stays", AT)
        for number in range(PAGE_SIZE):
            ledger.forget(f"gone-{number}")

        assert list(Ledger(store, current=TRY).entries) == ["stays"]


def follow(ended: Try) -> Try:
    """Return the try that a retry makes: Airflow counts it, whatever ``retries`` is in the Dag by now."""
    return Try(number=ended.number + 1, max_tries=ended.max_tries)


def clear(before: Try, *, retries: int = 2) -> Try:
    """Return the try that a clear makes: Airflow sets max_tries, whatever state the task was in."""
    return Try(number=before.number + 1, max_tries=before.number + retries)


class TestRuns:
    def test_a_retry_finds_everything(self, store: JsonStore) -> None:
        fill(Ledger(store, current=TRY), 30)

        again = Ledger(store, current=follow(TRY))
        assert len(again.entries) == 30
        assert again.cleared == {}

    def test_a_clear_of_an_ended_task_restarts_and_knows_the_previous_run(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 30)
        ledger.end()

        restarted = Ledger(store, current=clear(TRY))
        assert restarted.entries == {}
        assert len(restarted.cleared) == 30

    @pytest.mark.parametrize("on_clear", ["restart", "resume"])
    def test_a_clear_of_a_running_or_deferred_task_belongs_to_the_same_run(
        self, store: JsonStore, on_clear: OnClear
    ) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 3)
        ledger.intend("refused", AT)
        ledger.refused("refused", "moderated")

        again = Ledger(store, current=clear(TRY), on_clear=on_clear)
        assert len(again.entries) == 4
        assert again.entries["refused"].refused == "moderated"
        assert again.cleared == {}

    def test_a_clear_of_a_task_that_awaits_its_retry_belongs_to_the_same_run(self, store: JsonStore) -> None:
        fill(Ledger(store, current=TRY), 2)
        second = follow(TRY)
        fill(Ledger(store, current=second), 1, "second")

        assert len(Ledger(store, current=clear(second)).entries) == 3

    def test_a_retry_after_an_end_that_airflow_does_not_know_of_belongs_to_the_same_run(
        self, store: JsonStore
    ) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 3)
        ledger.end()
        retry = follow(TRY)
        assert len(Ledger(store, current=retry).entries) == 3

        # The retry was killed, and is cleared: it has written no end.
        assert len(Ledger(store, current=clear(retry)).entries) == 3

    def test_a_try_that_ended_without_a_submit_of_its_own_ends_the_run(self, store: JsonStore) -> None:
        fill(Ledger(store, current=TRY), 3)
        retry = follow(TRY)
        Ledger(store, current=retry).end()

        assert Ledger(store, current=clear(retry)).entries == {}

    @pytest.mark.parametrize("retries", [0, 2, 3, 9])
    def test_changed_retries_do_not_hide_a_clear_of_an_ended_task(
        self, store: JsonStore, retries: int
    ) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 3)
        ledger.end()

        assert Ledger(store, current=clear(TRY, retries=retries)).entries == {}

    def test_a_clear_that_looks_like_a_retry_submits_nothing_twice_and_a_second_clear_restarts(
        self, store: JsonStore
    ) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 3)
        ledger.end()
        cleared = clear(TRY, retries=TRY.max_tries - TRY.number)
        assert cleared == follow(TRY)

        resumed = Ledger(store, current=cleared)
        assert len(resumed.entries) == 3

        resumed.end()
        assert Ledger(store, current=clear(cleared, retries=TRY.max_tries - TRY.number)).entries == {}

    def test_after_its_last_retry_an_ended_task_runs_again_only_by_a_clear(self, store: JsonStore) -> None:
        last = Try(number=3, max_tries=2)
        ledger = Ledger(store, current=last)
        fill(ledger, 3)
        ledger.end()

        assert Ledger(store, current=follow(last)).entries == {}

    def test_a_new_run_that_submitted_nothing_yet_is_still_new_to_its_retry(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 3)
        ledger.end()
        cleared = clear(TRY)
        Ledger(store, current=cleared)

        assert Ledger(store, current=follow(cleared)).entries == {}

    def test_what_was_before_the_newest_run_never_comes_back(self, store: JsonStore) -> None:
        current = TRY
        for run in range(3):
            ledger = Ledger(store, current=current)
            fill(ledger, 3 * PAGE_SIZE - run, f"run-{run}")
            ledger.end()
            current = clear(current)
        ledger = Ledger(store, current=current)
        fill(ledger, 1, "last")

        assert list(Ledger(store, current=follow(current)).entries) == ["last-0"]

    def test_resume_keeps_entries_after_a_clear_and_its_retries(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, PAGE_SIZE + 5, "old")
        ledger.end()

        cleared = clear(TRY)
        again = Ledger(store, current=cleared, on_clear="resume")
        assert len(again.entries) == PAGE_SIZE + 5
        assert again.cleared == {}
        fill(again, 1, "new")
        assert len(Ledger(store, current=follow(cleared), on_clear="resume").entries) == PAGE_SIZE + 6

    def test_resume_forgets_refusals_for_good_and_keeps_unknown_outcomes(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 1)
        ledger.intend("refused", AT)
        ledger.refused("refused", "moderated")
        ledger.intend("unknown", AT)
        ledger.end()

        cleared = clear(TRY)
        assert list(Ledger(store, current=cleared, on_clear="resume").entries) == ["key-0", "unknown"]
        assert list(Ledger(store, current=cleared, on_clear="resume").entries) == ["key-0", "unknown"]
        assert list(Ledger(store, current=follow(cleared)).entries) == ["key-0", "unknown"]

    def test_a_changed_on_clear_between_two_tries_does_not_restart(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 3)
        ledger.end()
        cleared = clear(TRY)
        Ledger(store, current=cleared, on_clear="resume")

        assert len(Ledger(store, current=follow(cleared), on_clear="restart").entries) == 3

    def test_resume_with_nothing_before_begins(self, store: JsonStore) -> None:
        fill(Ledger(store, current=TRY, on_clear="resume"), 2)

        assert len(Ledger(store, current=follow(TRY)).entries) == 2

    def test_an_older_try_can_not_overwrite_what_its_successor_wrote(self, store: JsonStore) -> None:
        zombie = Ledger(store, current=TRY)
        fill(zombie, 2, "old")
        retry = follow(TRY)
        fill(Ledger(store, current=retry), 2, "new")
        zombie.intend("late", AT)

        assert set(Ledger(store, current=follow(retry)).entries) == {
            "old-0",
            "old-1",
            "new-0",
            "new-1",
            "late",
        }


class TestLoss:
    @pytest.mark.parametrize("lost", ["luma_submits_1_0", "luma_submits_1_1", "luma_submits_1_2"])
    @pytest.mark.parametrize("end", [False, True])
    def test_a_lost_page_is_never_taken_for_one_that_was_not_written(
        self, store: JsonStore, lost: str, end: bool
    ) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 2 * PAGE_SIZE + 1, "old")
        retry = follow(TRY)
        fill(Ledger(store, current=retry), 1, "new")
        if end:
            Ledger(store, current=retry).end()
        del store._values[lost]

        for current in (retry, follow(retry), clear(retry)):
            with pytest.raises(LumaStorageError, match=r"has lost .* try"):
                Ledger(store, current=current)

    def test_a_store_that_holds_nothing_says_so(self, store: JsonStore) -> None:
        assert Ledger(store, current=follow(TRY)).is_empty
        fill(Ledger(store, current=TRY), 1)

        assert not Ledger(store, current=follow(TRY)).is_empty


class TestBrokenStores:
    def test_a_write_that_fails_is_not_remembered(self, store: JsonStore) -> None:
        ledger = Ledger(store, current=TRY)
        fill(ledger, 1)
        store.fails = True
        with pytest.raises(OSError, match="can't be written"):
            ledger.intend("a", AT)

        assert list(ledger.entries) == ["key-0"]

    def test_a_read_that_fails_is_never_taken_for_nothing(self, mocker: Any) -> None:
        store = mocker.Mock()
        store.get.side_effect = OSError("the store can't be read")
        with pytest.raises(OSError, match="can't be read"):
            Ledger(store, current=TRY)

    def test_what_is_not_a_ledger_is_never_taken_for_nothing(self, store: JsonStore) -> None:
        store.set("luma_submits_1_0", {"something": "else"})
        with pytest.raises(msgspec.ValidationError, match="missing required field"):
            Ledger(store, current=TRY)


steps = st.lists(
    st.tuples(st.sampled_from(["intend", "submitted", "refused", "forget", "reopen"]), st.integers(0, 60)),
    max_size=120,
)


@given(steps)
def test_a_ledger_that_is_read_again_always_equals_a_dictionary(moves: list[tuple[str, int]]) -> None:
    store = JsonStore()
    ledger, known = Ledger(store, current=TRY), {}
    for move, number in moves:
        key = f"key-{number}"
        match move:
            case "reopen":
                ledger = Ledger(store, current=TRY)
            case "intend":
                ledger.intend(key, AT)
                known[key] = Entry(at=AT)
            case "forget":
                ledger.forget(key)
                known.pop(key, None)
            case "submitted" if key in known:
                ledger.submitted(key, f"task-{number}")
                known[key] = msgspec.structs.replace(known[key], task_id=f"task-{number}")
            case "refused" if key in known:
                ledger.refused(key, f"reason-{number}")
                known[key] = msgspec.structs.replace(known[key], refused=f"reason-{number}")
        assert ledger.entries == known
    assert Ledger(store, current=TRY).entries == known
