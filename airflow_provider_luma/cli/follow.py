# SPDX-License-Identifier: Apache-2.0
"""Look on until videos have come to their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.models import LumaTask
from airflow_provider_luma.delays import delay_before_retry
from airflow_provider_luma.exceptions import LumaInterruptedError
from airflow_provider_luma.text import shorten_list
from airflow_provider_luma.waiting.progress import Verdict
from airflow_provider_luma.waiting.tracker import Tracker

_NAMED: Final = 100


def follow(
    client: LumaClient,
    tracker: Tracker,
    *,
    interval: float,
    timeout: float = float("inf"),
    after_poll: Callable[[dict[str, LumaTask]], None] = lambda tasks: None,
) -> Verdict:
    """
    Poll until the waiting has an end.

    :param client: The relay.
    :param tracker: What is known, what is tolerated, and where to say it.
    :param interval: Seconds between polls; the first comes at once.
    :param timeout: Seconds to wait in all.
    :param after_poll: Called with what each poll has told.
    :return: How it ended.
    :raises LumaInterruptedError: on Ctrl-C, with the ids that keep running.
    """
    try:
        return _follow(client, tracker, interval=interval, timeout=timeout, after_poll=after_poll)
    except KeyboardInterrupt:
        ids = tracker.progress.open_ids
        raise LumaInterruptedError(
            f"Interrupted. {len(ids)} of {len(tracker.progress.ids)} videos keep running at the relay: "
            f"{shorten_list(ids, _NAMED)}. Wait for them again at any time; that is free of charge.",
            task_ids=ids,
        ) from None


def _follow(
    client: LumaClient,
    tracker: Tracker,
    *,
    interval: float,
    timeout: float,
    after_poll: Callable[[dict[str, LumaTask]], None],
) -> Verdict:
    deadline = time.monotonic() + timeout
    while True:
        after_poll(tracker.poll(client))
        verdict = tracker.verdict(timed_out=time.monotonic() >= deadline)
        if verdict != "waiting":
            return verdict
        pause = delay_before_retry(tracker.retry_after, own=interval)
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
