# SPDX-License-Identifier: Apache-2.0
"""Define the fields of a ``luma`` connection: the only description of its extras and of its form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True, kw_only=True)
class ConnectionField:
    """Describe a field that Airflow keeps in the connection's extra under its ``name``."""

    name: str
    label: str
    description: str
    type: Literal["string", "integer", "number"]
    default: str | int | float | None = None
    minimum: int | None = None
    exclusive_minimum: int | None = None
    examples: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the field's value; null stands for an empty field."""
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
            "Task ids per status call to the relay, 1 or more; 100 by default. More ids mean fewer calls. "
            "Lower it if the relay refuses large calls or its answers get too large."
        ),
        type="integer",
        default=100,
        minimum=1,
    ),
    ConnectionField(
        name="connect_timeout",
        label="Connect timeout",
        description=(
            "Seconds to wait until the relay accepts a connection; 5 by default. Nothing was sent when it "
            "runs out, so a retry costs nothing."
        ),
        type="number",
        default=5.0,
        exclusive_minimum=0,
    ),
    ConnectionField(
        name="read_timeout",
        label="Read timeout",
        description=(
            "Seconds to wait for the relay's answer to a query; 30 by default. A submit waits two minutes, "
            "or this time if it is longer, because after a timeout it is unknown whether it was billed."
        ),
        type="number",
        default=30.0,
        exclusive_minimum=0,
    ),
    ConnectionField(
        name="verify",
        label="Verify TLS",
        description=(
            "How to check the relay's certificate: true (the default) against the usual authorities, or "
            "the path to a CA bundle that exists on every worker and triggerer. false disables the check: "
            "then anyone on the network path can read the API key."
        ),
        type="string",
        default="true",
        examples=("true", "false"),
    ),
    ConnectionField(
        name="proxies",
        label="Proxies",
        description=(
            'A JSON object of proxy URLs by scheme, such as {"https": "http://proxy:3128"}. If empty, the '
            "HTTPS_PROXY and NO_PROXY variables of the process apply. Don't put a password here: everyone "
            "who may view this connection can read it."
        ),
        type="string",
    ),
    ConnectionField(
        name="max_poll_failures",
        label="Max poll failures",
        description=(
            "How many consecutive polls may fail, because the relay is busy, broken or unreachable, before "
            "a waiting task fails, 1 or more; 20 by default. With a poll every 15 seconds, 20 outlast an "
            "outage of five minutes. Failed polls cost nothing."
        ),
        type="integer",
        default=20,
        minimum=1,
    ),
    ConnectionField(
        name="allowed_artifact_hosts",
        label="Allowed artifact hosts",
        description=(
            "Hosts in the private network that artifacts may be downloaded from, separated by commas: "
            "minio.internal:9000, *.media.example. Public hosts and the relay's own need no entry. Other "
            "URLs into the private network are refused: the relay could otherwise make workers fetch them."
        ),
        type="string",
    ),
)


def default_of(name: str) -> Any:
    """Return the default of an extra field, for the arguments that the field sets."""
    return next(field.default for field in EXTRA_FIELDS if field.name == name)


def provider_info_fields() -> dict[str, Any]:
    """Return the form for the provider info, which Airflow 3.2 and newer read."""
    return {
        "conn-fields": {
            field.name: {"label": field.label, "description": field.description, "schema": field.schema()}
            for field in EXTRA_FIELDS
        },
        "ui-field-behaviour": {key.replace("_", "-"): value for key, value in ui_field_behaviour().items()},
    }


def ui_field_behaviour() -> dict[str, Any]:
    """Return the layout of the standard fields for a hook's ``get_ui_field_behaviour`` (Airflow 3.1)."""
    return {
        "hidden_fields": ["login", "schema", "port"],
        "relabeling": {"host": "Base URL", "password": "API key"},
        "placeholders": {"host": "https://xuedingmao.online", "password": "sk-…"},
    }


def form_widgets() -> dict[str, Any]:
    """
    Return the extra fields for a hook's ``get_connection_form_widgets`` (Airflow 3.1).

    That form has no decimal numbers, so the timeouts are texts in it. Airflow 3.1.3 and newer 3.1 include a
    replacement for wtforms; older ones show the extra fields only if wtforms is installed.

    :raises ImportError: if neither exists; Airflow then leaves the fields out.
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
