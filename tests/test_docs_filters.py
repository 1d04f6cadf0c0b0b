"""docs/filters.md: its examples do what they say, its tables are complete."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from docs_support import of, page, table

from edgeproxy.config import ConfigError, load
from edgeproxy.filters import Answer, Caller, Headers, LogEntry, Request, Response
from edgeproxy.filters.contract import HOOKS
from edgeproxy.filters.counts import Counts
from edgeproxy.filters.inforce import problems
from edgeproxy.testing import FilterHarness

PAGE = "docs/filters.md"
FILTERS = [text for text in of(PAGE, "python") if "from edgeproxy.filters import" in text]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module with every filter of the page."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text("\n\n".join(FILTERS), "utf-8")
    sys.path.append(str(folder))
    yield importlib.import_module("shop")
    sys.path.remove(str(folder))
    del sys.modules["shop"]


def test_examples_are_short() -> None:
    assert len(FILTERS) == 7
    for text in FILTERS:
        assert len(text.splitlines()) <= 30, text


def test_the_test_that_is_shown(shop: ModuleType) -> None:
    (shown,) = [text for text in of(PAGE, "python") if "def test_" in text]
    assert len(shown.partition("def test_")[2].splitlines()) == 5
    names: dict[str, Any] = {}
    exec(compile(shown, PAGE, "exec"), names)
    names["test_closed_at_noon"]()


def test_the_first_example_and_its_message(shop: ModuleType) -> None:
    folder = Path(str(shop.__file__)).parent
    first = of(PAGE, "yaml")[0]
    (message,) = of(PAGE, "text")
    text = "upstreams: { orders: http://127.0.0.1:1 }\n" + first
    (folder / "edgeproxy.yaml").write_text(text)
    assert problems(load(folder / "edgeproxy.yaml")) == []
    (folder / "edgeproxy.yaml").write_text(text.replace("closes: 17", "close: 17"))
    told = [str(each) for each in problems(load(folder / "edgeproxy.yaml"))]
    # Ours has a line more above.
    wanted = message.strip().replace(":3:", ":4:")
    assert any(each.endswith(wanted) for each in told), (told, wanted)


def test_the_hooks_and_what_they_are_given() -> None:
    told = [row[0].strip("`") for row in table(page(PAGE), "Hooks")]
    for name, arguments in HOOKS.items():
        assert f"{name}({', '.join(arguments)})" in told
    text = page(PAGE)
    given = [Request, Response, Caller, Counts]
    for kind in given:
        fields = getattr(kind, "_fields", None) or getattr(kind, "__slots__", None) or dir(kind)
        for name in fields:
            if not name.startswith("_") and not callable(getattr(kind, name)):
                assert f"`{name}`" in text, name
    for name in ("get", "get_all", "items", "set", "add", "remove"):
        assert hasattr(Headers, name) and f"`{name}`" in text
    assert LogEntry.__setitem__


def test_all_examples_are_found_by_their_configuration(shop: ModuleType) -> None:
    """The route of the page's second configuration, with its filters put there."""
    text = of(PAGE, "yaml")[1].replace("shop.Strict", "shop.Hardened")
    said = yaml.safe_load(text)
    said["upstreams"] = {"orders": "http://127.0.0.1:1"}
    folder = Path(str(shop.__file__)).parent
    (folder / "all.yaml").write_text(yaml.safe_dump(said))
    assert problems(load(folder / "all.yaml")) == []


# -- the cookbook --------------------------------------------------------------------------------


def test_tenant(shop: ModuleType) -> None:
    harness = FilterHarness(shop.Tenant)
    key = harness.key("Ann", groups=["acme"])
    seen = harness.request(host="acme.example.com", headers={"X-Tenant": "evil"}, key=key)
    assert seen.passed_on is not None
    assert (seen.passed_on.all("X-Tenant"), seen.log["tenant"]) == (["acme"], "acme")
    other = harness.request(host="other.example.com", key=key)
    assert (other.status, other.log["reason"]) == (403, "filter tenant: not of other")
    assert harness.request(host="acme.example.com").status == 403


def test_maintenance(shop: ModuleType) -> None:
    harness = FilterHarness(shop.Maintenance, {"begins": "12:30", "ends": "13:00", "readers": True})
    assert harness.request("POST", body=b"x").status == 200
    harness.wait(1800)
    seen = harness.request("POST", body=b"x")
    assert (seen.status, seen.field("Retry-After")) == (503, "600")
    assert seen.answer is not None
    assert seen.answer.json["detail"] == "We are back at 13:00 UTC."
    assert harness.request("GET").status == 200
    harness.wait(1800)
    assert harness.request("POST", body=b"x").status == 200


def signature(moment: int, said: str = "GET /a?b=c", secret: str = "hush") -> dict[str, str]:
    text = f"{moment} {said}".encode()
    return {
        "X-Signature": f"{moment}:{hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()}"
    }


def test_signed(shop: ModuleType) -> None:
    harness = FilterHarness(shop.Signed, {"secret": "hush"})
    now = int(harness.gateway.clock.now() + harness.gateway.clock.epoch)
    right = signature(now)
    assert harness.request(path="/a?b=c", headers=right).status == 200
    for headers, detail in [
        ({}, "has to be signed"),
        ({"X-Signature": "now:abc"}, "has to be signed"),
        ({"X-Signature": "\xb2:abc"}, "has to be signed"),
        (signature(now - 301), "too old"),
        (signature(now + 301), "too old"),
        (signature(now, secret="guess"), "is wrong"),
        (signature(now, said="POST /a?b=c"), "is wrong"),
        ({"X-Signature": f"{now}:\xe9"}, "is wrong"),
        ({"X-Signature": f"{now}:"}, "is wrong"),
    ]:
        seen = harness.request(path="/a?b=c", headers=headers)
        assert seen.status == 401, headers
        assert seen.answer is not None and detail in seen.answer.json["detail"]
        assert seen.passed_on is None
    assert harness.request(path="/a?b=d", headers=right).status == 401
    twice = [*right.items(), *right.items()]
    assert harness.request(path="/a?b=c", headers=twice).status == 401


def test_variant(shop: ModuleType) -> None:
    harness = FilterHarness(shop.Variant, {"percent": 30})
    chosen = []
    for number in range(200):
        key = harness.key(f"caller {number}")
        seen = [harness.request(key=key, headers={"X-Variant": "new"}) for _ in range(2)]
        variants = {each.passed_on.field("X-Variant") for each in seen if each.passed_on}
        assert variants == {seen[0].log["variant"]}
        chosen += variants
    assert set(chosen) == {"new", "old"}
    assert 30 < chosen.count("new") < 90
    with pytest.raises(ConfigError, match="at most 100"):
        FilterHarness(shop.Variant, {"percent": 101})


def test_hardened(shop: ModuleType) -> None:
    harness = FilterHarness(shop.Hardened)
    harness.answer = Answer(200, {"X-Internal-Host": "db1", "x-internal-time": "3", "X-Fine": "1"})
    seen = harness.request()
    assert seen.answer is not None
    assert not [name for name, _ in seen.answer.fields if "internal" in name.lower()]
    assert (seen.field("X-Fine"), seen.field("X-Content-Type-Options")) == ("1", "nosniff")
    harness.gateway.service("service").mode = "refuse"
    for wire in harness.gateway.service("service").connections:
        wire.reset()
    failed = harness.request()
    assert (failed.status, failed.field("X-Content-Type-Options")) == (502, "nosniff")
