# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, BaseHook
from pytest_mock import MockerFixture

from airflow_provider_luma import connection_fields
from airflow_provider_luma.client import LumaClient
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaAuthError,
    LumaBusyError,
    LumaConfigError,
    LumaConnectionError,
    LumaEndpointError,
    LumaError,
)
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.outcomes import final_errors_fail_the_task

KEY = "sk-the-secret-key"


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Define an Airflow connection by an environment variable, as a URI or as JSON."""

    def define(value: str | dict[str, Any], conn_id: str = "luma_default") -> None:
        text = value if isinstance(value, str) else json.dumps({"conn_type": "luma", **value})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", text)

    return define


class TestSettings:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ({"password": KEY}, {"base_url": "https://xuedingmao.online"}),
            ({"password": KEY, "host": "http://127.0.0.1:8321/x"}, {"base_url": "http://127.0.0.1:8321/x"}),
            (
                {"password": KEY, "host": "relay.test", "schema": "http", "port": 8321},
                {"base_url": "http://relay.test:8321"},
            ),
            (
                {
                    "password": KEY,
                    "host": "relay.test",
                    "extra": {
                        "batch_size": 7,
                        "connect_timeout": 1.5,
                        "read_timeout": 9,
                        "verify": False,
                        "proxies": {"https": "http://proxy:1"},
                        "max_poll_failures": 3,
                    },
                },
                {
                    "base_url": "https://relay.test",
                    "batch_size": 7,
                    "connect_timeout": 1.5,
                    "read_timeout": 9,
                    "verify": False,
                    "proxies": (("https", "http://proxy:1"),),
                    "max_poll_failures": 3,
                },
            ),
            (f"luma://:{KEY}@relay.test", {"base_url": "https://relay.test"}),
            (f"luma://:{KEY}@relay.test:8321/v1%2Fx", {"base_url": "https://relay.test:8321/v1/x"}),
            (f"luma://:{KEY}@relay.test/http", {"base_url": "http://relay.test"}),
            (f"luma://http://:{KEY}@relay.test:8321/v1", {"base_url": "http://relay.test:8321/v1"}),
            (f"luma://:{KEY}@http%3A%2F%2Frelay.test%3A8321", {"base_url": "http://relay.test:8321"}),
            (f"luma://:{KEY}@", {"base_url": "https://xuedingmao.online"}),
            (
                f"luma://:{KEY}@relay.test?batch_size=7&verify=false&read_timeout=9",
                {"base_url": "https://relay.test", "batch_size": 7, "verify": False, "read_timeout": 9.0},
            ),
            (
                f"luma://:{KEY}@relay.test?__extra__=%7B%22batch_size%22%3A+7%7D",
                {"base_url": "https://relay.test", "batch_size": 7},
            ),
        ],
    )
    def test_they_are_what_the_connection_says(
        self, connection: Any, written: Any, expected: dict[str, Any]
    ) -> None:
        connection(written)
        settings = RelaySettings(**{"api_key": KEY, **expected})
        assert LumaHook().settings == settings
        assert asyncio.run(LumaHook.aget_settings()) == settings

    def test_the_connection_is_the_one_that_is_named(self, connection: Any) -> None:
        connection({"password": KEY, "host": "one.test"})
        connection({"password": "sk-2", "host": "two.test"}, conn_id="other")
        assert LumaHook("other").settings.base_url == "https://two.test"
        assert LumaHook(luma_conn_id="other").settings.api_key == "sk-2"
        assert asyncio.run(LumaHook.aget_settings("other")).base_url == "https://two.test"

    @pytest.mark.parametrize(
        ("written", "problem"),
        [
            ({"host": "relay.test"}, "password field"),
            ({"password": KEY, "host": "relay .test"}, "blanks"),
            ({"password": KEY, "host": "https://me:hidden@relay.test"}, "credentials"),
            (
                {"password": KEY, "extra": {"batch_size": 0}},
                "batch_size must be a whole number of at least 1; got 0",
            ),
            (f"luma://:{KEY}@relay.test?read_timeout=soon", "at most 86400; got 'soon'"),
        ],
    )
    def test_what_is_wrong_is_named_with_the_connection(
        self, connection: Any, written: Any, problem: str
    ) -> None:
        connection(written)
        for read in (lambda: LumaHook().settings, lambda: asyncio.run(LumaHook.aget_settings())):
            with pytest.raises(LumaConfigError, match=re.escape(problem)) as caught:
                read()
            assert "Connection 'luma_default'" in str(caught.value)
            assert KEY not in str(caught.value)
            assert "hidden" not in str(caught.value)


class TestClient:
    def test_it_is_made_of_the_connection_once(self, connection: Any) -> None:
        connection({"password": KEY, "host": "relay.test", "extra": {"batch_size": 7}})
        hook = LumaHook()
        assert isinstance(hook.client, LumaClient)
        assert (hook.client.base_url, hook.client.batch_size) == ("https://relay.test", 7)
        assert hook.client is hook.client is hook.get_conn()

    def test_nothing_is_read_before_it_is_needed(self) -> None:
        assert LumaHook("no_such_connection").luma_conn_id == "no_such_connection"

    def test_the_hook_is_what_airflow_expects(self) -> None:
        assert issubclass(LumaHook, BaseHook)
        assert (LumaHook.conn_type, LumaHook.conn_name_attr) == ("luma", "luma_conn_id")
        assert LumaHook().luma_conn_id == LumaHook.default_conn_name == "luma_default"


class TestConnectionForm:
    def test_the_hook_gives_the_one_definition_to_airflow_3_1(self, mocker: MockerFixture) -> None:
        widgets = mocker.patch.object(connection_fields, "form_widgets")
        assert LumaHook.get_connection_form_widgets() is widgets.return_value
        assert LumaHook.get_ui_field_behaviour() == connection_fields.ui_field_behaviour()

    def test_every_field_of_the_form_is_a_setting(self, connection: Any) -> None:
        names = {field.name for field in connection_fields.EXTRA_FIELDS}
        assert names <= set(RelaySettings.__struct_fields__)
        assert {"batch_size", "connect_timeout", "read_timeout", "verify", "proxies"} <= names

    def test_the_defaults_of_the_form_are_those_of_the_settings(self, connection: Any) -> None:
        connection({"password": KEY})
        plain = LumaHook().settings
        shown = {field.name: field.default for field in connection_fields.EXTRA_FIELDS}
        connection({"password": KEY, "extra": shown})
        assert LumaHook().settings == plain

    def test_the_fields_are_host_and_key(self) -> None:
        behaviour = LumaHook.get_ui_field_behaviour()
        assert behaviour["relabeling"] == {"host": "Base URL", "password": "API key"}
        assert set(behaviour["hidden_fields"]) == {"login", "schema", "port"}
        assert behaviour["placeholders"]["host"] == "https://xuedingmao.online"


class TestTestConnection:
    @pytest.fixture(autouse=True)
    def some_connection(self, connection: Any) -> None:
        connection({"password": KEY, "host": "relay.test"})

    def test_a_relay_that_answers_is_fine(self, mocker: MockerFixture) -> None:
        query = mocker.patch.object(LumaClient, "query", return_value={})
        assert LumaHook().test_connection() == (
            True,
            "The relay at https://relay.test answers and accepts the API key.",
        )
        query.assert_called_once()

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (LumaAuthError("The relay refuses the API key: check …", status=401), "refuses the API key"),
            (LumaEndpointError("There is no Luma API at this address", status=404), "no Luma API"),
            (LumaConnectionError("The host name can't be resolved", unsent=True), "can't be resolved"),
            (LumaBusyError("The relay is busy", status=429), "busy"),
        ],
        ids=["wrong key", "wrong host", "no network", "busy"],
    )
    def test_what_is_wrong_is_told(self, mocker: MockerFixture, error: LumaError, words: str) -> None:
        mocker.patch.object(LumaClient, "query", side_effect=error)
        works, message = LumaHook().test_connection()
        assert not works
        assert words in message

    def test_it_is_quick_and_tries_once(self, mocker: MockerFixture, connection: Any) -> None:
        connection({"password": KEY, "host": "relay.test", "extra": {"read_timeout": 600}})
        client = mocker.patch("airflow_provider_luma.client.settings.LumaClient")
        LumaHook().test_connection()
        arguments = client.call_args.kwargs
        assert arguments["max_retries"] == 0
        assert arguments["connect_timeout"] + arguments["read_timeout"] <= 10
        client.return_value.__exit__.assert_called_once()

    def test_a_connection_with_a_quicker_timeout_keeps_it(
        self, mocker: MockerFixture, connection: Any
    ) -> None:
        connection({"password": KEY, "extra": {"read_timeout": 1, "connect_timeout": 2}})
        client = mocker.patch("airflow_provider_luma.client.settings.LumaClient")
        LumaHook().test_connection()
        assert client.call_args.kwargs["read_timeout"] == 1
        assert client.call_args.kwargs["connect_timeout"] == 2

    @pytest.mark.parametrize(
        ("written", "words"),
        [
            ({"host": "relay.test"}, "API key is missing"),
            ({"password": "sk bad", "host": "relay.test"}, "has blanks"),
            ({"password": KEY, "host": "relay.test/?x"}, "query"),
            ({"password": KEY, "extra": {"batch_size": "many"}}, "batch_size"),
            ({"password": KEY, "extra": {"verify": "/no/such/bundle.pem"}}, "verify"),
        ],
    )
    def test_a_connection_that_is_wrong_in_itself_is_told_without_a_call(
        self, connection: Any, written: Any, words: str
    ) -> None:
        connection(written)
        works, message = LumaHook().test_connection()
        assert not works
        assert words in message

    def test_a_connection_that_does_not_exist_is_told(self, mocker: MockerFixture) -> None:
        mocker.patch.object(
            LumaHook, "get_connection", side_effect=AirflowNotFoundException("The conn_id isn't defined")
        )
        assert LumaHook("nowhere").test_connection() == (False, "The conn_id isn't defined")


class TestFinalErrorsFailTheTask:
    @pytest.mark.parametrize(
        "error", [LumaAuthError("wrong key", status=401), LumaConfigError("bad"), LumaError("final")]
    )
    def test_what_no_retry_can_mend_uses_up_no_retries(self, error: LumaError) -> None:
        with pytest.raises(AirflowFailException) as caught, final_errors_fail_the_task():
            raise error
        assert str(caught.value) == str(error)
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize(
        "error", [LumaBusyError("busy", status=429), LumaConnectionError("away"), ValueError("a bug")]
    )
    def test_anything_else_passes_as_it_is(self, error: Exception) -> None:
        with pytest.raises(type(error)) as caught, final_errors_fail_the_task():
            raise error
        assert caught.value is error

    def test_without_an_error_nothing_happens(self) -> None:
        with final_errors_fail_the_task():
            result = "fine"
        assert result == "fine"

    def test_the_message_is_the_relays(self) -> None:
        error = LumaApiError("The relay answered HTTP 400: …", status=400)
        with pytest.raises(AirflowFailException, match="HTTP 400"), final_errors_fail_the_task():
            raise error
