# SPDX-License-Identifier: Apache-2.0
"""The settings of a relay as a connection store keeps them: host, key, and free-form extras."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from airflow_provider_luma.client.address import checked_key, parse_base_url
from airflow_provider_luma.client.api import DEFAULT_BATCH_SIZE, LumaClient
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.validation import positive_seconds, whole_number

DEFAULT_BASE_URL: Final = "https://xuedingmao.online"
DEFAULT_MAX_POLL_FAILURES: Final = 20

_HOST: Final = re.compile(r"((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Everything that a connection says about a relay, checked.

    Two connections that say the same are equal, so equal settings can share one client.
    """

    base_url: str
    api_key: str
    batch_size: int = DEFAULT_BATCH_SIZE
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
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
        :param schema: ``http`` or ``https`` when *host* names no scheme. Anything else is a path prefix,
            because that is where the path of a connection URI arrives.
        :param port: The port when *host* names none.
        :param extra: JSON text of an object with ``batch_size``, ``connect_timeout``, ``read_timeout``,
            ``verify``, ``proxies``, ``max_poll_failures``, ``allowed_artifact_hosts``; fields that are
            missing, ``null`` or empty have their defaults.
        :raises LumaConfigError: naming the field, its value and what would be right.
        """
        if not password:
            raise LumaConfigError("The API key is missing: put it into the connection's password field.")
        fields = _extra_fields(extra)
        return cls(
            base_url=_base_url(host or DEFAULT_BASE_URL, schema, port),
            api_key=checked_key(password),
            batch_size=_whole_number(fields, "batch_size", DEFAULT_BATCH_SIZE),
            connect_timeout=_seconds(fields, "connect_timeout", 5.0),
            read_timeout=_seconds(fields, "read_timeout", 30.0),
            verify=_verify(fields.get("verify", True)),
            proxies=_proxies(fields.get("proxies", {})),
            max_poll_failures=_whole_number(fields, "max_poll_failures", DEFAULT_MAX_POLL_FAILURES),
            allowed_artifact_hosts=_hosts(fields.get("allowed_artifact_hosts", ())),
        )

    def client(self, **overrides: Any) -> LumaClient:
        """
        Make a client.

        :param overrides: Arguments of the client that differ from these settings.
        """
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


def _whole_number(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"0*[1-9][0-9]{,17}", value.strip(), re.ASCII):
        value = int(value.strip())
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return whole_number(f"The connection's {name}", value, least=1)


def _seconds(fields: Mapping[str, Any], name: str, default: float) -> float:
    value = fields.get(name, default)
    if isinstance(value, str):
        # Blanks around a number come with copying; any other text stays one, and is refused as such.
        with suppress(ValueError):
            value = float(value)
    return positive_seconds(f"The connection's {name}", value)


def _verify(value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        match value.strip().lower():
            case "true" | "1" | "yes":
                return True
            case "false" | "0" | "no":
                return False
            case _:
                return value.strip()
    raise LumaConfigError(
        f"The connection's verify is {value!r}: right are true, false or the path of a CA bundle."
    )


def _proxies(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Mapping) or not all(
        isinstance(scheme, str) and isinstance(proxy, str) for scheme, proxy in value.items()
    ):
        raise LumaConfigError(
            "The connection's proxies must be a JSON object of proxy addresses by scheme, such as "
            '{"https": "http://proxy:3128"}.'
        )
    return tuple(sorted(value.items()))


def _hosts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    hosts = value if isinstance(value, list | tuple) else [value]
    for host in hosts:
        if not isinstance(host, str) or not _HOST.fullmatch(host.lower()):
            raise LumaConfigError(
                f"The connection's allowed_artifact_hosts holds {host!r}: right are host names or addresses, "
                "each with or without a port, such as 'minio.internal:9000, *.media.example, [fd00::5]'."
            )
    return tuple(dict.fromkeys(str(host).lower() for host in hosts))
