# SPDX-License-Identifier: Apache-2.0
"""
How hard hypothesis searches: a little in every run, HYPOTHESIS_PROFILE=thorough before a release.

In CI it tries the same examples each time: whether a change passes must not depend on luck.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("default", max_examples=200, deadline=None, derandomize="CI" in os.environ)
settings.register_profile(
    "thorough", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
