# SPDX-License-Identifier: Apache-2.0
"""The synchronous poll: what some calls of it answer counts, although others fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pytest_mock import MockerFixture

from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.models import LumaTask, Media, TaskState
from airflow_provider_luma.exceptions import (
    LumaAuthError,
    LumaBusyError,
    LumaError,
    LumaInterruptedError,
    LumaServerError,
)
from airflow_provider_luma.waiting.calls import PollResult
from airflow_provider_luma.waiting.progress import Progress, WaitPolicy
from airflow_provider_luma.waiting.time_limit import TimeLimit
from airflow_provider_luma.waiting.tracker import Tracker, follow

BOOM = LumaServerError("boom", status=502)
IDS = [f"t{n}" for n in range(1000)]


class Client:
    """A relay in whose eyes everything is processing, unless a call fails."""

    batch_size = 1

    def __init__(self, fails: Callable[[Sequence[str]], LumaError | None]) -> None:
        self.fails = fails
        self.asked: list[str] = []

    def get_tasks(self, ids: Sequence[str]) -> dict[str, LumaTask]:
        assert len(ids) <= self.batch_size
        self.asked += ids
        if (error := self.fails(ids)) is not None:
            raise error
        return {task_id: LumaTask(task_id, TaskState.PROCESSING) for task_id in ids}


def tracker(ids: Sequence[str] = IDS, **known: Any) -> Tracker:
    return Tracker(Progress.of(ids, **known), WaitPolicy(), logging.getLogger(__name__))


def test_one_call_of_a_thousand_that_fails_keeps_back_none_of_the_other_answers() -> None:
    client, watching = Client(lambda ids: BOOM if "t500" in ids else None), tracker()
    for _ in range(30):
        watching.poll(client)  # type: ignore[arg-type]

    assert watching.verdict(timed_out=False) == "waiting"
    assert watching.progress.summary() == "0/1000 completed, 999 processing, 1 not seen yet"
    assert client.asked.count("t500") == 30


def test_a_relay_that_is_down_is_not_asked_a_thousand_times() -> None:
    client, watching = Client(lambda ids: BOOM), tracker()
    for _ in range(20):
        watching.poll(client)  # type: ignore[arg-type]

    assert len(client.asked) == 20 * 3
    assert watching.verdict(timed_out=False) == "unreachable"


def test_calls_that_always_fail_keep_no_other_from_being_made() -> None:
    bad = set(IDS[:3])
    client, watching = Client(lambda ids: BOOM if bad & set(ids) else None), tracker(IDS[:10])
    for _ in range(50):
        watching.poll(client)  # type: ignore[arg-type]

    assert watching.progress.states.keys() == set(IDS[:10]) - bad


def test_a_relay_that_asks_for_a_pause_gets_it_from_all_calls() -> None:
    busy = LumaBusyError("busy", status=429, retry_after=60)
    client, watching = Client(lambda ids: busy), tracker()
    watching.poll(client)  # type: ignore[arg-type]

    assert client.asked == ["t0"]
    assert watching.retry_after == 60
    client.fails = lambda ids: None
    watching.poll(client)  # type: ignore[arg-type]
    assert watching.retry_after is None


def test_how_many_failures_are_left_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    refusal = LumaAuthError("the key is wrong", status=401, well_formed=True)
    watching = tracker(["a"], answered=True)
    watching.on_error(refusal)
    watching.on_error(refusal)
    watching.on_answer(PollResult({}, ["a"], refusal))
    tracker(["a"]).on_error(refusal)

    failures = [message for message in caplog.messages if "failed" in message]
    assert failures == [
        "Polling the relay failed (1 of at most 20 times in a row): the key is wrong",
        "Polling the relay failed (2 of at most 20 times in a row): the key is wrong",
        "Polling the relay failed for a part of the ids: the key is wrong",
        "Polling the relay failed: the key is wrong",
    ]


@pytest.mark.parametrize("where", ["poll", "pause"])
def test_an_interrupted_wait_names_the_ids_that_keep_running(mocker: MockerFixture, where: str) -> None:
    done = LumaTask(id="done-1", state=TaskState.COMPLETED, video=Media(url="https://cdn.test/a.mp4"))
    client = mocker.create_autospec(LumaClient, instance=True, batch_size=100)
    client.get_tasks.side_effect = [{"done-1": done}, KeyboardInterrupt]
    mocker.patch("time.sleep", side_effect=[KeyboardInterrupt] if where == "pause" else None)

    with pytest.raises(LumaInterruptedError, match=r"2 of 3 .*: open-2, open-3") as caught:
        follow(client, tracker(["done-1", "open-2", "open-3"]), interval=1, limit=TimeLimit(seconds=60))

    assert caught.value.task_ids == ("open-2", "open-3")
