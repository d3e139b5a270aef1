# SPDX-License-Identifier: Apache-2.0
"""
Run random histories of one Airflow task: crashes, retries, clears, zombies and Dags that change.

The model is Airflow's own: each retry and each clear makes a new try with a new id, only the newest try may
write into the state store, and an object storage behind it is written before Airflow refuses.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from airflow_provider_luma.submitting.ledger import Ledger, Try

AT = "2026-01-02T03:04:05+00:00"
KEYS = st.integers(0, 60).map("key-{}".format)
RETRIES = st.integers(0, 3)


class RefusedError(Exception):
    """Airflow no longer knows this try."""


class StateStore:
    """Hold Airflow's rows, which refer to objects in a storage."""

    def __init__(self) -> None:
        self.newest = 1
        self._rows: set[str] = set()
        self._objects: dict[str, str] = {}

    def of(self, number: int) -> TryStore:
        return TryStore(self, number)

    def get(self, key: str) -> Any:
        return json.loads(self._objects[key]) if key in self._rows else None

    def set(self, number: int, key: str, value: Any) -> None:
        self._objects[key] = json.dumps(value)
        if number != self.newest:
            raise RefusedError(key)
        self._rows.add(key)


class TryStore:
    """Give one try access to the store."""

    def __init__(self, store: StateStore, number: int) -> None:
        self._store, self._number = store, number

    def get(self, key: str) -> Any:
        return self._store.get(key)

    def set(self, key: str, value: Any) -> None:
        self._store.set(self._number, key, value)


class Worker:
    """
    :param run: which run of the task a person would say that it is
    """

    def __init__(self, store: StateStore, current: Try, on_clear: Any, run: int) -> None:
        self.current, self.run = current, run
        self.ledger = Ledger(store.of(current.number), current=current, on_clear=on_clear)
        self.sending: str | None = None


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = StateStore()
        self.current = Try(number=1, max_tries=2)
        self.state = "running"
        # Whether the newest try wrote down that it ended; Airflow may not know it.
        self.ended = False
        self.run = 0
        self.billed: Counter[tuple[int, str]] = Counter()
        self.ids: set[tuple[int, str]] = set()
        self.workers = [Worker(self.store, self.current, "restart", 0)]

    def _start(self, on_clear: Any) -> None:
        self.store.newest = self.current.number
        self.state, self.ended = "running", False
        # The workers of before live on as zombies, until they are refused something.
        self.workers.append(Worker(self.store, self.current, on_clear, self.run))

    def _die(self, worker: Worker) -> None:
        self.workers.remove(worker)
        if worker.current.number == self.current.number and self.state == "running":
            self.state = "up_for_retry" if not self.current.is_last else "failed"

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), key=KEYS)
    def intend(self, data: st.DataObject, key: str) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if worker.sending is None and key not in worker.ledger.entries:
            try:
                worker.ledger.intend(key, AT)
                worker.sending = key
            except RefusedError:
                self._die(worker)

    @precondition(lambda self: any(worker.sending for worker in self.workers))
    @rule(data=st.data(), outcome=st.sampled_from(["id", "id", "refused", "busy", "lost", "dead"]))
    def send(self, data: st.DataObject, outcome: str) -> None:
        worker = data.draw(st.sampled_from([worker for worker in self.workers if worker.sending]))
        key, worker.sending = worker.sending or "", None
        if outcome in ("id", "lost", "dead"):
            self.billed[worker.run, key] += 1
        try:
            match outcome:
                case "id":
                    worker.ledger.submitted(key, f"task of {key}")
                    self.ids.add((worker.run, key))
                case "refused":
                    worker.ledger.refused(key, "moderated")
                case "busy":
                    worker.ledger.forget(key)
                case "dead":
                    self._die(worker)
        except RefusedError:
            self._die(worker)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self._die(data.draw(st.sampled_from(self.workers)))

    @precondition(lambda self: self.state == "running")
    @rule()
    def lose_the_heartbeat(self) -> None:
        self.state = "failed" if self.current.is_last else "up_for_retry"

    @precondition(lambda self: self.state == "running")
    @rule()
    def fail_and_await_a_retry(self) -> None:
        if not self.current.is_last:
            self.state = "up_for_retry"

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), is_reported=st.booleans())
    def end(self, data: st.DataObject, is_reported: bool) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if worker.sending is not None:
            return
        try:
            worker.ledger.end()
        except RefusedError:
            self._die(worker)
            return
        self.workers.remove(worker)
        if worker.current.number == self.current.number:
            self.ended = True
            # What Airflow doesn't hear of is retried, as is what fails in post_execute.
            self.state = "success" if is_reported else "failed" if self.current.is_last else "up_for_retry"

    @precondition(lambda self: self.state == "up_for_retry")
    @rule(on_clear=st.sampled_from(["restart", "resume"]))
    def retry(self, on_clear: str) -> None:
        self.current = msgspec.structs.replace(self.current, number=self.current.number + 1)
        self._start(on_clear)

    @rule(on_clear=st.sampled_from(["restart", "resume"]), retries=RETRIES)
    def clear(self, on_clear: str, retries: int) -> None:
        if self.ended and on_clear == "restart":
            self.run += 1
        number = self.current.number
        self.current = Try(number=number + 1, max_tries=number + retries)
        self._start(on_clear)

    @invariant()
    def nothing_is_billed_twice(self) -> None:
        assert [key for key, count in self.billed.items() if count > 1] == []

    @invariant()
    def no_id_is_lost(self) -> None:
        newest = self.workers[-1] if self.workers else None
        if newest is not None and newest.current.number == self.current.number:
            known = {key for key, entry in newest.ledger.entries.items() if entry.task_id}
            assert {key for run, key in self.ids if run == newest.run} <= known


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestHistories = Histories.TestCase
