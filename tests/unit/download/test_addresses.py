# SPDX-License-Identifier: Apache-2.0
"""Tests of which URLs and addresses files may be downloaded from."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from airflow_provider_luma.download.addresses import HostPolicy, is_public, is_same_location, redacted
from airflow_provider_luma.exceptions import LumaUnsafeLinkError

RELAY = HostPolicy(base_url="https://relay.test/prefix")
SANDBOX = HostPolicy(base_url="http://127.0.0.1:8321")


def resolves_to(mocker: MockerFixture, *addresses: str) -> None:
    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(None, None, 0, "", (address, port)) for address in addresses]

    mocker.patch.object(socket, "getaddrinfo", getaddrinfo)


class TestPublicAddresses:
    @pytest.mark.parametrize(
        "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
    )
    def test_an_address_of_the_internet_is_public(self, address: str) -> None:
        assert is_public(ipaddress.ip_address(address))

    @pytest.mark.parametrize(
        "address",
        [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.1.2.3",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.192",
            "192.168.1.1",
            "192.88.99.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.2.3",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::101:101",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fe80::1%eth0",
            "fec0::1",
            "ff02::1",
        ],
    )
    def test_any_other_address_is_not(self, address: str) -> None:
        assert not is_public(ipaddress.ip_address(address))


class TestUrls:
    def test_a_url_is_parsed(self) -> None:
        url = RELAY.check("https://CDN.Example./a%20b/video.mp4?sig=x#top")

        assert url == ("https", "cdn.example", 443, "/a%20b/video.mp4?sig=x")
        assert url.authority == "cdn.example"

    def test_a_port_is_part_of_the_authority_unless_it_is_the_default(self) -> None:
        assert RELAY.check("https://cdn.example:8443/").authority == "cdn.example:8443"
        assert RELAY.check("https://[2606:4700::1111]:8443/").authority == "[2606:4700::1111]:8443"
        assert SANDBOX.check("http://cdn.example:80/").authority == "cdn.example"

    @pytest.mark.parametrize(
        "url",
        [
            "http://cdn.example/v.mp4",
            "file:///etc/passwd",
            "ftp://cdn.example/v.mp4",
            "gopher://cdn.example/",
            "data:video/mp4;base64,AAAA",
            "//cdn.example/v.mp4",
            "/v.mp4",
            "",
            "https://",
            "https:///v.mp4",
            "https://user:secret@cdn.example/v.mp4",
            "https://[fe80::1%25eth0]/v.mp4",
            "https://cdn.example:99999/v.mp4",
            "https://[::1/v.mp4",
            "https://a..b/v.mp4",
            "https://.a/v.mp4",
            f"https://{'a' * 64}.example/v.mp4",
            f"https://{'a.' * 130}example/v.mp4",
            "https://" + "\u00fc" * 100 + ".example/v.mp4",
            "https://\u3002.example/v.mp4",
            "https://\ud83d.example/v.mp4",
            "https://a\0b/v.mp4",
            "https://a b/v.mp4",
            f"https://cdn.example:{'9' * 5000}/v.mp4",
            f"https://cdn.example/{'x' * 100_000}",
        ],
    )
    def test_another_kind_of_url_is_refused(self, url: str) -> None:
        with pytest.raises(LumaUnsafeLinkError) as caught:
            RELAY.check(url)

        assert "secret" not in str(caught.value)
        assert not caught.value.retryable
        assert len(str(caught.value)) < 500

    @given(st.one_of(st.text(), st.text().map("https://{}/".format), st.text().map("https://a/{}".format)))
    def test_any_text_is_accepted_or_refused(self, url: str) -> None:
        assert redacted(url).isprintable()
        try:
            checked = RELAY.check(url)
        except LumaUnsafeLinkError:
            return
        checked.host.encode("idna")
        assert checked.target.isascii()
        assert checked.target.isprintable()

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("https://a/v?sig=1", "https://a/v?sig=2", True),
            ("https://a/v?sig=1", "https://A/v", True),
            ("https://a/v", "https://a/w", False),
            ("https://a/v", "https://b/v", False),
            ("https://a/v", "https://a:8443/v", False),
            ("https://a/v", "http://a/v", False),
            ("https://[::1", "https://[::1", False),
        ],
    )
    def test_urls_of_one_location_differ_only_in_their_queries(
        self, one: str, other: str, same: bool
    ) -> None:
        assert is_same_location(one, other) is same

    def test_plain_http_is_allowed_if_the_relay_uses_it(self) -> None:
        assert SANDBOX.check("http://cdn.example/v.mp4").scheme == "http"
        assert SANDBOX.check("https://cdn.example/v.mp4").scheme == "https"

    def test_a_redacted_url_has_neither_query_nor_credentials(self) -> None:
        assert redacted("https://me:key@cdn.example/v.mp4?sig=secret#secret") == "https://cdn.example/v.mp4"
        assert redacted("https://[::1/?sig=secret") == "a malformed URL"
        assert len(redacted("https://cdn.example/" + "x" * 5000)) == 300


class TestTrust:
    @pytest.mark.parametrize(
        ("patterns", "url", "trusted"),
        [
            ((), "https://relay.test/v.mp4", True),
            ((), "https://RELAY.test.:443/v.mp4", True),
            ((), "https://relay.test:8443/v.mp4", False),
            ((), "https://cdn.relay.test/v.mp4", False),
            (("minio.internal",), "https://minio.internal:9000/v.mp4", True),
            (("minio.internal:9000",), "https://minio.internal:9000/v.mp4", True),
            (("minio.internal:9000",), "https://minio.internal/v.mp4", False),
            (("minio.internal",), "https://other.internal/v.mp4", False),
            (("minio.internal",), "https://evil-minio.internal/v.mp4", False),
            (("*.internal",), "https://a.b.internal/v.mp4", True),
            (("*.internal",), "https://internal/v.mp4", False),
            (("*.internal",), "https://evilinternal/v.mp4", False),
            (("*.internal:9000",), "https://a.internal:9000/v.mp4", True),
            (("*.internal:9000",), "https://a.internal/v.mp4", False),
            (("10.0.0.5",), "https://10.0.0.5/v.mp4", True),
            (("10.0.0.5",), "https://10.0.0.50/v.mp4", False),
            (("[fd00::5]",), "https://[fd00::5]:9000/v.mp4", True),
            (("[fd00::5]:9000",), "https://[fd00::5]:9000/v.mp4", True),
            (("[fd00::5]:9000",), "https://[fd00::5]/v.mp4", False),
        ],
    )
    def test_a_host_is_trusted_by_name_and_port(
        self, patterns: tuple[str, ...], url: str, trusted: bool
    ) -> None:
        policy = HostPolicy(base_url="https://relay.test/prefix", allowed_hosts=patterns)

        assert policy.trusts(policy.check(url)) is trusted

    def test_public_addresses_are_returned_once_each_in_order(self, mocker: MockerFixture) -> None:
        resolves_to(mocker, "2606:4700::1111", "1.1.1.1", "1.1.1.1")

        url = RELAY.check("https://cdn.example/v.mp4")

        assert RELAY.addresses(url) == ["2606:4700::1111", "1.1.1.1"]

    @pytest.mark.parametrize(
        "addresses",
        [["10.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["1.1.1.1", "::ffff:127.0.0.1"], ["fe80::1%eth0"]],
    )
    def test_one_private_address_is_enough_to_refuse_a_name(
        self, mocker: MockerFixture, addresses: list[str]
    ) -> None:
        resolves_to(mocker, *addresses)

        with pytest.raises(LumaUnsafeLinkError, match="allowed_artifact_hosts") as caught:
            RELAY.addresses(RELAY.check("https://cdn.example/v.mp4?sig=secret"))

        assert "cdn.example" in str(caught.value)
        assert addresses[-1] in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_a_trusted_host_may_have_private_addresses(self, mocker: MockerFixture) -> None:
        resolves_to(mocker, "10.0.0.1")
        policy = HostPolicy(base_url="https://relay.test", allowed_hosts=("minio.internal",))

        assert policy.addresses(policy.check("https://minio.internal/v.mp4")) == ["10.0.0.1"]

    @pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "017700000001", "127.1"])
    def test_an_unusual_notation_of_a_private_address_is_refused(self, host: str) -> None:
        with pytest.raises((LumaUnsafeLinkError, OSError)):
            RELAY.addresses(RELAY.check(f"https://{host}/"))
