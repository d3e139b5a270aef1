# SPDX-License-Identifier: Apache-2.0
"""tools/check_house.py finds what it is there to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.sources import ROOT, load_module

if TYPE_CHECKING:
    from tools import check_house
    from tools.check_house import House, Source
else:
    check_house = load_module(ROOT / "tools" / "check_house.py")
    House, Source = check_house.House, check_house.Source

HOUSE = House(glossary={"frobbed": "submit", "carries on": "resume"}, verbs={"return"}, inherited={"execute"})
MODULE = "airflow_provider_luma/module.py"


def found(text: str, *, path: str = MODULE, house: House = HOUSE) -> list[tuple[str, str]]:
    return [(finding.rule, finding.subject) for finding in check_house.check([Source(path, text)], house)]


class TestDocstrings:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('def f():\n    """Return it."""', []),
            ("def f():\n    pass", [("docstring", "f")]),
            ("class C:\n    pass", [("docstring", "C")]),
            ('class C:\n    """A thing."""\n    def f(self):\n        pass', [("docstring", "C.f")]),
            ('def f():\n    """The thing."""', [("imperative", "f")]),
            ('def f():\n    """Returns it."""', [("imperative", "f")]),
            ('class C:\n    """A thing."""\n    @property\n    def f(self):\n        """The thing."""', []),
            ('class C:\n    """A thing."""\n    def execute(self):\n        pass', []),
            ("def _f():\n    pass", []),
            ("class _C:\n    def f(self):\n        pass", []),
        ],
    )
    def test_a_public_function_opens_with_a_verb(self, text: str, expected: list[tuple[str, str]]) -> None:
        assert found(text) == expected

    def test_a_method_may_leave_its_docstring_to_the_class_it_derives_from(self) -> None:
        base = 'class Base:\n    """A base."""\n    def f(self):\n        """Return it."""\n'
        derived = 'class Derived(Base):\n    """More."""\n    def f(self):\n        pass'

        assert found(base + derived) == []


class TestWords:
    @pytest.mark.parametrize(
        "text", ["x = 'It was frobbed.'", "# frobbed", "video_frobbed = 1", "isFrobbed = 1"]
    )
    def test_a_word_is_found_wherever_it_stands(self, text: str) -> None:
        assert found(text) == [("word", "frobbed")]

    def test_a_phrase_is_found_across_lines(self) -> None:
        assert found("The task carries\non.", path="docs/page.md") == [("word", "carries on")]

    def test_a_part_of_a_word_is_none(self) -> None:
        assert found("overfrobbed = 1") == []

    def test_the_glossary_may_name_what_it_replaces(self) -> None:
        glossary = "## Glossary\n\n| submit | sending | frobbed |\n\n## Next\n"

        assert found(glossary, path="CONTRIBUTING.md") == []
        assert found(glossary + "frobbed", path="CONTRIBUTING.md") == [("word", "frobbed")]

    def test_the_glossary_is_read_from_its_table(self) -> None:
        heads = "\n## Glossary\n| use | for | not |\n|---|---|---|\n"
        table = f"{heads}| submit | it | frob, zap |\n| run | it |  |\n| users | they | folks |\n"

        assert check_house.read_glossary(table) == {"frob": "submit", "zap": "submit", "folks": "users"}


class TestSizes:
    def test_a_long_file_is_found(self) -> None:
        lines = [f"x{number} = 1\n" for number in range(401)]

        assert found("".join(lines[:400])) == []
        assert found("".join(lines)) == [("length", "file")]

    def test_long_functions_are_found(self) -> None:
        body = "    x = 1\n"

        assert found("def _f():\n" + body * 7) == []
        assert found("def _f():\n" + body * 8) == [("median", "median")]


class TestDuplicates:
    @staticmethod
    def sources(lines: int) -> list[Source]:
        same = "".join(f"x{number} = {number}\n" for number in range(lines))
        return [
            Source("airflow_provider_luma/a.py", same),
            Source("airflow_provider_luma/b.py", f"y = 1\n{same}"),
        ]

    def test_ten_lines_twice_are_found_once(self) -> None:
        (finding,) = check_house.check(self.sources(15), HOUSE)

        assert (finding.rule, finding.path, finding.line) == ("duplicate", "airflow_provider_luma/b.py", 2)

    def test_nine_lines_are_none(self) -> None:
        assert check_house.check(self.sources(9), HOUSE) == []

    def test_imports_are_none(self) -> None:
        imports = "from x import (\n" + "".join(f"    name{n},\n" for n in range(20)) + ")\n"

        assert (
            check_house.check([Source(f"airflow_provider_luma/{n}.py", imports) for n in "ab"], HOUSE) == []
        )


class TestExceptions:
    def house(self, path: str) -> House:
        return House(
            {"frobbed": "submit"}, {"return"}, set(), {("word", path, "frobbed"): "It is a quotation."}
        )

    def test_an_exception_excuses_its_word_in_the_files_of_its_pattern(self) -> None:
        assert found("frobbed", path="docs/a.md", house=self.house("docs/*")) == []

    def test_an_exception_without_use_is_found(self) -> None:
        house = self.house("docs/b.md")

        assert found("frobbed", path="docs/a.md", house=house) == [
            ("word", "frobbed"),
            ("exception", "frobbed"),
        ]

    def test_an_exception_needs_a_reason(self) -> None:
        glossary = "\n## Glossary\n| submit | it | frob |\n"
        settings = 'verbs = ""\ninherited = ""\n[[exception]]\nrule = "word"\npath = "a"\nsubject = "b"\n'

        assert check_house.read_house(glossary, settings + 'reason = "Why."').exceptions
        with pytest.raises(SystemExit, match="reason"):
            check_house.read_house(glossary, settings + 'reason = " "')
