# SPDX-License-Identifier: Apache-2.0
"""
Processes that submit are killed (SIGKILL) at every step and at random moments, or timed out at every step of
their main thread, and nothing is bought twice.

``tests/support/crash_lab.py`` does the killing, and finds the steps by tracing. What the relay has sold is
the judge.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.support.crash_lab import Case, Protocol, Try
from tests.support.once import once_per_run

ROOT = Path(__file__).parents[2]
MOMENTS = 100
SEED = 20_240_229


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Protocol:
    def kill_many(file: Path) -> None:
        folder = tmp_path_factory.mktemp("tries")
        command = [sys.executable, "-m", "tests.support.crash_lab", folder, str(MOMENTS), str(SEED)]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        assert finished.returncode == 0, finished.stderr.decode()[-5000:]
        file.write_bytes(finished.stdout)

    file = once_per_run(tmp_path_factory, worker_id, "crash_lab.json", kill_many)
    return msgspec.json.decode(file.read_bytes(), type=Protocol)


@pytest.fixture(params=["by_step", "by_chance", "by_timeout"])
def cases(request: pytest.FixtureRequest, protocol: Protocol) -> list[Case]:
    return list(getattr(protocol, request.param))


def unclear(tried: Try) -> int:
    return sum(entry.has_unknown_outcome for entry in tried.entries)


def booked(tried: Try) -> set[str]:
    return {entry.task_id for entry in tried.entries if entry.task_id}


def bought(protocol: Protocol, case: Case) -> dict[str, str]:
    """Id by prompt."""
    return {prompt: task_id for prompt, task_id in protocol.generations if prompt in case.prompts}


def test_the_steps_lead_from_the_intent_through_the_wire_to_the_booking(protocol: Protocol) -> None:
    files = Counter(step.partition(":")[0] for step in set(protocol.steps))

    assert len(set(protocol.steps)) > 300
    assert {
        "submitting/submitter.py",
        "submitting/ledger.py",
        "submitting/submission.py",
        "client/api.py",
        "client/http.py",
        "client/connections.py",
        "client/certainty.py",
        "crash_lab.py",
    } <= set(files)


def test_processes_were_killed_at_every_step_before_they_came_to_their_end(protocol: Protocol) -> None:
    reached = {case.moment.partition(" ")[2] for case in protocol.by_step}
    # What follows the last write of a process can't be told from its end.
    after_the_end = sum(not case.tries[0].killed for case in protocol.by_step)

    assert reached == set(protocol.steps)
    assert after_the_end <= 10


def test_random_moments_hit_all_phases(protocol: Protocol) -> None:
    first = [case.tries[0] for case in protocol.by_chance]

    assert len(first) == MOMENTS
    assert any(tried.killed and not tried.entries for tried in first), "before anything was sent"
    assert any(tried.killed and booked(tried) for tried in first), "in mid-list"
    assert any(tried.killed and unclear(tried) for tried in first), "while a submit was under way"


def test_nothing_is_bought_twice(protocol: Protocol) -> None:
    copies = Counter(prompt for prompt, _ in protocol.generations)

    assert [prompt for prompt, count in copies.items() if count > 1] == []


def test_no_id_that_was_booked_or_told_is_lost(cases: list[Case]) -> None:
    for case in cases:
        known = set(case.error_ids if case.ids is None else case.ids)
        for tried in case.tries:
            assert booked(tried) <= known, case
            assert set(tried.told) <= known, case


def test_what_is_clear_is_finished_and_returned_in_order(protocol: Protocol, cases: list[Case]) -> None:
    finished = [case for case in cases if case.error is None]

    assert finished
    assert {case.error for case in cases} <= {None, "LumaAmbiguousSubmitError"}
    for case in finished:
        assert case.ids == [bought(protocol, case)[prompt] for prompt in case.prompts], case


def test_what_is_unclear_ends_as_such_and_nothing_else_does(cases: list[Case]) -> None:
    for case in cases:
        left_unclear = any(unclear(tried) for tried in case.tries if tried.killed)

        assert case.error == ("LumaAmbiguousSubmitError" if left_unclear else None), case


def test_every_video_without_an_id_is_named_as_unclear(protocol: Protocol) -> None:
    nameless = 0
    for case in protocol.by_step + protocol.by_chance:
        known = case.ids or case.error_ids
        for prompt, task_id in bought(protocol, case).items():
            if task_id not in known:
                nameless += 1
                assert f"(video {prompt!r})" in case.message, case

    assert nameless, "some processes must have died between the relay's taking the job and the booking"


def test_a_timeout_leaves_nothing_unclear_wherever_it_strikes(protocol: Protocol) -> None:
    steps = {case.moment.partition(" ")[2].partition(":")[0] for case in protocol.by_timeout}

    assert "submitting/submitter.py" in steps
    assert [case for case in protocol.by_timeout if any(unclear(tried) for tried in case.tries)] == []
    assert [case for case in protocol.by_timeout if case.error] == []
