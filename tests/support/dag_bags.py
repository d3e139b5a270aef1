# SPDX-License-Identifier: Apache-2.0
"""Dag bags of one bundle, by whichever module this Airflow has them in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.version_compat import AIRFLOW_V_3_2_PLUS

if TYPE_CHECKING or AIRFLOW_V_3_2_PLUS:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
else:
    from airflow.models.dagbag import DagBag, sync_bag_to_db

BUNDLE = "dags-folder"


def load(file: Path) -> DagBag:
    """Parse one file."""
    return DagBag(str(file), **_of_bundle())


def store(dag: Any) -> None:
    """Write a Dag that stands in no file to the metadata database."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder="/dev/null", collect_dags=False, **_of_bundle())
    bag.bag_dag(dag)
    sync_bag_to_db(bag, BUNDLE, None)


def _of_bundle() -> dict[str, Any]:
    return {"bundle_name": BUNDLE} if AIRFLOW_V_3_2_PLUS else {}
