# SPDX-License-Identifier: Apache-2.0
"""Which relay a command talks to: an Airflow connection, or two environment variables."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from airflow_provider_luma.client.settings import DEFAULT_BASE_URL, RelaySettings
from airflow_provider_luma.exceptions import LumaConfigError

API_KEY: Final = "LUMA_API_KEY"
BASE_URL: Final = "LUMA_BASE_URL"


class Relay(NamedTuple):
    """
    A relay and where the user has named it.

    :param settings: Address, key and all the rest.
    :param source: For messages, such as ``connection luma_default``.
    """

    settings: RelaySettings
    source: str


def find_relay(conn_id: str | None) -> Relay:
    """
    Find the relay to talk to.

    :param conn_id: Id of an Airflow connection. ``None``: the environment's ``LUMA_API_KEY`` and
        ``LUMA_BASE_URL`` if there is a key in it, else the default connection.
    :raises LumaConfigError: when there is none, or when it is unusable.
    """
    if conn_id is None and os.environ.get(API_KEY):
        return Relay(_of_environment(), f"environment variable {API_KEY}")
    if conn_id is None and os.environ.get(BASE_URL):
        raise LumaConfigError(
            f"{BASE_URL} is set, but {API_KEY} isn't: set both or neither, or name a connection by --conn-id."
        )
    return _of_airflow(conn_id)


def _of_environment() -> RelaySettings:
    try:
        return RelaySettings.from_fields(
            host=os.environ.get(BASE_URL) or DEFAULT_BASE_URL, password=os.environ[API_KEY]
        )
    except LumaConfigError as error:
        raise LumaConfigError(f"Environment variables {API_KEY} and {BASE_URL}: {error}") from error


def _of_airflow(conn_id: str | None) -> Relay:
    # Airflow takes seconds to import, which nobody pays who names the relay by variables. Its own commands
    # read connections in this way; the hook's, a task's way, doesn't reach the metadata database here.
    from airflow.models.connection import Connection
    from airflow.providers.common.compat.sdk import AirflowException

    from airflow_provider_luma.hooks.luma import LumaHook, settings_of

    conn_id = conn_id or LumaHook.default_conn_name
    try:
        connection = Connection.get_connection_from_secrets(conn_id)
    except AirflowException as error:
        raise LumaConfigError(
            f"There is no Airflow connection {conn_id!r} here ({error}). Add it in Airflow's page or by "
            f"'airflow connections add', or set {API_KEY}."
        ) from error
    return Relay(settings_of(conn_id, connection), f"connection {conn_id}")
