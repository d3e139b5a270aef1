# SPDX-License-Identifier: Apache-2.0
"""
Processes that submit are killed (SIGKILL) at every step and at random moments, or timed out at every step of
their main thread, and nothing is billed twice.

``tests/support/crash_lab.py`` does the killing, and finds the steps by tracing. What the relay has billed is
the judge.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.support.crash_lab import PHASES, Case, Protocol
from tests.support.once import once_per_run

ROOT = Path(__file__).parents[2]
MOMENTS = 100
SEED = 20_240_229


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Protocol:
    def kill_many(file: Path) -> None:
        folder = tmp_path_factory.mktemp("tries")
        command = [sys.executable, "-m", "tests.support.crash_lab", str(folder), str(MOMENTS), str(SEED)]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        assert finished.returncode == 0, finished.stderr.decode()[-5000:]
        file.write_bytes(finished.stdout)

    file = once_per_run(tmp_path_factory, worker_id, "crash_lab.json", kill_many)
    return msgspec.json.decode(file.read_bytes(), type=Protocol)


@pytest.fixture(params=["by_step", "by_chance", "by_timeout"])
def cases(request: pytest.FixtureRequest, protocol: Protocol) -> list[Case]:
    return list(getattr(protocol, request.param))


def billed(protocol: Protocol, case: Case) -> dict[str, str]:
    """Return what the relay has billed of a case: id by prompt."""
    return {prompt: task_id for prompt, task_id in protocol.generations if prompt in case.prompts}


def test_the_steps_lead_from_the_intent_through_the_wire_to_the_ledger(protocol: Protocol) -> None:
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


def step(case: Case) -> str:
    return case.moment.partition(" ")[2]


def test_processes_were_killed_at_every_step_before_they_wrote_their_outcome(protocol: Protocol) -> None:
    assert {step(case) for case in protocol.by_step} == set(protocol.steps)
    # A kill after the last write leaves the same behind as none; nothing of the package runs there.
    assert {step(case) for case in protocol.by_step if not case.tries[0].killed} <= set(protocol.last_steps)
    assert {step.partition(":")[0] for step in protocol.last_steps} == {"crash_lab.py"}


def test_random_moments_hit_all_phases(protocol: Protocol) -> None:
    first = [case.tries[0] for case in protocol.by_chance]

    assert len(first) >= MOMENTS
    assert [phase for phase, is_hit in PHASES.items() if not any(map(is_hit, first))] == []


def test_nothing_is_billed_twice(protocol: Protocol) -> None:
    copies = Counter(prompt for prompt, _ in protocol.generations)

    assert [prompt for prompt, count in copies.items() if count > 1] == []


def test_no_id_that_was_recorded_or_reported_is_lost(cases: list[Case]) -> None:
    for case in cases:
        known = set(case.error_ids if case.ids is None else case.ids)
        for tried in case.tries:
            assert tried.recorded <= known, case
            assert set(tried.reported) <= known, case


def test_without_an_unknown_outcome_all_ids_are_returned_in_order(
    protocol: Protocol, cases: list[Case]
) -> None:
    finished = [case for case in cases if case.error is None]

    assert finished
    assert {case.error for case in cases} <= {None, "LumaAmbiguousSubmitError"}
    for case in finished:
        assert case.ids == [billed(protocol, case)[prompt] for prompt in case.prompts], case


def test_an_unknown_outcome_ends_as_such_and_nothing_else_does(cases: list[Case]) -> None:
    for case in cases:
        left_unknown = any(tried.unknown for tried in case.tries if tried.killed)

        assert case.error == ("LumaAmbiguousSubmitError" if left_unknown else None), case


def test_every_video_without_an_id_is_named_as_an_unknown_outcome(protocol: Protocol) -> None:
    nameless = 0
    for case in protocol.by_step + protocol.by_chance:
        known = case.ids or case.error_ids
        for prompt, task_id in billed(protocol, case).items():
            if task_id not in known:
                nameless += 1
                assert f"(video {prompt!r})" in case.message, case

    assert nameless, (
        "some processes must have died after the relay accepted a submit and before the ledger had its id"
    )


def test_a_timeout_leaves_no_unknown_outcome_wherever_it_strikes(protocol: Protocol) -> None:
    steps = {step(case).partition(":")[0] for case in protocol.by_timeout}

    assert "submitting/submitter.py" in steps
    assert [case for case in protocol.by_timeout if any(tried.unknown for tried in case.tries)] == []
    assert [case for case in protocol.by_timeout if case.error] == []
