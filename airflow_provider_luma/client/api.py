# SPDX-License-Identifier: Apache-2.0
"""Call the Luma API of a relay."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

import msgspec

from airflow_provider_luma.client.balance import Balance, decode_balance
from airflow_provider_luma.client.certainty import (
    Booked,
    Refused,
    SubmitOutcome,
    Unknown,
    outcome_of_answer,
    outcome_of_connection,
)
from airflow_provider_luma.client.models import (
    ExtensionRequest,
    GenerationRequest,
    LumaTask,
    TaskState,
    decode_tasks,
    is_task_id,
)
from airflow_provider_luma.connection_fields import default_of
from airflow_provider_luma.exceptions import (
    LumaAmbiguousSubmitError,
    LumaConfigError,
    LumaConnectionError,
    LumaError,
    LumaRequestError,
    LumaResponseError,
    LumaTaskNotFoundError,
)
from airflow_provider_luma.text import Cleaner
from airflow_provider_luma.validation import json_body, shown, whole_number

log = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE: Final[int] = default_of("batch_size")
# The id of no task, in a form that every relay accepts.
_PROBE_ID: Final = "00000000-0000-4000-8000-000000000000"
# An answer may repeat records and hold some that weren't requested, but not a flood of them.
_RECORDS_PER_ID: Final = 4
_OTHER_RECORDS: Final = 1000
# A batch, its halves and its quarters.
_MANY_REFUSALS: Final = 7
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB


def answer_bound(ids: int) -> int:
    """
    Return how many bytes an answer about so many tasks may have.

    A task has 2 to 3 KiB. The longest prompt, which some relays escape and repeat in the envelope's row,
    makes it some 60 KiB, and a relay may repeat the base64 image of a request. Without a bound, a few KiB of
    gzip would unpack to gigabytes.
    """
    return 16 * _MIB + 64 * _KIB * ids


class LumaClient:
    """
    Call one relay with one key; a context manager, safe to share between threads.

    Queries cost nothing and are retried after passing faults. Submits and extends cost money and are
    sent exactly once.

    :param base_url: The relay's URL, for example ``https://xuedingmao.online``; https when it has no scheme.
        A path prefix is kept.
    :param api_key: The relay's API key.
    :param batch_size: How many ids one batch query carries at most.
    :param connect_timeout: Seconds to establish a connection.
    :param read_timeout: Seconds until the answer to a query.
    :param submit_timeout: Seconds until the answer to a submit; a submit that runs into it has an unknown
        outcome. Default: two minutes, or ``read_timeout`` if that is longer.
    :param verify: Whether to check the TLS certificate, or the path to a CA bundle to check it with.
    :param proxies: Proxies by scheme, as ``requests`` takes them. Default: those of the environment.
    :param max_retries: How often to retry a query after a passing fault, with growing pauses.
    :raises LumaConfigError: when an argument is invalid.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        connect_timeout: float = default_of("connect_timeout"),
        read_timeout: float = default_of("read_timeout"),
        submit_timeout: float | None = None,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        max_retries: int = 3,
    ) -> None:
        # requests costs most of this package's import time, and Dag files that make no call are parsed often.
        from airflow_provider_luma.client.http import RelaySession

        self.batch_size = whole_number("batch_size", batch_size, least=1)
        self._session = RelaySession(
            base_url,
            api_key,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            submit_timeout=submit_timeout,
            verify=verify,
            proxies=proxies,
            max_retries=max_retries,
        )

    @property
    def base_url(self) -> str:
        """The relay's URL, normalised."""
        return self._session.base_url

    @property
    def clean(self) -> Cleaner:
        """The cleaner that makes this relay's texts safe to log and store, and masks the key in them."""
        return self._session.clean

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def get_tasks(self, ids: Iterable[str]) -> dict[str, LumaTask]:
        """
        Query many tasks, ``batch_size`` ids a call.

        A call that the relay refuses because of one of its ids is bisected until that id is alone; it is then
        returned with its ``problem`` set. A relay that refuses every call, even one for the id of no task,
        raises its error.

        :param ids: Task ids; repeated ones are queried once.
        :return: The tasks that the relay knows, in the order of *ids*. Unknown ids are left out.
        :raises LumaConfigError: when *ids* is a text, or an id has no known form.
        :raises LumaError: when a call fails as a whole.
        """
        if isinstance(ids, str):
            raise LumaConfigError(
                f"ids must be a list of task ids; got {shown(ids)}. Put the id into a list."
            )
        wanted = list(dict.fromkeys(ids))
        for task_id in wanted:
            _check_id(task_id)
        found: dict[str, LumaTask] = {}
        for start in range(0, len(wanted), self.batch_size):
            found.update(self._get_chunk(wanted[start : start + self.batch_size]))
        return {task_id: found[task_id] for task_id in wanted if task_id in found}

    def _get_chunk(self, ids: Sequence[str]) -> dict[str, LumaTask]:
        found: dict[str, LumaTask] = {}
        parts, refusals, an_id_is_why = deque([ids]), 0, False
        while parts:
            part = parts.popleft()
            try:
                found.update(self.query(part))
                an_id_is_why = True
            except LumaRequestError as error:
                refusals += 1
                unknown = isinstance(error, LumaTaskNotFoundError)
                an_id_is_why = an_id_is_why or unknown
                if len(part) > 1:
                    parts.extend((part[: len(part) // 2], part[len(part) // 2 :]))
                elif not unknown:
                    found[part[0]] = LumaTask(id=part[0], state=TaskState.UNKNOWN, problem=str(error))
                if refusals == _MANY_REFUSALS and parts and not an_id_is_why and not self._accepts_calls():
                    raise
        return found

    def _accepts_calls(self) -> bool:
        try:
            self.query([_PROBE_ID])
        except LumaRequestError as error:
            return isinstance(error, LumaTaskNotFoundError)
        return True

    def query(self, ids: Sequence[str]) -> dict[str, LumaTask]:
        """
        Make exactly one batch query.

        :return: The tasks among *ids* that the relay knows. Of several records of a task, one in a
            terminal state wins.
        :raises LumaError: when the call fails.
        """
        answer = decode_tasks(
            self._session.read("POST", "/luma/tasks", {"ids": list(ids)}, max_bytes=answer_bound(len(ids))),
            clean=self._session.clean,
            most=_OTHER_RECORDS + _RECORDS_PER_ID * len(ids),
        )
        exactly = {task_id: task_id for task_id in ids}
        # Some relays return ids in another letter case; ids that differ in nothing else must not be mixed up.
        letters = Counter(task_id.lower() for task_id in exactly)
        roughly = {task_id.lower(): task_id for task_id in exactly if letters[task_id.lower()] == 1}
        found = _first_terminal((exactly.get(task.id), task) for task in answer)
        return _first_terminal((roughly.get(task.id.lower()), task) for task in answer) | found

    def get_task(self, task_id: str) -> LumaTask:
        """
        Query one task.

        :raises LumaTaskNotFoundError: when the relay doesn't know the id.
        :raises LumaResponseError: when the relay's record of the task can't be read.
        :raises LumaError: when the call fails.
        """
        tasks = decode_tasks(
            self._session.read("GET", f"/luma/generations/{_check_id(task_id)}", max_bytes=answer_bound(1)),
            clean=self._session.clean,
            most=_OTHER_RECORDS,
        )
        if not tasks:
            raise LumaTaskNotFoundError(
                f"The relay doesn't know the Luma task {task_id}. Check the id, and that the connection is "
                "the one that submitted it.",
                status=200,
                task_ids=[task_id],
            )
        if tasks[0].problem:
            raise LumaResponseError(
                f"Luma task {task_id}: {tasks[0].problem}", status=200, task_ids=[task_id]
            )
        return tasks[0]

    def generate(self, request: GenerationRequest) -> LumaTask:
        """
        Submit a video generation. This costs money and is sent exactly once.

        :return: The new task, usually pending.
        :raises LumaAmbiguousSubmitError: when it is unknown whether the relay accepted it.
        :raises LumaError: when it certainly didn't; ``retryable`` says whether a retry can help.
        """
        return self._submit("/luma/generations", request)

    def extend(self, task_id: str, request: ExtensionRequest) -> LumaTask:
        """
        Submit an extension of a task's completed video. This costs money and is sent exactly once.

        The result and the errors are those of :meth:`generate`.
        """
        return self._submit(f"/luma/generations/{_check_id(task_id)}/extend", request)

    def _submit(self, path: str, request: GenerationRequest | ExtensionRequest) -> LumaTask:
        body = json_body("The request's body", request.body())
        try:
            answer = self._session.submit(path, body, max_bytes=answer_bound(1))
        except LumaConnectionError as error:
            outcome: SubmitOutcome = outcome_of_connection(error)
        except LumaResponseError as error:
            outcome = Unknown(error)
        else:
            outcome = outcome_of_answer(*answer, sent=body.decode(), clean=self.clean)
        match outcome:
            case Booked(task):
                return task
            case Refused(refusal):
                raise refusal
            case Unknown(why):
                raise _ambiguous(why) from why

    def check(self) -> str:
        """
        Check that the relay can be reached and accepts the key: read-only, free of charge, one call.

        :return: The result, as a sentence.
        :raises LumaError: when the relay can't be reached or refuses the key.
        """
        try:
            self.query([_PROBE_ID])
        except LumaTaskNotFoundError:
            log.debug("The relay was reached and accepts the key; it answers unknown ids with an error.")
        return f"The relay at {self.base_url} answers and accepts the API key."

    def get_balance(self) -> Balance:
        """
        Query the balance of the key: read-only, free of charge, two calls. Not every relay offers it.

        :raises LumaEndpointError: when the relay has no such route.
        :raises LumaResponseError: when its answer isn't a balance.
        :raises LumaError: when a call fails.
        """
        return decode_balance(
            self._session.read("GET", "/v1/dashboard/billing/subscription"),
            self._session.read("GET", "/v1/dashboard/billing/usage"),
        )


def _first_terminal(answers: Iterable[tuple[str | None, LumaTask]]) -> dict[str, LumaTask]:
    """Map the requested ids to their tasks: the first record in a terminal state, else the last record."""
    found: dict[str, LumaTask] = {}
    for task_id, task in answers:
        if task_id is not None and not (task_id in found and found[task_id].state.terminal):
            found[task_id] = task if task.id == task_id else msgspec.structs.replace(task, id=task_id)
    return found


def _check_id(task_id: str) -> str:
    if not is_task_id(task_id):
        raise LumaConfigError(
            f"{task_id!r} is not a Luma task id: an id has up to 128 letters, digits, '-' and '_'."
        )
    return task_id


def _ambiguous(cause: LumaError) -> LumaAmbiguousSubmitError:
    return LumaAmbiguousSubmitError(
        f"It is unknown whether the relay accepted the request: it may be running and billed. {cause} "
        "Check the relay's task list or bill before you submit it again."
    )
