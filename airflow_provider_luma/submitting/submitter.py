# SPDX-License-Identifier: Apache-2.0
"""Submit a list of requests, each at most once, and know at any moment which were sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaConfigError,
    LumaError,
    LumaInterruptedError,
    LumaRequestError,
)
from airflow_provider_luma.submitting.submission import Submission, submission_keys
from airflow_provider_luma.text import shorten, shorten_list
from airflow_provider_luma.validation import positive_seconds, shown, whole_number

if TYPE_CHECKING:
    from airflow_provider_luma.client.api import LumaClient
    from airflow_provider_luma.submitting.ledger import Entry, Ledger, OnClear

OnAmbiguous = Literal["fail", "resubmit"]

log = logging.getLogger(__name__)

_MAX_NAMED: Final = 20
_UNKNOWN: Final = "It is unknown whether the relay accepted it: it may be running and billed."
_CLEAR_SENDS: Final = (
    "only requests without an id are then sent (those with an unknown outcome only if "
    "on_ambiguous='resubmit' as well)."
)
_HOW_TO_CLEAR: Final[dict[OnClear, str]] = {
    "restart": f"To keep what was submitted, set on_clear='resume' and then clear this task: {_CLEAR_SENDS} "
    "Clearing this task with on_clear='restart' submits everything again, and everything is billed again.",
    "resume": f"Clear this task (on_clear='resume'): {_CLEAR_SENDS}",
}


class SubmitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    Say how to submit.

    :param max_failed: How many requests the relay may refuse for good; ``None`` means any number.
    :param max_concurrency: How many submits may be in progress at the same time.
    :param submit_interval: Seconds between the starts of two submits, at least.
    :param on_ambiguous: What to do with a request whose outcome is unknown: ``fail``, or ``resubmit`` it,
        which may be billed twice.
    :raises LumaConfigError: if one of them can't be right.
    """

    max_failed: int | None = 0
    max_concurrency: int = 1
    submit_interval: float = 0.0
    on_ambiguous: OnAmbiguous = "fail"

    def __post_init__(self) -> None:
        if self.max_failed is not None:
            whole_number("max_failed", self.max_failed, least=0)
        whole_number("max_concurrency", self.max_concurrency, least=1)
        positive_seconds("submit_interval", self.submit_interval, or_zero=True)
        if self.on_ambiguous not in ("fail", "resubmit"):
            raise LumaConfigError(
                f"on_ambiguous must be 'fail' or 'resubmit'; got {shown(self.on_ambiguous)}."
            )


class Stop:
    """Remember whether to stop. Safe in a signal handler, and before there is anything to stop."""

    # A queue, not an event: a signal may interrupt the main thread at any point of it.
    def __init__(self) -> None:
        self.asked = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    def ask(self) -> None:
        """Request the stop, and end all pauses."""
        self.asked = True
        self.wake()

    def wake(self) -> None:
        """End a pause."""
        self._wake.put(None)

    def pause(self, seconds: float, *, until: Callable[[], bool] | None = None) -> None:
        """
        Wait, unless the stop is requested.

        :param seconds: How long.
        :param until: What else ends the wait; it is checked after :meth:`wake`.
        """
        end = time.monotonic() + seconds
        # A late wake for an earlier pause must not cut this one short.
        while not (self.asked or (until and until())) and (left := end - time.monotonic()) > 0:
            with suppress(Empty):
                self._wake.get(timeout=left)


class Submitter:
    """
    Submit requests and keep the ledger. One use each.

    :param client: The relay.
    :param submissions: What to submit.
    :param ledger: Where intents and outcomes are written.
    :param connection: What identifies the connection, for the submissions' fingerprints.
    :param policy: How to submit.
    :param on_submitted: Called with each submission's number, id and time as soon as the id is written to the
        ledger. Calls come from other threads, one at a time.
    :param stop: Stops sending; outcomes of submits in progress are still written.
    """

    def __init__(
        self,
        client: LumaClient,
        submissions: Sequence[Submission],
        *,
        ledger: Ledger,
        connection: str,
        policy: SubmitPolicy,
        on_submitted: Callable[[int, str, str], None],
        stop: Stop | None = None,
    ) -> None:
        self._client = client
        self._submissions = submissions
        self._keys = submission_keys(submissions, connection)
        self._ledger = ledger
        self._policy = policy
        self._on_submitted = on_submitted
        self.ids: dict[int, str] = {}
        self.refused: dict[int, str] = {}
        self._ledger_lock = Lock()
        self._turn_lock = Lock()
        self._next_at = 0.0
        self._stop = stop or Stop()
        self._failed = False
        # A queue, not futures: a signal may interrupt the main thread at any point of it.
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()

    @property
    def submitted_ids(self) -> list[str]:
        """Return the ids that are known, in the order of the submissions."""
        return [self.ids[number] for number in sorted(self.ids)]

    def run(self) -> None:
        """
        Submit what previous tries of this run have not.

        An interrupted call, by a timeout's signal for example, still waits for the outcomes of the submits in
        progress and writes them.

        :raises LumaAmbiguousSubmitError: if it is unknown whether the relay accepted a request.
        :raises LumaError: if the relay refuses more than is tolerated, or is busy. Nothing more is sent then.
        """
        to_send = self._recall()
        if error := self._too_many_refused():
            raise self._with_summary(error)
        errors = self._send(to_send)
        if not errors and self._unsent:
            errors = [LumaInterruptedError("Submitting was stopped before all requests were sent.")]
        if errors:
            raise self._with_summary(*sorted(errors, key=_severity))

    def _recall(self) -> list[int]:
        """Take over the outcomes of previous tries of this run; return the numbers that are left to send."""
        entries = self._ledger.entries
        to_send, unknown = [], []
        for number, key in enumerate(self._keys):
            entry = entries.pop(key, None)
            if entry is None:
                to_send.append(number)
            elif entry.task_id is not None:
                self._accept(number, entry.task_id, entry.at)
            elif entry.refused is not None:
                self.refused[number] = entry.refused
            else:
                to_send.append(number)
                unknown.append(f"{self._name(number)}, about to be sent at {entry.at}")
        unknown += [
            f"a request with other inputs, about to be sent at {entry.at}"
            for entry in entries.values()
            if entry.has_unknown_outcome
        ]
        self._log_previous(len(to_send), _ids(entries), _ids(self._ledger.cleared))
        self._handle_unknown(unknown)
        return to_send

    def _log_previous(self, left: int, other_inputs: Sequence[str], cleared: Sequence[str]) -> None:
        """Log what previous tries and the previous run have submitted."""
        if self.ids or self.refused:
            log.info(
                "Resuming a previous try: of %d requests %d were submitted, %d were refused, %d are left.",
                *(len(self._submissions), len(self.ids), len(self.refused), left),
            )
        if other_inputs:
            log.warning(
                "The inputs have changed since a previous try of this task, so the new ones are submitted. "
                "%d Luma tasks of the previous inputs keep running and are billed: %s",
                len(other_inputs),
                ", ".join(other_inputs),
            )
        if cleared:
            log.warning(
                "This task was cleared, so everything is submitted again. %d Luma tasks of the previous run "
                "remain and are billed: %s",
                len(cleared),
                ", ".join(cleared),
            )

    def _handle_unknown(self, unknown: Sequence[str]) -> None:
        if unknown and self._policy.on_ambiguous == "fail":
            raise self._with_summary(
                LumaAmbiguousSubmitError(
                    f"A previous try was interrupted during a submit: {'; '.join(unknown)}. {_UNKNOWN} "
                    "Check the relay's task list or bill."
                )
            )
        for what in unknown:
            log.warning(
                "A previous try was interrupted during a submit: %s. Because on_ambiguous='resubmit', it is "
                "sent again if it is still requested, and may be billed twice.",
                what,
            )

    def _send(self, to_send: Sequence[int]) -> list[BaseException]:
        # Airflow's timeout raises at any point of the main thread. So that thread only waits here, and other
        # threads lead each submit from its intent to its outcome: nothing can interrupt it in between.
        todo: SimpleQueue[int | None] = SimpleQueue()
        count = min(self._policy.max_concurrency, len(to_send))
        threads = [Thread(target=self._work, args=[todo], name=f"luma-submit-{n}") for n in range(count)]
        try:
            for thread in threads:
                thread.start()
            # Only after all have started: a thread whose start is interrupted must have nothing to do.
            for number in to_send:
                todo.put(number)
            results = [self._results.get() for _ in to_send]
        finally:
            self._stop_sending()
            for _ in threads:
                todo.put(None)
            for thread in threads:
                if thread.is_alive():
                    thread.join()
        return [error for error in results if error is not None]

    def _work(self, todo: SimpleQueue[int | None]) -> None:
        while (number := todo.get()) is not None:
            error: BaseException | None = None
            try:
                if self._await_turn():
                    self._submit(number)
            except BaseException as failure:
                self._stop_sending()
                error = failure
            self._results.put(error)

    @property
    def _is_stopped(self) -> bool:
        return self._failed or self._stop.asked

    def _stop_sending(self) -> None:
        self._failed = True
        self._stop.wake()

    def _await_turn(self) -> bool:
        """Keep the pause between submits; return whether to send at all."""
        with self._turn_lock:
            self._stop.pause(self._next_at - time.monotonic(), until=lambda: self._is_stopped)
            self._next_at = time.monotonic() + self._policy.submit_interval
            return not self._is_stopped

    def _submit(self, number: int) -> None:
        """Lead one submit from its intent to its outcome."""
        key, at = self._keys[number], datetime.now(UTC).isoformat(timespec="seconds")
        with self._ledger_lock:
            self._ledger.intend(key, at)
        task_id = self._send_one(number, at)
        if task_id is not None:
            log.info("Submitted %s: %s", self._name(number), task_id)
            with self._ledger_lock:
                try:
                    self._ledger.submitted(key, task_id)
                finally:
                    self._accept(number, task_id, at)

    def _send_one(self, number: int, at: str) -> str | None:
        """Send a request whose intent is written; return its id, or ``None`` if its refusal is tolerated."""
        key, submission = self._keys[number], self._submissions[number]
        name = f"Request {number} ({submission}, sent at {at})"
        try:
            return submission.send(self._client).id
        except LumaAmbiguousSubmitError as error:
            # The intent stays in the ledger, so that a retry knows of the unknown outcome.
            log.error("%s: %s", name, error)
            error.retryable = self._policy.on_ambiguous == "resubmit"
            raise _prefixed(error, name) from error.__cause__
        except LumaRequestError as error:
            log.warning("%s was refused: %s", name, error)
            with self._ledger_lock:
                self._ledger.refused(key, str(error))
                self.refused[number] = str(error)
                too_many = self._too_many_refused()
            if too_many:
                raise too_many from error
            return None
        except LumaError as error:
            with self._ledger_lock:
                self._ledger.forget(key)
            raise _prefixed(error, name) from error.__cause__
        except Exception as error:
            # The request may have left this machine before this error, whatever it is.
            unknown = LumaAmbiguousSubmitError(
                f"{name} failed with an unexpected error ({shorten(repr(error), 500)}). {_UNKNOWN}"
            )
            unknown.retryable = self._policy.on_ambiguous == "resubmit"
            raise unknown from error

    def _accept(self, number: int, task_id: str, at: str) -> None:
        self.ids[number] = task_id
        self._on_submitted(number, task_id, at)

    def _name(self, number: int) -> str:
        return f"request {number} ({self._submissions[number]})"

    @property
    def _unsent(self) -> list[int]:
        return [n for n in range(len(self._submissions)) if n not in self.ids and n not in self.refused]

    def _too_many_refused(self) -> LumaError | None:
        limit = self._policy.max_failed
        if limit is None or len(self.refused) <= limit:
            return None
        if len(self._submissions) == 1:
            return LumaError(f"The relay refused the {self._submissions[0]}: {self.refused[0]}")
        reasons = [
            f"{self._name(number)}: {reason.removesuffix('.')}"
            for number, reason in sorted(self.refused.items())
        ]
        return LumaError(
            f"The relay refused {len(reasons)} of {len(self._submissions)} requests (max_failed={limit}): "
            f"{shorten_list(reasons, _MAX_NAMED, '; ')}."
        )

    def _with_summary(self, error: BaseException, *others: BaseException) -> BaseException:
        """Add to an error the other errors, what was and wasn't submitted, and what a clear does."""
        parts = [f"Also: {other}" for other in others]
        sent, unsent = self.submitted_ids, self._unsent
        if len(self._submissions) > 1:
            parts.append(f"Submitted and billed: {len(sent)}{f' ({shorten_list(sent)})' if sent else ''}.")
            numbers = shorten_list([str(number) for number in unsent], _MAX_NAMED)
            parts.append(f"Without an id: {len(unsent)}{f' (requests {numbers})' if unsent else ''}.")
        if sent or isinstance(error, LumaAmbiguousSubmitError):
            parts.append(_HOW_TO_CLEAR[self._ledger.on_clear])
        if isinstance(error, LumaError):
            error.args = (" ".join([str(error), *parts]),)
            error.task_ids = tuple(sent)
        else:
            log.error("Submitting was interrupted by %r. %s", error, " ".join(parts))
        return error


def _ids(entries: Mapping[str, Entry]) -> list[str]:
    return [entry.task_id for entry in entries.values() if entry.task_id is not None]


def _severity(error: BaseException) -> tuple[bool, bool]:
    """Order errors: those that no retry can resolve first, and among them unknown outcomes."""
    return getattr(error, "retryable", True), not isinstance(error, LumaAmbiguousSubmitError)


def _prefixed(error: LumaError, name: str) -> LumaError:
    error.args = (f"{name}: {error}",)
    return error
