# SPDX-License-Identifier: Apache-2.0
"""What a sandbox can be told at its start: one definition for Python and for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from airflow_provider_luma.sandbox import media_host

Seconds = Annotated[float, Meta(ge=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The relay's ways. Every field is a keyword of ``LumaSandbox`` and an option of the command line."""

    api_key: Annotated[str, Meta(min_length=1, description="the only key that the relay takes")] = (
        "sandbox-key"
    )
    dialect: Annotated[
        Literal["bare", "envelope"],
        Meta(description="shape of the answers: bare tasks, or rows that envelop them"),
    ] = "bare"
    prefix: Annotated[
        str, Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="path before /luma and /v1, such as /relay")
    ] = ""
    pending_seconds: Annotated[Seconds, Meta(description="how long a task is pending")] = 2.0
    processing_seconds: Annotated[Seconds, Meta(description="how long it is then processing")] = 6.0
    visible_after_seconds: Annotated[
        Seconds, Meta(description="how long queries leave a new submit out of their answers")
    ] = 0.0
    latency_seconds: Annotated[Seconds, Meta(description="delay of every answer of the API")] = 0.0
    submit_status: Annotated[
        Literal[200, 201], Meta(description="status of an accepted submit or extend")
    ] = 200
    id_form: Annotated[
        Literal["uuid", "task", "luma_gen"], Meta(description="form of the ids that the relay gives out")
    ] = "uuid"
    refused_words: Annotated[
        tuple[str, ...], Meta(description="words in a prompt that moderation takes offence at")
    ] = ("nsfw",)
    moderation: Annotated[
        Literal["refuse", "fail"],
        Meta(description="refuse such a prompt with a 400, or accept (and bill) it and let the task fail"),
    ] = "refuse"
    balance_usd: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="money on the key; submits that it doesn't cover are answered 403; unlimited if unset"
        ),
    ] = None
    price_usd: Annotated[float, Meta(ge=0, description="price of a submit or extend")] = 0.32
    media_base_url: Annotated[
        str | None, Meta(description="what media links start with instead of the sandbox's own address")
    ] = None
    video_bytes: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="size of every video: the film and filler after it; unset: the film alone"),
    ] = None
    links_expire_after: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="sign media links and refuse them after these seconds"),
    ] = None
    link_uses: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="sign media links and refuse them after so many GETs"),
    ] = None
    lapsed_link_status: Annotated[
        Literal[400, 401, 403, 404, 410],
        Meta(description="with which status such a link is refused; 400 is the ExpiredToken of an S3 store"),
    ] = 403
    max_records: Annotated[
        int, Meta(ge=0, description="how many of the last calls are kept; counts are always complete")
    ] = 100_000
    seed: Annotated[int, Meta(description="of the order in which answers list their tasks")] = 0

    def __post_init__(self) -> None:
        if self.video_bytes is not None:
            media_host.check_video_bytes(self.video_bytes)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, strict: bool = True) -> Settings:
        """
        Check ``values`` and make settings of them.

        :param strict: False takes numbers as text as well, as from a command line
        :raises ValueError: names the setting, its value and what would be right
        """
        known = {field.name for field in msgspec.structs.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown setting {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
        for name, value in values.items():
            try:
                msgspec.convert({name: value}, cls, strict=strict)
            except msgspec.ValidationError as error:
                reason = str(error).partition(" - at ")[0]
                raise ValueError(f"{name}={value!r} is not a valid setting: {reason}") from None
        return msgspec.convert(dict(values), cls, strict=strict)
