# SPDX-License-Identifier: Apache-2.0
"""Airflow's "Test" button: what it says about a connection, over real HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.models.connection import Connection

from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.support.patience import until

API_KEY = "sk-a-key-of-this-test"


@pytest.fixture
def sandbox(dialect: str) -> Iterator[LumaSandbox]:
    with LumaSandbox(dialect=dialect, api_key=API_KEY, prefix="/relay") as sandbox:
        yield sandbox


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port at which nobody listens, and nobody can start to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class TestTestConnection:
    def test_a_good_connection_is_found_good_by_one_free_call(self, connected: LumaSandbox) -> None:
        ok, message = LumaHook().test_connection()

        assert ok
        assert message == f"The relay at {connected.base_url} answers and accepts the API key."
        assert [call.name for call in connected.calls] == ["batch"]
        assert connected.generations == []
        assert connected.spent_usd == 0

    def test_a_relay_that_refuses_unknown_ids_is_a_good_one(self, connected: LumaSandbox) -> None:
        connected.fail_next("batch", faults.task_not_exist())

        ok, message = LumaHook().test_connection()

        assert ok, message

    def test_a_wrong_key_is_told_from_everything_else(
        self, connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect(connected.base_url, "sk-not-the-key")

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "HTTP 401" in message
        assert "Check the connection's password field" in message
        assert "sk-not-the-key" not in message
        assert connected.count("batch") == 1

    def test_a_used_up_key_is_told_from_a_wrong_one(self, connected: LumaSandbox) -> None:
        connected.fail_next("batch", faults.key_quota_exhausted())

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "该令牌额度已用尽" in message
        assert "Top it up" in message

    def test_a_wrong_path_is_told_from_a_wrong_key(
        self, connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect(connected.root_url, API_KEY)

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "Invalid URL (POST /luma/tasks)" in message
        assert "Check the connection's host" in message

    @pytest.mark.parametrize("page", [faults.ok_html(), faults.status(204), faults.empty()])
    def test_a_host_that_is_no_relay_is_told(self, connected: LumaSandbox, page: faults.Fault) -> None:
        connected.fail_next("batch", page)

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "Luma relay" in message

    def test_a_redirect_is_not_followed_and_told(self, connected: LumaSandbox) -> None:
        connected.fail_next("batch", faults.redirect(f"{connected.root_url}/elsewhere"))

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "Check the connection's host" in message
        assert connected.count("unknown") == 0

    def test_a_port_without_a_server_is_told(self, connect: Callable[..., None], refused_port: int) -> None:
        connect(f"http://127.0.0.1:{refused_port}", API_KEY)

        ok, message = LumaHook().test_connection()

        assert not ok
        assert f"Can't connect to http://127.0.0.1:{refused_port}" in message
        assert "refused" in message

    def test_a_name_that_nobody_has_is_told(self, connect: Callable[..., None]) -> None:
        connect("https://relay.invalid", API_KEY)

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "The host name of https://relay.invalid can't be resolved" in message

    def test_silence_is_told_after_the_read_timeout_and_asked_once(
        self, connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect(connected.base_url, API_KEY, read_timeout=0.5)
        connected.fail_when("batch", faults.hang())

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "didn't answer in time" in message
        until(lambda: connected.count("batch"))
        assert connected.count("batch") == 1

    @pytest.mark.parametrize(
        "fault", [faults.too_many_requests(retry_after=30), faults.bad_gateway(), faults.drop()]
    )
    def test_trouble_is_told_at_once_instead_of_waited_out(
        self, connected: LumaSandbox, fault: faults.Fault
    ) -> None:
        connected.fail_when("batch", fault)

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "later" in message
        assert connected.count("batch") == 1

    def test_https_to_a_server_without_tls_is_told(
        self, connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect(connected.base_url.replace("http://", "https://"), API_KEY)

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "TLS" in message

    @pytest.mark.parametrize(
        ("host", "key", "extra", "named"),
        [
            ("http://my relay", API_KEY, {}, "my relay"),
            ("http://127.0.0.1:1", "", {}, "password"),
            (
                "http://127.0.0.1:1",
                API_KEY,
                {"batch_size": 0},
                "batch_size must be a whole number of at least 1; got 0",
            ),
        ],
        ids=["host", "password", "batch_size"],
    )
    def test_an_unusable_field_is_named_with_the_connection(
        self, connect: Callable[..., None], host: str, key: str, extra: dict[str, Any], named: str
    ) -> None:
        connect(host, key, **extra)

        ok, message = LumaHook().test_connection()

        assert not ok
        assert message.startswith("Connection 'luma_default': ")
        assert named in message

    def test_a_connection_that_is_not_there_is_named(self) -> None:
        ok, message = LumaHook("luma_nowhere").test_connection()

        assert not ok
        assert "luma_nowhere" in message

    def test_no_failure_shows_the_key(self, connected: LumaSandbox) -> None:
        quoting = json.dumps({"error": {"message": f"Incorrect API key provided: {API_KEY}", "code": ""}})
        connected.fail_next("batch", faults.answer(401, quoting))

        ok, message = LumaHook().test_connection()

        assert not ok
        assert "Incorrect API key provided: ***" in message


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
class TestThroughAirflow:
    """As Airflow's API does it: the connection travels as a URI in the environment."""

    def _test(
        self, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any] | None = None, **fields: Any
    ) -> tuple[bool, str]:
        connection = Connection(
            conn_id="luma_form", conn_type="luma", extra=json.dumps(extra or {}), **fields
        )
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_FORM", connection.get_uri())
        ok, message = connection.test_connection()
        return ok, message

    def test_the_form_as_it_is_filled_in(self, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        extra = {"batch_size": 10, "connect_timeout": 3, "verify": "true", "proxies": None}

        ok, message = self._test(monkeypatch, extra, host=sandbox.base_url, password=API_KEY)

        assert ok, message
        assert sandbox.base_url in message

    def test_host_scheme_and_port_in_fields_of_their_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with LumaSandbox(api_key=API_KEY) as sandbox:
            fields: dict[str, Any] = {"host": "127.0.0.1", "port": sandbox.port, "schema": "http"}

            ok, message = self._test(monkeypatch, password=API_KEY, **fields)

        assert ok, message

    def test_a_wrong_key(self, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        ok, message = self._test(monkeypatch, host=sandbox.base_url, password="sk-not-the-key")

        assert not ok
        assert "refuses the API key" in message

    def test_a_key_with_characters_that_mean_something_in_a_uri(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = "sk-a/b+c:d@e?f#g%h=="
        with LumaSandbox(api_key=key) as sandbox:
            ok, message = self._test(monkeypatch, host=sandbox.base_url, password=key)

        assert ok, message


class TestConnectionForms:
    def test_a_uri_with_the_path_of_the_relay(
        self, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = f"luma://:{API_KEY}@http%3A%2F%2F127.0.0.1%3A{sandbox.port}%2Frelay"
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", uri)

        ok, message = LumaHook().test_connection()

        assert ok, message

    def test_the_sandboxs_own_connection_works(
        self, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", sandbox.airflow_connection)

        ok, message = LumaHook().test_connection()

        assert ok, message

    def test_no_host_means_the_default_relay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connection = {"conn_type": "luma", "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", json.dumps(connection))

        assert LumaHook().client.base_url == "https://xuedingmao.online"

    def test_a_task_can_be_read_through_the_client(self, connected: LumaSandbox) -> None:
        task_id = connected.add_task(state="completed")

        with LumaHook().get_conn() as client:
            assert client.get_task(task_id).video_url
