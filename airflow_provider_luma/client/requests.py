# SPDX-License-Identifier: Apache-2.0
"""Requests for videos, as users write them, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.text import shorten, shorten_texts
from airflow_provider_luma.validation import FLAGS, json_body

PROMPT_LENGTH: Final = range(3, 5001)
"""How many characters the API takes as a prompt."""

ASPECT_RATIOS: Final = ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21")
"""The aspect ratios that the API is known to take."""


class _SubmitRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    prompt: str
    expand_prompt: bool | None = None
    image_url: str | None = None
    image_end_url: str | None = None
    notify_hook: str | None = None
    extra_fields: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise LumaConfigError(f"prompt must be a text that says what to generate; got {self.prompt!r}.")

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the submit: only the fields that are set."""
        fields = {
            name: value
            for name in self.__struct_fields__
            if name not in ("prompt", "extra_fields") and (value := getattr(self, name)) is not None
        }
        return {"user_prompt": self.prompt, **fields, **self.extra_fields}


class GenerationRequest(_SubmitRequest, frozen=True, kw_only=True, omit_defaults=True):
    """
    Describe a video to generate. Fields that are ``None`` are not sent, so the relay's defaults apply.

    :param prompt: The text; sent as ``user_prompt``.
    :param expand_prompt: Let the relay enrich the prompt.
    :param image_url: First frame: a URL or base64 data.
    :param image_end_url: Last frame: a URL or base64 data.
    :param notify_hook: URL that the relay calls when the task changes.
    :param extra_fields: Further fields of the body, sent as they are; they win over the others.
    :param model_name: ``ray-v1``, ``ray-v2``, ``ray-v3`` or another model of the relay.
    :param duration: ``"5s"`` on most relays, ``"5"`` on some.
    :param resolution: ``540p``, ``720p`` or ``1080p``.
    :param aspect_ratio: For example ``16:9``.
    :param loop: Make the end meet the beginning.
    """

    model_name: str | None = None
    duration: str | None = None
    resolution: str | None = None
    aspect_ratio: str | None = None
    loop: bool | None = None


class ExtensionRequest(_SubmitRequest, frozen=True, kw_only=True, omit_defaults=True):
    """
    Describe how to extend an existing video. Fields that are ``None`` are not sent.

    Its fields are the first six of :class:`GenerationRequest`, with the same meaning.
    """


Request = TypeVar("Request", GenerationRequest, ExtensionRequest)


def read_request(kind: type[Request], given: Any, *, where: str = "") -> Request:
    """
    Read a request as users write it, after templates are rendered, and check it.

    Values that the API is known to refuse are refused here, before anything is sent. A field that is given in
    ``extra_fields`` isn't checked, so that newer models can be used.

    :param kind: The type of the request.
    :param given: Its fields by name; ``None`` and empty texts leave a field unset, flags may be texts.
    :param where: Its position for the message, such as ``requests[3]``.
    :raises LumaConfigError: naming the field, its value and the values that are allowed.
    """
    at = f"{where}: " if where else ""
    if not isinstance(given, Mapping) or "prompt" not in given:
        raise LumaConfigError(
            f"{at}a request must have at least {{'prompt': '…'}}; got {shorten(repr(given))}."
        )
    # A template that renders to nothing leaves the field unset.
    fields = {name: value for name, value in given.items() if value is not None and value != ""}
    for name in ("loop", "expand_prompt"):
        if isinstance(value := fields.get(name), str):
            fields[name] = FLAGS.get(value.strip().lower(), value)
    unknown = [name for name in fields if name not in kind.__struct_fields__]
    if unknown:
        raise LumaConfigError(
            f"{at}unknown field {unknown[0]!r}; known are {', '.join(kind.__struct_fields__)}. Put other "
            "fields of a relay into extra_fields."
        )
    fields.setdefault("prompt", "")
    try:
        request = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise LumaConfigError(f"{at}{error}; given: {shorten_texts(fields)!r}.") from error
    _check(request, at)
    return request


def _check(request: GenerationRequest | ExtensionRequest, at: str) -> None:
    """Refuse values that the API is known to refuse, unless ``extra_fields`` replaces them."""
    fields = {name: value for name, value in request.body().items() if name not in request.extra_fields}
    prompt = fields.get("user_prompt")
    if prompt is not None and len(prompt) not in PROMPT_LENGTH:
        raise LumaConfigError(
            f"{at}prompt must have {PROMPT_LENGTH.start} to {PROMPT_LENGTH.stop - 1} characters; got "
            f"{len(prompt)} ({shorten(prompt)!r})."
        )
    aspect_ratio = fields.get("aspect_ratio")
    if aspect_ratio is not None and aspect_ratio not in ASPECT_RATIOS:
        raise LumaConfigError(
            f"{at}aspect_ratio must be one of {', '.join(ASPECT_RATIOS)}; got {aspect_ratio!r}. For a model "
            "that takes others, give it in extra_fields."
        )
    if fields.get("loop") and fields.get("image_end_url"):
        raise LumaConfigError(
            f"{at}loop and image_end_url exclude each other, because a loop ends where it begins. Remove one."
        )
    for name, value in {**fields, "extra_fields": request.extra_fields}.items():
        json_body(f"{at}{'prompt' if name == 'user_prompt' else name}", value)
