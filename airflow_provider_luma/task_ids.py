# SPDX-License-Identifier: Apache-2.0
"""Read the list of ids from what users may write as ``luma_task_ids``."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping

from airflow_provider_luma.client.models import is_task_id
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.templates import is_template
from airflow_provider_luma.validation import shown

_EXPECTED = (
    "must be a list of ids, one id, or a template that renders to either; an id has up to 128 letters, "
    "digits, '-' and '_', and records with an id and lists of lists count as their ids"
)
_MAX_LEVELS = 3


def parse_task_ids(value: object, *, parameter: str = "luma_task_ids") -> list[str]:
    """
    Read task ids from a list, one id, or the text of a JSON or Python list.

    The results of other tasks work too: a record, such as that of a file, counts as its id, and the output of
    a mapped task, a list of lists, is flattened.

    :param value: The argument, after templates were rendered.
    :return: The ids in their order, without duplicates.
    :raises LumaConfigError: if *value* is anything else.
    """
    if isinstance(value, str):
        text = value.strip()
        if text in ("None", "null"):
            raise LumaConfigError(
                f"{parameter} has rendered to {text!r}, because the task that it refers to returned nothing; "
                f"it {_EXPECTED}."
            )
        value = _parse_list(text, parameter) if text.startswith(("[", "(", "{")) else [text]
    if _is_record(value):
        value = [value]
    return list(dict.fromkeys(_ids_in(value, parameter, levels=_MAX_LEVELS)))


def _is_record(value: object) -> bool:
    return (isinstance(value, Mapping) and "id" in value) or isinstance(getattr(value, "id", None), str)


def _ids_in(value: object, parameter: str, *, levels: int) -> Iterator[str]:
    """Yield the ids of a list, of its lists and of its records."""
    if isinstance(value, bytes | Mapping | str) or not isinstance(value, Iterable):
        raise LumaConfigError(f"{parameter} {_EXPECTED}; got {shown(value)}.")
    for item in value:
        task_id = item.get("id") if isinstance(item, Mapping) else getattr(item, "id", item)
        if is_task_id(task_id):
            yield task_id
        elif levels and isinstance(item, Iterable) and not isinstance(item, str | bytes | Mapping):
            # The output of a mapped task is a list of what each of its instances returned.
            yield from _ids_in(item, parameter, levels=levels - 1)
        else:
            raise LumaConfigError(f"{parameter} {_EXPECTED}; got {shown(item)} in it.")


def check_task_ids(value: object, *, parameter: str = "luma_task_ids") -> None:
    """
    Check an operator's argument where the Dag is parsed, as far as it is no template or reference.

    :raises LumaConfigError: if it can't be right, whatever it renders to.
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


def _parse_list(text: str, parameter: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise LumaConfigError(
            f"{parameter} {_EXPECTED}; got {shown(text)}, which is neither JSON nor Python."
        ) from None
