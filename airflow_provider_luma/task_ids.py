# SPDX-License-Identifier: Apache-2.0
"""What users may write as ``luma_task_ids``, and the list of ids that it means."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping

from airflow_provider_luma.client.models import is_task_id
from airflow_provider_luma.exceptions import LumaConfigError

# What a template may use where no task runs: what the run is, and what it was given.
_RUN_NAMES = frozenset(
    {
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "params",
        "run_id",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
    }
)
_RIGHT = (
    "right are a list of ids, one id, or a template that renders to either; an id has up to 128 letters, "
    "digits, '-' and '_'"
)


def parse_task_ids(value: object, *, parameter: str = "luma_task_ids") -> list[str]:
    """
    Read task ids as users give them: a list, one id, or the text of a JSON or Python list.

    :param value: What the user gave, after templates were rendered.
    :param parameter: Name of the parameter, for the error.
    :return: The ids in their order, repeated ones once.
    :raises LumaConfigError: when that isn't what *value* is.
    """
    if isinstance(value, str):
        text = value.strip()
        if text in ("None", "null"):
            raise LumaConfigError(
                f"{parameter} has rendered to {text!r}: the task that it comes from has returned nothing; "
                f"{_RIGHT}."
            )
        value = _parse_list(text, parameter) if text.startswith(("[", "(")) else [text]
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise LumaConfigError(f"{parameter} is {value!r}: {_RIGHT}.")
    ids = list(value)
    for task_id in ids:
        if not is_task_id(task_id):
            raise LumaConfigError(f"{parameter} holds {task_id!r}: {_RIGHT}.")
    return list(dict.fromkeys(ids))


def check_task_ids(value: object, *, parameter: str = "luma_task_ids") -> None:
    """
    Check ids where the user wrote them, as far as they are not templates or references.

    :param value: The argument of an operator's constructor.
    :param parameter: Name of the parameter, for the error.
    :raises LumaConfigError: when it can't be right, whatever it renders to.
    """
    if isinstance(value, str):
        if not is_template(value):
            parse_task_ids(value, parameter=parameter)
    elif isinstance(value, list | tuple | set):
        plain = [
            item for item in value if isinstance(item, str | int | float | None) and not is_template(item)
        ]
        parse_task_ids(plain, parameter=parameter)
    elif value is None or isinstance(value, bytes | Mapping | int | float):
        parse_task_ids(value, parameter=parameter)


def is_resolvable_without_a_worker(value: object) -> bool:
    """
    Whether a value can be rendered where no task runs: a literal, or a template of the run alone.

    Another task's output can't, neither as a reference nor pulled in a template, and variables and
    connections can't without blocking a triggerer.

    :param value: The argument of an operator's constructor.
    """
    if isinstance(value, list | tuple):
        return all(isinstance(item, str) and is_resolvable_without_a_worker(item) for item in value)
    if not isinstance(value, str):
        return False
    return not is_template(value) or _names_in(value) <= _RUN_NAMES


def _names_in(template: str) -> set[str]:
    # Here and not above: only Dags that start from triggers need it.
    from jinja2 import Environment, TemplateSyntaxError, meta

    try:
        return meta.find_undeclared_variables(Environment(autoescape=True).parse(template))
    except TemplateSyntaxError as error:
        raise LumaConfigError(f"The template {template!r} can't be read: {error}") from None


def is_template(value: object) -> bool:
    """Whether a value is a text that Airflow renders before the task runs."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _parse_list(text: str, parameter: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise LumaConfigError(
            f"{parameter} looks like a list but is neither JSON nor Python: {text[:200]!r}; {_RIGHT}."
        ) from None
