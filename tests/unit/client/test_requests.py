# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from airflow_provider_luma.client.models import LumaTask, Media, TaskState
from airflow_provider_luma.client.requests import (
    ASPECT_RATIOS,
    ExtensionRequest,
    GenerationRequest,
    read_request,
)
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.templates import is_literal
from airflow_provider_luma.text import shorten, shorten_texts

PROMPT = "a red fox in the snow"


def body(**fields: Any) -> dict[str, Any]:
    return read_request(GenerationRequest, {"prompt": PROMPT, **fields}).body()


class TestReadRequest:
    def test_only_what_is_set_is_sent(self) -> None:
        assert body(model_name=None, duration="", loop=None) == {"user_prompt": PROMPT}

    def test_all_fields_reach_the_body(self) -> None:
        fields = {
            "model_name": "ray-v2",
            "duration": "5s",
            "resolution": "720p",
            "aspect_ratio": "16:9",
            "image_url": "https://example.com/a.jpg",
            "expand_prompt": False,
            "loop": True,
            "notify_hook": "https://example.com/hook",
        }

        assert body(**fields) == {"user_prompt": PROMPT, **fields}

    @pytest.mark.parametrize(
        ("text", "flag"),
        [("true", True), ("True", True), (" 1 ", True), ("yes", True), ("false", False), ("No", False)],
    )
    def test_flags_may_be_texts_as_templates_render_them(self, text: str, flag: bool) -> None:
        assert body(loop=text)["loop"] is flag

    @pytest.mark.parametrize("length", [3, 5000])
    def test_the_longest_and_the_shortest_prompt_are_taken(self, length: int) -> None:
        assert read_request(GenerationRequest, {"prompt": "x" * length}).prompt == "x" * length

    @pytest.mark.parametrize("ratio", ASPECT_RATIOS)
    def test_known_aspect_ratios_are_taken(self, ratio: str) -> None:
        assert body(aspect_ratio=ratio)["aspect_ratio"] == ratio

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"prompt": "no"}, "prompt must have 3 to 5000 characters; got 2"),
            ({"prompt": "x" * 5001}, "prompt must have .* got 5001"),
            ({"prompt": ""}, "prompt"),
            ({"prompt": "   "}, "prompt must be a text"),
            ({"prompt": 17}, r"Expected `str`, got `int` - at `\$.prompt`"),
            ({"prompt": PROMPT, "aspect_ratio": "2:1"}, "aspect_ratio must be one of 1:1, 16:9.*'2:1'"),
            ({"prompt": PROMPT, "loop": True, "image_end_url": "https://example.com/z.jpg"}, "exclude"),
            ({"prompt": PROMPT, "loop": "perhaps"}, "loop"),
            ({"prompt": PROMPT, "seconds": 5}, "unknown field 'seconds'; known are .*duration.*extra_fields"),
            ({"prompt": PROMPT, "duration": 5}, "duration"),
            ({"prompt": PROMPT, "extra_fields": {"seed": {1, 2}.__iter__()}}, "extra_fields"),
            ({"prompt": PROMPT, "extra_fields": {"seed": object()}}, "extra_fields can't be sent as JSON"),
            ({"prompt": "a cat \ud83d"}, "prompt can't be sent as JSON: .*surrogates"),
            ({"prompt": PROMPT, "model_name": "ray\udc00"}, "model_name can't be sent as JSON"),
            ({"prompt": PROMPT, "extra_fields": {"style": {"a\ud83d": 1}}}, "extra_fields can't be sent"),
            ({"prompt": PROMPT, "extra_fields": {"seed": float("nan")}}, "extra_fields .*no number nan"),
            ({"prompt": PROMPT, "extra_fields": {"a": [float("inf")]}}, "extra_fields .*no number inf"),
            ({"prompt": PROMPT, "extra_fields": {"seed": 10**400}}, "extra_fields .*an integer of 1329 bits"),
            ({"prompt": PROMPT, "extra_fields": {"seed": 10**5000}}, "extra_fields can't be sent as JSON"),
            ({"text": PROMPT}, "a request must have"),
            (PROMPT, "a request must have"),
            (None, "a request must have"),
        ],
    )
    def test_what_the_api_refuses_is_refused_before_it_is_sent(self, given: Any, words: str) -> None:
        with pytest.raises(LumaConfigError, match=words):
            read_request(GenerationRequest, given)

    def test_the_error_says_where_in_a_list_it_is(self) -> None:
        with pytest.raises(LumaConfigError, match=r"^requests\[3\]: prompt .* got 2"):
            read_request(GenerationRequest, {"prompt": "no"}, where="requests[3]")

    @pytest.mark.parametrize(
        ("fields", "extra"),
        [
            ({}, {"aspect_ratio": "2:1"}),
            ({"aspect_ratio": "16:9"}, {"aspect_ratio": "2:1"}),
            ({"image_end_url": "https://example.com/z.jpg"}, {"loop": True}),
            ({"loop": True, "image_end_url": "https://example.com/z.jpg"}, {"loop": True}),
            ({}, {"user_prompt": "x" * 9000}),
            ({}, {"seed": 7, "concepts": [{"key": "dolly"}]}),
        ],
    )
    def test_extra_fields_lead_past_the_rules_and_win(
        self, fields: dict[str, Any], extra: dict[str, Any]
    ) -> None:
        sent = body(**fields, extra_fields=extra)

        assert extra.items() <= sent.items()

    def test_a_prompt_in_extra_fields_is_not_the_user_prompt(self) -> None:
        with pytest.raises(LumaConfigError, match="prompt must have 3 to 5000 characters"):
            read_request(GenerationRequest, {"prompt": "no", "extra_fields": {"prompt": "something else"}})

    def test_an_extension_takes_no_model(self) -> None:
        with pytest.raises(LumaConfigError, match="unknown field 'model_name'"):
            read_request(ExtensionRequest, {"prompt": PROMPT, "model_name": "ray-v2"})

    def test_errors_show_long_values_cut(self) -> None:
        image = "data:image/png;base64," + "A" * 1_000_000
        with pytest.raises(LumaConfigError) as caught:
            read_request(GenerationRequest, {"prompt": PROMPT, "image_url": image, "duration": 5})

        assert len(str(caught.value)) < 1000
        assert "(1000022 characters)" in str(caught.value)


class TestIsLiteral:
    @pytest.mark.parametrize("value", [None, "text", 5, 1.5, True, {"a": ["b"]}, ("a", {"b": None}), []])
    def test_plain_values_are(self, value: Any) -> None:
        assert is_literal(value)

    @pytest.mark.parametrize(
        "value", ["{{ ds }}", "{% if x %}", ["a", "{{ b }}"], {"a": {"b": "{{ c }}"}}, object(), [object()]]
    )
    def test_templates_and_references_are_not(self, value: Any) -> None:
        assert not is_literal(value)


class TestShorten:
    def test_short_texts_stay(self) -> None:
        assert shorten("x" * 120) == "x" * 120

    def test_long_texts_are_cut_and_their_length_said(self) -> None:
        assert shorten("x" * 121) == "x" * 120 + "… (121 characters)"
        assert shorten("abcdef", 3) == "abc… (6 characters)"

    def test_texts_within_a_value_are_cut(self) -> None:
        image = "A" * 5000
        value = {"image": image, "list": [image, 1], "pair": (image,), "number": 3, "none": None}
        cut = "A" * 200 + "… (5000 characters)"

        assert shorten_texts(value) == {
            "image": cut,
            "list": [cut, 1],
            "pair": [cut],
            "number": 3,
            "none": None,
        }

    def test_what_is_cut_is_not_changed_itself(self) -> None:
        value = {"list": ["A" * 5000]}
        shorten_texts(value)

        assert value == {"list": ["A" * 5000]}


class TestRequests:
    def test_a_submit_holds_only_what_was_set(self) -> None:
        assert GenerationRequest(prompt="cat dance").body() == {"user_prompt": "cat dance"}
        assert ExtensionRequest(prompt="cat sleeps").body() == {"user_prompt": "cat sleeps"}

    def test_a_submit_holds_everything_that_was_set(self) -> None:
        fields: dict[str, Any] = {
            "model_name": "ray-v2",
            "duration": "5s",
            "resolution": "720p",
            "aspect_ratio": "16:9",
            "expand_prompt": True,
            "loop": False,
            "image_url": "https://cdn.test/a.jpg",
            "image_end_url": "https://cdn.test/b.jpg",
            "notify_hook": "https://hook.test/",
        }
        assert GenerationRequest(prompt="cat dance", **fields).body() == {
            "user_prompt": "cat dance",
            **fields,
        }

    def test_extra_fields_are_sent_as_they_are_and_win(self) -> None:
        request = GenerationRequest(
            prompt="cat", duration="5s", extra_fields={"duration": "10", "concepts": [{"key": "orbit"}]}
        )
        assert request.body() == {"user_prompt": "cat", "duration": "10", "concepts": [{"key": "orbit"}]}

    def test_making_a_body_changes_nothing(self) -> None:
        request = GenerationRequest(prompt="cat", extra_fields={"seed": 1})
        request.body()["user_prompt"] = "dog"
        assert request.body() == {"user_prompt": "cat", "seed": 1}

    @pytest.mark.parametrize("prompt", ["", "  \n", None, 5, ["cat"]])
    @pytest.mark.parametrize("kind", [GenerationRequest, ExtensionRequest])
    def test_a_request_without_a_prompt_is_refused(self, kind: Any, prompt: Any) -> None:
        with pytest.raises(LumaConfigError, match="prompt"):
            kind(prompt=prompt)

    @pytest.mark.parametrize("name", ["model_name", "duration", "resolution", "aspect_ratio", "loop"])
    def test_an_extension_has_no_field_that_only_a_generation_takes(self, name: str) -> None:
        with pytest.raises(TypeError, match=name):
            ExtensionRequest(prompt="cat", **cast(Any, {name: "x"}))

    def test_values_are_frozen(self) -> None:
        for value in (GenerationRequest(prompt="cat"), LumaTask("t1", TaskState.PENDING), Media()):
            with pytest.raises(AttributeError):
                setattr(value, msgspec.structs.fields(value)[0].name, "x")
