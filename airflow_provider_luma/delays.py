# SPDX-License-Identifier: Apache-2.0
"""Bound the delays that a server asks for: the only place where that is done."""

from __future__ import annotations

import email.utils
import re
import time
from typing import Final

MAX_DELAY: Final = 3600.0
"""
Seconds: the longest delay that a server may ask for.

A date far away would raise OverflowError in each of the scheduler's loops and stop the whole Dag run.
"""


def parse_retry_after(value: str | None) -> float | None:
    """
    Read a ``Retry-After`` header: seconds or an HTTP date.

    :param value: The header as it came.
    :return: Seconds from now, between 0 and :data:`MAX_DELAY`; ``None`` when there is none that is legible.
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        # No int(): Python refuses to read thousands of digits.
        return MAX_DELAY if len(text.lstrip("0")) > 4 else min(float(text), MAX_DELAY)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return min(max(0.0, moment - time.time()), MAX_DELAY)


def delay_before_retry(asked: float | None, *, own: float) -> float:
    """
    Return the seconds to wait before trying again.

    :param asked: What the server asks for, if it does.
    :param own: The delay that the user has set; it is never undercut.
    """
    return own if asked is None else max(own, min(asked, MAX_DELAY))
