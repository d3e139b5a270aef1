# SPDX-License-Identifier: Apache-2.0
"""
Send HTTP GETs to artifact hosts: to checked addresses only, without key, cookies or netrc.

``http.client`` reads into our buffers, on our sockets, and logs nothing. ``requests-hardened`` pins
connections too, but it can't allow a single private host, tries only the first address of a name, looks
names up again for open connections, and lets urllib3 log whole URLs, signatures included.
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
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urljoin

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy
from urllib3.util import parse_url, wait_for_read

from airflow_provider_luma import __version__
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.connection_fields import default_of
from airflow_provider_luma.download.addresses import CheckedUrl, HostPolicy, is_valid_host, refusal, resolve
from airflow_provider_luma.exceptions import LumaConfigError

NETWORK_ERRORS: Final = (OSError, HTTPException)
"""What :meth:`Transport.get` and reading its response raise if the network or the host fails."""

MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SMALL_BODY: Final = 64 * 1024
_MAX_CONNECTIONS: Final = 4

_BAD_PROXY: Final = (
    "The proxy for artifacts must have an address such as 'http://proxy:3128': correct the connection's "
    "proxies or the environment's HTTPS_PROXY."
)


class Proxy(NamedTuple):
    """Hold the address of a forward proxy, and the headers that it requires."""

    host: str
    port: int
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Route:
    """
    Hold how to reach artifact hosts; shared by many transports.

    :param policy: Which hosts are allowed.
    :param connect_timeout: Seconds to connect to one address.
    :param read_timeout: Seconds without a byte after which a connection counts as broken.
    :param verify: Whether to verify certificates, or the path to a CA bundle to verify them with.
    :param proxies: Proxies by scheme, as ``requests`` takes them; by default those of the environment.
    """

    policy: HostPolicy
    connect_timeout: float = default_of("connect_timeout")
    read_timeout: float = default_of("read_timeout")
    verify: bool | str = True
    proxies: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: RelaySettings) -> Route:
        """Return the route to a relay's artifacts, from its connection's settings."""
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
        Return the TLS settings, with the CA bundle that ``requests`` would choose.

        :raises LumaConfigError: if the CA bundle can't be read.
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
                "The connection's verify must be true, false or the path to a CA bundle that every worker "
                f"has; got {bundle!r}, which can't be read ({error})."
            ) from error
        return context

    def proxy(self, url: CheckedUrl) -> Proxy | None:
        """
        Return the proxy for a URL, as ``requests`` would choose it.

        :raises LumaConfigError: if it can't be used.
        """
        proxies = dict(self.proxies) or get_environ_proxies(url.url)
        proxy = select_proxy(url.url, proxies)
        if not proxy:
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if not proxy.lower().startswith("http://"):
            raise LumaConfigError(
                "The proxy for artifacts must have an http:// address; got one of the scheme "
                f"{proxy.partition('://')[0]!r}. Use another one, or exempt artifact hosts with NO_PROXY."
            )
        return _parse_proxy(proxy)


class Transport:
    """
    Send the requests of one thread to artifact hosts, and keep connections open from file to file.

    :param route: How to reach hosts.
    :param remaining: Returns the seconds that are left for the current file; connecting takes no longer.
    """

    def __init__(self, route: Route, *, remaining: Callable[[], float] = lambda: float("inf")) -> None:
        self._route = route
        self._remaining = remaining
        self._connections: dict[tuple[str, str, int], HTTPConnection] = {}
        self._current: HTTPConnection | None = None
        self._response: HTTPResponse | None = None
        # Kept here because a connection drops its socket as soon as a response is the last one on it.
        self._socket: socket.socket | None = None

    def get(self, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        """
        Send a GET and follow up to three redirects, each checked like the URL itself.

        :param headers: Headers to send besides the usual ones.
        :return: The response, whatever its status, before its body is read. Pass it to :meth:`finish`
            before the next call, unless :meth:`drop` is called.
        :raises LumaUnsafeLinkError: if the URL or a redirect is not allowed.
        :raises OSError, HTTPException: the :data:`NETWORK_ERRORS`.
        """
        headers = {
            "User-Agent": f"airflow-provider-luma/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        for _ in range(MAX_REDIRECTS + 1):
            checked = self._route.policy.check(url)
            response = self._send(checked, headers)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            self.finish(response)
            try:
                url = urljoin(checked.url, location)
            except ValueError:
                raise refusal(url, "it redirects to a malformed URL") from None
        raise refusal(url, f"there were more than {MAX_REDIRECTS} redirects")

    def finish(self, response: HTTPResponse) -> None:
        """Release a response. Its connection is kept if the unread rest of the body is small."""
        if response.isclosed():
            return
        if response.length is not None and response.length <= _SMALL_BODY:
            response.read()
        else:
            self.drop()

    def drop(self) -> None:
        """Close the connection that was used last, with any response on it."""
        if self._response is not None:
            self._response.close()
        if self._current is not None:
            self._current.close()

    def abort(self) -> None:
        """Abort what the owning thread is sending or receiving; from any thread."""
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

    def _send(self, url: CheckedUrl, headers: Mapping[str, str]) -> HTTPResponse:
        proxy = self._route.proxy(url) if url.scheme == "http" else None
        connection = self._current = self._connection(url)
        self._socket = connection.sock
        try:
            connection.request(
                "GET",
                url.url if proxy else url.target,
                headers={"Host": url.authority, **headers, **(proxy.headers if proxy else {})},
            )
            self._response = connection.getresponse()
            return self._response
        except ValueError as error:
            # http.client passes some malformed status lines and headers to int() and to codecs, whose errors
            # must not fail more than this file.
            connection.close()
            raise HTTPException("a malformed response") from error
        except BaseException:
            connection.close()
            raise

    def _connection(self, url: CheckedUrl) -> HTTPConnection:
        kept = self._connections.get(url.origin)
        # A socket that is readable before a request was closed by the other side.
        if kept is not None and kept.sock is not None and not wait_for_read(kept.sock, timeout=0):
            return kept
        if kept is not None:
            kept.close()
        if len(self._connections) >= _MAX_CONNECTIONS:
            self.close()
        connection = HTTPConnection(url.host, url.port)
        # Otherwise it would reconnect to whatever address the name has by then.
        connection.auto_open = 0
        self._connect(connection, url)
        self._connections[url.origin] = connection
        return connection

    def _connect(self, connection: HTTPConnection, url: CheckedUrl) -> None:
        """Connect to an address of the URL's host; TLS verifies the host's name."""
        proxy = self._route.proxy(url)
        connection.sock = self._connect_through(proxy, url) if proxy else self._connect_directly(url)
        try:
            if url.scheme == "https":
                tls = self._route.tls.wrap_socket(
                    connection.sock, server_hostname=url.host, do_handshake_on_connect=False
                )
                connection.sock = self._socket = tls
                tls.do_handshake()
            connection.sock.settimeout(self._route.read_timeout)
        except BaseException:
            connection.close()
            raise

    def _connect_directly(self, url: CheckedUrl) -> socket.socket:
        return self._first_connection(
            self._route.policy.addresses(url), lambda address, timeout: _open(address, url.port, timeout)
        )

    def _connect_through(self, proxy: Proxy, url: CheckedUrl) -> socket.socket:
        """Connect to the proxy and, for https, through it to a checked address."""
        if url.scheme == "http" and not self._route.policy.trusts(url):
            raise refusal(
                url.url,
                "through a proxy, plain http is allowed only to the relay's own host and to "
                "allowed_artifact_hosts",
            )
        proxies = resolve(proxy.host, proxy.port)
        if url.scheme == "http":
            return self._first_connection(
                proxies, lambda address, timeout: _open(address, proxy.port, timeout)
            )

        def tunnel(target: str, address: str, timeout: float) -> socket.socket:
            connection = self._current = _TunnelConnection(address, proxy.port, timeout=timeout)
            connection.set_tunnel(target, url.port, headers=proxy.headers)
            try:
                connection.connect()
            except BaseException:
                connection.close()
                raise
            return connection.sock

        return self._first_connection(
            self._tunnel_targets(url),
            lambda target, _: self._first_connection(
                proxies, lambda address, timeout: tunnel(target, address, timeout)
            ),
        )

    def _tunnel_targets(self, url: CheckedUrl) -> list[str]:
        """Return the hosts to request from a proxy: checked addresses, or a name that the user allows."""
        policy = self._route.policy
        if policy.trusts(url):
            # The proxy may know names that this machine doesn't.
            return [url.host]
        try:
            return policy.addresses(url)
        except OSError as error:
            raise OSError(
                f"{error}; {url.host} is resolved here and not by the proxy, so that it can't point into the "
                "private network. If this machine has no DNS, name the host in the connection's "
                "allowed_artifact_hosts: the proxy then resolves it"
            ) from error

    def _first_connection(
        self, addresses: Iterable[str], connect: Callable[[str, float], socket.socket]
    ) -> socket.socket:
        """Return the first connection that succeeds within the time that is left for the file."""
        last_error = OSError("the host has no address")
        for address in addresses:
            timeout = min(self._route.connect_timeout, self._remaining())
            if timeout <= 0:
                raise TimeoutError("timed out while connecting")
            try:
                return connect(address, timeout)
            except OSError as error:
                last_error = error
        raise last_error


class _TunnelConnection(HTTPConnection):
    """Close the response to CONNECT, which Python before 3.11.4 leaves open, and with it the socket."""

    _connect_response: HTTPResponse | None = None

    def response_class(self, *args: Any, **kwargs: Any) -> HTTPResponse:  # type: ignore[override]
        self._connect_response = HTTPResponse(*args, **kwargs)
        return self._connect_response

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if self._connect_response is not None:
                self._connect_response.close()


def _open(address: str, port: int, timeout: float) -> socket.socket:
    sock = socket.create_connection((address, port), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _parse_proxy(address: str) -> Proxy:
    try:
        parts = parse_url(address)
    except ValueError:
        # The message leaves out the address, which may hold a password.
        raise LumaConfigError(_BAD_PROXY) from None
    if not parts.host or not is_valid_host(parts.host):
        raise LumaConfigError(_BAD_PROXY)
    headers = {}
    if parts.auth:
        user, _, password = parts.auth.partition(":")
        credentials = f"{unquote(user)}:{unquote(password)}".encode("utf-8", "surrogateescape")
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
    return Proxy(parts.host.strip("[]"), 80 if parts.port is None else parts.port, headers)


def _default_bundle() -> str:
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
