# SPDX-License-Identifier: Apache-2.0
"""What a test can do to a sandbox and read from it, wherever the sandbox runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from airflow_provider_luma.sandbox.control import Remote, verb
from airflow_provider_luma.sandbox.faults import CallName, Fault
from airflow_provider_luma.sandbox.relay import Generation, Relay
from airflow_provider_luma.sandbox.rules import Predicate, RecordedCall, Rule
from airflow_provider_luma.sandbox.settings import Settings
from airflow_provider_luma.sandbox.tasks import TaskScript, TaskTimes


class Balance(msgspec.Struct, frozen=True):
    """Report the money on the key; ``balance_usd`` is None when it is unlimited."""

    balance_usd: float | None
    spent_usd: float


class Sandbox:
    """
    Steer a relay in this process (``relay``) or in another one (``remote``).

    To add a verb, write one method with ``@verb``: it becomes a route and works on both kinds of relay.

    :param settings: The sandbox's settings.
    :param host: Address that it listens on.
    :param port: Port that it listens on.
    """

    scheme = "http"
    relay: Relay
    remote: Remote | None = None

    def __init__(self, settings: Settings, *, host: str, port: int) -> None:
        self.settings = settings
        self.api_key = settings.api_key
        self.prefix = settings.prefix
        self.host = host
        self.port = port

    @property
    def root_url(self) -> str:
        """Where it listens, without a path."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What clients are given: where it listens, with the path prefix."""
        return self.root_url + self.prefix

    @property
    def airflow_connection(self) -> str:
        """JSON of the Airflow connection to this sandbox, as the value of ``AIRFLOW_CONN_LUMA_DEFAULT``."""
        return json.dumps({"conn_type": "luma", "host": self.base_url, "password": self.api_key})

    # Tasks

    def add_task(self, task_id: str | None = None, **script: Any) -> str:
        """
        Add an unbilled task, created now.

        :param task_id: Its id. None lets the relay choose.
        :param script: Fields of :class:`~airflow_provider_luma.sandbox.tasks.TaskScript`, such as
            ``completes_after=3``, ``fails_with="moderated"``, ``state="completed"`` or ``hidden_for=2``.
        :return: The id.
        :raises ValueError: A field is unknown or its value wrong.
        """
        try:
            checked = msgspec.convert({"id": task_id, **script}, TaskScript)
        except msgspec.ValidationError as error:
            reason = str(error).rstrip(".")
            raise ValueError(f"script must be fields of TaskScript; got {script!r}. {reason}.") from None
        return self.add_tasks([checked])[0]

    def add_tasks(self, scripts: Iterable[TaskScript]) -> list[str]:
        """Add many tasks at once; return their ids in the same order."""
        return self._add_tasks(list(scripts))

    @verb("POST", "tasks", key="ids")
    def _add_tasks(self, tasks: list[TaskScript]) -> list[str]:
        return self.relay.add(tasks)

    def times(self, ids: Iterable[str] | None = None) -> list[TaskTimes]:
        """Return when things happened to these tasks, or to all; raise ``KeyError`` for an unknown id."""
        return self._times(None if ids is None else list(ids))

    @verb("POST", "times")
    def _times(self, ids: list[str] | None = None) -> list[TaskTimes]:
        return self.relay.times(ids)

    def when(self, task_id: str) -> TaskTimes:
        """Return when things happened to this task."""
        return self.times([task_id])[0]

    def completed_at(self, task_id: str) -> float | None:
        """Return when the task first is in a terminal state, as a wall-clock epoch (maybe ahead), or None."""
        return self.when(task_id).finished_at

    @verb("POST", "advance")
    def advance(self, seconds: float) -> None:
        """Move the relay's clock ahead, so that a test need not wait for a task."""
        self.relay.advance(seconds)

    # Faults

    def fail_next(
        self, call: CallName, fault: Fault, times: int = 1, *, skip: int = 0, accepted: bool = False
    ) -> None:
        """
        Play a fault on the next calls of a kind; such faults queue up and precede those of ``fail_when``.

        :param times: On how many calls.
        :param skip: How many matching calls pass before.
        :param accepted: Whether the relay first accepts and bills a submit or extend. Otherwise the call does
            not reach it, unless the fault needs the true answer (``latency``, ``truncated``, …).
        """
        self._add_rule(Rule(call=call, fault=fault, times=times, skip=skip, accepted=accepted))

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
        Play a fault on every call of a kind that meets all conditions; the rest is as for ``fail_next``.

        :param predicate: Gets the call and decides; only for a sandbox in this process.
        :param ids: The call names at least one of these tasks.
        :param containing: This text is in the call's path or in a field of its body, such as a file's name or
            a part of a prompt.
        :param times: On how many calls. None: on all.
        """
        if predicate is not None and self.remote is not None:
            raise ValueError("predicate can't be sent to another process; use ids= or containing=.")
        conditions: Any = {"predicate": predicate, "ids": frozenset(ids), "containing": containing}
        self._add_rule(Rule(call=call, fault=fault, times=times, skip=skip, accepted=accepted, **conditions))

    @verb("POST", "faults")
    def _add_rule(self, rule: Rule) -> None:
        self.relay.rules.add(rule)

    @verb("DELETE", "faults")
    def clear_faults(self) -> None:
        """Forget all faults that have not been played."""
        self.relay.rules.clear()

    @verb("POST", "reset")
    def reset(self) -> None:
        """Forget tasks, faults, records and spending, and set the clock back to now."""
        self.relay.reset()

    # Records

    @verb("GET", "calls")
    def _calls(self, name: str | None = None, after: int = 0) -> list[RecordedCall]:
        return [call for call in self.relay.calls if call.number > after and name in (None, call.name)]

    @property
    def calls(self) -> list[RecordedCall]:
        """The last ``max_records`` calls that were answered or dropped, in that order."""
        return self._calls()

    @property
    @verb("GET", "counts")
    def counts(self) -> dict[str, int]:
        """How many calls of each kind came in."""
        return self.relay.counts

    def count(self, call: CallName) -> int:
        """Return how many calls of this kind came in."""
        return self.counts[call]

    @property
    @verb("GET", "generations")
    def generations(self) -> list[Generation]:
        """Every accepted, and so billed, submit and extend exactly once."""
        return self.relay.generations

    @verb("GET", "balance")
    def _balance(self) -> Balance:
        return Balance(self.relay.balance, self.relay.spent_usd)

    @property
    def balance(self) -> float | None:
        """USD left on the key; None when it is unlimited."""
        return self._balance().balance_usd

    @property
    def spent_usd(self) -> float:
        """USD that submits and extends have cost."""
        return self._balance().spent_usd
