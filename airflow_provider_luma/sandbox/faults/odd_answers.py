# SPDX-License-Identifier: Apache-2.0
"""Faults that rewrite the true answer as relays have been seen to."""

from __future__ import annotations

from typing import Literal, get_args

from airflow_provider_luma.sandbox.faults.fault import API, CallName, Fault, one_of, registered
from airflow_provider_luma.sandbox.rewrites import (
    ID_BESIDE_ERROR_FORMS,
    ByteOrderMark,
    DeadPreferredLink,
    IdBesideError,
    IdBesideErrorForm,
    LinkInRow,
    OddFields,
    OtherLetterCase,
    RefusalStatus,
    StaleInnerState,
)

_QUERIES: tuple[CallName, ...] = ("batch", "single")
_ONE_TASK: tuple[CallName, ...] = ("single", "submit", "extend")
_TASKS: tuple[CallName, ...] = ("batch", *_ONE_TASK)
_ROW_FIELDS = ("fail_reason", "result_url")


@registered(_TASKS)
def stale_inner_state(reason: str = "任务超时") -> Fault:
    """
    Report tasks as failed in their rows while the tasks in them are still processing.

    Bare tasks are put into rows. The relay reports this while the fault lasts: use ``fail_when`` for tasks
    that stay failed.

    :param reason: The relay's reason.
    """
    return Fault(rewrite=StaleInnerState(reason=reason))


@registered(_QUERIES, field=_ROW_FIELDS)
def link_in_row(field: Literal["fail_reason", "result_url"] = "fail_reason") -> Fault:
    """
    Put the only URL of a video into a field of its row; bare tasks are put into rows.

    :param field: The row's field.
    """
    return Fault(rewrite=LinkInRow(field=one_of("field", field, _ROW_FIELDS)))


@registered(_TASKS, seed=range(10_000))
def odd_fields(seed: int = 0) -> Fault:
    """
    Put a meaningless value into one field of each task; ids, states and URLs stay.

    Such as a width as text, a duration of ``"5s"``, an empty text or list instead of an object, NaN, a lone
    surrogate in a prompt, a reason that is an object.

    :param seed: Seed that chooses the fields and their values.
    """
    return Fault(rewrite=OddFields(seed=seed))


@registered(_ONE_TASK, form=ID_BESIDE_ERROR_FORMS)
def id_beside_error(form: IdBesideErrorForm = "error_code_zero") -> Fault:
    """
    Put an error that means none beside the id of a submit, an extend or a single query.

    The relay accepts and bills the submit in any case.

    :param form: ``error_code_zero``, ``error_false``, ``error_zero``, ``error_empty_list``,
        ``code_one_result``, ``code_ok``, ``code_succeed``, ``code_201``, ``code_202`` or ``success_false``.
    """
    return Fault(rewrite=IdBesideError(form=one_of("form", form, ID_BESIDE_ERROR_FORMS)))


@registered(_TASKS)
def other_letter_case() -> Fault:
    """Return ids in the other letter case."""
    return Fault(rewrite=OtherLetterCase())


@registered(_QUERIES, code=get_args(RefusalStatus))
def dead_preferred_link(code: RefusalStatus = 403) -> Fault:
    """
    Return a ``download_url`` that the media host always refuses, beside a ``url`` that works.

    :param code: The media host's status.
    """
    return Fault(rewrite=DeadPreferredLink(status=one_of("code", code, get_args(RefusalStatus))))


@registered(API)
def byte_order_mark() -> Fault:
    """Return the true answer after a UTF-8 byte order mark."""
    return Fault(rewrite=ByteOrderMark())
