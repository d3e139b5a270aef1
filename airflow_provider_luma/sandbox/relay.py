# SPDX-License-Identifier: Apache-2.0
"""
In-memory state of the sandbox relay: tasks on a clock, money, rules for faults, and records of calls.

Nothing here knows HTTP or a wire shape. States follow from timestamps when a query reads them, so ten
thousand waiting tasks cost nothing. One lock makes it safe to steer a relay from another thread than the
serving one.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from airflow_provider_luma.sandbox import faults
from airflow_provider_luma.sandbox.faults import CallName, Fault
from airflow_provider_luma.sandbox.rules import CALL_NAMES, RecordedCall, Rules
from airflow_provider_luma.sandbox.settings import Settings
from airflow_provider_luma.sandbox.tasks import Snapshot, Task, TaskScript, TaskTimes

UNLIMITED_USD = 100_000_000.0
_PROMPT_LENGTH = range(3, 5001)
_REQUEST_FIELDS = ("model_name", "duration", "resolution", "loop")


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """
    Record one accepted, and so billed, submit or extend.

    :param id: The task's id.
    :param body: The decoded body of the call.
    :param at: Wall-clock epoch.
    :param parent: Id of the extended task. None for a submit.
    """

    id: str
    body: dict[str, Any]
    at: float
    parent: str | None = None

    @property
    def prompt(self) -> str:
        """The submitted prompt."""
        return str(self.body["user_prompt"])


class Refused(Exception):
    """The relay refuses a call with this answer."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


class Relay:
    """All state of one sandbox; ``wall`` is the epoch of the clock's reading at construction."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._epoch_of_zero = wall() - clock()
        self._lock = threading.RLock()
        self._numbers = iter(range(13_917, 2**62))
        self.reset()

    def reset(self) -> None:
        """Forget tasks, rules, records and spending, and set the clock back to now."""
        with self._lock:
            self._ahead = 0.0
            self._random = random.Random(self.settings.seed)  # noqa: S311 - no secret
            self._tasks: dict[str, Task] = {}
            self._unasked: list[str] = []
            self._generations: list[Generation] = []
            self._spent_usd = 0.0
            self.rules = Rules()
            self._calls: deque[RecordedCall] = deque(maxlen=self.settings.max_records)
            self._counts: Counter[str] = Counter()

    # The clock

    def now(self) -> float:
        """Return the reading of the relay's clock."""
        return self._clock() + self._ahead

    def epoch(self, moment: float) -> float:
        """Return the wall-clock epoch of a reading of the relay's clock."""
        return self._epoch_of_zero + moment

    def advance(self, seconds: float) -> None:
        """Move the clock ahead."""
        if seconds < 0:
            raise ValueError(f"seconds must be 0 or more; got {seconds!r}. Time does not run backwards.")
        with self._lock:
            self._ahead += seconds

    # Tasks

    def add(self, scripts: Iterable[TaskScript]) -> list[str]:
        """Add unbilled tasks, created now; return their ids."""
        with self._lock:
            now = self.now()
            return [self._create(script, now, hidden_until=now).id for script in scripts]

    def query(self, ids: Iterable[str]) -> list[Snapshot]:
        """Answer a batch query: known ids once each, in no promised order."""
        with self._lock:
            now = self.now()
            tasks = (self._tasks.get(task_id) for task_id in dict.fromkeys((*ids, *self._unasked)))
            found = [snapshot for task in tasks if task is not None for snapshot in task.poll(now)]
            self._random.shuffle(found)
            return found

    def query_one(self, task_id: str) -> Snapshot:
        """Answer a single query; raise ``Refused`` for an unknown id."""
        with self._lock:
            task = self._tasks.get(task_id)
            for snapshot in task.poll(self.now()) if task is not None else ():
                return snapshot
        raise Refused(faults.task_not_exist())

    def peek(self, task_id: str) -> Snapshot | None:
        """Return a task as it is, without counting a poll; None for an unknown id."""
        with self._lock:
            task = self._tasks.get(task_id)
            return None if task is None else task.snapshot(self.now())

    def times(self, ids: Iterable[str] | None = None) -> list[TaskTimes]:
        """Return when things happened to these tasks, or to all; raise ``KeyError`` for an unknown id."""
        with self._lock:
            now = self.now()
            tasks = self._tasks.values() if ids is None else [self._tasks[task_id] for task_id in ids]
            return [task.times(now, self.epoch) for task in tasks]

    def submit(self, body: object, *, parent: Task | None = None) -> Snapshot:
        """Accept, bill and start a task; raise ``Refused`` if a rule of the relay forbids it."""
        request = _request(body)
        prompt = request["user_prompt"].lower()
        moderated = any(word.lower() in prompt for word in self.settings.refused_words)
        if moderated and self.settings.moderation == "refuse":
            raise Refused(faults.bad_request("the prompt was refused by moderation", code="prompt_moderated"))
        inherited = parent.script.aspect_ratio if parent else "16:9"
        script = TaskScript(
            prompt=request["user_prompt"],
            aspect_ratio=str(request.get("aspect_ratio") or inherited),
            fails_with="the content was refused by moderation" if moderated else None,
        )
        with self._lock:
            return self._bill(request, script, parent.id if parent else None)

    def extend(self, task_id: str, body: object) -> Snapshot:
        """Accept, bill and start the extension of a completed task, as ``submit`` does."""
        with self._lock:
            parent = self.peek(task_id)
            if parent is None:
                raise Refused(faults.task_not_exist())
            if parent.phase != "completed":
                message = "only a completed task can be extended"
                raise Refused(faults.bad_request(message, code="task_not_completed"))
            return self.submit(body, parent=parent.task)

    def _bill(self, request: dict[str, Any], script: TaskScript, parent: str | None) -> Snapshot:
        if self.balance is not None and self.balance < self.settings.price_usd:
            raise Refused(faults.insufficient_user_quota())
        now = self.now()
        hidden_until = now + self.settings.visible_after_seconds
        task = self._create(script, now, hidden_until=hidden_until, request=request, parent=parent)
        self._spent_usd += self.settings.price_usd
        self._generations.append(Generation(id=task.id, body=request, at=time.time(), parent=parent))
        return task.snapshot(now)

    def _create(
        self,
        script: TaskScript,
        now: float,
        *,
        hidden_until: float,
        request: dict[str, Any] | None = None,
        parent: str | None = None,
    ) -> Task:
        task_id = script.id or self._new_id()
        if task_id in self._tasks:
            raise ValueError(f"id must be new; there is a task {task_id!r} already.")
        given = {name: request[name] for name in _REQUEST_FIELDS if name in request} if request else {}
        task = self._tasks[task_id] = Task(
            script=script,
            id=task_id,
            number=next(self._numbers),
            states=script.timeline(self.settings.pending_seconds, self.settings.processing_seconds),
            created=now,
            hidden_until=hidden_until,
            request={"aspect_ratio": script.aspect_ratio, "prompt": script.prompt, **given},
            parent=parent,
        )
        if script.unasked:
            self._unasked.append(task_id)
        return task

    def _new_id(self) -> str:
        unique = uuid.uuid4()
        forms = {"uuid": str(unique), "task": f"task_{unique.hex}", "luma_gen": f"luma_gen_{unique.hex[:12]}"}
        return forms[self.settings.id_form]

    # Money

    @property
    def generations(self) -> list[Generation]:
        """Every billed submit and extend."""
        with self._lock:
            return list(self._generations)

    @property
    def spent_usd(self) -> float:
        """USD that submits and extends have cost."""
        return round(self._spent_usd, 6)

    @property
    def balance(self) -> float | None:
        """USD left on the key; None when it is unlimited."""
        limit = self.settings.balance_usd
        return None if limit is None else round(limit - self._spent_usd, 6)

    # Records

    def start_call(self, name: CallName, method: str, path: str, **fields: Any) -> RecordedCall:
        """Count a call that has arrived, and return its record; ``finish_call`` keeps it."""
        with self._lock:
            self._counts[name] += 1
            fields |= {"number": self._counts.total(), "at": time.time(), "monotonic": time.monotonic()}
            return RecordedCall(name=name, method=method, path=path, **fields)

    def finish_call(self, call: RecordedCall, **fields: Any) -> None:
        """Keep a call's record just before it is answered, so that a client with the answer finds it."""
        with self._lock:
            self._calls.append(msgspec.structs.replace(call, **fields))

    @property
    def calls(self) -> list[RecordedCall]:
        """The records of the last calls."""
        with self._lock:
            return list(self._calls)

    @property
    def counts(self) -> dict[str, int]:
        """How many calls of each kind came in."""
        with self._lock:
            return {name: self._counts[name] for name in CALL_NAMES}


def _request(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refused(faults.bad_request("the body must be a JSON object", code="invalid_request"))
    prompt = body.get("user_prompt")
    if not isinstance(prompt, str) or len(prompt) not in _PROMPT_LENGTH:
        message = "user_prompt must be a text of 3 to 5000 characters"
        raise Refused(faults.bad_request(message, code="invalid_request"))
    return body
