# SPDX-License-Identifier: Apache-2.0
"""Submit twenty videos in one task; moderation refuses two, and the other eighteen are generated."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, XComArg, get_current_context, task

from airflow_provider_luma.operators.generate import LumaGenerateVideosOperator

ANIMALS = ("fox", "owl", "otter", "heron", "lynx", "hare", "stag", "wren", "seal", "crane")
PROMPTS = [f"a {animal} {place}" for place in ("in falling snow", "at dusk") for animal in ANIMALS]
# Moderation refuses prompts with words like this one; so does the sandbox.
PROMPTS[3] += ", nsfw"
PROMPTS[14] += ", nsfw"

with DAG(
    "example_luma_generate_list",
    doc_md=__doc__,
    schedule=None,
    tags=["luma", "example"],
    params={
        "prompts": Param(
            PROMPTS,
            type="array",
            items={"type": "string", "minLength": 3},
            description="One video is generated and billed for each that isn't refused.",
        ),
    },
) as dag:

    @task
    def requests() -> list[dict[str, str]]:
        prompts = get_current_context()["params"]["prompts"]
        return [{"prompt": prompt, "model_name": "ray-v2"} for prompt in prompts]

    # Common plans allow about 20 submits a minute. A retry resumes with the first request that was not sent.
    videos = LumaGenerateVideosOperator(
        task_id="videos",
        requests=requests(),
        max_failed=2,
        submit_interval=3,
        wait_for_completion=True,
        deferrable=True,
        retries=3,
    )

    @task
    def show(records: Any, refused: Any) -> None:
        for record in records:
            print(record["id"], record["video_url"])
        for request in refused:
            print("refused:", request["prompt"], request["reason"])

    show(videos.output, XComArg(videos, "refused"))
