# SPDX-License-Identifier: Apache-2.0
"""Tables of the reference that are made from the code, so that they can't differ from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from airflow_provider_luma import exceptions
from airflow_provider_luma.connection_fields import EXTRA_FIELDS, ConnectionField


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def connection_fields() -> str:
    """Return the fields of the connection's extra with their defaults, as the form describes them."""
    rows = [(f"`{field.name}`", field.type, default_of(field), field.description) for field in EXTRA_FIELDS]
    return table(("field", "type", "default", "meaning"), rows)


def default_of(field: ConnectionField) -> str:
    """Return a field's default as a user writes it."""
    if field.default is None:
        return ""
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def errors() -> str:
    """Return every error with whether Airflow retries the task, and what it means."""
    kinds = [getattr(exceptions, name) for name in exceptions.__all__]
    rows = [
        (f"{{py:exc}}`~{kind.__module__}.{kind.__name__}`", retried(kind), first_sentence(kind))
        for kind in kinds
        if isinstance(kind, type) and kind is not exceptions.LumaError
    ]
    return table(("error", "retried", "meaning"), rows)


def retried(kind: type[exceptions.LumaError]) -> str:
    """Return whether an error of this kind uses the task's retries."""
    if "retryable" in inspect.signature(kind).parameters:
        return "depends"
    return "yes" if kind.retryable else "no"


def first_sentence(kind: type) -> str:
    """Return what a class says about itself, without cross-references."""
    paragraph = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "`")


def directive(make: Callable[[], str]) -> type[SphinxDirective]:
    """Return a directive that stands for the Markdown that *make* returns."""

    class Generated(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(make())

    return Generated


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("luma-connection-fields", directive(connection_fields))
    app.add_directive("luma-errors", directive(errors))
    return {"parallel_read_safe": True}
