# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_luma.client.requests import ExtensionRequest, GenerationRequest
from airflow_provider_luma.submitting.submission import Submission, submission_keys

HERE = "luma_default https://relay.example"


def submission(prompt: str = "a red fox", **fields: Any) -> Submission:
    return Submission(GenerationRequest(prompt=prompt, **fields))


class TestFingerprint:
    def test_the_same_request_has_the_same(self) -> None:
        assert submission(loop=True).fingerprint(HERE) == submission(loop=True).fingerprint(HERE)

    def test_it_does_not_depend_on_the_order_of_fields(self) -> None:
        one = submission(extra_fields={"seed": 1, "style": {"a": 1, "b": 2}})
        other = submission(extra_fields={"style": {"b": 2, "a": 1}, "seed": 1})

        assert one.fingerprint(HERE) == other.fingerprint(HERE)

    def test_it_depends_on_what_is_sent_and_where_to(self) -> None:
        extension = ExtensionRequest(prompt="a red fox")
        fingerprints = [
            submission().fingerprint(HERE),
            submission().fingerprint("other https://relay.example"),
            submission("a blue fox").fingerprint(HERE),
            submission(loop=False).fingerprint(HERE),
            submission(extra_fields={"seed": 1}).fingerprint(HERE),
            Submission(extension, extends="task-1").fingerprint(HERE),
            Submission(extension, extends="task-2").fingerprint(HERE),
        ]

        assert len(set(fingerprints)) == len(fingerprints)


class TestSubmissionKeys:
    def test_equal_requests_have_different_keys(self) -> None:
        keys = submission_keys([submission(), submission("another"), submission()], HERE)

        assert len(set(keys)) == 3
        assert keys[0].removesuffix("_1") == keys[2].removesuffix("_2")

    def test_a_changed_order_keeps_the_keys(self) -> None:
        submissions = [submission("one one"), submission("two two"), submission("one one")]

        assert sorted(submission_keys(submissions, HERE)) == sorted(submission_keys(submissions[::-1], HERE))

    def test_a_new_request_in_the_middle_changes_no_other_key(self) -> None:
        before = submission_keys([submission("one one"), submission("two two")], HERE)
        after = submission_keys([submission("one one"), submission("new"), submission("two two")], HERE)

        assert [after[0], after[2]] == before


class TestSend:
    def test_a_generation_is_generated_and_an_extension_extends(self, mocker: Any) -> None:
        client = mocker.Mock(spec=["generate", "extend"])
        request, extension = GenerationRequest(prompt="a fox"), ExtensionRequest(prompt="it runs")

        assert Submission(request).send(client) is client.generate.return_value
        assert Submission(extension, extends="task-1").send(client) is client.extend.return_value
        client.generate.assert_called_once_with(request)
        client.extend.assert_called_once_with("task-1", extension)


@pytest.mark.parametrize(
    ("named", "name"),
    [
        (submission(), "video 'a red fox'"),
        (submission("x" * 300), f"video '{'x' * 120}… (300 characters)'"),
        (Submission(ExtensionRequest(prompt="it runs"), extends="task-1"), "extension of task-1 'it runs'"),
    ],
)
def test_a_submission_is_named_by_its_prompt(named: Submission, name: str) -> None:
    assert str(named) == name


def test_prompts_in_xcoms_are_cut() -> None:
    assert submission("x" * 5000).short_prompt == "x" * 500 + "… (5000 characters)"
