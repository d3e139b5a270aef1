# SPDX-License-Identifier: Apache-2.0
"""Records of calls, and the rules that say which fault answers which call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast, get_args

import msgspec

from airflow_provider_luma.sandbox.faults import NAMED, CallName, Fault

CALL_NAMES: tuple[CallName, ...] = get_args(CallName)


class RecordedCall(msgspec.Struct, frozen=True, kw_only=True):
    """
    Record one request that the sandbox received, and how it was answered.

    :param number: Number of the call, from 1 over all calls.
    :param path: Path and query.
    :param ids: The task ids that it names.
    :param body: The decoded JSON body, its text when it is not JSON, or None.
    :param headers: Headers with lower-case names.
    :param at: Wall-clock epoch; ``monotonic`` is the clock that all processes of this machine share.
    :param status: HTTP status of the answer. None when nothing was sent.
    :param fault: Name of the fault that was played.
    :param generation: Id of the task that this call submitted.
    """

    number: int
    name: CallName
    method: str
    path: str
    ids: tuple[str, ...] = ()
    body: Any = None
    headers: dict[str, str] = {}
    at: float = 0.0
    monotonic: float = 0.0
    status: int | None = None
    fault: str | None = None
    generation: str | None = None


Predicate = Callable[[RecordedCall], bool]


class Rule(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """
    Say when a fault is played: the arguments of ``fail_when``; in JSON, the body of ``POST /sandbox/faults``.

    :param fault: The fault, or its name.
    :param options: Arguments of a fault that is given by name.
    :raises ValueError: A field's value is wrong.
    :raises TypeError: The fault has no such option.
    """

    call: str
    fault: Fault | str
    options: dict[str, Any] = {}
    ids: frozenset[str] = frozenset()
    containing: str | None = None
    times: int | None = 1
    skip: int = 0
    accepted: bool = False
    predicate: Predicate | None = None

    def __post_init__(self) -> None:
        if self.call not in CALL_NAMES:
            raise ValueError(f"call must be one of {', '.join(CALL_NAMES)}; got {self.call!r}.")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be at least 1; got {self.times!r}.")
        if self.skip < 0:
            raise ValueError(f"skip must be 0 or more; got {self.skip!r}.")
        if isinstance(self.fault, str):
            self.fault, self.options = _named(self.fault, self.options), {}

    @property
    def played(self) -> Fault:
        """The fault as a value, also when it was given by name."""
        return cast("Fault", self.fault)

    def matches(self, call: RecordedCall) -> bool:
        """Return whether a call meets the conditions."""
        if self.call != call.name or (self.ids and self.ids.isdisjoint(call.ids)):
            return False
        if self.containing is not None and not any(self.containing in text for text in _texts(call)):
            return False
        return self.predicate is None or self.predicate(call)

    def skips(self) -> bool:
        """Count a matching call; return whether it passes without the fault."""
        if self.skip:
            self.skip -= 1
            return True
        if self.times is not None:
            self.times -= 1
        return False


class Rules:
    """The rules of one relay, in the order in which they were added; safe to use from any thread."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        # A predicate may add rules.
        self._lock = threading.RLock()

    def add(self, rule: Rule) -> None:
        """Add a rule after the others."""
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._rules.clear()

    def take(self, call: RecordedCall) -> Rule | None:
        """Return the rule for a call, used up by one; counted rules precede those without a count."""
        with self._lock:
            for rule in sorted(self._rules, key=lambda rule: rule.times is None):
                if rule.matches(call) and not rule.skips():
                    self._rules = [other for other in self._rules if other is not rule or other.times != 0]
                    return rule
        return None


def _texts(call: RecordedCall) -> list[str]:
    fields = call.body.values() if isinstance(call.body, dict) else (call.body,)
    return [call.path, *(field for field in fields if isinstance(field, str))]


def _named(name: str, options: dict[str, Any]) -> Fault:
    if name not in NAMED:
        raise ValueError(f"fault must be one of {', '.join(NAMED)}; got {name!r}.")
    return NAMED[name](**options)
