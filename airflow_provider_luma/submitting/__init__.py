# SPDX-License-Identifier: Apache-2.0
"""Money: sending what costs something, once. Knows nothing of Airflow."""
