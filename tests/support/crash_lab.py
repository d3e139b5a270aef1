# SPDX-License-Identifier: Apache-2.0
"""
Kill submitting processes with SIGKILL, at every step of their path and at random moments, or let a timeout
raise at every step of their main thread, and write down what became of their requests.

It runs in a process of its own, ``python -m tests.support.crash_lab FOLDER MOMENTS SEED``, because it forks:
every try is a child of this process, which has everything imported and no thread. It prints a
:class:`Protocol` as JSON.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

import airflow_provider_luma
from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.requests import GenerationRequest
from airflow_provider_luma.exceptions import LumaError
from airflow_provider_luma.sandbox import SandboxProcess
from airflow_provider_luma.submitting.ledger import Entry, Ledger
from airflow_provider_luma.submitting.ledger import Try as AirflowTry
from airflow_provider_luma.submitting.submission import Submission
from airflow_provider_luma.submitting.submitter import SubmitPolicy, Submitter

PACKAGE = str(Path(airflow_provider_luma.__file__).parent)
WATCHED = (
    f"{PACKAGE}/submitting/",
    *(f"{PACKAGE}/client/{module}.py" for module in ("api", "http", "connections", "certainty")),
    __file__,
)
"""
The code of the submit path that sends, decides or stores; the file store below is a part of it.

A kill in a pure module, such as the decoder, leaves the same behind as one at the line that calls it.
"""

WAITING = (f"{PACKAGE}/submitting/", threading.__file__)
"""Where the main thread is meanwhile."""

MAX_KILLS = 3
MAX_REPETITIONS = 100
MAX_DELAY_SECONDS = 0.005


class Try(msgspec.Struct):
    """
    One process.

    :param killed: whether it was killed before it wrote its outcome
    :param entries: the ledger after it
    :param reported: the ids that it had reported by then, as an operator does by XCom
    """

    killed: bool
    entries: list[Entry]
    reported: list[str]

    @property
    def unknown(self) -> int:
        """How many of its submits have an unknown outcome."""
        return sum(entry.has_unknown_outcome for entry in self.entries)

    @property
    def recorded(self) -> set[str]:
        """The ids in the ledger."""
        return {entry.task_id for entry in self.entries if entry.task_id}


PHASES: dict[str, Callable[[Try], bool]] = {
    "before anything was sent": lambda tried: tried.killed and not tried.entries,
    "in mid-list": lambda tried: tried.killed and bool(tried.recorded),
    "while a submit was in flight": lambda tried: tried.killed and tried.unknown > 0,
}
"""Where a process can be killed, by what it leaves behind."""


class Case(msgspec.Struct):
    """
    One list of requests, submitted by one process after the other until one wrote its outcome.

    :param moment: where or when the first process was killed
    :param ids: what the last one returned; None when it failed
    :param error: the type of its error
    :param message: the error's words
    :param error_ids: the ids that the error named as submitted
    """

    moment: str
    prompts: list[str]
    tries: list[Try]
    ids: list[str] | None = None
    error: str | None = None
    message: str = ""
    error_ids: list[str] = []


class Protocol(msgspec.Struct):
    """
    :param steps: every step of the submit path that was found, in order, as ``file:line event``
    :param last_steps: those after the outcome was written
    :param by_step: the cases killed at one of them each
    :param by_chance: the cases killed at random moments
    :param by_timeout: the cases whose main thread was interrupted at one of its steps each
    :param generations: what the relay has billed, as (prompt, id)
    """

    steps: list[str]
    last_steps: list[str]
    by_step: list[Case]
    by_chance: list[Case]
    by_timeout: list[Case]
    generations: list[tuple[str, str]]


@dataclass(frozen=True)
class Moment:
    """
    An occurrence of a step, counted from 0.

    Threads take turns in another order in each process, so a count of all steps wouldn't find it again.
    """

    step: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.occurrence} {self.step}"

    def watcher(self, strike: Callable[[], object]) -> Callable[[FrameType, str], object]:
        """Return what :func:`_trace` calls, which calls *strike* at this moment."""
        place, _, event = self.step.rpartition(" ")
        file, _, line = place.rpartition(":")
        wanted, left = int(line), itertools.count(self.occurrence, -1)

        def notice(frame: FrameType, at: str) -> None:
            here = frame.f_lineno == wanted and at == event and frame.f_code.co_filename.endswith(file)
            if here and next(left) == 0:
                strike()

        return notice


class TimedOut(BaseException):
    """As Airflow's own timeout, which a signal handler raises in the main thread."""


class FileStore:
    """
    A durable store: each value a file that is replaced as a whole.

    :param on_write: called after each write
    """

    def __init__(self, folder: Path, on_write: Callable[[], object] = bool) -> None:
        self._folder = folder
        self._on_write = on_write

    def get(self, key: str) -> Any:
        path = self._folder / key
        return json.loads(path.read_text()) if path.exists() else None

    def set(self, key: str, value: Any) -> None:
        new = self._folder / f"{key}.new"
        new.write_text(json.dumps(value))
        new.replace(self._folder / key)
        self._on_write()


class Lab:
    """
    :param folder: where the tries keep what they know
    """

    def __init__(self, sandbox: SandboxProcess, folder: Path) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._numbers = itertools.count()

    def find_steps(self, requests: int, *, main_thread: bool = False) -> tuple[list[str], list[str]]:
        """Let one list through; return every line and return on its path, and those after its last write."""
        folder, prompts = self._new_case(requests)
        steps = folder / "steps"

        def record() -> None:
            found: list[str] = []
            last: list[str] = []

            def note(frame: FrameType, event: str) -> None:
                found.append(_step(frame, event))
                if (folder / "outcome").exists():
                    last.append(found[-1])

            _trace(note, main_thread=main_thread)
            self._submit(folder, prompts, concurrency=1)
            sys.settrace(None)
            steps.write_text(json.dumps([found, last]))

        _wait_for(_fork(record))
        found, last = json.loads(steps.read_text())
        return found, last

    def kill_at_steps(self, steps: list[str], requests: int) -> list[Case]:
        """Kill a process at each step that is worth it, then retry all of their cases in one more process."""
        cases = [self._kill_at(moment, requests) for moment in _worth_striking_at(steps, requests)]
        killed = [(folder, case.prompts) for folder, case in cases if case.tries[-1].killed]

        def retry() -> None:
            for folder, prompts in killed:
                self._submit(folder, prompts, concurrency=1)

        _wait_for(_fork(retry))
        for folder, case in cases:
            if case.tries[-1].killed:
                self._note(case, folder)
            self._take_outcome(case, folder)
        return [case for _, case in cases]

    def _kill_at(self, moment: Moment, requests: int) -> tuple[Path, Case]:
        """Kill a process at this moment; repeat it while the threads take turns so that it never comes."""
        for _ in range(MAX_REPETITIONS):
            folder, prompts = self._new_case(requests)

            def submit(folder: Path = folder, prompts: list[str] = prompts) -> None:
                _trace(moment.watcher(lambda: os.kill(os.getpid(), signal.SIGKILL)))
                self._submit(folder, prompts, concurrency=1)

            if _wait_for(_fork(submit)) == signal.SIGKILL:
                case = Case(moment=str(moment), prompts=prompts, tries=[])
                self._note(case, folder)
                return folder, case
        raise RuntimeError(f"none of {MAX_REPETITIONS} processes reached {moment}")

    def interrupt_at(self, moment: Moment, requests: int) -> Case:
        """Raise in the main thread at this moment; end the process then."""
        folder, prompts = self._new_case(requests)

        def time_out() -> None:
            raise TimedOut

        def submit() -> None:
            _trace(moment.watcher(time_out), main_thread=True)
            # The interpreter's own locks turn it into a RuntimeError at some of its steps.
            with suppress(TimedOut, RuntimeError):
                self._submit(folder, prompts, concurrency=1)

        case = Case(moment=str(moment), prompts=prompts, tries=[])
        _wait_for(_fork(submit))
        self._note(case, folder)
        return self._end(case, folder, concurrency=1)

    def kill_by_chance(self, rng: random.Random, cases: int) -> list[Case]:
        """
        Kill processes at random moments, in so many cases and in as many more as it takes to hit all phases.

        A moment is a number of writes and a delay, so that a slow machine hits the same phases.
        """
        killed: list[Case] = []
        missed = set(PHASES)
        while len(killed) < cases or (missed and len(killed) < MAX_REPETITIONS * cases):
            requests = 4
            moments = [
                # A submit writes its intent, its id in the ledger, and its id outside.
                (rng.randint(0, 3 * requests), rng.uniform(0, MAX_DELAY_SECONDS))
                for _ in range(rng.randint(1, MAX_KILLS))
            ]
            case = self._kill_after(moments, requests=requests, concurrency=rng.choice([1, 3]))
            missed -= {name for name, is_hit in PHASES.items() if is_hit(case.tries[0])}
            killed.append(case)
        return killed

    def _kill_after(self, moments: list[tuple[int, float]], requests: int, concurrency: int) -> Case:
        """Kill process after process, each a delay in seconds after so many writes."""
        folder, prompts = self._new_case(requests)
        case = Case(
            moment=" ".join(f"{writes}+{delay:.4f}" for writes, delay in moments), prompts=prompts, tries=[]
        )
        for writes, delay in moments:
            reading, writing = os.pipe()
            on_write = partial(os.write, writing, b".")
            pid = _fork(partial(self._submit, folder, prompts, concurrency, on_write))
            os.close(writing)
            with os.fdopen(reading, "rb", buffering=0) as written:
                # A process that ends earlier closes the pipe.
                while writes and written.read(1):
                    writes -= 1
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)
                _wait_for(pid)
            self._note(case, folder)
            if not case.tries[-1].killed:
                break
        return self._end(case, folder, concurrency)

    @property
    def generations(self) -> list[tuple[str, str]]:
        return [(generation.prompt, generation.id) for generation in self._sandbox.generations]

    def _new_case(self, requests: int) -> tuple[Path, list[str]]:
        number = next(self._numbers)
        folder = self._folder / str(number)
        folder.mkdir()
        return folder, [f"case {number} request {request}" for request in range(requests)]

    def _end(self, case: Case, folder: Path, concurrency: int) -> Case:
        """Retry until a process writes its outcome."""
        while case.tries[-1].killed:
            _wait_for(_fork(lambda: self._submit(folder, case.prompts, concurrency)))
            self._note(case, folder)
        self._take_outcome(case, folder)
        return case

    def _take_outcome(self, case: Case, folder: Path) -> None:
        outcome = json.loads((folder / "outcome").read_text())
        case.ids, case.error = outcome["ids"], outcome["error"]
        case.message, case.error_ids = outcome["message"], outcome["error_ids"]

    def _note(self, case: Case, folder: Path) -> None:
        reported = folder / "reported"
        entries = Ledger(FileStore(folder), current=_airflow_try(folder)).entries
        case.tries.append(
            Try(
                killed=not (folder / "outcome").exists(),
                entries=list(entries.values()),
                reported=json.loads(reported.read_text()) if reported.exists() else [],
            )
        )

    def _submit(
        self, folder: Path, prompts: list[str], concurrency: int, on_write: Callable[[], object] = bool
    ) -> None:
        """Do what one process does: the operator's submitting, with files for Airflow's store and XCom."""
        store = FileStore(folder, on_write)
        reported: list[str] = []
        (folder / f"try-{_airflow_try(folder).number + 1}").touch()

        def report(number: int, task_id: str, at: str) -> None:
            reported.append(task_id)
            store.set("reported", reported)

        outcome: dict[str, Any] = {"ids": None, "error": None, "message": "", "error_ids": []}
        with LumaClient(self._sandbox.base_url, self._sandbox.api_key) as client:
            submitter = Submitter(
                client,
                [Submission(GenerationRequest(prompt=prompt)) for prompt in prompts],
                ledger=Ledger(store, current=_airflow_try(folder)),
                connection=f"luma_default {client.base_url}",
                policy=SubmitPolicy(max_concurrency=concurrency),
                on_submitted=report,
            )
            try:
                submitter.run()
                outcome["ids"] = submitter.submitted_ids
            except LumaError as error:
                outcome |= {"error": type(error).__name__, "message": str(error)}
                outcome["error_ids"] = list(error.task_ids)
        store.set("outcome", outcome)


def _airflow_try(folder: Path) -> AirflowTry:
    """The newest try of a case: each process is one."""
    return AirflowTry(number=len(list(folder.glob("try-*"))), max_tries=99)


def _fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _wait_for(pid: int) -> int:
    """Return the number of the signal that ended the process; 0 for none."""
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a process failed by itself; its error stands above")
    return os.WTERMSIG(status)


def _trace(notice: Callable[[FrameType, str], object], *, main_thread: bool = False) -> None:
    """
    Call ``notice`` for every line and return in the watched files, in all or the main thread.

    Nothing happens between a call and the first line of what is called.
    """
    watched = WAITING if main_thread else WATCHED

    def within(frame: FrameType, event: str, argument: object) -> Any:
        notice(frame, event)
        return within

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(watched):
            return None
        return within

    if not main_thread:
        threading.settrace(enter)
    sys.settrace(enter)


def _step(frame: FrameType, event: str) -> str:
    path = frame.f_code.co_filename.removeprefix(f"{PACKAGE}/")
    return f"{Path(path).name if path == __file__ else path}:{frame.f_lineno} {event}"


def _worth_striking_at(steps: list[str], occurrences: int) -> Iterator[Moment]:
    """
    Leave out what a loop repeats: of each step, take as many occurrences as there are requests.

    The client and Python's threads know nothing of the requests before, so that one occurrence is enough of
    each of their steps.
    """
    for step, times in Counter(steps).items():
        knows_requests = step.startswith(("submitting/", "crash_lab.py"))
        for occurrence in range(min(times, occurrences if knows_requests else 1)):
            yield Moment(step, occurrence)


def main() -> None:
    folder, moments, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)  # noqa: S311 - no secret
    with SandboxProcess(latency_seconds=0.002) as sandbox:
        # A collection in a child would copy every page that it shares with this process.
        gc.freeze()
        lab = Lab(sandbox, folder)
        steps, last_steps = lab.find_steps(requests=2)
        by_step = lab.kill_at_steps(steps, requests=2)
        by_chance = lab.kill_by_chance(rng, moments)
        waits, _ = lab.find_steps(requests=2, main_thread=True)
        by_timeout = [
            lab.interrupt_at(moment, requests=2) for moment in _worth_striking_at(waits, occurrences=2)
        ]
        protocol = Protocol(
            steps=steps,
            last_steps=last_steps,
            by_step=by_step,
            by_chance=by_chance,
            by_timeout=by_timeout,
            generations=lab.generations,
        )
    sys.stdout.buffer.write(msgspec.json.encode(protocol))


if __name__ == "__main__":
    main()
