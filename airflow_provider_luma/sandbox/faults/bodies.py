# SPDX-License-Identifier: Apache-2.0
"""The forms in which relays and the proxies in front of them report errors."""

from __future__ import annotations

import msgspec

from airflow_provider_luma.sandbox.faults.fault import Fault

HTML = "text/html; charset=utf-8"
BUSY = "当前分组上游负载已饱和，请稍后再试"


def json_answer(status: int, value: object) -> Fault:
    """Return ``value`` as JSON."""
    return Fault(status=status, body=msgspec.json.encode(value))


def relay_error(status: int, message: str, *, code: str = "", type_: str = "new_api_error") -> Fault:
    """Return an error as a relay reports it before it looks at the call."""
    return json_answer(status, {"error": {"message": message, "type": type_, "param": "", "code": code}})


def task_error(status: int, message: str, *, code: str | int) -> Fault:
    """Return an error as a relay reports it while it handles the call."""
    return json_answer(status, {"code": code, "message": message, "data": None})


def edge_page(status: int, title: str) -> Fault:
    """Return an error page of an edge proxy."""
    page = (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Fault(status=status, body=page.encode(), content_type=HTML)
