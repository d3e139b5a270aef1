# SPDX-License-Identifier: Apache-2.0
"""Describe the provider to Airflow, which reads this at every start: imports here must stay cheap."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_luma.connection_fields import provider_info_fields

_INTEGRATION: Final = "Luma Dream Machine"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata in the shape of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-luma",
        "name": _INTEGRATION,
        "description": (
            "`Luma Dream Machine <https://lumalabs.ai/dream-machine>`__ video generation "
            "through an API relay."
        ),
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://lumalabs.ai/dream-machine",
                "tags": ["service"],
            }
        ],
        "hooks": _modules("hooks.luma"),
        "operators": _modules("operators.artifacts", "operators.generate", "operators.base"),
        "sensors": _modules("sensors.luma"),
        "triggers": _modules("triggers.luma"),
        "cli": ["airflow_provider_luma.cli.definition.get_luma_cli_commands"],
        "plugins": [
            {"name": "luma", "plugin-class": "airflow_provider_luma.plugins.gallery.LumaPlugin"},
        ],
        "extra-links": ["airflow_provider_luma.links.luma.LumaVideosLink"],
        "transfers": [
            {
                "source-integration-name": _INTEGRATION,
                "target-integration-name": "Common IO",
                "python-module": "airflow_provider_luma.transfers.luma_to_object_storage",
            },
        ],
        "connection-types": [
            {
                "connection-type": "luma",
                "hook-class-name": "airflow_provider_luma.hooks.luma.LumaHook",
                "hook-name": "Luma (API relay)",
                **provider_info_fields(),
            }
        ],
    }


def _modules(*names: str) -> list[dict[str, Any]]:
    modules = [f"airflow_provider_luma.{name}" for name in names]
    return [{"integration-name": _INTEGRATION, "python-modules": modules}]
