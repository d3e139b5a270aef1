# SPDX-License-Identifier: Apache-2.0
"""Submit once, so that neither Ctrl-C nor a lost output can hide what was bought."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final, NamedTuple

from airflow_provider_luma.cli.output import Output
from airflow_provider_luma.client.models import LumaTask
from airflow_provider_luma.exceptions import LumaAmbiguousSubmitError, LumaError

log = logging.getLogger(__name__)

_GRACE: Final = 5.0
"""Seconds that an interrupted submit still has for its answer."""


class Submitted(NamedTuple):
    """
    A submit that the relay accepted.

    :param task: The new task.
    :param interrupted: Whether Ctrl-C or SIGTERM came meanwhile.
    """

    task: LumaTask
    interrupted: bool


def submit_once(send: Callable[[], LumaTask], output: Output, *, what: str) -> Submitted:
    """
    Submit, and say the id on standard error and in the log before anything else can go wrong.

    The call runs in a thread that no signal can tear apart. After Ctrl-C or SIGTERM its answer is waited for
    a little longer, since an id that is known spares a look into the bill.

    :param send: Sends the request, exactly once.
    :param output: Where the id is said.
    :param what: The request in words, by which a person finds it at the relay.
    :raises LumaAmbiguousSubmitError: when it is unknown whether the relay accepted the request.
    :raises LumaError: when the relay certainly did not take it.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    outcome: SimpleQueue[LumaTask | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            task = send()
            log.info("Submitted %s at %s: it is billed as %s.", what, at, task.id)
            output.say(f"Submitted, and billed as {task.id}.")
        except BaseException as error:
            outcome.put(error)
        else:
            outcome.put(task)

    interrupted = False
    with _terminated_like_interrupted():
        thread = threading.Thread(target=work, name="luma-submit", daemon=True)
        try:
            thread.start()
            end = outcome.get()
        except KeyboardInterrupt:
            interrupted = True
            output.say(f"Interrupted in mid-submit: waiting up to {_GRACE:g} s for the relay's answer.")
            try:
                end = outcome.get(timeout=_GRACE)
            except (Empty, KeyboardInterrupt):
                raise _unknown(what, at, "It was interrupted before the relay answered.") from None
    if isinstance(end, LumaAmbiguousSubmitError):
        end.args = (f"{end} The request: {what}, sent at {at}.",)
        raise end
    if isinstance(end, LumaError):
        raise end
    if isinstance(end, BaseException):
        raise _unknown(what, at, f"It met an unexpected error: {end!r}.") from end
    return Submitted(end, interrupted)


def _unknown(what: str, at: str, why: str) -> LumaAmbiguousSubmitError:
    return LumaAmbiguousSubmitError(
        f"It is unknown whether the relay accepted the request: it may be running and billed. {why} Look "
        f"into the relay's task list or bill for {what}, sent at {at}, before you send it again."
    )


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt as Ctrl-C does: by default they end Python without a word."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            # None stands for a handler that wasn't set from Python, which can't be set again either.
            signal.signal(getattr(signal, name), signal.SIG_DFL if handler is None else handler)
