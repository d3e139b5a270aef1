# SPDX-License-Identifier: Apache-2.0
"""What a fault is, and the registry of all: by name for JSON, and by kind of call for random draws."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, get_args

import msgspec

from airflow_provider_luma.sandbox.rewrites import Rewrite

_P = ParamSpec("_P")
_T = TypeVar("_T")

CallName = Literal["batch", "single", "submit", "extend", "download_url", "billing", "media", "unknown"]
Ending = Literal[
    "whole", "chunked", "short", "truncated", "chunk_cut", "unframed", "stalled", "reset", "closed"
]
JSON = "application/json; charset=utf-8"
CUSTOM = "custom"

ALL: frozenset[CallName] = frozenset(get_args(CallName))
API = ALL - {"media"}
MEDIA: frozenset[CallName] = frozenset({"media"})


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Describe one way in which an answer goes wrong.

    :param name: Name in the records of calls. Default: ``custom``.
    :param status: HTTP status. None keeps that of the true answer.
    :param headers: Headers added to the answer.
    :param body: Bytes sent instead of the true answer. None sends the true answer.
    :param content_type: Content type of ``body``.
    :param repeat: How many times ``body`` is sent in a row, as one streamed body.
    :param rewrite: What is changed in the true answer.
    :param delay: Seconds before anything is sent.
    :param drip: Seconds between any two bytes of the body. 0 sends it at once.
    :param header_drip: Seconds between any two bytes of the status line and the headers.
    :param ending: ``whole``, ``chunked`` (whole, without Content-Length), ``short`` (cut, with a
        Content-Length that fits), ``truncated`` (cut, with the Content-Length of the whole), ``chunk_cut``
        (chunked, without the last chunk), ``unframed`` (cut, with neither length nor chunks), ``stalled``
        (silence until the client leaves), ``reset`` (TCP RST) or ``closed``.
    :param keep: The part of the body, 0 to 1, that is sent before an ending that cuts it. With ``stalled``,
        ``reset`` and ``closed``, 0 also suppresses the status line.
    :param ranges: False makes the media host ignore ``Range`` and not offer it.
    :param etag: ETag of a media file instead of its own.
    :param total_off: Bytes by which the total in a Content-Range differs from the file's size.
    :raises ValueError: A number is out of its range.
    """

    name: str = CUSTOM
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = JSON
    repeat: int = 1
    rewrite: Rewrite | None = None
    delay: float = 0.0
    drip: float = 0.0
    header_drip: float = 0.0
    ending: Ending = "whole"
    keep: float = 1.0
    ranges: bool = True
    etag: str | None = None
    total_off: int = 0

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise ValueError(f"repeat must be at least 1; got {self.repeat!r}.")
        for name in ("delay", "drip", "header_drip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more seconds; got {getattr(self, name)!r}.")
        if not 0 <= self.keep <= 1:
            raise ValueError(f"keep must be a part of the body between 0 and 1; got {self.keep!r}.")

    @property
    def silent(self) -> bool:
        """Whether not even a status line is sent."""
        return self.ending in ("stalled", "reset", "closed") and self.keep == 0

    @property
    def needs_true_answer(self) -> bool:
        """Whether the fault spoils the relay's true answer, so that the relay acts first."""
        return self.body is None and not self.silent


# Stands for the absence of a fault: the true answer, whole and at once.
NO_FAULT = Fault(name="")


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
