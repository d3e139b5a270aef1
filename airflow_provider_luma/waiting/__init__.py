# SPDX-License-Identifier: Apache-2.0
"""Time: what the answers of a relay mean for those who wait. Knows nothing of Airflow."""
