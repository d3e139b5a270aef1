# SPDX-License-Identifier: Apache-2.0
"""Which links may be followed, and to which addresses: what a relay answers is not to be trusted."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from urllib3.util import Url, parse_url

from airflow_provider_luma.exceptions import LumaUnsafeLinkError
from airflow_provider_luma.text import clean_text

_PORTS: Final = {"http": 80, "https": 443}
_HOW_TO_ALLOW: Final = "If that is meant to be, name the host in the connection's allowed_artifact_hosts"
_MAX_SHOWN: Final = 300
_MAX_URL: Final = 16 * 1024
# What DNS and TLS can take: labels of 1 to 63 characters. They raise UnicodeError for others.
_HOST_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# Global by their registry's word or for older Pythons, but leading nowhere that a video is kept.
_REFUSED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's metadata and DNS
        "192.0.0.0/24",
        "192.88.99.0/24",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
    )
)


class Link(NamedTuple):
    """A checked link, taken apart. ``target`` holds the path and the query, which may be a secret."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The host as the ``Host`` header tells it."""
        host = _bracketed(self.host)
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def shown(url: str) -> str:
    """Return a link for logs and errors: without its query, which may sign it, and without credentials."""
    parts = _parse(url)
    if parts is None:
        return "an illegible link"
    plain = clean_text(parts._replace(auth=None, query=None, fragment=None).url, _MAX_SHOWN - 1)
    # Links of other schemes are not normalised: their hosts can hold letters that look like others.
    return plain if parts.scheme in _PORTS else plain.encode("ascii", "replace").decode()


def same_place(one: str, other: str) -> bool:
    """Whether two links differ in nothing but their queries, which sign them."""
    first, second = _parse(one), _parse(other)
    return first is not None and second is not None and first[:5] == second[:5]


def is_host(host: str) -> bool:
    """Whether a name can be looked up and connected to: an IP address, or what DNS takes for a name."""
    if host.startswith("["):
        return True
    return _HOST_NAME.fullmatch(host.rstrip(".").lower()) is not None


def _parse(url: str) -> Url | None:
    """Take a URL apart, or return None for anything that isn't one; no text makes it raise."""
    if len(url) > _MAX_URL:
        return None
    try:
        return parse_url(url)
    except ValueError:
        # LocationParseError and UnicodeError are such.
        return None


def is_public(address: IpAddress) -> bool:
    """Whether an address lies in the public internet, seen through IPv4 addresses mapped into IPv6 ones."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _REFUSED if network.version == address.version)
    )


@dataclass(frozen=True, kw_only=True)
class HostPolicy:
    """
    Where artifacts may be fetched from.

    Always allowed are the relay's own host and port, and the hosts that the user names. Every other name is
    resolved and allowed only if all its addresses are public; who connects must connect to one of these
    very addresses. https is required unless the relay itself speaks plain http.

    :param base_url: The relay's address.
    :param allowed_hosts: Patterns ``host``, ``host:port``, ``*.domain`` or ``*.domain:port``.
    """

    base_url: str
    allowed_hosts: tuple[str, ...] = ()

    @cached_property
    def _own(self) -> tuple[str, str, int]:
        parts = parse_url(self.base_url)
        scheme = parts.scheme or "https"
        return scheme, _plain(parts.host or ""), parts.port or _PORTS[scheme]

    def check(self, url: str) -> Link:
        """
        Take a link apart that may be followed as far as its text tells.

        :raises LumaUnsafeLinkError: when it may not.
        """
        parts = _parse(url)
        if parts is None:
            raise LumaUnsafeLinkError("The relay or a redirect gave a link that can't be read.")
        if parts.scheme not in _PORTS:
            raise LumaUnsafeLinkError(f"{shown(url)} is not followed: artifacts come by https.")
        if parts.scheme == "http" and self._own[0] != "http":
            raise LumaUnsafeLinkError(
                f"{shown(url)} is not followed: artifacts come by https, unless the connection's own host is "
                "an http:// address."
            )
        if not parts.host or parts.auth or "%" in parts.host:
            raise LumaUnsafeLinkError(
                f"{shown(url)} is not followed: it names no plain host or holds credentials."
            )
        if not is_host(parts.host):
            raise LumaUnsafeLinkError(f"{shown(url)} is not followed: its host is no name that DNS takes.")
        port = parts.port if parts.port is not None else _PORTS[parts.scheme]
        return Link(parts.scheme, _plain(parts.host), port, parts.request_uri)

    def trusts(self, link: Link) -> bool:
        """Whether the host may be connected to whatever its addresses are."""
        if (link.host, link.port) == self._own[1:]:
            return True
        return any(_matches(pattern, link) for pattern in self.allowed_hosts)

    def addresses(self, link: Link) -> list[str]:
        """
        Resolve a link's host to the addresses that may be connected to, in the system's order.

        :raises LumaUnsafeLinkError: when one of them is not public and the host is not trusted.
        :raises OSError: when the name can't be resolved.
        """
        answers = socket.getaddrinfo(link.host, link.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        if not self.trusts(link):
            for address in addresses:
                if not is_public(ipaddress.ip_address(address)):
                    raise LumaUnsafeLinkError(
                        f"{shown(link.url)} is not followed: {link.host} is at {address}, which is not a "
                        f"public address. {_HOW_TO_ALLOW}."
                    )
        return addresses


def _matches(pattern: str, link: Link) -> bool:
    host, separator, port = pattern.rpartition(":")
    if not separator or not port.isdecimal():
        host, port = pattern, ""
    if port and int(port) != link.port:
        return False
    host = _plain(host)
    return link.host.endswith(host[1:]) if host.startswith("*.") else link.host == host


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
