# SPDX-License-Identifier: Apache-2.0
"""
HTTP GETs to artifact hosts: to checked addresses only, without key, cookies or netrc.

``http.client`` reads into buffers of ours, on sockets of ours, and logs nothing. ``requests-hardened`` pins
connections too, but it can allow loopback addresses and no single host, tries only the first address of a
name, looks names up again for connections that stand, and lets urllib3 log whole links, signatures included.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urljoin

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy
from urllib3.util import parse_url, wait_for_read

from airflow_provider_luma import __version__
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.download.addresses import HostPolicy, Link, is_host, shown
from airflow_provider_luma.exceptions import LumaConfigError, LumaUnsafeLinkError

FAULTS: Final = (OSError, HTTPException)
"""What :meth:`Transport.get` and reading from its answer raise when the network or the host fails."""

MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SMALL_BODY: Final = 64 * 1024
_MAX_CONNECTIONS: Final = 4

_BAD_PROXY: Final = (
    "The proxy for artifacts has no legible address: give the connection's proxies, or the environment's "
    "HTTPS_PROXY, one such as 'http://proxy:3128'."
)


class Proxy(NamedTuple):
    """A forward proxy, and the headers that it wants."""

    host: str
    port: int
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Route:
    """
    How artifact hosts are reached; one for many transports.

    :param policy: Which hosts may be reached at all.
    :param connect_timeout: Seconds for establishing a connection to one address.
    :param read_timeout: Seconds without a single byte after which a connection counts as broken.
    :param verify: Whether to check certificates, or the path of a CA bundle to check them with.
    :param proxies: Proxies by scheme, as ``requests`` takes them. Without them the environment's are used.
    """

    policy: HostPolicy
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    verify: bool | str = True
    proxies: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: RelaySettings) -> Route:
        """Make the route for the artifacts of a relay from its connection's settings."""
        return cls(
            policy=HostPolicy(base_url=settings.base_url, allowed_hosts=settings.allowed_artifact_hosts),
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            verify=settings.verify,
            proxies=dict(settings.proxies),
        )

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """
        What certificates are checked with, as ``requests`` would choose it.

        :raises LumaConfigError: when there is no such CA bundle.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        bundle = self.verify if isinstance(self.verify, str) else _default_bundle()
        try:
            if Path(bundle).is_dir():
                context.load_verify_locations(capath=bundle)
            else:
                context.load_verify_locations(cafile=bundle)
        except OSError as error:
            raise LumaConfigError(
                f"The connection's verify is {bundle!r}, which can't be read as a CA bundle ({error}): right "
                "are true, false or the path of a bundle that every worker has."
            ) from error
        return context

    def proxy(self, link: Link) -> Proxy | None:
        """
        Return the proxy that a link is fetched through, as ``requests`` would choose it.

        :raises LumaConfigError: when that is one that can't be used.
        """
        proxies = dict(self.proxies) or get_environ_proxies(link.url)
        proxy = select_proxy(link.url, proxies)
        if not proxy:
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if not proxy.lower().startswith("http://"):
            raise LumaConfigError(
                f"Artifacts can't be fetched through a proxy of the kind {proxy.partition('://')[0]!r}: give "
                "one with an http:// address, or except the artifact hosts with NO_PROXY."
            )
        return _parse_proxy(proxy)


class Transport:
    """
    The connections of one thread to artifact hosts; kept open from file to file.

    :param route: How hosts are reached.
    :param remaining: Returns the seconds that are left for what is under way; connecting takes no longer.
    """

    def __init__(self, route: Route, *, remaining: Callable[[], float] = lambda: float("inf")) -> None:
        self._route = route
        self._remaining = remaining
        self._connections: dict[tuple[str, str, int], HTTPConnection] = {}
        self._current: HTTPConnection | None = None
        self._response: HTTPResponse | None = None
        # Not the connection's, which forgets it as soon as an answer is the last one on it.
        self._socket: socket.socket | None = None

    def get(self, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        """
        Send a GET and follow up to three redirects, each checked like the link itself.

        :param url: The link.
        :param headers: Headers to send besides the usual ones.
        :return: The answer, whatever its status, before its body is read. To be given back to
            :meth:`finish` before the next call, unless :meth:`drop` is called.
        :raises LumaUnsafeLinkError: when the link or a redirect leads where nothing is fetched from.
        :raises OSError, HTTPException: the :data:`FAULTS`.
        """
        headers = {
            "User-Agent": f"airflow-provider-luma/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        for _ in range(MAX_REDIRECTS + 1):
            link = self._route.policy.check(url)
            response = self._send(link, headers)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            self.finish(response)
            try:
                url = urljoin(link.url, location)
            except ValueError:
                raise LumaUnsafeLinkError(f"{shown(url)} redirects to a link that can't be read.") from None
        raise LumaUnsafeLinkError(
            f"{shown(url)} is not followed: there were more than {MAX_REDIRECTS} redirects."
        )

    def finish(self, response: HTTPResponse) -> None:
        """Leave an answer. Its connection is kept if what is unread of it is small."""
        if response.isclosed():
            return
        if response.length is not None and response.length <= _SMALL_BODY:
            response.read()
        else:
            self.drop()

    def drop(self) -> None:
        """Close the connection that was used last, whatever is under way on it."""
        if self._response is not None:
            self._response.close()
        if self._current is not None:
            self._current.close()

    def abort(self) -> None:
        """Break off what the owning thread is sending or receiving; from any thread."""
        for sock in (self._socket, getattr(self._current, "sock", None)):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections; the transport can be used again."""
        self.drop()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _send(self, link: Link, headers: Mapping[str, str]) -> HTTPResponse:
        proxy = self._route.proxy(link) if link.scheme == "http" else None
        connection = self._current = self._connection(link)
        self._socket = connection.sock
        try:
            connection.request(
                "GET",
                link.url if proxy else link.target,
                headers={"Host": link.authority, **headers, **(proxy.headers if proxy else {})},
            )
            self._response = connection.getresponse()
            return self._response
        except ValueError as error:
            # http.client reads the host's status line and headers here, and leaves some of their oddities to
            # int() and to codecs, which must not cost more than this file.
            connection.close()
            raise HTTPException("an illegible answer") from error
        except BaseException:
            connection.close()
            raise

    def _connection(self, link: Link) -> HTTPConnection:
        kept = self._connections.get(link.origin)
        # A socket that can be read before anything was asked has been closed by the other side.
        if kept is not None and kept.sock is not None and not wait_for_read(kept.sock, timeout=0):
            return kept
        if kept is not None:
            kept.close()
        if len(self._connections) >= _MAX_CONNECTIONS:
            self.close()
        connection = HTTPConnection(link.host, link.port)
        # By itself it would connect to whatever address the name has then.
        connection.auto_open = 0
        self._connect(connection, link)
        self._connections[link.origin] = connection
        return connection

    def _connect(self, connection: HTTPConnection, link: Link) -> None:
        """Connect to an address of the link's host, under the host's name as far as TLS is concerned."""
        proxy = self._route.proxy(link)
        connection.sock = self._tunnel(link, proxy) if proxy else self._dial(link)
        try:
            if link.scheme == "https":
                tls = self._route.tls.wrap_socket(
                    connection.sock, server_hostname=link.host, do_handshake_on_connect=False
                )
                connection.sock = self._socket = tls
                tls.do_handshake()
            connection.sock.settimeout(self._route.read_timeout)
        except BaseException:
            connection.close()
            raise

    def _dial(self, link: Link) -> socket.socket:
        return self._first(
            self._route.policy.addresses(link), lambda address, patience: _open(address, link.port, patience)
        )

    def _tunnel(self, link: Link, proxy: Proxy) -> socket.socket:
        """Connect to the proxy and, for https, through it to a checked address."""
        if link.scheme == "http" and not self._route.policy.trusts(link):
            raise LumaUnsafeLinkError(
                f"{shown(link.url)} is not followed: through a proxy, plain http is fetched only from the "
                "relay's own host and from allowed_artifact_hosts."
            )
        doors = _look_up(proxy.host, proxy.port)
        if link.scheme == "http":
            return self._first(doors, lambda door, patience: _open(door, proxy.port, patience))

        def connect(target: str, door: str, patience: float) -> socket.socket:
            connection = self._current = HTTPConnection(door, proxy.port, timeout=patience)
            connection.set_tunnel(target, link.port, headers=proxy.headers)
            try:
                connection.connect()
            except BaseException:
                connection.close()
                raise
            return connection.sock

        return self._first(
            self._targets(link),
            lambda target, _: self._first(doors, lambda door, patience: connect(target, door, patience)),
        )

    def _targets(self, link: Link) -> list[str]:
        """Return what to ask a proxy for: a checked address, or a name that the user allows."""
        policy = self._route.policy
        if policy.trusts(link):
            # The proxy may know names that this machine doesn't.
            return [link.host]
        try:
            return policy.addresses(link)
        except OSError as error:
            raise OSError(
                f"{error}; {link.host} is looked up here and not by the proxy, so that it can't lead into "
                "the private network. If this machine has no DNS, name the host in the connection's "
                "allowed_artifact_hosts: the proxy then resolves it"
            ) from error

    def _first(
        self, addresses: Iterable[str], connect: Callable[[str, float], socket.socket]
    ) -> socket.socket:
        """Return the first connection that can be made within the time that is left for the file."""
        fault = OSError("the host has no address")
        for address in addresses:
            patience = min(self._route.connect_timeout, self._remaining())
            if patience <= 0:
                raise TimeoutError("timed out while connecting")
            try:
                return connect(address, patience)
            except OSError as error:
                fault = error
        raise fault


def _open(address: str, port: int, patience: float) -> socket.socket:
    sock = socket.create_connection((address, port), timeout=patience)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _look_up(host: str, port: int) -> list[str]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _parse_proxy(address: str) -> Proxy:
    try:
        parts = parse_url(address)
    except ValueError:
        # Not shown, because it may hold a password.
        raise LumaConfigError(_BAD_PROXY) from None
    if not parts.host or not is_host(parts.host):
        raise LumaConfigError(_BAD_PROXY)
    headers = {}
    if parts.auth:
        user, _, password = parts.auth.partition(":")
        credentials = f"{unquote(user)}:{unquote(password)}".encode("utf-8", "surrogateescape")
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
    return Proxy(parts.host.strip("[]"), 80 if parts.port is None else parts.port, headers)


def _default_bundle() -> str:
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
