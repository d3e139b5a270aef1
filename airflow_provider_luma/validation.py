# SPDX-License-Identifier: Apache-2.0
"""Check numbers and JSON that users give: no other module does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from airflow_provider_luma.exceptions import LumaConfigError

MAX_SECONDS: Final = 86_400.0
"""A day: the longest time that one call or one pause may take."""

FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
"""How a truth value may be written where only text can be given, in lower case."""

_SHOWN: Final = 80
_MOST_BITS: Final = 64


def positive_seconds(name: str, value: object, *, most: float = MAX_SECONDS, or_zero: bool = False) -> float:
    """
    Return the value of the parameter *name*, a duration in seconds, as a float.

    :raises LumaConfigError: unless it is a finite number above 0 (or 0, if allowed) and at most *most*.
    """
    # Compare before converting: float() raises OverflowError for an integer of 400 digits, while comparisons
    # with it are exact. NaN and infinity fail each comparison or the upper bound.
    if isinstance(value, int | float) and not isinstance(value, bool):
        large_enough = value >= 0 if or_zero else value > 0
        if large_enough and value <= most and value != math.inf:
            return float(value)
    kind = "number of seconds, 0 or more and" if or_zero else "positive number of seconds,"
    raise LumaConfigError(f"{name} must be a {kind} at most {most:g}; got {shown(value)}.")


def whole_number(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """
    Return the value of the parameter *name*, a whole number from *least* to *most* (``None``: no limit).

    :raises LumaConfigError: for anything else, such as ``True`` or ``2.0``.
    """
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and value >= least
        and (most is None or value <= most)
    ):
        return value
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise LumaConfigError(f"{name} must be a whole number {bounds}; got {shown(value)}.")


def json_body(name: str, value: Any) -> bytes:
    """
    Encode a value, which messages call *name*, as JSON without changing its meaning.

    :raises LumaConfigError: if JSON can't represent it: a half of a surrogate pair in a text, NaN or infinity
        (which would become ``null``), an integer of more than 64 bits, an object.
    """
    try:
        body = msgspec.json.encode(value)
        _check_numbers(msgspec.to_builtins(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LumaConfigError(f"{name} can't be sent as JSON: {error}.") from error
    return body


def _check_numbers(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"JSON has no number {value!r}")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"{shown(value)} has more than {_MOST_BITS} bits")
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            _check_numbers(item)


def shown(value: object) -> str:
    """
    Return a value's ``repr`` for a message, cut to 80 characters.

    :param value: Anything, even if ``repr`` refuses it, such as an integer of thousands of digits.
    """
    if isinstance(value, int) and value.bit_length() > 3 * _SHOWN:
        # Python refuses to convert integers of thousands of digits to text.
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
