# SPDX-License-Identifier: Apache-2.0
"""The form of a ``luma`` connection, defined once for every Airflow that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True, kw_only=True)
class ConnectionField:
    """A field of the form that Airflow keeps in the connection's extra, under its ``name``."""

    name: str
    label: str
    description: str
    type: Literal["string", "integer", "number"]
    default: str | int | float | None = None
    minimum: int | None = None
    exclusive_minimum: int | None = None
    examples: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the field's value; null stands for an emptied field."""
        keywords = {
            "default": self.default,
            "minimum": self.minimum,
            "exclusiveMinimum": self.exclusive_minimum,
            "examples": list(self.examples) or None,
        }
        return {"type": [self.type, "null"]} | {k: v for k, v in keywords.items() if v is not None}


EXTRA_FIELDS: Final = (
    ConnectionField(
        name="batch_size",
        label="Batch size",
        description=(
            "How many task ids one status call to the relay carries, 1 or more; 100 by default. More ids "
            "mean fewer calls. Lower it if the relay refuses large calls or its answers grow too big."
        ),
        type="integer",
        default=100,
        minimum=1,
    ),
    ConnectionField(
        name="connect_timeout",
        label="Connect timeout",
        description=(
            "Seconds to wait until the relay accepts a connection; 5 by default. Nothing was sent yet when "
            "it runs out, so trying again costs nothing."
        ),
        type="number",
        default=5.0,
        exclusive_minimum=0,
    ),
    ConnectionField(
        name="read_timeout",
        label="Read timeout",
        description=(
            "Seconds to wait for the relay's answer to a query; 30 by default. A submit is given two "
            "minutes, or this time if it is longer: whoever gives up early can't know if it was billed."
        ),
        type="number",
        default=30.0,
        exclusive_minimum=0,
    ),
    ConnectionField(
        name="verify",
        label="Verify TLS",
        description=(
            "How the relay's certificate is checked: true (the default) against the usual authorities, or "
            "the path of a CA bundle that every worker and triggerer has. false checks nothing: whoever sits "
            "on the line can then read the API key."
        ),
        type="string",
        default="true",
        examples=("true", "false"),
    ),
    ConnectionField(
        name="proxies",
        label="Proxies",
        description=(
            'A JSON object from scheme to proxy, such as {"https": "http://proxy:3128"}. When empty, the '
            "HTTPS_PROXY and NO_PROXY variables of the process apply. Everyone who may view this connection "
            "can read what is written here: put no password into it."
        ),
        type="string",
    ),
    ConnectionField(
        name="max_poll_failures",
        label="Max poll failures",
        description=(
            "How many polls in a row may find the relay busy, broken or out of reach before a waiting task "
            "fails, 1 or more; 20 by default. With a poll every 15 seconds, 20 outlast an outage of five "
            "minutes. Failed polls cost nothing."
        ),
        type="integer",
        default=20,
        minimum=1,
    ),
    ConnectionField(
        name="allowed_artifact_hosts",
        label="Allowed artifact hosts",
        description=(
            "Hosts that artifacts may be downloaded from although their addresses are private, separated by "
            "commas: minio.internal:9000, *.media.example. Public hosts and the relay's own need no entry. "
            "Without an entry, links into the private network are refused, because whoever runs the relay "
            "could otherwise make the workers fetch them."
        ),
        type="string",
    ),
)

_HIDDEN: Final = ("login", "schema", "port")
_RELABELING: Final = {"host": "Base URL", "password": "API key"}
_PLACEHOLDERS: Final = {"host": "https://xuedingmao.online", "password": "sk-…"}


def provider_info_fields() -> dict[str, Any]:
    """Return the form as provider info states it, for Airflow 3.2 and newer."""
    return {
        "conn-fields": {
            field.name: {"label": field.label, "description": field.description, "schema": field.schema()}
            for field in EXTRA_FIELDS
        },
        "ui-field-behaviour": {
            "hidden-fields": list(_HIDDEN),
            "relabeling": dict(_RELABELING),
            "placeholders": dict(_PLACEHOLDERS),
        },
    }


def ui_field_behaviour() -> dict[str, Any]:
    """Return how the standard fields look, as a hook's ``get_ui_field_behaviour`` does in Airflow 3.1."""
    return {
        "hidden_fields": list(_HIDDEN),
        "relabeling": dict(_RELABELING),
        "placeholders": dict(_PLACEHOLDERS),
    }


def form_widgets() -> dict[str, Any]:
    """
    Return the extra fields, as a hook's ``get_connection_form_widgets`` does in Airflow 3.1.

    That form knows no decimal numbers, so the timeouts are text in it. Airflow 3.1.3 and newer 3.1 bring a
    stand-in for wtforms; before that the form shows its extra fields only where wtforms is installed.

    :raises ImportError: when there is neither; Airflow expects that and leaves the fields out.
    """
    from wtforms import IntegerField, StringField

    return {
        field.name: IntegerField(label=field.label, description=field.description, default=field.default)
        if field.type == "integer"
        else StringField(
            label=field.label,
            description=field.description,
            default=None if field.default is None else str(field.default),
        )
        for field in EXTRA_FIELDS
    }
