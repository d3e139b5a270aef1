# SPDX-License-Identifier: Apache-2.0
"""Faults of the connection: late, slow, cut or broken answers."""

from __future__ import annotations

from airflow_provider_luma.sandbox.faults.fault import Fault, registered

_KEEP = (0.0, 0.3, 0.9)
_PAUSE = (0.0001, 0.001)


@registered(seconds=(0.01, 0.1))
def latency(seconds: float) -> Fault:
    """Return the true answer after ``seconds``."""
    return Fault(delay=seconds)


@registered()
def hang() -> Fault:
    """Return nothing for as long as the client waits."""
    return Fault(ending="stalled", keep=0.0)


@registered(keep=(0.0, 0.5))
def stall(keep: float = 0.5) -> Fault:
    """Return the beginning of the true answer, then nothing for as long as the client waits."""
    return Fault(ending="stalled", keep=keep)


@registered(keep=(0.0, 0.5))
def reset(keep: float = 0.0) -> Fault:
    """Reset the connection (TCP RST) before the answer, or after a part of its body."""
    return Fault(ending="reset", keep=keep)


@registered()
def drop() -> Fault:
    """Close the connection without an answer."""
    return Fault(ending="closed", keep=0.0)


@registered(keep=_KEEP)
def truncated(keep: float = 0.5) -> Fault:
    """Return the true answer with its Content-Length, cut short."""
    return Fault(ending="truncated", keep=keep)


@registered(keep=_KEEP)
def chunk_cut(keep: float = 0.5) -> Fault:
    """Return the true answer as a chunked body, cut short and without its last chunk."""
    return Fault(ending="chunk_cut", keep=keep)


@registered(keep=(0.3, 0.9))
def unframed(keep: float = 0.5) -> Fault:
    """Return the true answer cut short, without Content-Length or chunks: HTTP can't detect the cut."""
    return Fault(ending="unframed", keep=keep)


@registered(seconds=_PAUSE)
def drip(seconds: float = 1.0) -> Fault:
    """Return the true answer, its body one byte every ``seconds``."""
    return Fault(drip=seconds)


@registered(seconds=_PAUSE)
def trickled_headers(seconds: float = 1.0) -> Fault:
    """Return the true answer, its status line and headers one byte every ``seconds``."""
    return Fault(header_drip=seconds)
