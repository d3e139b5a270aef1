# SPDX-License-Identifier: Apache-2.0
"""The sensor in all its modes, in real Dag runs: the same end and the same words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_luma.sandbox import LumaSandbox, faults


@pytest.mark.parametrize("dialect", ["bare", "envelope"], indirect=True)
@pytest.mark.every_airflow
def test_completed_ids_come_back_in_input_order(wait: Callable[..., Any], connected: LumaSandbox) -> None:
    ids = [connected.add_task(completes_after=seconds) for seconds in (0.5, 0, 0.3)]

    run = wait(ids)

    assert run.task_state("wait") == "success"
    assert run.xcom("wait") == ids
    assert run.xcom("wait", "failed") == {}


@pytest.mark.parametrize("dialect", ["bare", "envelope"], indirect=True)
@pytest.mark.every_airflow
def test_a_failed_task_fails_the_sensor_with_the_relays_reason(
    wait: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
) -> None:
    good = connected.add_task(completes_after=0)
    bad = connected.add_task(fails_with="moderation says no")

    run = wait([good, bad], retries=3)

    assert run.task_state("wait") == "failed"
    assert run.xcom("wait", "failed") == {bad: "moderation says no"}
    assert f"{bad}: moderation says no" in log_text()


def test_max_failed_tolerates_failures_and_returns_the_others(
    wait: Callable[..., Any], connected: LumaSandbox
) -> None:
    good = connected.add_task(completes_after=0.3)
    bad = connected.add_task(fails_with="moderation says no")

    run = wait([bad, good], max_failed=1)

    assert run.task_state("wait") == "success"
    assert run.xcom("wait") == [good]
    assert run.xcom("wait", "failed") == {bad: "moderation says no"}


def test_an_id_that_the_relay_does_not_know_fails_after_the_grace(
    wait: Callable[..., Any], connected: LumaSandbox
) -> None:
    good = connected.add_task(completes_after=0)

    run = wait([good, "unknown-id"], missing_polls=3)

    assert run.task_state("wait") == "failed"
    assert "doesn't know this id" in run.xcom("wait", "failed")["unknown-id"]
    assert connected.count("batch") == 3


@pytest.mark.every_airflow
def test_an_id_that_shows_up_within_the_grace_is_waited_for(
    wait: Callable[..., Any], connected: LumaSandbox
) -> None:
    late = connected.add_task(hidden_for=2, completes_after=0)

    run = wait(late, missing_polls=3)

    assert run.xcom("wait") == [late]


def test_completed_without_a_video_fails_after_the_grace(
    wait: Callable[..., Any], connected: LumaSandbox
) -> None:
    filtered = connected.add_task(state="completed", without_video=True)

    run = wait([filtered], missing_polls=2)

    assert run.task_state("wait") == "failed"
    assert "completed without a video" in run.xcom("wait", "failed")[filtered]


def test_a_video_link_that_comes_a_poll_later_is_waited_for(
    wait: Callable[..., Any], connected: LumaSandbox
) -> None:
    late = connected.add_task(state="completed", without_video_for=1)

    assert wait([late]).xcom("wait") == [late]


@pytest.mark.every_airflow
def test_a_timeout_fails_without_retries_and_names_the_ids_with_their_last_states(
    wait: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
) -> None:
    good = connected.add_task(completes_after=0)
    slow = connected.add_task(state="processing")

    run = wait([good, slow], timeout=1, retries=2)

    assert run.task_state("wait") == "failed"
    assert run.task("wait").try_number == 1
    text = log_text()
    assert "not finished after the timeout of 1 s: 1/2 completed, 1 processing" in text
    assert f"{slow} (processing)" in text


@pytest.mark.parametrize("ending", ["failure", "timeout"])
def test_soft_fail_skips_in_place_of_failing(
    wait: Callable[..., Any], connected: LumaSandbox, ending: str
) -> None:
    bad = (
        connected.add_task(fails_with="no")
        if ending == "failure"
        else connected.add_task(completes_after=999)
    )

    run = wait([bad], soft_fail=True, timeout=1)

    assert run.task_state("wait") == "skipped"


@pytest.mark.parametrize(
    ("mode", "fault"),
    # A later time, an answer that is none, no answer. The tests of client and poller have all the others.
    [
        ("poke", faults.too_many_requests(retry_after=1)),
        ("reschedule", faults.ok_html()),
        ("deferrable", faults.drop()),
    ],
    indirect=["mode"],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
@pytest.mark.every_airflow
def test_passing_failures_are_waited_out(
    wait: Callable[..., Any], connected: LumaSandbox, fault: faults.Fault
) -> None:
    task_id = connected.add_task(completes_after=0)
    connected.fail_next("batch", fault, times=2)

    run = wait([task_id])

    assert run.xcom("wait") == [task_id]


def test_a_wrong_key_fails_at_once_and_says_so(
    wait: Callable[..., Any],
    connected: LumaSandbox,
    connect: Callable[..., None],
    log_text: Callable[[], str],
) -> None:
    connect(connected.base_url, "wrong-key")

    run = wait([connected.add_task()], retries=3)

    assert run.task_state("wait") == "failed"
    assert run.task("wait").try_number == 1
    text = log_text()
    assert "refuses the API key" in text
    assert "wrong-key" not in text


def test_a_key_that_is_refused_after_a_poll_that_worked_is_waited_out(
    wait: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
) -> None:
    task_id = connected.add_task(state="completed", without_video_for=2)
    connected.fail_next("batch", faults.unauthorized(), times=2, skip=1)

    run = wait([task_id])

    assert run.xcom("wait") == [task_id]
    assert "refuses the API key" in log_text()


def test_a_malformed_task_does_not_hurt_the_others(wait: Callable[..., Any], connected: LumaSandbox) -> None:
    good = connected.add_task(completes_after=0.3)
    broken = connected.add_task(state="completed", overrides={"state": 17}, row_overrides={"status": 17})

    run = wait([broken, good], max_failed=1, missing_polls=2)

    assert run.xcom("wait") == [good]
    assert "illegible" in run.xcom("wait", "failed")[broken]


def test_an_empty_list_succeeds_at_once_without_a_call(
    wait: Callable[..., Any], connected: LumaSandbox
) -> None:
    run = wait([])

    assert run.xcom("wait") == []
    assert connected.count("batch") == 0


def test_progress_is_said_once_per_change(
    wait: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
) -> None:
    wait([connected.add_task(state="completed", without_video_for=4)], missing_polls=9)

    assert log_text().count("Luma tasks: 0/1 completed, 1 completed without a video") == 1
