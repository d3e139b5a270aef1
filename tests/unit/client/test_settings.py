# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_luma.client.settings import DEFAULT_BASE_URL, RelaySettings
from airflow_provider_luma.exceptions import LumaConfigError

KEY = "sk-the-secret-key"


def settings(extra: Any = None, **fields: Any) -> RelaySettings:
    if extra is not None and not isinstance(extra, str):
        extra = json.dumps(extra)
    return RelaySettings.from_fields(**{"host": None, "password": KEY, "extra": extra, **fields})


class TestAddress:
    def test_nothing_but_a_key_means_the_default_relay(self) -> None:
        assert settings() == RelaySettings(base_url=DEFAULT_BASE_URL, api_key=KEY)
        assert DEFAULT_BASE_URL == "https://xuedingmao.online"

    @pytest.mark.parametrize(
        ("fields", "base_url"),
        [
            ({"host": ""}, "https://xuedingmao.online"),
            ({"host": "relay.test"}, "https://relay.test"),
            ({"host": " https://relay.test/ "}, "https://relay.test"),
            ({"host": "relay.test", "schema": "http"}, "http://relay.test"),
            ({"host": "relay.test", "schema": "HTTP"}, "http://relay.test"),
            ({"host": "relay.test", "schema": "https"}, "https://relay.test"),
            ({"host": "http://relay.test", "schema": "https"}, "http://relay.test"),
            ({"host": "relay.test", "schema": ""}, "https://relay.test"),
            ({"host": "relay.test", "port": 8321}, "https://relay.test:8321"),
            ({"host": "relay.test:1", "port": 8321}, "https://relay.test:1"),
            ({"host": "http://relay.test/a/b", "port": 8321}, "http://relay.test:8321/a/b"),
            ({"host": "relay.test", "schema": "v1"}, "https://relay.test/v1"),
            ({"host": "relay.test", "schema": "/v1/luma/"}, "https://relay.test/v1/luma"),
            ({"host": "relay.test/a", "schema": "b"}, "https://relay.test/a/b"),
            ({"host": "http://relay.test", "schema": "v1", "port": 80}, "http://relay.test:80/v1"),
            ({"host": "[::1]", "port": 8321}, "https://[::1]:8321"),
            ({"host": "http://[::1]:9", "port": 8321}, "http://[::1]:9"),
            ({"host": "[::1]", "schema": "http", "port": 8321}, "http://[::1]:8321"),
            ({"host": None, "schema": "http", "port": 8321}, "https://xuedingmao.online:8321"),
        ],
    )
    def test_host_schema_and_port_make_the_base_url(self, fields: dict[str, Any], base_url: str) -> None:
        assert settings(**fields).base_url == base_url

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"host": "relay .test"}, "blanks"),
            ({"host": "https://relay.test/?key=secret"}, "query"),
            ({"host": "https://me:secret@relay.test"}, "credentials"),
            ({"host": "ftp://relay.test"}, "scheme"),
            ({"host": "relay.test", "schema": "a b"}, "blanks"),
            ({"host": "relay.test", "schema": "?key=secret"}, "query"),
            ({"host": "relay.test", "port": 99999}, "not a valid URL"),
        ],
    )
    def test_an_unusable_address_is_refused(self, fields: dict[str, Any], problem: str) -> None:
        with pytest.raises(LumaConfigError, match=problem) as caught:
            settings(**fields)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("password", [None, ""])
    def test_a_missing_key_is_refused(self, password: str | None) -> None:
        with pytest.raises(LumaConfigError, match="password field"):
            settings(password=password)


class TestExtra:
    @pytest.mark.parametrize("extra", [None, "", "{}", {"unknown": 1}])
    def test_without_fields_there_are_defaults(self, extra: Any) -> None:
        found = settings(extra)
        assert (found.batch_size, found.connect_timeout, found.read_timeout) == (100, 5.0, 30.0)
        assert (found.verify, found.proxies, found.max_poll_failures) == (True, (), 20)

    @pytest.mark.parametrize("empty", [None, ""])
    @pytest.mark.parametrize(
        "name",
        [
            "batch_size",
            "connect_timeout",
            "read_timeout",
            "verify",
            "proxies",
            "max_poll_failures",
            "allowed_artifact_hosts",
        ],
    )
    def test_an_emptied_field_has_its_default(self, name: str, empty: Any) -> None:
        assert settings({name: empty}) == settings()

    @pytest.mark.parametrize("extra", ["[]", "5", "null ", '"text"', "{", "not json", "[" * 100_000])
    def test_an_extra_that_is_no_object_is_refused(self, extra: str) -> None:
        with pytest.raises(LumaConfigError, match="JSON object"):
            settings(extra)

    @pytest.mark.parametrize("name", ["batch_size", "max_poll_failures"])
    @pytest.mark.parametrize("value", [7, "7", " 7 ", "7\x1f", 7.0])
    def test_a_count_may_be_written_in_any_way_of_a_form(self, name: str, value: Any) -> None:
        assert getattr(settings({name: value}), name) == 7

    @pytest.mark.parametrize("name", ["batch_size", "max_poll_failures"])
    @pytest.mark.parametrize("value", [0, -1, "0", "-1", "abc", "1.5", 1.5, True, False, [5], {}])
    def test_an_unusable_count_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(LumaConfigError, match=name) as caught:
            settings({name: value})
        assert repr(value) in str(caught.value)
        assert "at least 1" in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "hosts"),
        [
            ("minio.internal", ("minio.internal",)),
            (
                "Minio.Internal:9000, *.media.example,[fd00::5]:80",
                ("minio.internal:9000", "*.media.example", "[fd00::5]:80"),
            ),
            (" a  b\na ", ("a", "b")),
            (["10.0.0.5", "10.0.0.5:8080"], ("10.0.0.5", "10.0.0.5:8080")),
            ([], ()),
            (" , ", ()),
        ],
    )
    def test_artifact_hosts_may_be_a_text_or_a_list(self, value: Any, hosts: tuple[str, ...]) -> None:
        assert settings({"allowed_artifact_hosts": value}).allowed_artifact_hosts == hosts

    @pytest.mark.parametrize(
        "value",
        ["https://minio", "minio/path", "*", "*.", "a:b", "fd00::5", "user@host", 5, {}, [None], "a..b"],
    )
    def test_unusable_artifact_hosts_are_refused(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match=r"allowed_artifact_hosts must be .*; got "):
            settings({"allowed_artifact_hosts": value})

    @pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
    @pytest.mark.parametrize("value", [2.5, "2.5", " 2.5 "])
    def test_seconds_may_be_written_in_any_way_of_a_form(self, name: str, value: Any) -> None:
        assert getattr(settings({name: value}), name) == 2.5

    @pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
    @pytest.mark.parametrize(
        "value", [0, -1, "0", "abc", True, [5], {}, "nan", "inf", 100_000, pytest.param(10**400, id="huge")]
    )
    def test_unusable_seconds_are_refused(self, name: str, value: Any) -> None:
        with pytest.raises(LumaConfigError, match=name) as caught:
            settings({name: value})
        assert "positive number of seconds" in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "meant"),
        [
            (True, True),
            (False, False),
            ("true", True),
            ("False", False),
            (" no ", False),
            ("1", True),
            ("0", False),
            (" /etc/ssl/own.pem ", "/etc/ssl/own.pem"),
        ],
    )
    def test_verify_is_a_truth_or_a_path(self, value: Any, meant: bool | str) -> None:
        assert settings({"verify": value}).verify == meant

    @pytest.mark.parametrize("value", [1, 0, ["/etc/x"], {}])
    def test_an_unusable_verify_is_refused(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="verify"):
            settings({"verify": value})

    @pytest.mark.parametrize("proxies", [{"https": "http://a:1", "http": "http://b:2"}, {}])
    @pytest.mark.parametrize("write", [lambda value: value, json.dumps], ids=["object", "text"])
    def test_proxies_are_an_object_or_its_text(self, proxies: dict[str, str], write: Any) -> None:
        assert dict(settings({"proxies": write(proxies)}).proxies) == proxies

    @pytest.mark.parametrize(
        "value",
        ["http://proxy:3128", "[]", 5, ["http://proxy"], {"https": 5}, {"https": None}, "[" * 100_000],
    )
    def test_unusable_proxies_are_refused(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="proxies"):
            settings({"proxies": value})


class TestTheValue:
    def test_connections_that_say_the_same_are_equal(self) -> None:
        one = settings({"proxies": {"http": "a", "https": "b"}}, host="relay.test", schema="https")
        two = settings(
            {"proxies": {"https": "b", "http": "a"}, "batch_size": "100"}, host="https://relay.test/"
        )
        assert one == two
        assert hash(one) == hash(two)
        assert one != settings(password="another")

    def test_the_key_and_the_proxies_are_in_no_repr(self) -> None:
        found = settings({"proxies": {"https": "http://me:hidden@proxy"}})
        assert repr(found) == "RelaySettings(base_url='https://xuedingmao.online', api_key='***')"
        assert str(found) == repr(found)

    def test_the_client_is_made_of_it(self, relay: Any) -> None:
        found = settings(
            {"batch_size": 2, "proxies": {"http": "http://proxy.test:1"}}, host="http://relay.test"
        )
        relay.answers([]).answers([])
        with found.client() as client:
            client.get_tasks(["a", "b", "c"])
        assert [sent.json["ids"] for sent in relay.sent] == [["a", "b"], ["c"]]
        assert relay.peers == [("proxy.test", 1)]
        assert relay.sent[0].headers["Authorization"] == f"Bearer {KEY}"

    def test_arguments_of_the_client_may_differ_from_it(self, relay: Any) -> None:
        with settings({"batch_size": 2}, host="http://relay.test").client(batch_size=5) as client:
            assert client.batch_size == 5
