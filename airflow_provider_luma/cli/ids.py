# SPDX-License-Identifier: Apache-2.0
"""Task ids as they are given on a command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from airflow_provider_luma.client.models import is_task_id
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.task_ids import parse_task_ids


def read_ids(given: Sequence[str]) -> list[str]:
    """
    Read task ids.

    :param given: Ids; ``-`` stands for those on standard input: a JSON list, or separated by blanks.
    :return: The ids in their order, repeated ones once.
    :raises LumaConfigError: when one of them is no id, or when there are none.
    """
    ids = []
    for one in given:
        ids += _from_stdin() if one == "-" else [one]
    if not ids:
        raise LumaConfigError("There are no ids on standard input.")
    for task_id in ids:
        if not is_task_id(task_id):
            raise LumaConfigError(
                f"{task_id!r} is not a Luma task id: up to 128 letters, digits, '-' and '_' are right."
            )
    return list(dict.fromkeys(ids))


def _from_stdin() -> list[str]:
    if sys.stdin is None:
        raise LumaConfigError("Standard input is closed, so no ids can be read from it for '-'.")
    try:
        text = sys.stdin.read().strip()
    except (OSError, ValueError) as error:
        raise LumaConfigError(
            f"Standard input can't be read for '-': {error}. Ids are plain text."
        ) from error
    return parse_task_ids(text, parameter="Standard input") if text.startswith("[") else text.split()
