# SPDX-License-Identifier: Apache-2.0
"""Which Airflow this is, for the features that came after 3.1."""

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
    ("airflow.stats", "Stats"),  # 3.1; later ones have the SDK's there
)


def airflow_stats() -> Any:
    """
    Return the metrics that Airflow's own processes have set up: ``incr``, ``gauge``, ``timing``.

    They are core's. The SDK has its own, which a triggerer leaves unset. ``None`` when there is nothing of
    the kind, because a wait must not fail for want of metrics.
    """
    for module_name, attribute in _STATS:
        try:
            module = import_module(module_name)
        except ImportError:
            continue
        stats = getattr(module, attribute, None) if attribute else module
        if all(callable(getattr(stats, name, None)) for name in ("incr", "gauge", "timing")):
            return stats
    log.warning("No metrics are sent: this Airflow has none that are known here.")
    return None
