# SPDX-License-Identifier: Apache-2.0
"""The settings of a sandbox: one definition for Python and for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from airflow_provider_luma.sandbox import media_host

Seconds = Annotated[float, Meta(ge=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Configure a sandbox: each field is a keyword of ``LumaSandbox`` and an option of the command line."""

    api_key: Annotated[str, Meta(min_length=1, description="the only key that the relay accepts")] = (
        "sandbox-key"
    )
    dialect: Annotated[
        Literal["bare", "envelope"],
        Meta(description="shape of the answers: bare tasks, or rows in an envelope"),
    ] = "bare"
    prefix: Annotated[
        str, Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="path before /luma and /v1, such as /relay")
    ] = ""
    pending_seconds: Annotated[Seconds, Meta(description="how long a task is pending")] = 2.0
    processing_seconds: Annotated[Seconds, Meta(description="how long it is then processing")] = 6.0
    visible_after_seconds: Annotated[
        Seconds, Meta(description="how long queries leave a new task out of their answers")
    ] = 0.0
    latency_seconds: Annotated[Seconds, Meta(description="delay of every answer of the API")] = 0.0
    submit_status: Annotated[
        Literal[200, 201], Meta(description="status of an accepted submit or extend")
    ] = 200
    id_form: Annotated[
        Literal["uuid", "task", "luma_gen"], Meta(description="form of the ids that the relay gives out")
    ] = "uuid"
    refused_words: Annotated[
        tuple[str, ...], Meta(description="words in a prompt that moderation refuses")
    ] = ("nsfw",)
    moderation: Annotated[
        Literal["refuse", "fail"],
        Meta(description="refuse such a prompt with a 400, or accept (and bill) it and let the task fail"),
    ] = "refuse"
    balance_usd: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="USD on the key; submits that it doesn't cover get a 403; unlimited if unset"),
    ] = None
    price_usd: Annotated[float, Meta(ge=0, description="USD that a submit or extend costs")] = 0.32
    media_base_url: Annotated[
        str | None, Meta(description="what the URLs of files start with instead of the sandbox's own address")
    ] = None
    video_bytes: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="size of every video: the film and filler after it; unset: the film alone"),
    ] = None
    links_expire_after: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="sign the URLs of files and refuse them after so many seconds"),
    ] = None
    link_uses: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="sign the URLs of files and refuse them after so many GETs"),
    ] = None
    lapsed_link_status: Annotated[
        Literal[400, 401, 403, 404, 410],
        Meta(description="status with which such a URL is refused; 400 is the ExpiredToken of an S3 store"),
    ] = 403
    max_records: Annotated[
        int, Meta(ge=0, description="how many of the last calls are recorded; counts are always complete")
    ] = 100_000
    seed: Annotated[int, Meta(description="seed of the order in which answers list their tasks")] = 0

    def __post_init__(self) -> None:
        if self.video_bytes is not None:
            media_host.check_video_bytes(self.video_bytes)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, strict: bool = True) -> Settings:
        """
        Check ``values`` and return them as settings.

        :param values: Values by setting.
        :param strict: False also takes numbers as text, as from a command line.
        :raises ValueError: A setting is unknown or its value wrong; it names both and what is right.
        """
        known = {field.name for field in msgspec.structs.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"Unknown setting {', '.join(unknown)}; the settings are {', '.join(sorted(known))}."
            )
        for name, value in values.items():
            try:
                msgspec.convert({name: value}, cls, strict=strict)
            except msgspec.ValidationError as error:
                reason = str(error).partition(" - at ")[0].rstrip(".")
                raise ValueError(f"{name} must be a valid setting; got {value!r}. {reason}.") from None
        return msgspec.convert(dict(values), cls, strict=strict)
