# SPDX-License-Identifier: Apache-2.0
"""Distinguish literal arguments from templates and references, which have no value at parse time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_luma.exceptions import LumaConfigError

# What a template may use where no task runs: the Dag run and its params.
_RUN_NAMES = (
    {"dag_run", "run_id", "params", "logical_date"}
    | {"data_interval_start", "data_interval_end"}
    | {"ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"}
)


def is_template(value: object) -> bool:
    """Return whether a value is a text that Airflow renders before the task runs."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def is_literal(value: Any) -> bool:
    """Return whether an argument stays the same at run time: it has no template or reference to a task."""
    if isinstance(value, Mapping):
        return all(is_literal(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(is_literal(item) for item in value)
    return value is None or (isinstance(value, str | int | float) and not is_template(value))


def is_resolvable_without_a_worker(value: object) -> bool:
    """
    Return whether an argument can be rendered where no task runs: a literal, or a template of the Dag run.

    Another task's output can't, as a reference or pulled in a template. Variables and connections can't
    without blocking a triggerer.
    """
    if isinstance(value, list | tuple):
        return all(isinstance(item, str) and is_resolvable_without_a_worker(item) for item in value)
    if not isinstance(value, str):
        return False
    return not is_template(value) or _names_in(value) <= _RUN_NAMES


def _names_in(template: str) -> set[str]:
    # Imported here because only Dags that start from triggers need it.
    from jinja2 import Environment, TemplateSyntaxError, meta

    try:
        return meta.find_undeclared_variables(Environment(autoescape=True).parse(template))
    except TemplateSyntaxError as error:
        reason = str(error).rstrip(".")
        raise LumaConfigError(f"The template {template!r} can't be parsed: {reason}.") from None
