# SPDX-License-Identifier: Apache-2.0
"""Which Airflow this is, for the features that came after 3.1."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from packaging.version import Version

# A release candidate already has the features of its release.
_RELEASE = Version(version("apache-airflow-core")).release[:2]

AIRFLOW_V_3_2_PLUS = _RELEASE >= (3, 2)
AIRFLOW_V_3_3_PLUS = _RELEASE >= (3, 3)


def airflow_stats() -> Any:
    """Return Airflow's metrics API as its own processes have set it up: ``incr``, ``gauge``, ``timing``."""
    try:
        from airflow.observability import stats
    except ImportError:  # before Airflow 3.2
        from airflow.stats import Stats

        return Stats
    return stats
