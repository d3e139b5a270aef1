# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F403 - A list of all names here would be a second registry to keep.
"""
Everything that can go wrong between a relay and its client, as values.

A :class:`~airflow_provider_luma.sandbox.faults.fault.Fault` says what is sent instead of the relay's true
answer, or how that is spoiled. ``fail_next`` and ``fail_when`` say when, and whether the relay accepts the
submit before.

``NAMED`` holds the functions that make faults by name, for ``POST /sandbox/faults``. To add a fault, write
its function in the module of its kind and a line in the table of ``docs/testing.md``.
"""

from __future__ import annotations

from airflow_provider_luma.sandbox.faults.connections import *
from airflow_provider_luma.sandbox.faults.edge import *
from airflow_provider_luma.sandbox.faults.fault import NAMED as NAMED
from airflow_provider_luma.sandbox.faults.fault import CallName as CallName
from airflow_provider_luma.sandbox.faults.fault import Fault as Fault
from airflow_provider_luma.sandbox.faults.fault import random_faults as random_faults
from airflow_provider_luma.sandbox.faults.media import *
from airflow_provider_luma.sandbox.faults.odd_answers import *
from airflow_provider_luma.sandbox.faults.refusals import *
