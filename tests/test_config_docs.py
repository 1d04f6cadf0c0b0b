"""docs/configuration.md: its examples load, its messages are ours, its tables name each default."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from certs_support import root

from edgeproxy.config import ConfigError, parse
from edgeproxy.config.schema import schema

PAGE = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
#: What the shorter examples stand on.
BASE: dict[str, Any] = {
    "limits": {"default": "100/min", "pay": "10/min"},
    "upstreams": {"users": "http://127.0.0.1:9001", "orders": "http://127.0.0.1:9002"},
    "routes": {},
}


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("secret")
    (tmp_path / "pepper").write_text("0123456789abcdef" * 4)
    (tmp_path / "internal-ca.pem").write_bytes(root().pem)
    (tmp_path / "edge.pem").write_bytes(root().key + root().pem)
    said = yaml.safe_load(text)
    missing = {key: value for key, value in BASE.items() if key not in said}
    rest = yaml.safe_dump(missing) if missing else ""
    config = parse(
        text.replace("/run/secrets", str(tmp_path)) + rest,
        folder=tmp_path,
        environ={"PAY_TOKEN": "secret"},
    )
    assert bool(config.routes) == bool(said.get("routes"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 15


def test_messages() -> None:
    wrong, told = re.findall(r"```yaml wrong\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)[0]
    with pytest.raises(ConfigError) as caught:
        parse(wrong)
    assert str(caught.value) == told.strip()


def settings(part: Any) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    if isinstance(part, dict):
        found += part.get("properties", {}).items()
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            found += settings(each)
    return found


@pytest.mark.parametrize(("name", "setting"), settings(schema()))
def test_every_setting_has_its_row(name: str, setting: dict[str, Any]) -> None:
    rows = re.findall(rf"^\| `{name}` \|(.*?)\|", PAGE, re.MULTILINE)
    assert rows, f"no table has a row for {name}"
    default = setting.get("default")
    if default is not None:
        written = str(default).lower() if isinstance(default, bool) else str(default)
        assert f" `{written}` " in rows, f"the default of {name} is {written}, not {rows}"
