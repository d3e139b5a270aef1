# SPDX-License-Identifier: Apache-2.0
"""
A local Luma relay: try the provider, and test your own Dags, without a key or a cent.

As a program::

    python -m airflow_provider_luma.sandbox --port 8321 --dialect envelope --processing-seconds 3

It prints its address and an ``AIRFLOW_CONN_LUMA_DEFAULT`` to export. ``--help`` lists the settings
(:class:`~airflow_provider_luma.sandbox.settings.Settings`).

In a test::

    from airflow_provider_luma.sandbox import LumaSandbox, faults

    with LumaSandbox(pending_seconds=0, processing_seconds=1) as sandbox:
        good = sandbox.add_task(prompt="a cat that dances")
        bad = sandbox.add_task(fails_with="moderated")
        sandbox.fail_next("batch", faults.too_many_requests(retry_after=1))
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", sandbox.airflow_connection)
        my_dag.test()
        assert sandbox.count("submit") == len(sandbox.generations) == 1

Where it is
    ``sandbox.base_url``, ``.root_url`` (without the prefix), ``.port``, ``.api_key``,
    ``.airflow_connection``.
Tasks
    ``add_task(task_id=None, **script)`` adds one (fields:
    :class:`~airflow_provider_luma.sandbox.relay.TaskScript`), ``add_tasks([TaskScript(…), …])`` thousands at
    once. ``advance(seconds)`` moves the relay's clock ahead, ``when(task_id)``, ``times(ids=None)`` and
    ``completed_at(task_id)`` tell when things happened.
Faults
    ``fail_next(call, fault, times=1, skip=0, accepted=False)`` and
    ``fail_when(call, fault, predicate=None, ids=(), containing=None, times=None, skip=0, accepted=False)``,
    where ``call`` is ``batch``, ``single``, ``submit``, ``extend``, ``download_url``, ``billing``, ``media``
    or ``unknown`` and ``fault`` comes from :mod:`~airflow_provider_luma.sandbox.faults`. ``accepted=True``:
    the relay takes and bills the job, and only its answer is lost or spoilt. ``clear_faults()``.
    ``faults.random_faults(seed, call="batch", count=10)`` draws from all faults of a kind of call.
Records
    ``calls`` (:class:`~airflow_provider_luma.sandbox.relay.RecordedCall`), ``counts``, ``count(call)``,
    ``generations`` (:class:`~airflow_provider_luma.sandbox.relay.Generation`: what was bought, once each),
    ``balance``, ``spent_usd``. ``reset()`` forgets it all.

``SandboxProcess`` is the same in a process of its own. Any running sandbox can be steered over HTTP, in JSON,
outside the prefix and without a key:

``GET /sandbox/counts``
    calls by name
``GET /sandbox/calls``
    their records; ``?name=batch&after=17``: of batch queries after the call with that number
``GET /sandbox/generations``
    what was bought
``GET /sandbox/balance``
    ``{"balance_usd": …, "spent_usd": …}``
``POST /sandbox/times``
    ``{"ids": […]}``, or ``{}`` for all tasks
``POST /sandbox/tasks``
    ``{"tasks": [{"id": "…", "completes_after": 3}, …]}`` answers ``{"ids": […]}``
``POST /sandbox/faults``
    ``{"call": "batch", "fault": "too_many_requests", "options": {"retry_after": 2}, "times": 1}``, and
    ``ids``, ``containing``, ``skip``, ``accepted``; ``times: null`` means always
``DELETE /sandbox/faults``
    forgets them
``POST /sandbox/advance``
    ``{"seconds": 3600}``
``POST /sandbox/reset``
    forgets everything
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_luma.sandbox import faults
    from airflow_provider_luma.sandbox.faults import Fault
    from airflow_provider_luma.sandbox.process import SandboxProcess
    from airflow_provider_luma.sandbox.relay import Generation
    from airflow_provider_luma.sandbox.rules import RecordedCall
    from airflow_provider_luma.sandbox.server import LumaSandbox
    from airflow_provider_luma.sandbox.steering import Sandbox
    from airflow_provider_luma.sandbox.tasks import TaskScript, TaskTimes

__all__ = [
    "Fault",
    "Generation",
    "LumaSandbox",
    "RecordedCall",
    "Sandbox",
    "SandboxProcess",
    "TaskScript",
    "TaskTimes",
    "faults",
]

_HOMES = {
    "Fault": "faults",
    "Generation": "relay",
    "LumaSandbox": "server",
    "RecordedCall": "rules",
    "Sandbox": "steering",
    "SandboxProcess": "process",
    "TaskScript": "tasks",
    "TaskTimes": "tasks",
}


def __getattr__(name: str) -> Any:
    """Import on first use: whoever imports the provider doesn't pay for a web server."""
    if name == "faults":
        return import_module(f"{__name__}.faults")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
