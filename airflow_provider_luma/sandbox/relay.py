# SPDX-License-Identifier: Apache-2.0
"""
The relay's mind: tasks on a clock, money, rules for faults, and records of what was asked.

Nothing here knows HTTP or a wire shape. States are worked out from timestamps when somebody looks, so ten
thousand waiting tasks cost nothing. One lock makes it safe to steer a relay from another thread than the
serving one.
"""

from __future__ import annotations

import random
import re
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta

from airflow_provider_luma.sandbox import faults, media_host
from airflow_provider_luma.sandbox.faults import CallName, Fault
from airflow_provider_luma.sandbox.settings import Seconds, Settings

CALL_NAMES: tuple[str, ...] = get_args(CallName)

Phase = Literal["pending", "processing", "completed", "failed", "unknown"]
PHASES: dict[str, Phase] = {
    "pending": "pending",
    "queued": "pending",
    "not_start": "pending",
    "submitted": "pending",
    "processing": "processing",
    "dreaming": "processing",
    "in_progress": "processing",
    "completed": "completed",
    "succeeded": "completed",
    "success": "completed",
    "failed": "failed",
    "failure": "failed",
}

Polls = Annotated[int, Meta(ge=0)]

UNLIMITED_USD = 100_000_000.0
_ID = re.compile(r"^[A-Za-z0-9_-]{1,128}$")
_PROMPT_LENGTH = range(3, 5001)


class TaskScript(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    What shall become of a task.

    Left alone, a task is pending, then processing, then completed, for as long as the settings say. Of
    ``states``, ``state``, ``completes_after`` and ``fails_after`` at most one can be given.

    :param id: must be new; None lets the relay choose
    :param prompt: told in the task's ``request``
    :param aspect_ratio: likewise
    :param states: (seconds since creation, state) pairs in order of time, the first at 0. Any text is a
        state, so that unknown ones can be tried; time may also lead back from completed to processing
    :param state: the task's state from the start and for good, known or not
    :param completes_after: seconds until it is completed
    :param fails_after: seconds until it has failed
    :param fails_with: the failure's reason; alone, it makes the task fail when it would have been completed
    :param without_video: completed, but never with artifacts
    :param without_video_for: so many polls see it completed without artifacts first
    :param hidden: queries leave it out for good
    :param hidden_for: so many polls leave it out first
    :param malformed: any JSON value that stands in the answer where the task should; True for an object that
        has the task's id and otherwise wrong types
    :param overrides: fields that replace the task's own, objects within objects likewise
    :param row_overrides: the same for the row around the task in the envelope dialect
    :param answered_twice_as: every answer holds the task a second time, in this state
    :param unasked: every batch answer holds the task, asked for or not
    :param video_bytes: size of its video instead of the setting's
    """

    id: str | None = None
    prompt: str = "a cat that dances"
    aspect_ratio: str = "16:9"
    states: tuple[tuple[Seconds, str], ...] | None = None
    state: str | None = None
    completes_after: Seconds | None = None
    fails_after: Seconds | None = None
    fails_with: str | None = None
    without_video: bool = False
    without_video_for: Polls = 0
    hidden: bool = False
    hidden_for: Polls = 0
    malformed: Any = msgspec.UNSET
    overrides: dict[str, Any] = {}
    row_overrides: dict[str, Any] = {}
    answered_twice_as: str | None = None
    unasked: bool = False
    video_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.id is not None and not _ID.match(self.id):
            raise ValueError(f"id must be 1 to 128 letters, digits, _ or -, not {self.id!r}")
        ways = ("states", "state", "completes_after", "fails_after")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: give one of them")
        if self.states is not None:
            starts = [start for start, _ in self.states]
            if not starts or starts[0] != 0 or starts != sorted(starts):
                raise ValueError(
                    "states must be (seconds since creation, state) pairs in order of time, the first at 0, "
                    f"not {self.states!r}"
                )
        if self.video_bytes is not None:
            media_host.check_video_bytes(self.video_bytes)

    def timeline(self, pending: float, processing: float) -> tuple[tuple[float, str], ...]:
        """When which state begins, for a relay with these usual times."""
        if self.states is not None:
            return self.states
        if self.state is not None:
            return ((0.0, self.state),)
        final = "failed" if self.fails_with is not None or self.fails_after is not None else "completed"
        usual = pending + processing
        end = next((at for at in (self.completes_after, self.fails_after) if at is not None), usual)
        started = end * pending / usual if usual else 0.0
        return (0.0, "pending"), (started, "processing"), (end, final)


class Task:
    """A task and what has happened to it. Times are the relay's clock."""

    __slots__ = (
        "created",
        "first_seen_final",
        "hidden_left",
        "hidden_until",
        "id",
        "number",
        "parent",
        "polls",
        "request",
        "script",
        "states",
        "video_polls_left",
    )

    def __init__(
        self,
        script: TaskScript,
        task_id: str,
        *,
        number: int,
        states: Sequence[tuple[float, str]],
        created: float,
        hidden_until: float,
        request: dict[str, Any],
        parent: str | None,
    ) -> None:
        self.script = script
        self.id = task_id
        self.number = number
        self.states = states
        self.created = created
        self.hidden_until = hidden_until
        self.hidden_left = script.hidden_for
        self.video_polls_left = script.without_video_for
        self.request = request
        self.parent = parent
        self.polls = 0
        self.first_seen_final: float | None = None

    def step(self, now: float) -> tuple[float, str]:
        """When the state that holds at ``now`` began, and its name."""
        age = now - self.created
        for start, state in reversed(self.states):
            if start <= age:
                return self.created + start, state
        return self.created, self.states[0][1]


class Snapshot(NamedTuple):
    """A task at the moment of a query."""

    task: Task
    state: str
    phase: Phase
    since: float
    now: float
    has_video: bool


class RecordedCall(msgspec.Struct, frozen=True, kw_only=True):
    """
    One request that the sandbox received.

    :param number: counts from 1 over all calls
    :param name: which call it was
    :param ids: the task ids that it asked about
    :param body: the decoded JSON body, or its text when it is not JSON, or None
    :param headers: with lower-case names
    :param at: wall-clock epoch
    :param monotonic: this machine's monotonic clock, the same for all its processes
    :param status: what was answered; None when nothing was
    :param fault: name of the fault that was played
    :param generation: id of the task that this call bought
    """

    number: int
    name: CallName
    method: str
    path: str
    ids: tuple[str, ...] = ()
    body: Any = None
    headers: dict[str, str] = {}
    at: float = 0.0
    monotonic: float = 0.0
    status: int | None = None
    fault: str | None = None
    generation: str | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """
    One accepted, and so billed, submit or extend.

    :param parent: the extended task's id; None for a submit
    :param at: wall-clock epoch
    """

    id: str
    body: dict[str, Any]
    at: float
    parent: str | None = None

    @property
    def prompt(self) -> str:
        return str(self.body["user_prompt"])


class TaskTimes(msgspec.Struct, frozen=True, kw_only=True):
    """
    When things happened to a task, as wall-clock epochs of the relay; None when they have not (yet).

    :param finished_at: when the task first is completed or failed; may lie ahead
    :param first_answered_at: when a query was first told so
    :param polls: how many queries asked for the task
    """

    id: str
    state: str
    created_at: float
    finished_at: float | None
    first_answered_at: float | None
    polls: int


class Rule(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """
    When a fault is played.

    :param call: which calls it concerns
    :param ids: only calls that ask for one of these tasks; empty: all
    :param containing: only calls with this text in their path or in a field of their body, such as a file's
        name or a part of a prompt
    :param times: how often; None: always
    :param skip: how many matching calls pass before it starts
    :param accepted: the relay first takes (and bills) the job, then the fault is played
    """

    call: str
    fault: Fault
    ids: frozenset[str] = frozenset()
    containing: str | None = None
    times: int | None = None
    skip: int = 0
    accepted: bool = False

    def __post_init__(self) -> None:
        if self.call not in CALL_NAMES:
            raise ValueError(f"call must be one of {', '.join(CALL_NAMES)}, not {self.call!r}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be at least 1, not {self.times!r}")
        if self.skip < 0:
            raise ValueError(f"skip must be 0 or more, not {self.skip!r}")

    @property
    def relay_acts(self) -> bool:
        """Whether the relay handles the call before the fault hides what it did."""
        return self.accepted or self.fault.needs_true_answer


Predicate = Callable[[RecordedCall], bool]


class Refused(Exception):
    """The relay declines a call with this answer."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


def phase_of(state: str) -> Phase:
    return PHASES.get(state.lower(), "unknown")


class Relay:
    """
    All state of one sandbox.

    :param clock: seconds that only grow; tasks live on it
    :param wall: the epoch that belongs to the clock's reading at construction
    """

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
            self._rules: list[tuple[Rule, Predicate | None]] = []
            self._calls: deque[RecordedCall] = deque(maxlen=self.settings.max_records)
            self._counts: Counter[str] = Counter()
            self._call_number = 0

    # The clock

    def now(self) -> float:
        return self._clock() + self._ahead

    def epoch(self, moment: float) -> float:
        """The wall-clock epoch of a reading of the relay's clock."""
        return self._epoch_of_zero + moment

    def advance(self, seconds: float) -> None:
        """Move the relay's clock ahead."""
        if seconds < 0:
            raise ValueError(f"seconds must be 0 or more: time does not run backwards, not {seconds!r}")
        with self._lock:
            self._ahead += seconds

    # Tasks

    def add(self, scripts: Iterable[TaskScript]) -> list[str]:
        """Add tasks that nobody paid for, created now; return their ids."""
        with self._lock:
            now = self.now()
            return [self._create(script, now, hidden_until=now).id for script in scripts]

    def query(self, ids: Iterable[str]) -> list[Snapshot]:
        """Answer a batch query: known ids once each, in no promised order."""
        with self._lock:
            now = self.now()
            found: list[Snapshot] = []
            for task_id in dict.fromkeys((*ids, *self._unasked)):
                task = self._tasks.get(task_id)
                if task is not None:
                    found.extend(self._look(task, now))
            self._random.shuffle(found)
            return found

    def query_one(self, task_id: str) -> Snapshot:
        """
        Answer a single query.

        :raises Refused: when the relay doesn't know the task
        """
        with self._lock:
            task = self._tasks.get(task_id)
            for snapshot in self._look(task, self.now()) if task is not None else ():
                return snapshot
        raise Refused(faults.task_not_exist())

    def peek(self, task_id: str) -> Snapshot | None:
        """A task as it stands, without counting as a poll."""
        with self._lock:
            task = self._tasks.get(task_id)
            return None if task is None else self._snapshot(task, self.now())

    def times(self, ids: Iterable[str] | None = None) -> list[TaskTimes]:
        """
        When things happened to these tasks, or to all.

        :raises KeyError: for an id that the relay doesn't know
        """
        with self._lock:
            now = self.now()
            tasks = self._tasks.values() if ids is None else [self._tasks[task_id] for task_id in ids]
            return [self._times(task, now) for task in tasks]

    def submit(self, body: object) -> Snapshot:
        """
        Take, bill and start a job.

        :raises Refused: when the request, moderation or the balance forbids it
        """
        return self._buy(body, parent=None)

    def extend(self, task_id: str, body: object) -> Snapshot:
        """
        Take, bill and start the extension of a completed task.

        :raises Refused: as ``submit``, or when there is no such completed task
        """
        with self._lock:
            parent = self.peek(task_id)
            if parent is None:
                raise Refused(faults.task_not_exist())
            if parent.phase != "completed":
                raise Refused(
                    faults.bad_request("only a completed task can be extended", code="task_not_completed")
                )
            return self._buy(body, parent=parent.task)

    def _buy(self, body: object, *, parent: Task | None) -> Snapshot:
        if not isinstance(body, dict):
            raise Refused(faults.bad_request("the body must be a JSON object", code="invalid_request"))
        prompt = body.get("user_prompt")
        if not isinstance(prompt, str) or len(prompt) not in _PROMPT_LENGTH:
            raise Refused(
                faults.bad_request(
                    "user_prompt must be a text of 3 to 5000 characters", code="invalid_request"
                )
            )
        offence = next((word for word in self.settings.refused_words if word.lower() in prompt.lower()), None)
        if offence is not None and self.settings.moderation == "refuse":
            raise Refused(faults.bad_request("the prompt was refused by moderation", code="prompt_moderated"))
        with self._lock:
            balance = self.balance
            if balance is not None and balance < self.settings.price_usd:
                raise Refused(faults.insufficient_user_quota())
            now = self.now()
            script = TaskScript(
                prompt=prompt,
                aspect_ratio=str(
                    body.get("aspect_ratio") or (parent.script.aspect_ratio if parent else "16:9")
                ),
                fails_with="the content was refused by moderation" if offence is not None else None,
            )
            task = self._create(
                script, now, hidden_until=now + self.settings.visible_after_seconds, body=body, parent=parent
            )
            self._spent_usd += self.settings.price_usd
            self._generations.append(
                Generation(id=task.id, body=body, at=time.time(), parent=parent.id if parent else None)
            )
            return self._snapshot(task, now)

    def _create(
        self,
        script: TaskScript,
        now: float,
        *,
        hidden_until: float,
        body: dict[str, Any] | None = None,
        parent: Task | None = None,
    ) -> Task:
        task_id = script.id or self._new_id()
        if task_id in self._tasks:
            raise ValueError(f"id must be new, and there is a task {task_id!r} already")
        request = {"aspect_ratio": script.aspect_ratio, "prompt": script.prompt}
        for name in ("model_name", "duration", "resolution", "loop"):
            if body and name in body:
                request[name] = body[name]
        task = Task(
            script,
            task_id,
            number=next(self._numbers),
            states=script.timeline(self.settings.pending_seconds, self.settings.processing_seconds),
            created=now,
            hidden_until=hidden_until,
            request=request,
            parent=parent.id if parent else None,
        )
        self._tasks[task_id] = task
        if script.unasked:
            self._unasked.append(task_id)
        return task

    def _new_id(self) -> str:
        unique = uuid.uuid4()
        if self.settings.id_form == "task":
            return f"task_{unique.hex}"
        if self.settings.id_form == "luma_gen":
            return f"luma_gen_{unique.hex[:12]}"
        return str(unique)

    def _look(self, task: Task, now: float) -> Iterator[Snapshot]:
        """What one query sees of a task, counting the poll."""
        task.polls += 1
        if task.script.hidden or now < task.hidden_until:
            return
        if task.hidden_left:
            task.hidden_left -= 1
            return
        snapshot = self._snapshot(task, now)
        if snapshot.phase == "completed" and task.video_polls_left:
            task.video_polls_left -= 1
        if snapshot.phase in ("completed", "failed") and task.first_seen_final is None:
            task.first_seen_final = now
        yield snapshot
        twice = task.script.answered_twice_as
        if twice is not None:
            phase = phase_of(twice)
            yield snapshot._replace(state=twice, phase=phase, has_video=phase == "completed")

    @staticmethod
    def _snapshot(task: Task, now: float) -> Snapshot:
        since, state = task.step(now)
        phase = phase_of(state)
        has_video = phase == "completed" and not task.script.without_video and not task.video_polls_left
        return Snapshot(task, state, phase, since, now, has_video)

    def _times(self, task: Task, now: float) -> TaskTimes:
        finished = next(
            (start for start, state in task.states if phase_of(state) in ("completed", "failed")), None
        )
        seen = task.first_seen_final
        return TaskTimes(
            id=task.id,
            state=task.step(now)[1],
            created_at=self.epoch(task.created),
            finished_at=None if finished is None else self.epoch(task.created + finished),
            first_answered_at=None if seen is None else self.epoch(seen),
            polls=task.polls,
        )

    # Money

    @property
    def generations(self) -> list[Generation]:
        """Every accepted submit and extend, once each, in order."""
        with self._lock:
            return list(self._generations)

    @property
    def spent_usd(self) -> float:
        return round(self._spent_usd, 6)

    @property
    def balance(self) -> float | None:
        """What is left on the key in USD; None when it is unlimited."""
        limit = self.settings.balance_usd
        return None if limit is None else round(limit - self._spent_usd, 6)

    # Faults

    def add_rule(self, rule: Rule, predicate: Predicate | None = None) -> None:
        with self._lock:
            self._rules.append((rule, predicate))

    def clear_rules(self) -> None:
        with self._lock:
            self._rules.clear()

    def matching_rule(self, call: RecordedCall) -> Rule | None:
        """The rule that this call falls under, used up by one; counted rules come before standing ones."""
        with self._lock:
            if not self._rules:
                return None
            for counted in (True, False):
                for index, (rule, predicate) in enumerate(self._rules):
                    if (rule.times is not None) is not counted or not _matches(rule, predicate, call):
                        continue
                    if rule.skip:
                        rule.skip -= 1
                        continue
                    if rule.times is not None:
                        rule.times -= 1
                        if rule.times == 0:
                            del self._rules[index]
                    return rule
        return None

    # Records

    def start_call(
        self,
        name: CallName,
        method: str,
        path: str,
        *,
        ids: tuple[str, ...] = (),
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> RecordedCall:
        """Count a call that has arrived; ``finish_call`` files it."""
        with self._lock:
            self._call_number += 1
            self._counts[name] += 1
            return RecordedCall(
                number=self._call_number,
                name=name,
                method=method,
                path=path,
                ids=ids,
                body=body,
                headers=headers or {},
                at=time.time(),
                monotonic=time.monotonic(),
            )

    def finish_call(
        self,
        call: RecordedCall,
        *,
        status: int | None,
        fault: str | None = None,
        generation: str | None = None,
    ) -> None:
        """File a call just before it is answered, so that whoever has the answer finds the record."""
        done = msgspec.structs.replace(call, status=status, fault=fault, generation=generation)
        with self._lock:
            self._calls.append(done)

    @property
    def calls(self) -> list[RecordedCall]:
        with self._lock:
            return list(self._calls)

    @property
    def counts(self) -> dict[str, int]:
        """Calls by name since the start or the last reset."""
        with self._lock:
            return {name: self._counts[name] for name in CALL_NAMES}


def _matches(rule: Rule, predicate: Predicate | None, call: RecordedCall) -> bool:
    if rule.call != call.name:
        return False
    if rule.ids and rule.ids.isdisjoint(call.ids):
        return False
    if rule.containing is not None:
        fields = call.body.values() if isinstance(call.body, dict) else (call.body,)
        texts = (call.path, *(field for field in fields if isinstance(field, str)))
        if not any(rule.containing in text for text in texts):
            return False
    return predicate is None or predicate(call)
