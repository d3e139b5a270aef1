# SPDX-License-Identifier: Apache-2.0
"""Register the functions that make faults: by name, for JSON, and by kind of call, for random draws."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_args

import msgspec

from airflow_provider_luma.sandbox.faults.fault import CUSTOM, CallName, Fault

_P = ParamSpec("_P")
_T = TypeVar("_T")

ALL: frozenset[CallName] = frozenset(get_args(CallName))
API = ALL - {"media"}
MEDIA: frozenset[CallName] = frozenset({"media"})

NAMED: dict[str, Callable[..., Fault]] = {}


class _Draw(NamedTuple):
    calls: Collection[CallName]
    arguments: dict[str, Sequence[Any]]


_DRAWS: dict[str, _Draw] = {}


def registered(
    calls: Collection[CallName] = ALL, /, **arguments: Sequence[Any]
) -> Callable[[Callable[_P, Fault]], Callable[_P, Fault]]:
    """
    Register a function that makes a fault and name the fault after it.

    :param calls: The calls that have been seen to fail in this way; ``random_faults`` draws it for them.
    :param arguments: What ``random_faults`` chooses from, by parameter. Keep it small where it costs time or
        memory.
    """

    def register(make: Callable[_P, Fault]) -> Callable[_P, Fault]:
        name = make.__name__

        @functools.wraps(make)
        def made(*args: _P.args, **kwargs: _P.kwargs) -> Fault:
            result = make(*args, **kwargs)
            return msgspec.structs.replace(result, name=name) if result.name == CUSTOM else result

        # The public home; the documentation lists the functions there.
        made.__module__ = __package__
        NAMED[name] = made
        _DRAWS[name] = _Draw(calls, arguments)
        return made

    return register


def one_of(name: str, value: _T, allowed: Collection[Any]) -> _T:
    """
    Return ``value`` when it is one of those that are allowed.

    :raises ValueError: It is not.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}.")
    return value


def random_faults(
    seed: int, *, call: CallName = "batch", count: int = 10, exclude: Collection[str] = ()
) -> list[Fault]:
    """
    Draw faults from all that a kind of call can have; the same seed draws the same faults.

    Queue them with ``fail_next(call, fault)``. ``hang`` and ``stall`` last for as long as the client waits,
    and ``stale_inner_state`` reports the tasks as failed: exclude what the test is not about.

    :param seed: Seed of the draw.
    :param call: The kind of call.
    :param count: How many faults to draw.
    :param exclude: Names of faults to leave out.
    :raises ValueError: A name is unknown, or no fault is left.
    """
    if unknown := sorted(set(exclude) - set(NAMED)):
        raise ValueError(f"exclude must name faults; got {', '.join(unknown)}.")
    names = [name for name, draw in _DRAWS.items() if call in draw.calls and name not in exclude]
    if not names:
        raise ValueError("exclude must leave a fault to draw from; got the names of all.")
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [_draw(chance.choice(names), chance) for _ in range(count)]


def _draw(name: str, chance: random.Random) -> Fault:
    return NAMED[name](**{key: chance.choice(values) for key, values in _DRAWS[name].arguments.items()})
