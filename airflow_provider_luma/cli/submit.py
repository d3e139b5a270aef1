# SPDX-License-Identifier: Apache-2.0
"""Submit a request once, so that neither Ctrl-C nor a broken output can lose the id of what is billed."""

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
"""Seconds that an interrupted submit still waits for the relay's response."""


class Submitted(NamedTuple):
    """
    A request that the relay has accepted.

    :param task: The new Luma task.
    :param interrupted: Whether Ctrl-C, SIGTERM or SIGHUP arrived before the response.
    """

    task: LumaTask
    interrupted: bool


def submit_once(send: Callable[[], LumaTask], output: Output, *, what: str) -> Submitted:
    """
    Submit, and write the id to standard error and to the log before anything else can fail.

    The call runs in a thread that no signal interrupts. After Ctrl-C or SIGTERM the response is awaited for
    up to five seconds more, because with a known id the outcome isn't unknown.

    :param send: Sends the request, exactly once.
    :param output: Where the id is printed.
    :param what: A description by which the user can find the request at the relay.
    :raises LumaAmbiguousSubmitError: when it is unknown whether the relay has accepted the request.
    :raises LumaError: when the relay certainly has not accepted it.
    """
    sent_at = datetime.now(UTC).isoformat(timespec="seconds")
    outcomes: SimpleQueue[LumaTask | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            task = send()
            log.info("Submitted %s at %s: billed as Luma task %s.", what, sent_at, task.id)
            output.message(f"Submitted; billed as Luma task {task.id}.")
        except BaseException as error:
            outcomes.put(error)
        else:
            outcomes.put(task)

    interrupted = False
    with _termination_interrupts():
        thread = threading.Thread(target=work, name="luma-submit", daemon=True)
        try:
            thread.start()
            outcome = outcomes.get()
        except KeyboardInterrupt:
            interrupted = True
            output.message(f"Interrupted during the submit: waiting up to {_GRACE:g} s for the response.")
            try:
                outcome = outcomes.get(timeout=_GRACE)
            except (Empty, KeyboardInterrupt):
                raise _unknown(what, sent_at, "It was interrupted before the relay responded.") from None
    if isinstance(outcome, LumaAmbiguousSubmitError):
        outcome.args = (f"{outcome} The request: {what}, sent at {sent_at}.",)
        raise outcome
    if isinstance(outcome, LumaError):
        raise outcome
    if isinstance(outcome, BaseException):
        raise _unknown(what, sent_at, f"The submit failed unexpectedly: {outcome!r}.") from outcome
    return Submitted(outcome, interrupted)


def _unknown(what: str, sent_at: str, why: str) -> LumaAmbiguousSubmitError:
    return LumaAmbiguousSubmitError(
        f"It is unknown whether the relay accepted the request; it may be running and billed. {why} Check "
        f"the relay's task list or bill for {what}, sent at {sent_at}, before you submit it again."
    )


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP, which by default end Python without any message."""

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
            # None means a handler that wasn't installed from Python and can't be restored.
            signal.signal(getattr(signal, name), signal.SIG_DFL if handler is None else handler)
