# SPDX-License-Identifier: Apache-2.0
"""Tasks that are killed while they submit or wait: nothing is sent any more, and what goes on is told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_luma.operators.generate import LumaGenerateVideosOperator
from airflow_provider_luma.sandbox import LumaSandbox, faults
from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS
from tests.support.patience import PATIENCE


@pytest.fixture
def dialect() -> str:
    return "bare"


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A task sets a handler of its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.every_airflow
def test_a_terminated_task_books_what_is_under_way_and_a_retry_goes_on(
    run_dag: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str], most: int
) -> None:
    def terminate(call: Any) -> bool:
        if "prompt 3" in call.body["user_prompt"]:
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    connected.fail_when("submit", faults.latency(0.1), terminate, accepted=True)
    prompts = [f"prompt {number}" for number in range(8)]
    with DAG("killed", schedule=None) as dag:
        LumaGenerateVideosOperator(
            task_id="buy",
            requests=[{"prompt": prompt} for prompt in prompts],
            max_concurrency=most,
            retries=1,
            retry_delay=timedelta(0),
        )
    run = run_dag(dag)

    text = log_text()
    assert "Stopped from outside: nothing more is submitted. The relay can't cancel" in text
    assert "Submitting was stopped before all was sent." in text
    sold = {generation.prompt: generation.id for generation in connected.generations}
    assert len(sold) == len(connected.generations)
    if AIRFLOW_V_3_3_PLUS:
        assert run.task_state("buy") == "success"
        assert run.xcom("buy") == [sold[prompt] for prompt in prompts]


def test_a_task_that_a_user_ends_while_it_is_deferred_tells_what_goes_on(
    connected: LumaSandbox, log_text: Callable[[], str]
) -> None:
    done = connected.add_task(state="completed")
    going_on = [connected.add_task(completes_after=3600) for _ in range(2)]

    async def main() -> None:
        trigger = LumaTaskTrigger(
            luma_task_ids=[done, *going_on], poll_interval=0.1, time_limit={"seconds": PATIENCE}
        )
        running = asyncio.create_task(anext(aiter(trigger.run())))
        async with asyncio.timeout(PATIENCE):
            # The poll runs in another thread, which sets no event.
            while "1/3 completed" not in (trigger._tracker.last_summary if trigger._tracker else ""):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        # As the triggerer does after a user's action.
        await trigger.on_kill()

    asyncio.run(main())

    assert f"2 unfinished Luma tasks keep running and are billed: {', '.join(going_on)}" in log_text()
