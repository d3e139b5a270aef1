# SPDX-License-Identifier: Apache-2.0
"""What a test can do to a sandbox and ask of it, wherever the sandbox runs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from airflow_provider_luma.sandbox.faults import CallName, Fault
from airflow_provider_luma.sandbox.relay import (
    Generation,
    Predicate,
    RecordedCall,
    Rule,
    TaskScript,
    TaskTimes,
)


class Sandbox(ABC):
    """
    A running relay, as its user sees it.

    ``root_url`` is where it listens; ``base_url`` is what clients are given: the same with the path prefix.
    """

    api_key: str
    host: str
    port: int
    prefix: str
    scheme = "http"

    @property
    def root_url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def base_url(self) -> str:
        return self.root_url + self.prefix

    @property
    def airflow_connection(self) -> str:
        """JSON of the Airflow connection to this sandbox, as the value of ``AIRFLOW_CONN_LUMA_DEFAULT``."""
        return json.dumps({"conn_type": "luma", "host": self.base_url, "password": self.api_key})

    # Tasks

    def add_task(self, task_id: str | None = None, **script: Any) -> str:
        """
        Add a task that nobody paid for, created now.

        :param task_id: its id; None lets the relay choose
        :param script: the fields of :class:`~airflow_provider_luma.sandbox.relay.TaskScript`, such as
            ``completes_after=3``, ``fails_with="moderated"``, ``state="completed"`` or ``hidden_for=2``
        :return: the id
        :raises ValueError: when a field is unknown or its value wrong
        """
        try:
            checked = msgspec.convert({"id": task_id, **script}, TaskScript)
        except msgspec.ValidationError as error:
            raise ValueError(f"{error}; given: {script!r}") from None
        return self.add_tasks([checked])[0]

    @abstractmethod
    def add_tasks(self, scripts: Iterable[TaskScript]) -> list[str]:
        """Add many tasks at once; return their ids in the same order."""

    @abstractmethod
    def times(self, ids: Iterable[str] | None = None) -> list[TaskTimes]:
        """
        When things happened to these tasks, or to all.

        :raises KeyError: for an id that the relay doesn't know
        """

    def when(self, task_id: str) -> TaskTimes:
        """When things happened to this task."""
        return self.times([task_id])[0]

    def completed_at(self, task_id: str) -> float | None:
        """When the task is first completed or failed, as a wall-clock epoch (maybe ahead), or None."""
        return self.when(task_id).finished_at

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Move the relay's clock ahead, so that nobody has to wait for a task."""

    # Faults

    def fail_next(
        self, call: CallName, fault: Fault, times: int = 1, *, skip: int = 0, accepted: bool = False
    ) -> None:
        """
        Play a fault on the next calls of a kind.

        Several of them queue up, and go before those of ``fail_when``.

        :param times: on how many calls
        :param skip: how many calls pass before
        :param accepted: submit and extend: the relay first takes and bills the job. Without it the relay
            never hears of the call, unless the fault needs the true answer (``latency``, ``truncated``, …)
        """
        self._add_rule(Rule(call=call, fault=fault, times=times, skip=skip, accepted=accepted), None)

    def fail_when(
        self,
        call: CallName,
        fault: Fault,
        predicate: Predicate | None = None,
        *,
        ids: Collection[str] = (),
        containing: str | None = None,
        times: int | None = None,
        skip: int = 0,
        accepted: bool = False,
    ) -> None:
        """
        Play a fault on every call of a kind that meets the conditions; without conditions, on all.

        :param predicate: gets the call and decides; only for a sandbox in this process
        :param ids: the call asks for at least one of these tasks
        :param containing: this text stands in the call's path or in a field of its body, such as a file's
            name or a part of a prompt
        :param times: at most so often; None for always
        """
        rule = Rule(
            call=call,
            fault=fault,
            ids=frozenset(ids),
            containing=containing,
            times=times,
            skip=skip,
            accepted=accepted,
        )
        self._add_rule(rule, predicate)

    @abstractmethod
    def _add_rule(self, rule: Rule, predicate: Predicate | None) -> None: ...

    @abstractmethod
    def clear_faults(self) -> None:
        """Forget all faults that were to come."""

    @abstractmethod
    def reset(self) -> None:
        """Forget tasks, faults, records and spending, and set the clock back to now."""

    # Records

    @property
    @abstractmethod
    def calls(self) -> list[RecordedCall]:
        """The calls that were answered or dropped, in that order; the last ``max_records`` of them."""

    @property
    @abstractmethod
    def counts(self) -> dict[str, int]:
        """How many calls of each kind came in."""

    def count(self, call: CallName) -> int:
        """How many calls of this kind came in."""
        return self.counts[call]

    @property
    @abstractmethod
    def generations(self) -> list[Generation]:
        """Every accepted submit and extend exactly once: what was bought."""

    @property
    @abstractmethod
    def balance(self) -> float | None:
        """USD left on the key; None when it is unlimited."""

    @property
    @abstractmethod
    def spent_usd(self) -> float:
        """USD that submits and extends have cost."""
