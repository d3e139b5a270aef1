# SPDX-License-Identifier: Apache-2.0
"""
Send calls to one relay: authentication, time limits, retries and size limits.

Read-only calls share connections and are retried on passing faults. Each submit is sent once, on a connection
of its own, because a stale one would make its outcome unknown.
"""

from __future__ import annotations

import logging
import os
import random
import ssl
import time
import zlib
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import requests
from urllib3.exceptions import HTTPError, NameResolutionError, ReadTimeoutError

from airflow_provider_luma import __version__
from airflow_provider_luma.client.address import checked_key, parse_base_url
from airflow_provider_luma.client.connections import Attempt, WatchedAdapter, attempting
from airflow_provider_luma.client.errors import api_error
from airflow_provider_luma.connection_fields import default_of
from airflow_provider_luma.delays import MAX_RETRY_AFTER, delay_before_retry, parse_retry_after
from airflow_provider_luma.exceptions import LumaConfigError, LumaConnectionError, LumaResponseError
from airflow_provider_luma.text import SHORTEST_MASKED, Cleaner
from airflow_provider_luma.validation import json_body, positive_seconds, shown, whole_number

log = logging.getLogger(__name__)

_PASSING_STATUSES: Final = (429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
_BACKOFF: Final = 0.5
_MAX_BACKOFF: Final = 10.0
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_CHUNK: Final = 64 * _KIB


class _BearerAuth(requests.auth.AuthBase):
    """Add the API key as a bearer token."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request

    def __repr__(self) -> str:
        return "Bearer ***"


class _Session(requests.Session):
    """Send the key, keep no cookie, follow no redirect, retry nothing, and read no environment."""

    def __init__(
        self, api_key: str, *, verify: bool | str, proxies: Mapping[str, str], pool_size: int = 1
    ) -> None:
        super().__init__()
        # Else requests would read the whole environment twice in each call, which is a fifth of its work.
        self.trust_env = False
        self.verify = verify
        self.proxies = dict(proxies)
        self.stream = True
        for scheme in ("https://", "http://"):
            self.mount(scheme, WatchedAdapter(pool_maxsize=pool_size))
        self.auth = _BearerAuth(api_key)
        self.headers.update(
            {
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"airflow-provider-luma/{__version__} {requests.utils.default_user_agent()}",
            }
        )
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> None:
        # With allow_redirects=False requests would still parse the target and read the whole body.
        return None


class Answer(NamedTuple):
    """Hold a whole answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RelaySession:
    """
    Call one relay with one key; safe to share between threads.

    The other parameters are those of :class:`~airflow_provider_luma.client.api.LumaClient`.

    :param api_key: Sent as a bearer token to *base_url*, and nowhere else.
    :param read_timeout: Seconds until the answer to a read-only call begins, and again until it is complete.
        A call with its retries, but without the pauses between them, takes no longer than ``connect_timeout``
        and twice this.
    :param verify: ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE`` apply when it is true.
    :param proxies: They win over those of the environment.
    :param max_body_bytes: The largest body to accept, whatever a call allows.
    :param pool_size: How many connections to keep for read-only calls.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        connect_timeout: float = default_of("connect_timeout"),
        read_timeout: float = default_of("read_timeout"),
        submit_timeout: float | None = None,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        max_retries: int = 3,
        max_body_bytes: int = 64 * _MIB,
        pool_size: int = 10,
    ) -> None:
        self.base_url = parse_base_url(base_url)
        self._api_key = checked_key(api_key)
        self.clean: Final = Cleaner(self._api_key)
        self._connect_timeout = positive_seconds("connect_timeout", connect_timeout)
        self._read_timeout = positive_seconds("read_timeout", read_timeout)
        if submit_timeout is None:
            self._submit_timeout = max(120.0, self._read_timeout)
        else:
            self._submit_timeout = positive_seconds("submit_timeout", submit_timeout)
        self._max_retries = whole_number("max_retries", max_retries, least=0)
        self._max_body_bytes = whole_number("max_body_bytes", max_body_bytes, least=1)
        whole_number("pool_size", pool_size, least=1)
        self._verify = _verify(verify)
        self._proxies = _proxies(_sendable(self.base_url), proxies or {})
        self._session = self._new_session(pool_size)

    def _new_session(self, pool_size: int = 1) -> _Session:
        return _Session(self._api_key, verify=self._verify, proxies=self._proxies, pool_size=pool_size)

    def close(self) -> None:
        """Close the connections. The session can't be used afterwards."""
        self._session.close()

    def read(
        self, method: Literal["GET", "POST"], path: str, body: Any = None, *, max_bytes: int | None = None
    ) -> bytes:
        """
        Make a read-only call; retry it after passing faults, with growing pauses.

        :param method: ``POST`` for the batch query, else ``GET``.
        :param path: Path below the base URL.
        :param body: Value to send as JSON.
        :param max_bytes: The largest body to accept, also after decompression. Never more than the session's
            ``max_body_bytes``.
        :return: The body of the 2xx answer.
        :raises LumaConnectionError: when no whole answer came.
        :raises LumaApiError: when the answer is an error.
        """
        data = None if body is None else json_body("The request's body", body)
        # Retries share the time of one call; only the pauses between them come on top.
        end = time.monotonic() + self._connect_timeout + 2 * self._read_timeout
        for retry in range(self._max_retries + 1):
            attempt = self._attempt(self._read_timeout, end - time.monotonic())
            pause = _backoff(retry)
            with attempting(attempt):
                try:
                    response = self._send(self._session, method, path, data, self._read_timeout)
                except (OSError, HTTPError) as error:
                    # Besides its own errors, requests lets some of urllib3's through.
                    passing = isinstance(error, requests.ConnectionError | requests.Timeout)
                    if not passing or retry == self._max_retries or time.monotonic() >= end:
                        raise self._connection_error(error, attempt) from self._shown(error)
                else:
                    with response:
                        asked = parse_retry_after(response.headers.get("Retry-After"))
                        # A retry sooner than the relay asks for would only be refused again.
                        too_long = (asked or 0) > MAX_RETRY_AFTER or time.monotonic() >= end
                        passing = response.status_code in _PASSING_STATUSES and not too_long
                        if not passing or retry == self._max_retries:
                            answer = self._receive(response, attempt, max_bytes)
                            break
                        pause = delay_before_retry(asked, own=pause)
            if pause:
                time.sleep(pause)
                end += pause
        if not 200 <= answer.status < 300:
            raise api_error(*answer, clean=self.clean)
        return answer.body

    def submit(self, path: str, body: bytes, *, max_bytes: int | None = None) -> Answer:
        """
        Send a submit exactly once; it costs money.

        :param path: Path below the base URL.
        :param body: The JSON to send.
        :param max_bytes: As for :meth:`read`.
        :return: The whole answer, whatever its status.
        :raises LumaConnectionError: when no whole answer came; ``unsent`` says whether nothing was sent.
        :raises LumaResponseError: when the answer is too large.
        """
        attempt = self._attempt(self._submit_timeout, self._connect_timeout + 2 * self._submit_timeout)
        with self._new_session() as session, attempting(attempt):
            try:
                response = self._send(session, "POST", path, body, self._submit_timeout)
            except (OSError, HTTPError) as error:
                raise self._connection_error(error, attempt) from self._shown(error)
            with response:
                return self._receive(response, attempt, max_bytes)

    def _attempt(self, timeout: float, seconds: float) -> Attempt:
        return Attempt(seconds=seconds, connect_timeout=self._connect_timeout, timeout=timeout)

    def _send(
        self, session: _Session, method: str, path: str, data: bytes | None, timeout: float
    ) -> requests.Response:
        headers = None if data is None else {"Content-Type": "application/json"}
        request = requests.Request(method, f"{self.base_url}{path}", headers, data=data)
        # Session.request would merge settings that can't differ from those of the session.
        return session.send(
            session.prepare_request(request),
            timeout=(self._connect_timeout, timeout),
            proxies=session.proxies,
        )

    def _receive(self, response: requests.Response, attempt: Attempt, max_bytes: int | None) -> Answer:
        attempt.receives()
        most = self._max_body_bytes if max_bytes is None else min(max_bytes, self._max_body_bytes)
        try:
            body = self._body(response, most)
        except (OSError, HTTPError) as error:
            raise self._connection_error(error, attempt) from self._shown(error)
        log.debug(
            "%s %s answered %d with %d bytes",
            response.request.method,
            response.request.path_url,
            response.status_code,
            len(body),
        )
        if len(self._api_key) >= SHORTEST_MASKED:
            # A relay may repeat the key in its answer; Cleaner masks its other spellings.
            body = body.replace(self._api_key.encode(), b"***")
        return Answer(response.status_code, response.headers, body)

    def _body(self, response: requests.Response, max_bytes: int) -> bytes:
        content = bytearray()
        # iter_content waits for whole chunks, so a trickle would outlast any deadline.
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            content += chunk
            if len(content) > max_bytes:
                raise self._too_large(response, max_bytes)
        if response.headers.get("Content-Encoding", "identity").lower() not in ("gzip", "x-gzip", "deflate"):
            return bytes(content)
        # Some relays compress although they are asked not to; a few KiB may unpack to gigabytes.
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            body = unpack.decompress(bytes(content), max_bytes)
        except zlib.error as error:
            raise requests.exceptions.ContentDecodingError(str(error)) from error
        if unpack.unconsumed_tail:
            raise self._too_large(response, max_bytes)
        if not unpack.eof:
            raise requests.exceptions.ContentDecodingError("the compressed body is cut off")
        return body

    def _too_large(self, response: requests.Response, max_bytes: int) -> LumaResponseError:
        return LumaResponseError(
            f"The relay's answer (HTTP {response.status_code}) is larger than {max_bytes / _MIB:.3g} MiB. "
            "Check that the connection's host is a Luma relay, or lower batch_size.",
            status=response.status_code,
        )

    def _shown(self, error: Exception) -> Exception | None:
        """Return an error that may be shown as a cause, because it holds no key and no control characters."""
        text = str(error)
        return error if self.clean(text, len(text)) == text else None

    def _connection_error(self, error: Exception, attempt: Attempt) -> LumaConnectionError:
        cause: Any = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
        cause = getattr(cause, "reason", cause)
        # urllib3 reports everything that breaks before the answer as an error of the proxy.
        if isinstance(error, requests.exceptions.ProxyError):
            cause = getattr(cause, "original_error", cause)
        certificate = next((arg for arg in getattr(cause, "args", ()) if isinstance(arg, ssl.SSLError)), None)
        reason = self.clean(_reason(cause))
        url = self.base_url
        if attempt.proxied and not attempt.sent and not isinstance(error, requests.exceptions.SSLError):
            what = f"The proxy for {url} can't be used ({reason}). Check the connection's proxies"
        elif isinstance(cause, NameResolutionError):
            what = f"The host name of {url} can't be resolved. Check the connection's host and the network"
        elif isinstance(error, requests.exceptions.SSLError):
            reason = self.clean(str(certificate or reason))
            what = f"The TLS connection to {url} failed ({reason}). Check the connection's host and verify"
        elif not attempt.sent:
            what = f"Can't connect to {url} ({reason}). Check the connection's host, its port and the network"
        elif isinstance(error, requests.Timeout) or isinstance(cause, ReadTimeoutError | TimeoutError):
            what = f"{url} didn't answer in time. Try again later, or raise the connection's read_timeout"
        else:
            what = f"The connection to {url} broke before the answer was complete ({reason}). Try again later"
        return LumaConnectionError(f"{what}.", unsent=not attempt.sent)


def _backoff(retry: int) -> float:
    """Return the seconds before a retry: none before the first, then growing with some jitter."""
    if retry == 0:
        return 0.0
    seconds: float = _BACKOFF * 2**retry + random.uniform(0, _BACKOFF)  # noqa: S311
    return min(seconds, _MAX_BACKOFF)


def _sendable(url: str) -> str:
    """Return a URL as requests sends it, with an international host name in ASCII."""
    try:
        return requests.Request("GET", url).prepare().url or url
    except (requests.RequestException, ValueError) as error:
        raise LumaConfigError(f"base_url {url!r} is not a valid URL ({error}).") from None


def _verify(verify: object) -> bool | str:
    if verify is True:
        return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    if verify is False or (isinstance(verify, str) and verify and Path(verify).exists()):
        return verify
    raise LumaConfigError(
        f"verify must be true, false or the path to a CA bundle that exists on every worker and triggerer; "
        f"got {shown(verify)}."
    )


def _proxies(url: str, proxies: Mapping[str, str]) -> Mapping[str, str]:
    """Add the proxies of the environment for what the connection leaves open."""
    from_environment = requests.utils.get_environ_proxies(url, no_proxy=proxies.get("no_proxy"))
    return {**from_environment, **proxies}


def _reason(cause: object) -> str:
    """Return the innermost message of a urllib3 error, without the addresses of its objects."""
    inner = cause.__cause__ if isinstance(cause, BaseException) and cause.__cause__ else cause
    return str(inner) or type(inner).__name__
