# SPDX-License-Identifier: Apache-2.0
"""Read what commands have in common: the task ids, and the relay from a connection or the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from airflow_provider_luma.client.models import is_task_id
from airflow_provider_luma.client.settings import DEFAULT_BASE_URL, RelaySettings
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.task_ids import parse_task_ids

API_KEY: Final = "LUMA_API_KEY"
BASE_URL: Final = "LUMA_BASE_URL"


def read_ids(given: Sequence[str]) -> list[str]:
    """
    Read task ids.

    :param given: Ids. ``-`` reads standard input: ids separated by whitespace, or a JSON list.
    :return: The ids in the given order, without duplicates.
    :raises LumaConfigError: when an argument is not a task id, or when there are none.
    """
    ids = [task_id for one in given for task_id in (_ids_from_stdin() if one == "-" else [one])]
    if not ids:
        raise LumaConfigError("There are no ids on standard input.")
    for task_id in ids:
        if not is_task_id(task_id):
            raise LumaConfigError(
                f"{task_id!r} is not a Luma task id: it must be 1 to 128 letters, digits, '-' or '_'."
            )
    return list(dict.fromkeys(ids))


def _ids_from_stdin() -> list[str]:
    if sys.stdin is None:
        raise LumaConfigError("Standard input is closed; '-' needs it to read ids from.")
    try:
        text = sys.stdin.read().strip()
    except (OSError, ValueError) as error:
        raise LumaConfigError(f"Standard input can't be read as plain text: {error}.") from error
    return parse_task_ids(text, parameter="Standard input") if text.startswith("[") else text.split()


class Relay(NamedTuple):
    """
    A relay and where its settings come from.

    :param settings: Base URL, API key and the other settings.
    :param source: The origin, for messages; for example ``connection luma_default``.
    """

    settings: RelaySettings
    source: str


def find_relay(conn_id: str | None) -> Relay:
    """
    Find the relay to use.

    :param conn_id: Id of an Airflow connection. ``None`` uses the environment variables ``LUMA_API_KEY`` and
        ``LUMA_BASE_URL`` if the key is set, else the default connection.
    :raises LumaConfigError: when there is no such connection, or when its settings are unusable.
    """
    if conn_id is None and os.environ.get(API_KEY):
        return Relay(_settings_from_environment(), f"environment variable {API_KEY}")
    if conn_id is None and os.environ.get(BASE_URL):
        raise LumaConfigError(
            f"{BASE_URL} is set, but {API_KEY} isn't. Set both or neither, or use --conn-id."
        )
    return _relay_from_airflow(conn_id)


def _settings_from_environment() -> RelaySettings:
    try:
        return RelaySettings.from_fields(
            host=os.environ.get(BASE_URL) or DEFAULT_BASE_URL, password=os.environ[API_KEY]
        )
    except LumaConfigError as error:
        raise LumaConfigError(f"Environment variables {API_KEY} and {BASE_URL}: {error}") from error


def _relay_from_airflow(conn_id: str | None) -> Relay:
    # Airflow takes seconds to import, so commands that read the environment variables must not import it.
    # Connections are read as Airflow's own commands do: the hook's way doesn't reach the metadata database.
    from airflow.models.connection import Connection
    from airflow.providers.common.compat.sdk import AirflowException

    from airflow_provider_luma.hooks.luma import LumaHook, settings_of

    conn_id = conn_id or LumaHook.default_conn_name
    try:
        connection = Connection.get_connection_from_secrets(conn_id)
    except AirflowException as error:
        raise LumaConfigError(
            f"Connection {conn_id!r} is not defined ({error}). Add it in the Airflow UI or with "
            f"'airflow connections add', or set {API_KEY}."
        ) from error
    return Relay(settings_of(conn_id, connection), f"connection {conn_id}")
