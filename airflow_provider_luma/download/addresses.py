# SPDX-License-Identifier: Apache-2.0
"""Decide which URLs and IP addresses files may be downloaded from: what a relay returns isn't trusted."""

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
_MAX_SHOWN: Final = 300
_MAX_URL: Final = 16 * 1024
# What DNS and TLS accept: labels of 1 to 63 characters. They raise UnicodeError for others.
_HOST_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# Global according to their registry or to older Pythons, but no place where videos are hosted.
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


class CheckedUrl(NamedTuple):
    """Hold the parts of a URL that the policy allows. ``target``, path and query, may hold a signature."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Return what two URLs must share to share a connection."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Return the value of the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Return the whole URL."""
        return f"{self.scheme}://{self.authority}{self.target}"


def redacted(url: str) -> str:
    """Return a URL for logs and errors: without its query, which may hold a signature, and credentials."""
    parts = _parse(url)
    if parts is None:
        return "a malformed URL"
    plain = clean_text(parts._replace(auth=None, query=None, fragment=None).url, _MAX_SHOWN - 1)
    # URLs of other schemes are not normalised: their hosts can hold letters that look like others.
    return plain if parts.scheme in _PORTS else plain.encode("ascii", "replace").decode()


def refusal(url: str, reason: str) -> LumaUnsafeLinkError:
    """Return the error for a URL that isn't safe to follow."""
    return LumaUnsafeLinkError(f"Refusing to download {redacted(url)}: {reason}.")


def is_same_location(one: str, other: str) -> bool:
    """Return whether two URLs differ only in their queries, which hold signatures."""
    first, second = _parse(one), _parse(other)
    return first is not None and second is not None and first[:5] == second[:5]


def is_valid_host(host: str) -> bool:
    """Return whether a host can be looked up and connected to: an IP address, or a name that DNS accepts."""
    return host.startswith("[") or _HOST_NAME.fullmatch(host.rstrip(".").lower()) is not None


def resolve(host: str, port: int) -> list[str]:
    """
    Look up the addresses of a host, in the system's order. This has no time limit of its own.

    :raises OSError: if the name can't be resolved.
    """
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def is_public(address: IpAddress) -> bool:
    """Return whether an address is in the public internet; IPv4 mapped into IPv6 counts as itself."""
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
    Decide which hosts files may be downloaded from.

    The relay's own host and port and the hosts that the user names are trusted. Any other name is resolved,
    and allowed only if all its addresses are public; the caller must connect to one of exactly these
    addresses. https is required unless the relay itself uses plain http.

    :param base_url: The relay's base URL.
    :param allowed_hosts: Patterns ``host``, ``host:port``, ``*.domain`` or ``*.domain:port``.
    """

    base_url: str
    allowed_hosts: tuple[str, ...] = ()

    @cached_property
    def _own(self) -> tuple[str, str, int]:
        parts = parse_url(self.base_url)
        scheme = parts.scheme or "https"
        return scheme, _plain(parts.host or ""), parts.port or _PORTS[scheme]

    def check(self, url: str) -> CheckedUrl:
        """
        Parse a URL and check everything but its host's addresses.

        :raises LumaUnsafeLinkError: if it may not be followed.
        """
        parts = _parse(url)
        if parts is None:
            raise refusal(url, "it can't be parsed")
        if parts.scheme not in _PORTS:
            raise refusal(url, "only https URLs are allowed")
        if parts.scheme == "http" and self._own[0] != "http":
            raise refusal(url, "only https URLs are allowed, unless the connection's own host uses http://")
        if not parts.host or parts.auth or "%" in parts.host:
            raise refusal(url, "it has no plain host name, or holds credentials")
        if not is_valid_host(parts.host):
            raise refusal(url, "its host is not a valid DNS name")
        port = parts.port if parts.port is not None else _PORTS[parts.scheme]
        return CheckedUrl(parts.scheme, _plain(parts.host), port, parts.request_uri)

    def trusts(self, url: CheckedUrl) -> bool:
        """Return whether the host may have any address."""
        if (url.host, url.port) == self._own[1:]:
            return True
        return any(_matches(pattern, url) for pattern in self.allowed_hosts)

    def addresses(self, url: CheckedUrl) -> list[str]:
        """
        Resolve a URL's host to the addresses that may be connected to, in the system's order.

        :raises LumaUnsafeLinkError: if one of them is not public and the host is not trusted.
        :raises OSError: if the name can't be resolved.
        """
        addresses = resolve(url.host, url.port)
        if not self.trusts(url):
            for address in addresses:
                if not is_public(ipaddress.ip_address(address)):
                    raise refusal(
                        url.url,
                        f"{url.host} resolves to {address}, which is not a public address. If that is "
                        "intended, name the host in the connection's allowed_artifact_hosts",
                    )
        return addresses


def _parse(url: str) -> Url | None:
    """Parse a URL; return None for anything that isn't one, so that no text makes it raise."""
    if len(url) > _MAX_URL:
        return None
    try:
        return parse_url(url)
    except ValueError:
        # LocationParseError and UnicodeError are subclasses.
        return None


def _matches(pattern: str, url: CheckedUrl) -> bool:
    host, separator, port = pattern.rpartition(":")
    if not separator or not port.isdecimal():
        host, port = pattern, ""
    if port and int(port) != url.port:
        return False
    host = _plain(host)
    return url.host.endswith(host[1:]) if host.startswith("*.") else url.host == host


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
