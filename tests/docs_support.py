"""Reading the documentation: its pages, their blocks, links and commands."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from running_support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^]]*\]\(([^)]+)\)")
_ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, what stands in it, and where it is, for messages."""

    page: str
    language: str
    text: str


def page(name: str) -> str:
    """The text of a page, by its path from the root."""
    return (ROOT / name).read_text("utf-8")


def title(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def blocks() -> list[Block]:
    """All fenced blocks of all pages."""
    return [
        Block(title(path), language, text)
        for path in PAGES
        for language, text in _BLOCK.findall(path.read_text("utf-8"))
    ]


def of(name: str, language: str) -> list[str]:
    """The blocks of a page in a language, in order."""
    return [block.text for block in blocks() if (block.page, block.language) == (name, language)]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", text)


def links(text: str) -> list[str]:
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in _HEADING.findall(prose(text)):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.strip().replace(" ", "-"))
    return found


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the tables under a heading, without their heads."""
    _, _, rest = text.partition(f"\n## {heading}\n")
    assert rest, f"there is no heading {heading!r}"
    part = rest.partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")] for row in _ROW.findall(part)]
    found = []
    for number, row in enumerate(rows):
        below = rows[number + 1] if number + 1 < len(rows) else [""]
        is_rule = set("".join(row)) <= {"-"} and "".join(row)
        is_head = set("".join(below)) <= {"-"} and "".join(below)
        if not is_rule and not is_head:
            found.append(row)
    assert found, f"there is no table under {heading!r}"
    return found


def code(text: str) -> list[str]:
    """What stands in single backticks."""
    return re.findall(r"`([^`\n]+)`", prose(text))
