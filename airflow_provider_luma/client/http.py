# SPDX-License-Identifier: Apache-2.0
"""
One HTTP session to one relay: authentication, timeouts, retries and size limits.

Read-only calls share connections and are retried on passing faults by urllib3's ``Retry``. Each submit is
sent once, on a connection of its own, because a stale one would make its outcome ambiguous.
"""

from __future__ import annotations

import logging
import ssl
import time
import zlib
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from airflow_provider_luma import __version__
from airflow_provider_luma.client.address import checked_key, parse_base_url
from airflow_provider_luma.client.errors import api_error
from airflow_provider_luma.exceptions import LumaConfigError, LumaConnectionError, LumaResponseError
from airflow_provider_luma.text import Cleaner

log = logging.getLogger(__name__)

MAX_RETRY_AFTER: Final = 60.0
"""Seconds: how long one call waits at most because a relay asked for it by ``Retry-After``."""

_PASSING_STATUSES: Final = (429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
_SHORTEST_MASKED: Final = 8
_MIB: Final = 1024 * 1024
_CHUNK: Final = 64 * 1024


class _BearerAuth(requests.auth.AuthBase):
    """Sets the header, and by being set keeps requests from looking into a netrc file."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request

    def __repr__(self) -> str:
        return "Bearer ***"


class _Session(requests.Session):
    """Sends the key, keeps no cookie, takes a redirect for an answer like any other, and retries nothing."""

    def __init__(self, api_key: str) -> None:
        super().__init__()
        self.auth = _BearerAuth(api_key)
        self.headers.update(
            {
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"airflow-provider-luma/{__version__} {requests.utils.default_user_agent()}",
            }
        )
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._from_environment: Any = None

    def merge_environment_settings(self, *arguments: Any) -> Any:
        # Else each call would read the whole environment twice, which is a fifth of its work.
        if self._from_environment is None:
            self._from_environment = super().merge_environment_settings(*arguments)
        return self._from_environment

    def get_redirect_target(self, resp: requests.Response) -> None:
        # Refusing them per request isn't enough: requests would still parse the target, and read the
        # body however long it is.
        return None


class _Retry(Retry):
    """Retries of read-only calls."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        retry = super().increment(method, url, response, error, _pool, _stacktrace)
        if response is not None:
            # Else urllib3 reads the refused answer to its end, however long it is.
            response.close()
        return retry

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except (InvalidHeader, ValueError, OverflowError):
            log.debug("Unreadable Retry-After from the relay: %.80r", response.headers.get("Retry-After"))
            return None
        return None if seconds is None else min(seconds, MAX_RETRY_AFTER)


class RelaySession:
    """
    A ``requests.Session`` bound to one relay and one key. Safe to share between threads.

    :param base_url: The relay's address, see :func:`~airflow_provider_luma.client.address.parse_base_url`.
    :param api_key: Sent as bearer token to this address, and nowhere else.
    :param connect_timeout: Seconds for establishing a connection.
    :param read_timeout: Seconds for a read-only call's answer to begin, and then again to be complete.
    :param submit_timeout: The same for a submit; giving up leaves it ambiguous, so the default is two
        minutes, or ``read_timeout`` if that is longer.
    :param verify: Whether to check the TLS certificate, or the path of a CA bundle to check it with.
    :param proxies: Proxies by scheme as ``requests`` takes them; they win over the environment's.
    :param max_retries: How often a read-only call is sent again on a passing fault.
    :param max_body_bytes: The largest body that is taken.
    :param pool_size: How many connections are kept for read-only calls at the same time.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        submit_timeout: float | None = None,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        max_retries: int = 3,
        max_body_bytes: int = 64 * _MIB,
        pool_size: int = 10,
    ) -> None:
        self.base_url = parse_base_url(base_url)
        self._api_key = checked_key(api_key)
        self.clean = Cleaner(self._api_key)
        for name, seconds in (
            ("connect_timeout", connect_timeout),
            ("read_timeout", read_timeout),
            ("submit_timeout", 120 if submit_timeout is None else submit_timeout),
        ):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 86_400:
                raise LumaConfigError(f"{name} must be a positive number of seconds, got {seconds!r}.")
        for name, number, least in (
            ("max_retries", max_retries, 0),
            ("max_body_bytes", max_body_bytes, 1),
            ("pool_size", pool_size, 1),
        ):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise LumaConfigError(f"{name} must be a whole number of at least {least}, got {number!r}.")
        if not isinstance(verify, bool) and not (
            isinstance(verify, str) and verify and Path(verify).exists()
        ):
            raise LumaConfigError(
                f"verify is {verify!r}, and no such CA bundle exists here: right are true, false or the path "
                "of a CA bundle that every worker and triggerer has."
            )
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._submit_timeout = submit_timeout or max(120, read_timeout)
        self._verify = verify
        self._proxies = dict(proxies or {})
        self._max_body_bytes = max_body_bytes

        self._session = _Session(self._api_key)
        for path, method in (("/", "GET"), ("/luma/tasks", "POST")):
            self._session.mount(
                _as_sent(f"{self.base_url}{path}"),
                HTTPAdapter(pool_maxsize=pool_size, max_retries=_retry(method, max_retries)),
            )

    def close(self) -> None:
        """Close the pooled connections. The session can't be used afterwards."""
        self._session.close()

    def read(self, method: Literal["GET", "POST"], path: str, body: Any = None) -> bytes:
        """
        Make a read-only call; passing faults are retried with growing pauses.

        :param method: ``POST`` for the batch query, else ``GET``.
        :param path: Path below the base URL.
        :param body: Value to send as JSON.
        :return: The body of the 2xx answer.
        :raises LumaConnectionError: when no whole answer came.
        :raises LumaApiError: when the answer is an error.
        """
        return self._call(self._session, method, path, body, timeout=self._read_timeout)

    def submit(self, path: str, body: Any) -> bytes:
        """
        Send something that costs money, exactly once.

        Parameters, result and errors are those of :meth:`read`.
        """
        with _Session(self._api_key) as session:
            return self._call(session, "POST", path, body, timeout=self._submit_timeout)

    def _call(self, session: _Session, method: str, path: str, body: Any, *, timeout: float) -> bytes:
        started = time.monotonic()
        try:
            with session.request(
                method,
                f"{self.base_url}{path}",
                data=None if body is None else msgspec.json.encode(body),
                headers=None if body is None else {"Content-Type": "application/json"},
                timeout=(self._connect_timeout, timeout),
                stream=True,
                # Both per call: requests lets its environment override what is set on a session.
                verify=self._verify,
                proxies=self._proxies,
            ) as response:
                content = self._content(response, deadline=time.monotonic() + timeout)
        except (OSError, HTTPError) as error:
            # Those of requests, and those of urllib3 that requests has no name for.
            raise _connection_error(error, self.base_url) from error
        log.debug(
            "%s %s answered %d with %d bytes after %.3f s",
            method,
            path,
            response.status_code,
            len(content),
            time.monotonic() - started,
        )
        if not 200 <= response.status_code < 300:
            raise api_error(response.status_code, response.headers, content)
        return content

    def _content(self, response: requests.Response, *, deadline: float) -> bytes:
        content = bytearray()
        # Not iter_content: it waits for whole chunks, so that a trickle would outlast any deadline.
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            content += chunk
            if len(content) > self._max_body_bytes:
                raise self._too_large(response)
            if time.monotonic() > deadline:
                raise requests.ReadTimeout("the answer came too slowly")
        body = bytes(content)
        if response.headers.get("Content-Encoding", "identity").lower() in ("gzip", "x-gzip", "deflate"):
            # Asked for plain, a relay may compress all the same; never more than the cap is unpacked.
            unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                body = unpack.decompress(body, self._max_body_bytes)
            except zlib.error as error:
                raise requests.exceptions.ContentDecodingError(str(error)) from error
            if unpack.unconsumed_tail:
                raise self._too_large(response)
        if len(self._api_key) < _SHORTEST_MASKED:
            # A key so short is a placeholder, and stands in ordinary words too.
            return body
        # A relay that quotes the key in an error must not bring it into a log.
        return body.replace(self._api_key.encode(), b"***")

    def _too_large(self, response: requests.Response) -> LumaResponseError:
        return LumaResponseError(
            f"The relay's answer (HTTP {response.status_code}) is larger than "
            f"{self._max_body_bytes / _MIB:.0f} MiB and was not read to its end. Check that the "
            "connection's host is a Luma relay, or lower batch_size.",
            status=response.status_code,
        )


def _retry(method: str, max_retries: int) -> Retry:
    return _Retry(
        total=max_retries,
        allowed_methods={method},
        status_forcelist=_PASSING_STATUSES,
        backoff_factor=0.5,
        backoff_max=10,
        backoff_jitter=0.5,
        raise_on_status=False,
    )


def _as_sent(url: str) -> str:
    """Spell a URL as requests does when it sends it, which is what it compares with its mounts."""
    try:
        return requests.Request("GET", url).prepare().url or url
    except requests.RequestException as error:
        raise LumaConfigError(f"base_url {url!r} is not an address ({error}).") from None


def _connection_error(error: Exception, base_url: str) -> LumaConnectionError:
    cause: Any = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
    cause = getattr(cause, "reason", cause)
    proxied = isinstance(error, requests.exceptions.ProxyError)
    if proxied:
        cause = getattr(cause, "original_error", cause)
    certificate = next((arg for arg in getattr(cause, "args", ()) if isinstance(arg, ssl.SSLError)), None)
    # A handshake that fails on the certificate ends before the request is sent.
    unsent = (
        proxied
        or isinstance(error, requests.ConnectTimeout)
        or isinstance(cause, NewConnectionError | ConnectTimeoutError | NameResolutionError)
        or isinstance(certificate, ssl.SSLCertVerificationError)
        or isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema)
        or isinstance(cause, LocationValueError)
    )
    if isinstance(cause, NameResolutionError):
        what = (
            f"The host name of {base_url} can't be resolved: check the connection's host and this "
            "machine's network"
        )
    elif proxied:
        what = f"The proxy on the way to {base_url} can't be used ({cause}): check the connection's proxies"
    elif isinstance(error, requests.exceptions.SSLError):
        what = (
            f"The TLS connection to {base_url} failed ({certificate or _reason(cause)}): check the "
            "connection's host and verify"
        )
    elif unsent:
        what = (
            f"No connection to {base_url} ({_reason(cause)}): check the connection's host and port and "
            "this machine's network"
        )
    elif isinstance(error, requests.Timeout) or isinstance(cause, ReadTimeoutError):
        what = f"{base_url} didn't answer in time: try again later, or raise the connection's read_timeout"
    else:
        what = (
            f"The connection to {base_url} broke before the whole answer had arrived ({_reason(cause)}): "
            "try again later"
        )
    return LumaConnectionError(f"{what}.", unsent=unsent)


def _reason(cause: object) -> str:
    """The innermost words of a urllib3 error, without its object addresses."""
    inner = cause.__cause__ if isinstance(cause, BaseException) and cause.__cause__ else cause
    return str(inner) or type(inner).__name__
