# SPDX-License-Identifier: Apache-2.0
"""Read the settings of a relay from an Airflow connection and check them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from airflow_provider_luma.client.address import checked_key, parse_base_url
from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.connection_fields import EXTRA_FIELDS, default_of
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.validation import FLAGS, positive_seconds, shown, whole_number

CONNECTION_FIELDS: Final = {field.name: field for field in EXTRA_FIELDS}
"""The fields of a connection's extra by name, each with its type, default, bounds and description."""

DEFAULT_BASE_URL: Final = "https://xuedingmao.online"
DEFAULT_MAX_POLL_FAILURES: Final[int] = default_of("max_poll_failures")

_HOST: Final = re.compile(r"((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Hold the checked settings of one connection.

    Connections with the same settings are equal, so they can share one client.
    """

    base_url: str
    api_key: str
    batch_size: int = default_of("batch_size")
    connect_timeout: float = default_of("connect_timeout")
    read_timeout: float = default_of("read_timeout")
    verify: bool | str = True
    proxies: tuple[tuple[str, str], ...] = ()
    max_poll_failures: int = DEFAULT_MAX_POLL_FAILURES
    allowed_artifact_hosts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r}, api_key='***')"

    @classmethod
    def from_fields(
        cls,
        *,
        host: str | None,
        password: str | None,
        schema: str | None = None,
        port: int | None = None,
        extra: str | None = None,
    ) -> RelaySettings:
        """
        Read the fields of an Airflow connection.

        :param host: Base URL; scheme, port and path prefix are optional. Default: ``https://xuedingmao.online``.
        :param password: The API key.
        :param schema: ``http`` or ``https`` when *host* has no scheme. Anything else is a path prefix,
            because Airflow puts the path of a connection URI here.
        :param port: The port when *host* has none.
        :param extra: JSON text of an object with any of :data:`CONNECTION_FIELDS`; a field that is missing,
            ``null`` or empty has its default.
        :raises LumaConfigError: naming the field, its value and the values that are allowed.
        """
        if not password:
            raise LumaConfigError("The API key is missing: put it into the connection's password field.")
        fields = _extra_fields(extra)
        return cls(
            base_url=_base_url(host or DEFAULT_BASE_URL, schema, port),
            api_key=checked_key(password),
            **{name: read(name, fields[name]) for name, read in _READERS.items() if name in fields},
        )

    def client(self, **overrides: Any) -> LumaClient:
        """Create a client; *overrides* are arguments of it that differ from these settings."""
        arguments = msgspec.structs.asdict(self) | {"proxies": dict(self.proxies)} | overrides
        del arguments["max_poll_failures"], arguments["allowed_artifact_hosts"]
        return LumaClient(arguments.pop("base_url"), arguments.pop("api_key"), **arguments)


def _extra_fields(extra: str | None) -> dict[str, Any]:
    try:
        fields = json.loads(extra or "{}")
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise LumaConfigError('The connection\'s extra must be a JSON object such as {"batch_size": 100}.')
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _base_url(host: str, schema: str | None, port: int | None) -> str:
    host, schema = host.strip(), (schema or "").strip("/ ")
    is_scheme = schema.lower() in ("http", "https")
    if is_scheme and "://" not in host:
        host = f"{schema}://{host}"
    base_url = parse_base_url(host)
    scheme, _, rest = base_url.partition("://")
    address, slash, prefix = rest.partition("/")
    if port is not None and not address.rpartition("]")[2].count(":"):
        address = f"{address}:{port}"
    if schema and not is_scheme:
        slash, prefix = "/", f"{prefix}/{schema}".strip("/")
    return parse_base_url(f"{scheme}://{address}{slash}{prefix}")


def _whole_number(name: str, value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"0*[1-9][0-9]{,17}", value.strip(), re.ASCII):
        value = int(value.strip())
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return whole_number(f"The connection's {name}", value, least=CONNECTION_FIELDS[name].minimum or 0)


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, str):
        # Copied numbers often have blanks around them; any other text stays a text and is refused as one.
        with suppress(ValueError):
            value = float(value)
    return positive_seconds(f"The connection's {name}", value)


def _verify(name: str, value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return FLAGS.get(value.strip().lower(), value.strip())
    raise LumaConfigError(
        f"The connection's {name} must be true, false or the path to a CA bundle; got {shown(value)}."
    )


def _proxies(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Mapping) or not all(
        isinstance(scheme, str) and isinstance(proxy, str) for scheme, proxy in value.items()
    ):
        # The value isn't shown, because a proxy's URL may hold a password.
        raise LumaConfigError(
            f"The connection's {name} must be a JSON object of proxy URLs by scheme, such as "
            '{"https": "http://proxy:3128"}.'
        )
    return tuple(sorted(value.items()))


def _hosts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    hosts = value if isinstance(value, list | tuple) else [value]
    for host in hosts:
        if not isinstance(host, str) or not _HOST.fullmatch(host.lower()):
            raise LumaConfigError(
                f"The connection's {name} must be host names or addresses, each with or without a port, "
                f"such as 'minio.internal:9000, *.media.example, [fd00::5]'; got {shown(host)}."
            )
    return tuple(dict.fromkeys(str(host).lower() for host in hosts))


_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "batch_size": _whole_number,
    "connect_timeout": _seconds,
    "read_timeout": _seconds,
    "verify": _verify,
    "proxies": _proxies,
    "max_poll_failures": _whole_number,
    "allowed_artifact_hosts": _hosts,
}
