# SPDX-License-Identifier: Apache-2.0
"""Send a list of submissions, each at most once, and know at any moment what was sent and what wasn't."""

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
    shorten_ids,
)
from airflow_provider_luma.submitting.submission import Submission, submission_keys
from airflow_provider_luma.text import shorten
from airflow_provider_luma.validation import non_negative_seconds, shown, whole_number

if TYPE_CHECKING:
    from airflow_provider_luma.client.api import LumaClient
    from airflow_provider_luma.submitting.ledger import Entry, Ledger, OnClear

OnAmbiguous = Literal["fail", "resubmit"]

log = logging.getLogger(__name__)

_CONTINUING: Final = (
    "it sends only what has no id (what is unclear: only with on_ambiguous='resubmit' as well)."
)
_CLEARING: Final[dict[OnClear, str]] = {
    "restart": f"To keep what is submitted, set on_clear='resume' and then clear this task: {_CONTINUING} "
    "Clearing this task with on_clear='restart' submits everything again, and it is billed again.",
    "resume": f"Clear this task (on_clear='resume'): {_CONTINUING}",
}


class SubmitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to send.

    :param max_failed: How many submissions the relay may refuse for good; ``None`` means any number.
    :param max_concurrency: How many submits are under way at the same time.
    :param submit_interval: Seconds from one submit to the next, at least.
    :param on_ambiguous: What to do when it is unknown whether the relay took a submission: ``fail``, or
        ``resubmit`` it and perhaps pay twice.
    """

    max_failed: int | None = 0
    max_concurrency: int = 1
    submit_interval: float = 0.0
    on_ambiguous: OnAmbiguous = "fail"

    def __post_init__(self) -> None:
        if self.max_failed is not None:
            whole_number("max_failed", self.max_failed, least=0)
        whole_number("max_concurrency", self.max_concurrency, least=1)
        non_negative_seconds("submit_interval", self.submit_interval)
        if self.on_ambiguous not in ("fail", "resubmit"):
            raise LumaConfigError(
                f"on_ambiguous must be 'fail' or 'resubmit'; got {shown(self.on_ambiguous)}."
            )


class Stop:
    """Remember whether sending is to stop. Safe in a signal handler, and before there is anything to stop."""

    # A queue, not an event: a signal may interrupt the main thread in it at any point.
    def __init__(self) -> None:
        self.asked = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    def ask(self) -> None:
        """Ask for the stop, and end all pauses."""
        self.asked = True
        self.wake()

    def wake(self) -> None:
        """End a pause."""
        self._wake.put(None)

    def pause(self, seconds: float, *, until: Callable[[], bool] | None = None) -> None:
        """
        Wait, unless the stop is asked for.

        :param seconds: How long.
        :param until: What else ends the wait; it is looked at after :meth:`wake`.
        """
        end = time.monotonic() + seconds
        # A wake that came too late for an earlier pause must not cut this one short.
        while not (self.asked or (until and until())) and (left := end - time.monotonic()) > 0:
            with suppress(Empty):
                self._wake.get(timeout=left)


class Submitter:
    """
    Sends submissions and keeps the ledger. One use each.

    :param client: The relay.
    :param submissions: What to send.
    :param ledger: What is remembered of them.
    :param connection: What identifies the connection, for the submissions' fingerprints.
    :param policy: How to send.
    :param on_submitted: Called with each job's number, id and time, as soon as the id is known and written
        down. Calls come from other threads, one at a time.
    :param stop: What may ask it to stop, from before it exists.
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
        self._booking = Lock()
        self._turn = Lock()
        self._next_at = 0.0
        self._stop = stop or Stop()
        self._failed = False
        # A queue, not futures: a signal may interrupt the main thread in it at any point.
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()

    @property
    def submitted_ids(self) -> list[str]:
        """The ids that are known, in the order of the submissions."""
        return [self.ids[number] for number in sorted(self.ids)]

    def stop(self) -> None:
        """Send nothing more; safe in a signal handler. What is under way is waited for and written down."""
        self._stop.ask()

    @property
    def _is_over(self) -> bool:
        return self._failed or self._stop.asked

    def _send_no_more(self) -> None:
        self._failed = True
        self._stop.wake()

    def run(self) -> None:
        """
        Send what was not sent before.

        When this is interrupted, by a timeout's signal for example, the answers to what is under way are
        still waited for and written down.

        :raises LumaAmbiguousSubmitError: when it is unknown whether the relay took a submission.
        :raises LumaError: when the relay refuses more than is tolerated, or is busy. Nothing
            more is sent then.
        """
        to_send = self._recall()
        if error := self._too_many_refused():
            raise self._explained(error)
        errors = self._send(to_send)
        if not errors and self._unsent:
            errors = [LumaInterruptedError("Submitting was stopped before all was sent.")]
        if errors:
            raise self._explained(*sorted(errors, key=_gravity))

    def _recall(self) -> list[int]:
        """Take over what an earlier try of this run has done; return what is left to do."""
        entries = self._ledger.entries
        to_send, unclear = [], []
        for number, key in enumerate(self._keys):
            entry = entries.pop(key, None)
            if entry is None:
                to_send.append(number)
            elif entry.task_id is not None:
                self._known(number, entry.task_id, entry.at)
            elif entry.refused is not None:
                self.refused[number] = entry.refused
            else:
                to_send.append(number)
                unclear.append(
                    f"request {number} ({self._submissions[number]}), about to be sent at {entry.at}"
                )
        unclear += [
            f"a request with other inputs, about to be sent at {entry.at}"
            for entry in entries.values()
            if entry.has_unknown_outcome
        ]
        if self.ids or self.refused:
            log.info(
                "Going on from an earlier try: of %d requests %d are submitted, %d refused, %d to be sent.",
                len(self._submissions),
                len(self.ids),
                len(self.refused),
                len(to_send),
            )
        if others := _ids(entries):
            log.warning(
                "The inputs have changed since an earlier try of this task, so what is new in them is "
                "submitted. %d Luma tasks of the earlier inputs go on and are billed: %s",
                len(others),
                ", ".join(others),
            )
        if before := _ids(self._ledger.cleared):
            log.warning(
                "This task was cleared, so everything is submitted anew. %d Luma tasks of the time before "
                "stay and are billed: %s",
                len(before),
                ", ".join(before),
            )
        if unclear and self._policy.on_ambiguous == "fail":
            raise self._explained(
                LumaAmbiguousSubmitError(
                    f"An earlier try broke off in mid-submit: {'; '.join(unclear)}. It is unknown whether "
                    "the relay took it: it may be running and billed. Look into its task list or bill."
                )
            )
        for what in unclear:
            log.warning(
                "An earlier try broke off in mid-submit: %s. As on_ambiguous='resubmit' says, that doesn't "
                "stop this try: what is still asked for is sent again, and may be billed twice.",
                what,
            )
        return to_send

    def _send(self, to_send: Sequence[int]) -> list[BaseException]:
        # Airflow's timeout raises in the main thread, anywhere. So that thread only waits here: what leads
        # from an intent to its outcome runs in others, and can't be torn apart.
        todo: SimpleQueue[int | None] = SimpleQueue()
        count = min(self._policy.max_concurrency, len(to_send))
        threads = [Thread(target=self._work, args=[todo], name=f"luma-submit-{n}") for n in range(count)]
        try:
            for thread in threads:
                thread.start()
            # Not before all have started: one whose start is interrupted must have nothing to do.
            for number in to_send:
                todo.put(number)
            ends = [self._ends.get() for _ in to_send]
        finally:
            self._send_no_more()
            for _ in threads:
                todo.put(None)
            for thread in threads:
                if thread.is_alive():
                    thread.join()
        return [error for error in ends if error is not None]

    def _work(self, todo: SimpleQueue[int | None]) -> None:
        while (number := todo.get()) is not None:
            error: BaseException | None = None
            try:
                if self._await_turn():
                    self._buy(number)
            except BaseException as failure:
                self._send_no_more()
                error = failure
            self._ends.put(error)

    def _buy(self, number: int) -> None:
        """Take one job from its first step to its last."""
        key, submission = self._keys[number], self._submissions[number]
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._booking:
            self._ledger.intend(key, at)
        task_id = self._send_one(number, at)
        if task_id is not None:
            log.info("Submitted request %d (%s): %s", number, submission, task_id)
            with self._booking:
                try:
                    self._ledger.submitted(key, task_id)
                finally:
                    self._known(number, task_id, at)

    def _await_turn(self) -> bool:
        """Keep the pause between submits; return whether there is anything to be sent at all."""
        with self._turn:
            self._stop.pause(self._next_at - time.monotonic(), until=lambda: self._is_over)
            self._next_at = time.monotonic() + self._policy.submit_interval
            return not self._is_over

    def _send_one(self, number: int, at: str) -> str | None:
        """Send a job whose intent is written; return its id, or ``None`` when its refusal is tolerated."""
        key, submission = self._keys[number], self._submissions[number]
        name = f"Request {number} ({submission}, sent at {at})"
        try:
            return submission.send(self._client).id
        except LumaAmbiguousSubmitError as error:
            # The intent stays in the ledger: a retry must see that this one is unclear.
            log.error("%s: %s", name, error)
            error.retryable = self._policy.on_ambiguous == "resubmit"
            raise _prefixed(error, name) from error.__cause__
        except LumaRequestError as error:
            log.warning("%s was refused: %s", name, error)
            with self._booking:
                self._ledger.refused(key, str(error))
                self.refused[number] = str(error)
                too_many = self._too_many_refused()
            if too_many:
                raise too_many from error
            return None
        except LumaError as error:
            with self._booking:
                self._ledger.forget(key)
            raise _prefixed(error, name) from error.__cause__
        except Exception as error:
            # Nobody knows how far it came.
            unknown = LumaAmbiguousSubmitError(
                f"{name} met an unexpected error ({shorten(repr(error), 500)}). It is unknown whether the "
                "relay took it: it may be running and billed."
            )
            unknown.retryable = self._policy.on_ambiguous == "resubmit"
            raise unknown from error

    def _known(self, number: int, task_id: str, at: str) -> None:
        self.ids[number] = task_id
        self._on_submitted(number, task_id, at)

    @property
    def _unsent(self) -> list[int]:
        return [n for n in range(len(self._submissions)) if n not in self.ids and n not in self.refused]

    def _too_many_refused(self) -> LumaError | None:
        limit = self._policy.max_failed
        if limit is None or len(self.refused) <= limit:
            return None
        if len(self._submissions) == 1:
            return LumaError(f"The {self._submissions[0]} was refused: {self.refused[0]}")
        reasons = [
            f"request {number} ({self._submissions[number]}): {reason}"
            for number, reason in sorted(self.refused.items())
        ]
        more = f"; and {len(reasons) - 20} more" if len(reasons) > 20 else ""
        return LumaError(
            f"The relay refused {len(reasons)} of {len(self._submissions)} requests, max_failed={limit}. "
            f"{'; '.join(reasons[:20])}{more}"
        )

    def _explained(self, error: BaseException, *others: BaseException) -> BaseException:
        """Add to an error what else went wrong, and what was and what wasn't sent."""
        told = [f"Besides: {other}" for other in others]
        sent, unsent = self.submitted_ids, self._unsent
        if len(self._submissions) > 1:
            told.append(f"Submitted and billed: {len(sent)}{f' ({shorten_ids(sent)})' if sent else ''}.")
            numbers = shorten_ids([str(number) for number in unsent], 20)
            told.append(f"Without an id: {len(unsent)}{f' (requests {numbers})' if unsent else ''}.")
        if sent or isinstance(error, LumaAmbiguousSubmitError):
            told.append(_CLEARING[self._ledger.on_clear])
        if isinstance(error, LumaError):
            error.args = (" ".join([str(error), *told]),)
            error.task_ids = tuple(sent)
        else:
            log.error("Submitting was broken off by %r. %s", error, " ".join(told))
        return error


def _ids(entries: Mapping[str, Entry]) -> list[str]:
    return [entry.task_id for entry in entries.values() if entry.task_id is not None]


def _gravity(error: BaseException) -> tuple[bool, bool]:
    """Order errors: those that no retry can mend first, and among them what is unclear."""
    return getattr(error, "retryable", True), not isinstance(error, LumaAmbiguousSubmitError)


def _prefixed(error: LumaError, name: str) -> LumaError:
    error.args = (f"{name}: {error}",)
    return error
