# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.submitting.ledger import PAGE_SIZE, Entry, Ledger, MemoryStore

AT = "2026-01-02T03:04:05+00:00"


class JsonStore(MemoryStore):
    """Keeps what JSON keeps, and counts."""

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
        assert Ledger(store, run=0).entries == {}
        assert (store.reads, store.writes) == (1, 0)

    def test_an_intent_is_there_before_anything_is_known(self, store: JsonStore) -> None:
        Ledger(store, run=0).intend("a", AT)

        (entry,) = Ledger(store, run=0).entries.values()
        assert entry == Entry(at=AT)
        assert entry.unclear

    def test_a_submit_keeps_the_time_of_its_intent(self, store: JsonStore) -> None:
        ledger = Ledger(store, run=0)
        ledger.intend("a", AT)
        ledger.submitted("a", "task-1")

        assert Ledger(store, run=0).entries == {"a": Entry(at=AT, task_id="task-1")}
        assert not Ledger(store, run=0).entries["a"].unclear

    def test_a_refusal_is_kept_and_cut(self, store: JsonStore) -> None:
        ledger = Ledger(store, run=0)
        ledger.intend("a", AT)
        ledger.refused("a", "no " * 1000)

        refused = Ledger(store, run=0).entries["a"].refused
        assert refused is not None
        assert refused.endswith("… (3000 characters)")
        assert not Ledger(store, run=0).entries["a"].unclear

    def test_a_forgotten_intent_is_gone(self, store: JsonStore) -> None:
        ledger = Ledger(store, run=0)
        fill(ledger, 1)
        ledger.intend("a", AT)
        ledger.forget("a")

        assert list(Ledger(store, run=0).entries) == ["key-0"]

    def test_what_was_never_intended_can_not_have_an_outcome(self, store: JsonStore) -> None:
        with pytest.raises(KeyError):
            Ledger(store, run=0).submitted("a", "task-1")

    def test_an_intent_can_be_repeated(self, store: JsonStore) -> None:
        ledger = Ledger(store, run=0)
        fill(ledger, PAGE_SIZE + 3)
        ledger.intend("key-0", "later")

        assert Ledger(store, run=0).entries["key-0"] == Entry(at="later")
        assert len(Ledger(store, run=0).entries) == PAGE_SIZE + 3


class TestPages:
    @pytest.mark.parametrize("count", [PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE + 7])
    def test_entries_come_back_in_the_order_of_their_intents(self, store: JsonStore, count: int) -> None:
        fill(Ledger(store, run=0), count)

        found = Ledger(store, run=0).entries
        assert [entry.task_id for entry in found.values()] == [f"key-task-{n}" for n in range(count)]

    def test_three_hundred_submits_are_read_with_thirteen_calls(self, store: JsonStore) -> None:
        fill(Ledger(store, run=0), 300)
        store.reads = 0

        assert len(Ledger(store, run=0).entries) == 300
        assert store.reads == 300 // PAGE_SIZE + 1

    def test_each_submit_is_two_writes_of_a_size_that_airflow_likes(self, store: JsonStore) -> None:
        ledger = Ledger(store, run=0)
        for number in range(60):
            ledger.intend(f"{number:024}_1", AT)
            ledger.refused(f"{number:024}_1", "当前分组上游负载已饱和，请稍后再试" * 20)

        assert store.writes == 120
        assert store.largest < 64 * 1024

    def test_a_page_that_was_emptied_hides_none_behind_it(self, store: JsonStore) -> None:
        ledger = Ledger(store, run=0)
        for number in range(PAGE_SIZE):
            ledger.intend(f"gone-{number}", AT)
        ledger.intend("stays", AT)
        for number in range(PAGE_SIZE):
            ledger.forget(f"gone-{number}")

        assert list(Ledger(store, run=0).entries) == ["stays"]


class TestClear:
    def test_a_retry_finds_everything(self, store: JsonStore) -> None:
        fill(Ledger(store, run=2), 30)

        again = Ledger(store, run=2)
        assert len(again.entries) == 30
        assert again.cleared == {}

    def test_a_clear_begins_anew_and_knows_what_was_before(self, store: JsonStore) -> None:
        fill(Ledger(store, run=2), 30)

        anew = Ledger(store, run=4)
        assert anew.entries == {}
        assert len(anew.cleared) == 30

    def test_pages_of_before_the_clear_are_not_taken_for_new_ones(self, store: JsonStore) -> None:
        fill(Ledger(store, run=2), 3 * PAGE_SIZE, "old")
        fill(Ledger(store, run=4), 2, "new")

        again = Ledger(store, run=4)
        assert list(again.entries) == ["new-0", "new-1"]
        fill(again, PAGE_SIZE + 1, "more")
        assert len(Ledger(store, run=4).entries) == PAGE_SIZE + 3

    def test_a_clear_that_changed_nothing_yet_leaves_the_book_of_before(self, store: JsonStore) -> None:
        fill(Ledger(store, run=2), 1)
        assert Ledger(store, run=4).entries == {}

        assert len(Ledger(store, run=2).entries) == 1

    def test_a_run_number_that_comes_again_does_not_bring_its_pages_back(self, store: JsonStore) -> None:
        fill(Ledger(store, run=5), 3 * PAGE_SIZE, "first")
        fill(Ledger(store, run=1), 1, "second")
        fill(Ledger(store, run=5), PAGE_SIZE, "third")

        assert list(Ledger(store, run=5).entries) == [f"third-{n}" for n in range(PAGE_SIZE)]

    def test_continue_goes_on_after_a_clear_and_its_retries(self, store: JsonStore) -> None:
        fill(Ledger(store, run=2), PAGE_SIZE + 5, "old")

        cleared = Ledger(store, run=4, on_clear="continue")
        assert len(cleared.entries) == PAGE_SIZE + 5
        assert cleared.cleared == {}
        fill(cleared, 1, "new")
        assert len(Ledger(store, run=4, on_clear="continue").entries) == PAGE_SIZE + 6

    def test_a_changed_mind_between_two_tries_does_not_start_anew(self, store: JsonStore) -> None:
        fill(Ledger(store, run=2), 3)
        Ledger(store, run=4, on_clear="continue")

        assert len(Ledger(store, run=4, on_clear="anew").entries) == 3

    def test_continue_goes_on_with_the_newest_book_alone(self, store: JsonStore) -> None:
        fill(Ledger(store, run=1), 3 * PAGE_SIZE, "old")
        fill(Ledger(store, run=2), 1, "new")

        assert list(Ledger(store, run=3, on_clear="continue").entries) == ["new-0"]

    def test_continue_with_nothing_before_begins(self, store: JsonStore) -> None:
        fill(Ledger(store, run=2, on_clear="continue"), 2)

        assert len(Ledger(store, run=2).entries) == 2


class TestTrouble:
    def test_a_write_that_fails_is_not_remembered(self, store: JsonStore) -> None:
        ledger = Ledger(store, run=0)
        fill(ledger, 1)
        store.fails = True
        with pytest.raises(OSError, match="can't be written"):
            ledger.intend("a", AT)

        assert list(ledger.entries) == ["key-0"]

    def test_a_read_that_fails_is_never_taken_for_nothing(self, mocker: Any) -> None:
        store = mocker.Mock()
        store.get.side_effect = OSError("the store can't be read")
        with pytest.raises(OSError, match="can't be read"):
            Ledger(store, run=0)

    def test_what_is_not_a_ledger_is_never_taken_for_nothing(self, store: JsonStore) -> None:
        store.set("luma_submits_0", {"something": "else"})
        with pytest.raises(msgspec.ValidationError, match="missing required field"):
            Ledger(store, run=0)


steps = st.lists(
    st.tuples(st.sampled_from(["intend", "submitted", "refused", "forget", "reopen"]), st.integers(0, 60)),
    max_size=120,
)


@given(steps)
def test_a_ledger_read_anew_always_equals_a_dictionary(moves: list[tuple[str, int]]) -> None:
    store = JsonStore()
    ledger, known = Ledger(store, run=0), {}
    for move, number in moves:
        key = f"key-{number}"
        match move:
            case "reopen":
                ledger = Ledger(store, run=0)
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
    assert Ledger(store, run=0).entries == known
