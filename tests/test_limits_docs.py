"""What docs/limits.md and docs/keys.md show is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgeproxy.config.units import Rate
from edgeproxy.identity import keyfile
from edgeproxy.limits.fields import Terms, field_lines
from edgeproxy.limits.table import OVERFLOW_SLOTS, LimitTable
from edgeproxy.limits.window import EXACT_UP_TO, SUB_WINDOWS, ExactWindow

DOCS = Path(__file__).parent.parent / "docs"


def test_the_fields_shown_are_those_sent() -> None:
    window = ExactWindow(Terms("default", Rate(100, 60.0)))
    for _ in range(43):
        assert not window.full(0.0)
        window.record(0.0)
    assert field_lines(window, 48.5).replace(b"\r\n", b"\n").decode() in (
        DOCS / "limits.md"
    ).read_text("utf-8")


def test_the_numbers_told_are_those_in_force() -> None:
    text = (DOCS / "limits.md").read_text("utf-8")
    assert f"Up to N = {EXACT_UP_TO:,}" in text
    assert f"W/{SUB_WINDOWS}" in text
    assert f"share {OVERFLOW_SLOTS} windows" in text
    assert f"({LimitTable('x').size:,} by default)" in text


def test_the_line_shown_is_a_key_and_the_table_is_complete() -> None:
    text = (DOCS / "keys.md").read_text("utf-8")
    (line,) = re.findall(r"```json\n(.*)\n```", text)
    record = keyfile.parse_line(line.encode(), 1)
    assert record.principal.plan == json.loads(line)["plan"]
    table = text[text.index("| `id` |") : text.index("Times are RFC 3339")]
    told = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`(\w+)`", row.split("|", 2)[1:2][0] if row else "")
    }
    assert told == keyfile._KNOWN
