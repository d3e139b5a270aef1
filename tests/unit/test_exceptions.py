# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from airflow_provider_luma import exceptions
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaBusyError,
    LumaConfigError,
    LumaConnectionError,
    LumaError,
)

KINDS = [getattr(exceptions, name) for name in exceptions.__all__]
API_FIELDS: dict[str, Any] = {
    "status": 429,
    "code": "busy",
    "relay_message": "负载已饱和",
    "request_id": "req-1",
    "retry_after": 7.5,
    "well_formed": True,
}


def make(kind: type[LumaError]) -> LumaError:
    """Make an error of any kind, with a value for each of its arguments."""
    values: dict[str, Any] = {"task_ids": ["a", "b"], "unsent": True, "retryable": True, **API_FIELDS}
    names = list(inspect.signature(kind).parameters)[1:]
    return kind("what happened", **{name: values.get(name, name) for name in names})


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_message_and_ids_and_survives_pickling_with_all_it_carries(
    kind: type[LumaError],
) -> None:
    error = make(kind)
    assert isinstance(error, LumaError)
    assert str(error) == "what happened"
    assert error.task_ids == ("a", "b")
    assert isinstance(error.retryable, bool)

    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), again.args, vars(again)) == (kind, error.args, vars(error))
    assert again.retryable == error.retryable


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_keeps_keyword_arguments_and_notes(protocol: int) -> None:
    error = LumaApiError("message", **API_FIELDS)
    error.add_note("seen twice")
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
    assert (type(again), str(again), vars(again)) == (LumaApiError, "message", vars(error))


def test_a_copy_keeps_keyword_arguments_and_notes() -> None:
    error = make(LumaBusyError)
    error.add_note("seen twice")
    again = copy.copy(error)
    assert (type(again), str(again), vars(again)) == (LumaBusyError, "what happened", vars(error))


def test_an_api_error_carries_what_the_relay_returned() -> None:
    error = LumaApiError("message", **API_FIELDS)
    assert vars(error) == API_FIELDS | {"task_ids": ()}


def test_of_an_api_error_only_the_status_is_needed() -> None:
    error = LumaApiError("message", status=500)
    assert (error.code, error.relay_message, error.request_id) == ("", "", None)
    assert (error.retry_after, error.well_formed) == (None, False)


def test_a_config_error_is_a_value_error_too() -> None:
    assert issubclass(LumaConfigError, ValueError)


def test_a_broken_connection_may_have_delivered_the_request() -> None:
    assert not LumaConnectionError("message").unsent


def test_all_names_are_exported() -> None:
    defined = {
        name
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, LumaError)
    }
    assert defined == set(exceptions.__all__)
