# SPDX-License-Identifier: Apache-2.0
"""``generate``: submit a request for one video."""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

import msgspec

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.inputs import find_relay
from airflow_provider_luma.cli.output import Output
from airflow_provider_luma.cli.submit import submit_once
from airflow_provider_luma.client.requests import GenerationRequest, read_request
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.text import shorten


def run(arguments: argparse.Namespace, output: Output) -> Exit:
    """Submit once and print the id."""
    if output.is_closed:
        raise LumaConfigError(
            "Standard output and standard error are both closed, so the video's id would be lost. Nothing "
            "was submitted; open one of them."
        )
    request = _request(arguments)
    with output.reserve_stdout():
        relay = find_relay(arguments.conn_id)
        output.message(f"Submitting one request to {relay.settings.base_url} ({relay.source}); it is billed.")
        with relay.settings.client() as client:
            task, interrupted = submit_once(
                lambda: client.generate(request),
                output,
                what=f"the video {shorten(request.prompt)!r} at {client.base_url}",
            )
    if output.as_json:
        output.json({"id": task.id, "state": task.state.value})
    else:
        output.lines([task.id])
    return Exit.INTERRUPTED if interrupted else Exit.OK


def _request(arguments: argparse.Namespace) -> GenerationRequest:
    given = {name: getattr(arguments, name) for name in GenerationRequest.__struct_fields__}
    for name in ("image_url", "image_end_url"):
        if given[name] is not None and given[name].startswith("@"):
            given[name] = _read_image(name, given[name][1:])
    given["extra_fields"] = _extra_fields(given["extra_fields"])
    return read_request(GenerationRequest, given)


def _read_image(name: str, path: str) -> str:
    try:
        return base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as error:
        raise LumaConfigError(
            f"--{name.replace('_', '-')} must name a readable file; got @{path} ({error.strerror})."
        ) from error


def _extra_fields(text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise LumaConfigError(
            f"--extra-fields must be a JSON object such as '{{\"seed\": 7}}'; got {text!r} ({error})."
        ) from error
