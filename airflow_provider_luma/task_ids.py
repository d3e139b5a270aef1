# SPDX-License-Identifier: Apache-2.0
"""What users may write as ``luma_task_ids``, and the list of ids that it means."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping

from airflow_provider_luma.client.models import is_task_id
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.templates import is_template

_RIGHT = (
    "right are a list of ids, one id, or a template that renders to either; an id has up to 128 letters, "
    "digits, '-' and '_'; records with an id and lists of lists count as their ids"
)
_MAX_LEVELS = 3
_MAX_SHOWN = 200


def parse_task_ids(value: object, *, parameter: str = "luma_task_ids") -> list[str]:
    """
    Read task ids as users give them: a list, one id, or the text of a JSON or Python list.

    What other tasks return is taken too: records such as those of files count as their ids, and the output
    of a mapped task, a list of lists, is flattened.

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
        value = _parse_list(text, parameter) if text.startswith(("[", "(", "{")) else [text]
    if _is_record(value):
        value = [value]
    return list(dict.fromkeys(_ids_in(value, parameter, levels=_MAX_LEVELS)))


def _is_record(value: object) -> bool:
    return (isinstance(value, Mapping) and "id" in value) or isinstance(getattr(value, "id", None), str)


def _ids_in(value: object, parameter: str, *, levels: int) -> Iterator[str]:
    """Yield the ids of a list, of its lists and of its records."""
    if isinstance(value, bytes | Mapping | str) or not isinstance(value, Iterable):
        raise LumaConfigError(f"{parameter} is {_short(value)}: {_RIGHT}.")
    for item in value:
        task_id = item.get("id") if isinstance(item, Mapping) else getattr(item, "id", item)
        if is_task_id(task_id):
            yield task_id
        elif levels and isinstance(item, Iterable) and not isinstance(item, str | bytes | Mapping):
            # The output of a mapped task is a list of what each of its instances returned.
            yield from _ids_in(item, parameter, levels=levels - 1)
        else:
            raise LumaConfigError(f"{parameter} holds {_short(item)}: {_RIGHT}.")


def _short(value: object) -> str:
    try:
        return repr(value)[:_MAX_SHOWN]
    except (ValueError, RecursionError):
        # A number of thousands of digits, or lists without end, have none.
        return f"a {type(value).__name__}"


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
