# SPDX-License-Identifier: Apache-2.0
"""Kill tasks while they submit or wait: nothing more is sent, and what keeps running is logged."""

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
    """Restore the signal handler that a task sets."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.every_airflow
def test_a_terminated_task_writes_submits_in_progress_and_a_retry_resumes(
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
            task_id="submit",
            requests=[{"prompt": prompt} for prompt in prompts],
            max_concurrency=most,
            retries=1,
            retry_delay=timedelta(0),
        )
    run = run_dag(dag)

    text = log_text()
    assert "nothing more is submitted. The relay has no cancel" in text
    assert "Submitting was stopped before all requests were sent." in text
    billed_ids = {generation.prompt: generation.id for generation in connected.generations}
    assert len(billed_ids) == len(connected.generations)
    if AIRFLOW_V_3_3_PLUS:
        assert run.task_state("submit") == "success"
        assert run.xcom("submit") == [billed_ids[prompt] for prompt in prompts]


def test_a_task_that_a_user_ends_while_it_is_deferred_logs_what_keeps_running(
    connected: LumaSandbox, log_text: Callable[[], str]
) -> None:
    completed = connected.add_task(state="completed")
    running_ids = [connected.add_task(completes_after=3600) for _ in range(2)]

    async def main() -> None:
        trigger = LumaTaskTrigger(
            luma_task_ids=[completed, *running_ids], poll_interval=0.1, time_limit={"seconds": PATIENCE}
        )
        running = asyncio.ensure_future(anext(aiter(trigger.run())))
        async with asyncio.timeout(PATIENCE):
            # The poll runs in another thread, which sets no event.
            while "1/3 completed" not in getattr(trigger._tracker, "last_summary", ""):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        # As the triggerer does after a user's action.
        await trigger.on_kill()

    asyncio.run(main())

    assert f"2 unfinished Luma tasks keep running and are billed: {', '.join(running_ids)}" in log_text()
