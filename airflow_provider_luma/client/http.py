# SPDX-License-Identifier: Apache-2.0
"""
One HTTP session to one relay: authentication, time limits, retries and size limits.

Read-only calls share connections and are retried on passing faults. Each submit is sent once, on a connection
of its own, because a stale one would make its outcome ambiguous.
"""

from __future__ import annotations

import logging
import random
import ssl
import time
import zlib
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import requests
from urllib3.exceptions import (
    HTTPError,
    NameResolutionError,
    ReadTimeoutError,
)

from airflow_provider_luma import __version__
from airflow_provider_luma.client.address import checked_key, parse_base_url
from airflow_provider_luma.client.connections import Attempt, WatchedAdapter, attempting
from airflow_provider_luma.client.errors import api_error
from airflow_provider_luma.delays import delay_before_retry, parse_retry_after
from airflow_provider_luma.exceptions import LumaConfigError, LumaConnectionError, LumaResponseError
from airflow_provider_luma.text import Cleaner
from airflow_provider_luma.validation import json_body, positive_seconds, whole_number

log = logging.getLogger(__name__)

MAX_RETRY_AFTER: Final = 60.0
"""
Seconds: how long one call waits at most because a relay asked for it by ``Retry-After``.

A call that is asked to wait longer fails instead, and its error carries the delay.
"""

_PASSING_STATUSES: Final = (429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
_SHORTEST_MASKED: Final = 8
_BACKOFF: Final = 0.5
_MAX_BACKOFF: Final = 10.0
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_CHUNK: Final = 64 * _KIB


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

    def __init__(self, api_key: str, *, pool_size: int = 1) -> None:
        super().__init__()
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


class Answer(NamedTuple):
    """A whole answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RelaySession:
    """
    A ``requests.Session`` bound to one relay and one key. Safe to share between threads.

    :param base_url: The relay's address, see :func:`~airflow_provider_luma.client.address.parse_base_url`.
    :param api_key: Sent as bearer token to this address, and nowhere else.
    :param connect_timeout: Seconds for establishing a connection.
    :param read_timeout: Seconds for a read-only call's answer to begin, and then again to be complete. A call
        with its retries, but without the pauses between them, takes no longer than ``connect_timeout`` and
        twice this.
    :param submit_timeout: The same for a submit; giving up leaves it ambiguous, so the default is two
        minutes, or ``read_timeout`` if that is longer.
    :param verify: Whether to check the TLS certificate, or the path of a CA bundle to check it with.
    :param proxies: Proxies by scheme as ``requests`` takes them; they win over the environment's.
    :param max_retries: How often a read-only call is sent again on a passing fault.
    :param max_body_bytes: The largest body that is taken, whatever a call allows.
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
        if not isinstance(verify, bool) and not (
            isinstance(verify, str) and verify and Path(verify).exists()
        ):
            raise LumaConfigError(
                f"verify is {verify!r}, and no such CA bundle exists here: right are true, false or the path "
                "of a CA bundle that every worker and triggerer has."
            )
        self._verify = verify
        self._proxies = dict(proxies or {})
        _check_sendable(self.base_url)
        self._session = _Session(self._api_key, pool_size=pool_size)

    def close(self) -> None:
        """Close the pooled connections. The session can't be used afterwards."""
        self._session.close()

    def read(
        self, method: Literal["GET", "POST"], path: str, body: Any = None, *, max_bytes: int | None = None
    ) -> bytes:
        """
        Make a read-only call; passing faults are retried with growing pauses.

        :param method: ``POST`` for the batch query, else ``GET``.
        :param path: Path below the base URL.
        :param body: Value to send as JSON.
        :param max_bytes: The largest body that is taken, also after it was unpacked. Never more than the
            session's ``max_body_bytes``.
        :return: The body of the 2xx answer.
        :raises LumaConnectionError: when no whole answer came.
        :raises LumaApiError: when the answer is an error.
        """
        data = None if body is None else json_body("The request's body", body)
        # Retries share the time of one call; only the pauses that lie between them come on top.
        end = time.monotonic() + self._connect_timeout + 2 * self._read_timeout
        for retry in range(self._max_retries + 1):
            attempt = self._attempt(self._read_timeout, end - time.monotonic())
            pause = _backoff(retry)
            with attempting(attempt):
                try:
                    response = self._send(self._session, method, path, data, self._read_timeout)
                except (OSError, HTTPError) as error:
                    # Those of requests, and those of urllib3 that requests has no name for.
                    passing = isinstance(error, requests.ConnectionError | requests.Timeout)
                    if not passing or retry == self._max_retries or time.monotonic() >= end:
                        raise self._connection_error(error, attempt) from self._shown(error)
                else:
                    with response:
                        asked = parse_retry_after(response.headers.get("Retry-After"))
                        # A pause shorter than the relay asks for would only meet the same refusal.
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

    def submit(self, path: str, body: Any, *, max_bytes: int | None = None) -> Answer:
        """
        Send something that costs money, exactly once.

        :param path: Path below the base URL.
        :param body: Value to send as JSON.
        :param max_bytes: As for :meth:`read`.
        :return: The whole answer, whatever its status.
        :raises LumaConfigError: when the body can't be sent.
        :raises LumaConnectionError: when no whole answer came; ``unsent`` says whether anything was sent.
        :raises LumaResponseError: when the answer is too large.
        """
        data = json_body("The request's body", body)
        attempt = self._attempt(self._submit_timeout, self._connect_timeout + 2 * self._submit_timeout)
        with _Session(self._api_key) as session, attempting(attempt):
            try:
                response = self._send(session, "POST", path, data, self._submit_timeout)
            except (OSError, HTTPError) as error:
                raise self._connection_error(error, attempt) from self._shown(error)
            with response:
                return self._receive(response, attempt, max_bytes)

    def _attempt(self, timeout: float, seconds: float) -> Attempt:
        return Attempt(seconds=seconds, connect_timeout=self._connect_timeout, timeout=timeout)

    def _send(
        self, session: _Session, method: str, path: str, data: bytes | None, timeout: float
    ) -> requests.Response:
        return session.request(
            method,
            f"{self.base_url}{path}",
            data=data,
            headers=None if data is None else {"Content-Type": "application/json"},
            timeout=(self._connect_timeout, timeout),
            stream=True,
            # Both per call: requests lets its environment override what is set on a session.
            verify=self._verify,
            proxies=self._proxies,
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
        if len(self._api_key) >= _SHORTEST_MASKED:
            # Whatever is decoded from the body must not hold the key; its other spellings are up to clean.
            # A shorter key is a placeholder, and stands in ordinary words too.
            body = body.replace(self._api_key.encode(), b"***")
        return Answer(response.status_code, response.headers, body)

    def _body(self, response: requests.Response, max_bytes: int) -> bytes:
        content = bytearray()
        # Not iter_content: it waits for whole chunks, so that a trickle would outlast any deadline.
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            content += chunk
            if len(content) > max_bytes:
                raise self._too_large(response, max_bytes)
        if response.headers.get("Content-Encoding", "identity").lower() not in ("gzip", "x-gzip", "deflate"):
            return bytes(content)
        # Asked for plain, a relay may compress all the same; never more than the cap is unpacked.
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            body = unpack.decompress(bytes(content), max_bytes)
        except zlib.error as error:
            raise requests.exceptions.ContentDecodingError(str(error)) from error
        if unpack.unconsumed_tail:
            raise self._too_large(response, max_bytes)
        if not unpack.eof:
            raise requests.exceptions.ContentDecodingError("the compressed body breaks off")
        return body

    def _too_large(self, response: requests.Response, max_bytes: int) -> LumaResponseError:
        return LumaResponseError(
            f"The relay's answer (HTTP {response.status_code}) is larger than {max_bytes / _MIB:.3g} MiB and "
            "was not read to its end. Check that the connection's host is a Luma relay, or lower batch_size.",
            status=response.status_code,
        )

    def _shown(self, error: Exception) -> Exception | None:
        """Return an error that may be shown as a cause, for it quotes no key and no control characters."""
        words = str(error)
        return error if self.clean(words, len(words)) == words else None

    def _connection_error(self, error: Exception, attempt: Attempt) -> LumaConnectionError:
        cause: Any = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
        cause = getattr(cause, "reason", cause)
        # urllib3 blames the proxy for whatever breaks before an answer has come.
        if isinstance(error, requests.exceptions.ProxyError):
            cause = getattr(cause, "original_error", cause)
        certificate = next((arg for arg in getattr(cause, "args", ()) if isinstance(arg, ssl.SSLError)), None)
        reason = self.clean(_reason(cause))
        if attempt.proxied and not attempt.sent and not isinstance(error, requests.exceptions.SSLError):
            what = (
                f"The proxy on the way to {self.base_url} can't be used ({reason}): check the connection's "
                "proxies"
            )
        elif isinstance(cause, NameResolutionError):
            what = (
                f"The host name of {self.base_url} can't be resolved: check the connection's host and this "
                "machine's network"
            )
        elif isinstance(error, requests.exceptions.SSLError):
            what = (
                f"The TLS connection to {self.base_url} failed ({self.clean(str(certificate or reason))}): "
                "check the connection's host and verify"
            )
        elif not attempt.sent:
            what = (
                f"No connection to {self.base_url} ({reason}): check the connection's host and port and this "
                "machine's network"
            )
        elif isinstance(error, requests.Timeout) or isinstance(cause, ReadTimeoutError | TimeoutError):
            what = (
                f"{self.base_url} didn't answer in time: try again later, or raise the connection's "
                "read_timeout"
            )
        else:
            what = (
                f"The connection to {self.base_url} broke before the whole answer had arrived ({reason}): "
                "try again later"
            )
        return LumaConnectionError(f"{what}.", unsent=not attempt.sent)


def _backoff(retry: int) -> float:
    """Return the seconds before a retry: none before the first, then growing ones with some jitter."""
    if retry == 0:
        return 0.0
    seconds: float = _BACKOFF * 2**retry + random.uniform(0, _BACKOFF)  # noqa: S311
    return min(seconds, _MAX_BACKOFF)


def _check_sendable(url: str) -> None:
    try:
        requests.Request("GET", url).prepare()
    except (requests.RequestException, ValueError) as error:
        raise LumaConfigError(f"base_url {url!r} is not an address ({error}).") from None


def _reason(cause: object) -> str:
    """The innermost words of a urllib3 error, without its object addresses."""
    inner = cause.__cause__ if isinstance(cause, BaseException) and cause.__cause__ else cause
    return str(inner) or type(inner).__name__
