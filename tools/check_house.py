# SPDX-License-Identifier: Apache-2.0
"""
List where the code departs from the rules of the house; print nothing and exit with 0 where it doesn't.

The rules, each explained in CONTRIBUTING.md: a public class or function has a docstring, and a function's
opens with a verb in the imperative; one word per concept, as the glossary there has it; no file over 400
lines; a median function of 7 lines at most; no ten lines twice. ``house.toml`` beside this file has the
verbs, and each exception with the reason for it. An exception that excuses nothing is listed too.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "airflow_provider_luma"
MAX_FILE_LINES: Final = 400
MAX_MEDIAN_FUNCTION_LINES: Final = 7
MIN_DUPLICATE_LINES: Final = 10

#: Files with words in them. The glossary itself and the reasons for exceptions name the words not to use.
TEXT_SUFFIXES: Final = {".cfg", ".css", ".html", ".js", ".md", ".mjs", ".py", ".sh", ".toml", ".yaml", ".yml"}
SETTINGS: Final = "tools/house.toml"
#: Folders whose files must be short enough to read in a sitting.
CODE: Final = (f"{PACKAGE}/", "tools/", "example_dags/")
GLOSSARY_TITLE: Final = "## Glossary"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One departure from a rule; ``subject`` is what an exception in ``house.toml`` names."""

    rule: str
    path: str
    line: int
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


@dataclass(frozen=True)
class Source:
    """A file of the project, by its path from the root, with its text."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    def finding(self, rule: str, line: int, subject: str, text: str) -> Finding:
        return Finding(rule=rule, path=self.path, line=line, subject=subject, text=text)


@dataclass
class House:
    """The rules that a file can't state itself: glossary, verbs, inherited names, exceptions."""

    glossary: dict[str, str]
    verbs: set[str]
    inherited: set[str]
    exceptions: dict[tuple[str, str, str], str] = field(default_factory=dict)


def read_house(contributing: str, settings: str) -> House:
    """Return the rules that CONTRIBUTING.md and house.toml state; a reason is required for each exception."""
    table = tomllib.loads(settings)
    exceptions = {
        (e["rule"], e["path"], e["subject"]): e["reason"].strip() for e in table.get("exception", [])
    }
    if unreasoned := [key for key, reason in exceptions.items() if not reason]:
        raise SystemExit(f"house.toml: these exceptions have no reason: {unreasoned}")
    return House(
        glossary=read_glossary(contributing),
        verbs=set(table["verbs"].split()),
        inherited=set(table["inherited"].split()),
        exceptions=exceptions,
    )


def read_glossary(contributing: str) -> dict[str, str]:
    """Return the word to use for each word not to use, from the table below the glossary's title."""
    _, _, section = contributing.partition(f"\n{GLOSSARY_TITLE}\n")
    words: dict[str, str] = {}
    for line in section.partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 3 and cells[0] != "use" and not cells[0].startswith("---"):
            words |= {bad.strip().lower(): cells[0] for bad in cells[2].split(",") if bad.strip()}
    if not words:
        raise SystemExit(f"CONTRIBUTING.md has no table of words below {GLOSSARY_TITLE!r}.")
    return words


def check_docstrings(source: Source, house: House, explained: set[str]) -> Iterator[Finding]:
    """Find public definitions without a docstring, and functions whose docstring opens without a verb."""
    for node, name in public_definitions(source.tree):
        docstring = ast.get_docstring(node)
        if not docstring:
            if name not in explained and node.name not in house.inherited:
                yield source.finding("docstring", node.lineno, name, f"{name} has no docstring.")
        elif isinstance(node, Function) and not is_property(node):
            first = re.split(r"[^\w'-]", docstring, maxsplit=1)[0].lower()
            if first not in house.verbs:
                text = f"the docstring of {name} opens with {first!r}, no verb that house.toml lists."
                yield source.finding("imperative", node.lineno, name, text)


def public_definitions(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | Function, str]]:
    """Yield the public classes and functions with their full names; nested functions are private."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[ast.ClassDef | Function, str]]:
        for node in body:
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
                yield node, f"{prefix}{node.name}"
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{prefix}{node.name}.")

    return walk(tree.body, "")


def explained_by_a_base(modules: list[Source]) -> set[str]:
    """Return each ``Class.method`` whose docstring stands in a class of the package that it derives from."""
    classes = {c.name: c for s in modules for c in ast.walk(s.tree) if isinstance(c, ast.ClassDef)}

    def explained(name: str) -> set[str]:
        bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in classes[name].bases}
        own = {
            node.name
            for base in bases & classes.keys()
            for node in classes[base].body
            if isinstance(node, Function) and ast.get_docstring(node)
        }
        return own.union(*(explained(base) for base in bases & classes.keys() - {name}))

    return {f"{name}.{method}" for name in classes for method in explained(name)}


def is_property(node: Function) -> bool:
    """Return whether a function reads or sets an attribute: its docstring names a thing, not an act."""
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(names & {"property", "cached_property", "setter", "overload"})


def check_words(source: Source, house: House) -> Iterator[Finding]:
    """Find each word that the glossary replaces, in identifiers, strings, comments and prose."""
    text, starts = plain_text(without_glossary(source))
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, house.glossary)) + r")\b")
    for match in pattern.finditer(text):
        line = sum(start <= match.start() for start in starts)
        word = match[0]
        yield source.finding("word", line, word, f"{word!r}; the glossary has {house.glossary[word]!r}.")


def without_glossary(source: Source) -> list[str]:
    """Return a file's lines, with those of the glossary emptied."""
    if source.path != "CONTRIBUTING.md":
        return source.lines
    start = source.lines.index(GLOSSARY_TITLE)
    end = next(n for n in range(start + 1, len(source.lines)) if source.lines[n].startswith("## "))
    return source.lines[:start] + [""] * (end - start) + source.lines[end:]


def plain_text(lines: Iterable[str]) -> tuple[str, list[int]]:
    """Return the words of lines in lower case, identifiers taken apart, and where in it each line starts."""
    parts: list[str] = []
    starts: list[int] = []
    length = 0
    for line in lines:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", line.strip().lstrip("#*>/ ")).replace("_", " ")
        part = re.sub(r"\s+", " ", words).strip().lower() + " "
        starts.append(length)
        parts.append(part)
        length += len(part)
    return "".join(parts), starts


def check_length(source: Source) -> Iterator[Finding]:
    """Find a file that is too long to read in a sitting."""
    if (count := len(source.lines)) > MAX_FILE_LINES:
        text = f"{count} lines; {MAX_FILE_LINES} at most."
        yield source.finding("length", count, "file", text)


def check_median(sources: list[Source]) -> Iterator[Finding]:
    """Find a package whose functions grow: their median length, without docstrings, is bounded."""
    lengths = [body_lines(node) for s in sources for node in ast.walk(s.tree) if isinstance(node, Function)]
    median = statistics.median(lengths) if lengths else 0
    if median > MAX_MEDIAN_FUNCTION_LINES:
        text = f"a median of {median} lines per function; {MAX_MEDIAN_FUNCTION_LINES} at most."
        yield Finding(rule="median", path=PACKAGE, line=1, subject="median", text=text)


def body_lines(node: Function) -> int:
    """Return the lines of a function from the first statement after its docstring to its end."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def check_duplicates(sources: list[Source]) -> Iterator[Finding]:
    """Find each run of lines that stands twice; imports, comments and blank lines don't count."""
    seen: dict[tuple[str, ...], tuple[Source, int]] = {}
    for source in sources:
        code = code_lines(source)
        reported_until = 0
        for index in range(len(code) - MIN_DUPLICATE_LINES + 1):
            window = code[index : index + MIN_DUPLICATE_LINES]
            first, line = seen.setdefault(tuple(text for _, text in window), (source, window[0][0]))
            if (first, line) != (source, window[0][0]):
                if index >= reported_until:
                    text = f"these lines stand at {first.path}:{line} as well."
                    yield source.finding("duplicate", window[0][0], first.path, text)
                reported_until = index + MIN_DUPLICATE_LINES


def code_lines(source: Source) -> list[tuple[int, str]]:
    """Return the lines of a file that say something, stripped, with their numbers."""
    imports = {
        number
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    numbered = (
        (number, line.strip()) for number, line in enumerate(source.lines, 1) if number not in imports
    )
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def check(sources: list[Source], house: House) -> list[Finding]:
    """Return every departure from the rules that no exception excuses, and every exception without use."""
    modules = [s for s in sources if s.path.startswith(f"{PACKAGE}/") and s.path.endswith(".py")]
    code = [s for s in sources if s.path.startswith(CODE) and s.path.endswith((".py", ".js", ".css", ".sh"))]
    explained = explained_by_a_base(modules)
    found = [finding for source in sources for finding in check_words(source, house)]
    found += [finding for source in modules for finding in check_docstrings(source, house, explained)]
    found += [finding for source in code for finding in check_length(source)]
    found += [*check_median(modules), *check_duplicates(modules)]
    return excuse(found, house)


def excuse(found: list[Finding], house: House) -> list[Finding]:
    """Return the findings without an exception, and one more for each exception that nothing needs."""
    needed = {key for finding in found for key in house.exceptions if excuses(key, finding)}
    left = [f for f in found if not any(excuses(key, f) for key in needed)]
    for rule, path, subject in house.exceptions.keys() - needed:
        text = f"nothing needs the exception from {rule!r} for {subject!r} in {path}; remove it."
        left.append(Finding(rule="exception", path=SETTINGS, line=1, subject=subject, text=text))
    return sorted(left, key=lambda f: (f.path, f.line, f.rule, f.subject))


def excuses(key: tuple[str, str, str], finding: Finding) -> bool:
    """Return whether an exception (its rule, path pattern and subject) is about a finding."""
    rule, pattern, subject = key
    return (rule, subject) == (finding.rule, finding.subject) and fnmatch.fnmatch(finding.path, pattern)


def tracked_sources(root: Path) -> list[Source]:
    """Return the project's text files that git knows or would add; a clone has no others."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    paths = [root / name for name in sorted(set(listing.stdout.split("\0"))) if name]
    return [
        Source(path.relative_to(root).as_posix(), path.read_text())
        for path in paths
        if path.suffix in TEXT_SUFFIXES and path.is_file() and path.relative_to(root).as_posix() != SETTINGS
    ]


def main() -> int:
    """Print what is left to mend, a line each; return 1 if there is something."""
    settings = (ROOT / SETTINGS).read_text()
    house = read_house((ROOT / "CONTRIBUTING.md").read_text(), settings)
    findings = check(tracked_sources(ROOT), house)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
