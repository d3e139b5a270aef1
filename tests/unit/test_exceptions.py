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
    LumaConfigError,
    LumaConnectionError,
    LumaError,
    shorten_ids,
)

KINDS = [getattr(exceptions, name) for name in exceptions.__all__ if name != "shorten_ids"]
API_FIELDS = {
    "status": 429,
    "code": "busy",
    "relay_message": "负载已饱和",
    "request_id": "req-1",
    "retry_after": 7.5,
    "well_formed": True,
}


def make(kind: type[LumaError]) -> LumaError:
    """An error of any kind, with a value for each of its arguments."""
    values: dict[str, Any] = {"task_ids": ["a", "b"], "unsent": True, "retryable": True, **API_FIELDS}
    names = list(inspect.signature(kind).parameters)[1:]
    return kind("what happened", **{name: values.get(name, name) for name in names})


@pytest.mark.parametrize("kind", KINDS)
class TestEveryError:
    def test_is_a_luma_error_with_a_message_and_ids(self, kind: type[LumaError]) -> None:
        error = make(kind)
        assert isinstance(error, LumaError)
        assert str(error) == "what happened"
        assert error.task_ids == ("a", "b")
        assert isinstance(error.retryable, bool)

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_survives_pickling_with_all_it_carries(self, kind: type[LumaError], protocol: int) -> None:
        error = make(kind)
        again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
        assert type(again) is kind
        assert again.args == error.args
        assert vars(again) == vars(error)
        assert again.retryable == error.retryable

    def test_survives_copying(self, kind: type[LumaError]) -> None:
        error = make(kind)
        error.add_note("seen twice")
        again = copy.copy(error)
        assert (type(again), str(again), vars(again)) == (kind, "what happened", vars(error))


def test_an_api_error_carries_what_the_relay_said() -> None:
    error = LumaApiError("message", **API_FIELDS)
    assert vars(error) == API_FIELDS | {"task_ids": ()}


def test_of_an_api_error_only_the_status_is_needed() -> None:
    error = LumaApiError("message", status=500)
    assert (error.code, error.relay_message, error.request_id) == ("", "", None)
    assert (error.retry_after, error.well_formed) == (None, False)


def test_a_config_error_is_a_value_error_too() -> None:
    assert issubclass(LumaConfigError, ValueError)


def test_a_broken_connection_is_taken_for_one_that_may_have_been_heard() -> None:
    assert not LumaConnectionError("message").unsent


def test_all_names_are_exported() -> None:
    defined = {
        name
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, LumaError)
    }
    assert defined | {"shorten_ids"} == set(exceptions.__all__)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a, b"),
        ([str(n) for n in range(10)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ([str(n) for n in range(12)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
    ],
)
def test_many_ids_are_named_in_part_and_counted(ids: list[str], text: str) -> None:
    assert shorten_ids(ids) == text


def test_how_many_ids_are_named_can_be_said() -> None:
    assert shorten_ids(["a", "b", "c"], limit=1) == "a and 2 more"
