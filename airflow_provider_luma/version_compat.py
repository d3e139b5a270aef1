# SPDX-License-Identifier: Apache-2.0
"""Find out which Airflow this is, for features that are newer than 3.1."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

from packaging.version import Version

log = logging.getLogger(__name__)

# A release candidate already has the features of its release.
_RELEASE = Version(version("apache-airflow-core")).release[:2]

AIRFLOW_V_3_2_PLUS = _RELEASE >= (3, 2)
AIRFLOW_V_3_3_PLUS = _RELEASE >= (3, 3)

_STATS: Final = (
    ("airflow.observability.stats", ""),  # 3.3 and newer: functions
    ("airflow.observability.stats", "Stats"),  # 3.2: a class
    ("airflow.stats", "Stats"),  # 3.1; newer ones have the SDK's metrics there
)


def airflow_stats() -> Any:
    """
    Return the metrics of Airflow core (``incr``, ``gauge``, ``timing``), or ``None`` if there are none.

    The SDK has metrics too, but a triggerer doesn't set them up. A wait must not fail for lack of metrics.
    """
    for module_name, attribute in _STATS:
        try:
            module = import_module(module_name)
        except ImportError:
            continue
        stats = getattr(module, attribute, None) if attribute else module
        if all(callable(getattr(stats, name, None)) for name in ("incr", "gauge", "timing")):
            return stats
    log.warning("No metrics are sent: this version of Airflow has no known metrics module.")
    return None
