"""Every command in the documentation is one that the program takes, and every shipped profile is valid."""

import re
import shlex
from pathlib import Path

import pytest

from lamella import cli
from lamella.config import resolve, shipped_profiles
from lamella.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^\s{4,}\$?\s*(?:torchrun .*-m lamella\.cli|lamella) (\S.*?)(?:\s{2,}#.*)?$", re.MULTILINE)


def documented_commands():
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text(encoding="utf-8")):
            yield pytest.param(shlex.split(match[1], comments=True), id=f"{page.name}: {match[1]}")
    for name, verb in cli.VERBS.items():
        yield pytest.param(shlex.split(verb.example)[1:], id=f"--help of {name}")


def fits_one(resolve_to, verb):
    """Whether the settings are those of one of the verb's schemas; else what is wrong with each."""
    wrong = []
    for schema in cli.schemas_of(verb).values():
        try:
            resolve_to(schema)
            return []
        except ConfigError as error:
            # What a study's own file must say, no profile and no command line does.
            if verb in ("weak", "expression") and all(each.endswith("must be given") for each in error.problems):
                return []
            wrong.append(str(error))
    return wrong


@pytest.mark.parametrize("command", list(documented_commands()))
def test_documented_commands_are_understood(command):
    verb, *arguments = command
    assert verb in cli.VERBS or verb.startswith("-")
    if verb.startswith("-"):
        return
    parsed = cli._parser(verb).parse_intermixed_args(arguments)
    request = cli._request(verb, parsed)
    assert not fits_one(request.resolve, verb)


def test_the_readme_shows_every_verb():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in cli.VERBS if f"lamella {verb}" not in text] == []


def test_documentation_links_and_pictures_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_shipped_profiles_fit_a_verb(name):
    verbs = ("anchors", "pretrain", "adapt", "weak", "expression", "demo")
    wrong = {verb: fits_one(lambda schema: resolve(schema, name), verb) for verb in verbs}
    assert not all(wrong.values()), wrong
