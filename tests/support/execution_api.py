# SPDX-License-Identifier: Apache-2.0
"""Airflow's API for tasks, which ``dag.test()`` builds in each process that runs a Dag."""

from __future__ import annotations

import airflow


def leave_out_old_versions() -> None:
    """
    Build the API in its newest version alone, the only one that the tasks of this process ask for.

    The older ones, which serve workers of older Airflows, cost each process seconds. Only Airflow 3.3, on
    which all tests run, is known to allow it; the few tests that run on others can bear the seconds.
    """
    if not airflow.__version__.startswith("3.3."):
        return
    from airflow.api_fastapi.execution_api import routes, versions
    from cadwyn import HeadVersion, Version, VersionBundle

    # Cadwyn refuses routes that it would have to leave out of every version.
    router = routes.execution_api_router
    router.routes = [
        route for route in router.routes if "_CADWYN_DELETED_ROUTE" not in getattr(route, "tags", ())
    ]
    newest = Version(versions.bundle.versions[0].value)
    versions.bundle = VersionBundle(HeadVersion(), newest, api_version_var=versions.bundle.api_version_var)
