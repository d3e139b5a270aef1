# SPDX-License-Identifier: Apache-2.0
"""
A local Luma relay: try the provider and test your own Dags without a key and without cost.

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

``SandboxProcess`` runs in a process of its own. Any running sandbox can be steered over HTTP, in JSON,
outside the prefix and without a key:

* ``GET /sandbox/counts``: number of calls by kind
* ``GET /sandbox/calls``: their records; ``?name=batch&after=17``: batch queries after the 17th call
* ``GET /sandbox/generations``: every accepted submit and extend
* ``GET /sandbox/balance``: ``{"balance_usd": …, "spent_usd": …}``
* ``POST /sandbox/times``: ``{"ids": […]}``, or ``{}`` for all tasks
* ``POST /sandbox/tasks``: ``{"tasks": [{"id": "…", "completes_after": 3}, …]}``; returns ``{"ids": […]}``
* ``POST /sandbox/faults``: ``{"call": "batch", "fault": "latency", "options": {"seconds": 2}}``, and
  ``times`` (1; null: always), ``ids``, ``containing``, ``skip``, ``accepted``
* ``DELETE /sandbox/faults``: forgets all faults
* ``POST /sandbox/advance``: ``{"seconds": 3600}`` moves the relay's clock ahead
* ``POST /sandbox/reset``: forgets tasks, faults, records and spending
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_luma.sandbox import faults as faults
    from airflow_provider_luma.sandbox.faults import Fault as Fault
    from airflow_provider_luma.sandbox.relay import Generation as Generation
    from airflow_provider_luma.sandbox.rules import RecordedCall as RecordedCall
    from airflow_provider_luma.sandbox.server import LumaSandbox as LumaSandbox
    from airflow_provider_luma.sandbox.server import SandboxProcess as SandboxProcess
    from airflow_provider_luma.sandbox.steering import Sandbox as Sandbox
    from airflow_provider_luma.sandbox.tasks import TaskScript as TaskScript
    from airflow_provider_luma.sandbox.tasks import TaskTimes as TaskTimes

_HOMES = {"Fault": "faults", "Generation": "relay", "RecordedCall": "rules", "Sandbox": "steering"}
_HOMES |= dict.fromkeys(("LumaSandbox", "SandboxProcess"), "server")
_HOMES |= dict.fromkeys(("TaskScript", "TaskTimes"), "tasks")
__all__ = ["faults", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import on first use, so that importing the provider doesn't import a web server."""
    if name == "faults":
        return import_module(f"{__name__}.faults")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
