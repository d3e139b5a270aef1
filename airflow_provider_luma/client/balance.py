# SPDX-License-Identifier: Apache-2.0
"""Decode the balance of a key, which relays answer on two routes of OpenAI's API."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from airflow_provider_luma.client.errors import api_error
from airflow_provider_luma.exceptions import LumaResponseError

_UNLIMITED_USD: Final = 100_000_000


class Balance(msgspec.Struct, frozen=True):
    """
    Hold the balance of a key, in USD.

    :param used_usd: The money spent.
    :param limit_usd: The money that may be spent in all, including what is spent; ``None`` means no limit.
    """

    used_usd: float
    limit_usd: float | None = None

    @property
    def remaining_usd(self) -> float | None:
        """The money left, below zero when the key is overdrawn; ``None`` when there is no limit."""
        return None if self.limit_usd is None else round(self.limit_usd - self.used_usd, 6)


class _Subscription(msgspec.Struct, frozen=True):
    hard_limit_usd: float


class _Usage(msgspec.Struct, frozen=True):
    total_usage: float


class _Refusal(msgspec.Struct, frozen=True):
    error: msgspec.Raw


_Wire = TypeVar("_Wire", _Subscription, _Usage)


def decode_balance(subscription: bytes, usage: bytes) -> Balance:
    """
    Decode the two answers that make up a balance.

    :param subscription: The body of ``/v1/dashboard/billing/subscription``.
    :param usage: The body of ``/v1/dashboard/billing/usage``.
    :raises LumaApiError: when one of them is an error in spite of its HTTP status.
    """
    limit = _decode(subscription, _Subscription).hard_limit_usd
    used = _decode(usage, _Usage).total_usage / 100  # It is in cents.
    return Balance(used_usd=used, limit_usd=None if limit >= _UNLIMITED_USD else limit)


def _decode(raw: bytes, kind: type[_Wire]) -> _Wire:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        msgspec.json.decode(raw, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        start = raw[:200].decode("utf-8", "replace")
        raise LumaResponseError(
            f"The relay's answer about the balance can't be understood; it begins with {start!r}. The relay "
            "probably doesn't offer it.",
            status=200,
            relay_message=start,
        ) from None
    raise api_error(200, {}, raw)
