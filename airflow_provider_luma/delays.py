# SPDX-License-Identifier: Apache-2.0
"""Read and bound the delays that servers ask for."""

from __future__ import annotations

import email.utils
import re
import time
from typing import Final

# A date far away would raise OverflowError in each of the scheduler's loops and stop the whole Dag run.
MAX_DELAY: Final = 3600.0
"""Seconds: the longest delay that a server may ask for."""

MAX_RETRY_AFTER: Final = 60.0
"""
Seconds: the longest ``Retry-After`` that a call waits out by itself.

A query that the relay asks to wait longer fails instead, and its error carries the delay.
"""


def parse_retry_after(value: str | None) -> float | None:
    """
    Read a ``Retry-After`` header: seconds or an HTTP date.

    :return: Seconds from now, between 0 and :data:`MAX_DELAY`; ``None`` when it is absent or illegible.
    """
    # urllib3's Retry.parse_retry_after raises ValueError for thousands of digits and for the year 99999, and
    # Dag files that import this module must not load urllib3.
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        # int() raises ValueError for thousands of digits.
        return MAX_DELAY if len(text.lstrip("0")) > 4 else min(float(text), MAX_DELAY)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return min(max(0.0, moment - time.time()), MAX_DELAY)


def delay_before_retry(asked: float | None, *, own: float) -> float:
    """Return the seconds to wait before trying again: what the server asks for, but no less than *own*."""
    return own if asked is None else max(own, min(asked, MAX_DELAY))
