# SPDX-License-Identifier: Apache-2.0
"""
Time in tests: how long they wait for what must come, far longer than the busiest machine takes, and how they
let a time limit be over at a certain moment.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds. Only a test that is about to fail waits them out."""


def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end_execution_timeout() -> bool:
    """
    Let the ``execution_timeout`` of the task that runs in this process strike at once; return True.

    Airflow keeps it as a timer of the process, which any thread may set.
    """
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    return True
