# SPDX-License-Identifier: Apache-2.0
"""Faults of the host that keeps the files."""

from __future__ import annotations

from airflow_provider_luma.sandbox.faults.fault import MEDIA, Fault, registered

_S3_CODES = {400: "ExpiredToken", 401: "Unauthorized", 403: "AccessDenied", 404: "NoSuchKey", 410: "Gone"}


@registered(MEDIA, code=tuple(_S3_CODES))
def media_error(code: int = 403) -> Fault:
    """Return an S3 error: 400, 401 and 403 for an expired URL, 404 and 410 for a file that is gone."""
    return _s3_error(code)


@registered(MEDIA)
def expired_token() -> Fault:
    """Return 400 ``ExpiredToken``, as an S3 store does when the key that signed the URL has expired."""
    return _s3_error(400)


@registered(MEDIA)
def no_ranges() -> Fault:
    """Return the true file from a host that ignores ``Range``."""
    return Fault(ranges=False)


@registered(MEDIA)
def changed_etag(etag: str = '"changed"') -> Fault:
    """Return the true file under another ETag, as if it had been replaced."""
    return Fault(etag=etag)


@registered(MEDIA, by=(-1, 1, 1_000_000))
def other_total(by: int = 1_000_000) -> Fault:
    """Return the true file; the Content-Range of a part claims a total that is ``by`` bytes off."""
    return Fault(total_off=by)


@registered(MEDIA, keep=(0.0, 0.3, 0.9))
def short_part(keep: float = 0.5) -> Fault:
    """
    Return the true file or part of it, cut short, with a Content-Length that fits.

    Only the Content-Range of a part, or the file itself, shows that it is incomplete.

    :param keep: The part that is sent, 0 to 1.
    """
    return Fault(ending="short", keep=keep)


def _s3_error(status: int) -> Fault:
    code = _S3_CODES.get(status, "Error")
    message = "The provided token has expired." if status == 400 else code
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    return Fault(status=status, body=body.encode(), content_type="application/xml")
