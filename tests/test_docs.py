"""What the documentation says is so: links, commands, options, tables, names."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import pytest
import yaml
from docs_support import PAGES, anchors, blocks, code, links, of, page, prose, table, title
from running_support import ROOT

import edgeproxy
from bench import table as bench_table
from edgeproxy.cli.main import cli
from edgeproxy.config import parse
from edgeproxy.config.schema import schema
from edgeproxy.tap import Options

#: What shorter examples of a configuration stand on.
BASE: dict[str, Any] = {
    "upstreams": {"users": "http://127.0.0.1:9001", "orders": "http://127.0.0.1:9002"},
    "routes": {},
}


@pytest.mark.parametrize("path", PAGES, ids=title)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path.read_text("utf-8")):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{title(path)}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{title(path)}: {link}"


def test_the_index_names_every_page() -> None:
    named = {link.partition("#")[0] for link in links(page("docs/README.md"))}
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name in named or path.name == "README.md", path.name


def test_the_readme_keeps_its_order() -> None:
    headings = re.findall(r"^## (.+)$", prose(page("README.md")), re.MULTILINE)
    assert headings == [
        "Two commands",
        "The way of a request",
        "Configuration by example",
        "Certificates",
        "Keys",
        "As a service",
        "Speed, measured",
    ]
    introduction = page("README.md").partition("\n## ")[0].partition("\n\n")[2]
    assert len(re.findall(r"\.(?=\s)", introduction)) == 3, "what it is, in three sentences"


def test_the_picture_is_for_light_and_dark_and_says_what_it_shows() -> None:
    text = page("docs/request.svg")
    root = ElementTree.fromstring(text)
    names = {child.tag.rpartition("}")[2] for child in root}
    assert {"title", "desc"} <= names
    assert "prefers-color-scheme: dark" in text
    assert re.search(r"!\[[^]]{40,}\]\(docs/request\.svg\)", page("README.md"))


# -- examples ------------------------------------------------------------------------------------

SETTINGS = set(schema()["properties"])
EXAMPLES = [
    block
    for block in blocks()
    if block.language == "yaml" and block.page != "docs/configuration.md"  # has its own test
]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_load(number: int, tmp_path: Path) -> None:
    text = EXAMPLES[number].text
    said = yaml.safe_load(text)
    if not SETTINGS & set(said):
        assert EXAMPLES[number].page == "docs/certificates.md", "of Kubernetes"
        return
    missing = {key: value for key, value in BASE.items() if key not in said}
    (tmp_path / "pay-token").write_text("secret" * 8)
    (tmp_path / "introspection-secret").write_text("secret")
    (tmp_path / "pepper").write_text("0123456789abcdef" * 4)
    config = parse(
        text + (yaml.safe_dump(missing) if missing else ""),
        folder=tmp_path,
        environ={"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    assert len(config.routes) == sum(map(len, said.get("routes", {}).values()))


def test_there_are_examples() -> None:
    assert {example.page for example in EXAMPLES} >= {
        "README.md",
        "docs/embedding.md",
        "docs/limits.md",
    }


# -- commands and their options ------------------------------------------------------------------


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `edgeproxy …`, `twistd …` and `make …` that a page names, split into words."""
    for path in PAGES:
        text = path.read_text("utf-8")
        lines = [*code(text), *(line for b in blocks() if b.page == title(path) for line in _sh(b))]
        for line in lines:
            for part in line.split("&&"):
                words = _words(part)
                if words and words[0] in ("edgeproxy", "twistd", "make"):
                    yield f"{title(path)}: {line}", words


def _sh(block: Any) -> list[str]:
    return block.text.splitlines() if block.language == "sh" else []


def _words(line: str) -> list[str]:
    try:
        return [word for word in shlex.split(line) if word != "…"]
    except ValueError:
        return []


COMMANDS = list(commands())


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 40
    assert {words[0] for _, words in COMMANDS} == {"edgeproxy", "twistd", "make"}


@pytest.mark.parametrize(
    ("place", "words"), [(p, w) for p, w in COMMANDS if w[0] == "edgeproxy" and len(w) > 1]
)
def test_commands_and_their_options_exist(place: str, words: list[str]) -> None:
    command: click.Command = cli
    rest = words[1:]
    with click.Context(cli) as context:
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(context, rest[0].rstrip(","))
            assert found is not None, place
            command, rest = found, rest[1:]
        known = {option for each in command.get_params(context) for option in each.opts}
    for word in rest:
        if word.startswith("--"):
            assert word in known, place


@pytest.mark.parametrize(("place", "words"), [(p, w) for p, w in COMMANDS if w[0] == "twistd"])
def test_twistds_options_exist(place: str, words: list[str]) -> None:
    ours = words[words.index("edgeproxy") + 1 :] if "edgeproxy" in words else []
    known = set(Options().longOpt)  # type: ignore[no-untyped-call]
    for word in ours:
        if word.startswith("--"):
            assert word[2:] in known or f"{word[2:]}=" in known, place


@pytest.mark.parametrize(("place", "words"), [(p, w) for p, w in COMMANDS if w[0] == "make"])
def test_targets_of_make_and_options_of_the_bench_exist(place: str, words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE)
    goals = [word for word in words[1:] if "=" not in word]
    assert set(goals) <= set(targets), place
    given = [word for word in words if word.startswith("ARGS=")]
    if "bench" in goals and given:
        options = re.findall(r'"(--[a-z]+)"', page("bench/__main__.py"))
        for word in given[0].removeprefix("ARGS=").split():
            assert word in options or not word.startswith("--"), place


def test_every_command_has_its_row() -> None:
    rows = "\n".join(row[0] for row in table(page("docs/operations.md"), "Commands"))
    with click.Context(cli) as context:
        for name in cli.list_commands(context):
            assert f"`edgeproxy {name}" in rows, name
        keys = cli.get_command(context, "keys")
        assert isinstance(keys, click.Group)
        for name in keys.commands:
            assert f"`{name}`" in rows or f"keys {name}`" in rows, name


# -- names in prose ------------------------------------------------------------------------------


def test_the_life_of_a_request_names_what_is_there() -> None:
    text = edgeproxy.__doc__ or ""
    names = re.findall(r":mod:`~?([\w.]+)`", text)
    assert len(names) > 15
    for name in names:
        import_module(name)
    for name in re.findall(r":(?:class|meth):`~([\w.]+)`", text):
        parts = name.split(".")
        start = next(n for n, part in enumerate(parts) if part[0].isupper())
        found: Any = import_module(".".join(parts[:start]))
        for part in parts[start:]:
            found = getattr(found, part)


def test_every_library_has_its_reason() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = page("CONTRIBUTING.md").lower()
    extras = setup["options.extras_require"]
    lines = [setup["options"]["install_requires"], extras["test"], extras["check"]]
    names = {re.split(r"[><=~ ]", line)[0].lower() for line in "\n".join(lines).split("\n")}
    for name in names - {""}:
        if not name.startswith("types-"):
            assert f"| {name} |" in text or f"**{name}**" in text, name


def test_the_rooms_are_there() -> None:
    for row in table(page("CONTRIBUTING.md"), "Rooms"):
        for name in re.findall(r"`([^`]+)`", row[0]):
            path = ROOT / "edgeproxy" / name
            assert path.is_dir() if name.endswith("/") else path.with_suffix(".py").exists(), name


def test_the_bench_finds_its_place(tmp_path: Path) -> None:
    text = page("docs/performance.md")
    for mark in (bench_table.BEGIN, bench_table.END):
        assert text.count(mark) == 1
    copy = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs" / "performance.md", copy)
    bench_table.write(copy, "a table\n")
    written = copy.read_text()
    assert f"{bench_table.BEGIN}\na table\n{bench_table.END}" in written
    for part in (text.partition(bench_table.BEGIN)[0], text.partition(bench_table.END)[2]):
        assert part.strip() in written


def test_python_examples_compile() -> None:
    examples = of("docs/embedding.md", "python")
    assert len(examples) == 2
    examples += of("docs/resources.md", "python")
    assert len(examples) == 4
    examples += of("docs/filters.md", "python")
    for example in examples:
        compile(example, "embedding.md", "exec")
