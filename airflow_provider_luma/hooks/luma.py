# SPDX-License-Identifier: Apache-2.0
"""Make a :class:`~airflow_provider_luma.client.LumaClient` from an Airflow connection."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_luma import connection_fields
from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.exceptions import LumaConfigError, LumaError, LumaUnavailableError

if TYPE_CHECKING:
    from airflow.models.connection import Connection as StoredConnection
    from airflow.sdk import Connection

    from airflow_provider_luma.client import LumaClient

_TEST_TIMEOUT = 10.0


class LumaHook(BaseHook):
    """
    Connect to a Luma relay; the calls themselves are the client's.

    The connection (type ``luma``) has the base URL as its host, the API key as its password, and the extras
    that :data:`~airflow_provider_luma.connection_fields.EXTRA_FIELDS` describes.

    .. code-block:: python

        task = LumaHook("luma_default").client.get_task("4665a07c-7641-4809-a133-10786201bb56")

    :param luma_conn_id: Id of the Airflow connection.
    """

    conn_name_attr = "luma_conn_id"
    default_conn_name = "luma_default"
    conn_type = "luma"
    hook_name = "Luma (API relay)"

    def __init__(self, luma_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.luma_conn_id = luma_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields, for Airflow 3.1; newer ones read them from the provider info."""
        return connection_fields.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's layout, for Airflow 3.1; newer ones read it from the provider info."""
        return connection_fields.ui_field_behaviour()

    @cached_property
    def settings(self) -> RelaySettings:
        """
        Read the connection and check it.

        :raises LumaConfigError: naming the connection and the field.
        """
        return settings_of(self.luma_conn_id, self.get_connection(self.luma_conn_id))

    @cached_property
    def client(self) -> LumaClient:
        """Return the client for this connection; it is made once and keeps its HTTP connections."""
        return self.settings.client()

    def get_conn(self) -> LumaClient:
        """Return :attr:`client`."""
        return self.client

    @classmethod
    async def aget_settings(cls, luma_conn_id: str = default_conn_name) -> RelaySettings:
        """
        Read the connection without blocking the event loop, for triggers.

        :param luma_conn_id: Id of the Airflow connection.
        :raises LumaConfigError: naming the connection and the field.
        :raises LumaUnavailableError: if Airflow doesn't find the connection.
        """
        try:
            connection = await get_async_connection(luma_conn_id)
        except AirflowNotFoundException as error:
            # Airflow raises the same while its API server or a secrets backend is unreachable.
            raise LumaUnavailableError(f"Connection {luma_conn_id!r} can't be read: {error}") from error
        return settings_of(luma_conn_id, connection)

    def test_connection(self) -> tuple[bool, str]:
        """
        Check host and key with one query for an id that doesn't exist. It is free and takes at most 15 s.

        :return: Whether it works, and a message.
        """
        try:
            settings = self.settings
            quick = {
                "max_retries": 0,
                "connect_timeout": min(settings.connect_timeout, _TEST_TIMEOUT / 2),
                "read_timeout": min(settings.read_timeout, _TEST_TIMEOUT / 2),
            }
            with settings.client(**quick) as client:
                return True, client.check()
        except (LumaError, AirflowNotFoundException) as error:
            return False, str(error)


def settings_of(conn_id: str, connection: Connection | StoredConnection) -> RelaySettings:
    """
    Read a connection's settings and check them.

    :param conn_id: Its id, for errors.
    :param connection: The connection, as a task or as Airflow's own commands get it.
    :raises LumaConfigError: naming the connection and the field.
    """
    try:
        return RelaySettings.from_fields(
            host=connection.host,
            password=connection.password,
            schema=connection.schema,
            port=connection.port,
            extra=connection.extra,
        )
    except LumaConfigError as error:
        raise LumaConfigError(f"Connection {conn_id!r}: {error}") from error
