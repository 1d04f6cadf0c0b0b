"""From what a route names to a filter: what is found, and what is told of what is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config import ConfigError, parse
from edgeproxy.filters import Filter
from edgeproxy.filters.inforce import Filters, problems

SHOP = """
from datetime import time
from pydantic import BaseModel, SecretStr, model_validator
from edgeproxy.filters import Filter
class Hours(Filter):
    class Options(BaseModel):
        opens: int = 9
        closes: int
        names: tuple[str, ...] = ()
        @model_validator(mode="after")
        def ordered(self):
            if self.opens >= self.closes:
                raise ValueError("`opens` comes before `closes`")
            return self
    def on_request(self, request): pass
class Signed(Filter):
    class Options(BaseModel):
        secret: SecretStr
    def on_request(self, request): pass
class Shown(Filter):
    class Options(BaseModel):
        secret: str
    def on_request(self, request): pass
class Plain:
    def on_log(self, request, entry): pass
class Nothing(Filter): pass
class Misspelt(Filter):
    def on_requests(self, request): pass
class Narrow(Filter):
    def on_response(self, request): pass
class Identity(Filter):
    sets = ["X-Consumer-Id"]
    def on_request(self, request): pass
class Cookies(Filter):
    sets = ["Cookie"]
    def on_request(self, request): pass
class Text(Filter):
    sets = "X-Tenant"
    def on_request(self, request): pass
class Tenant(Filter):
    sets = ["X-Tenant"]
    def on_request(self, request): pass
class Broken(Filter):
    def __init__(self): raise KeyError("no such thing")
    def on_request(self, request): pass
class Raising(Filter):
    class Options(BaseModel):
        @model_validator(mode="after")
        def checked(self):
            raise KeyError("oops")
    def on_request(self, request): pass
class Model(Filter):
    Options = dict
    def on_request(self, request): pass
number = 3
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """`shop(filters)`: the problems of a route with these filters, beside `shop.py`."""
    path, modules = list(sys.path), set(sys.modules)
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "secret").write_text("hush")

    def told(filters: str, route: str = "") -> list[str]:
        text = (
            "upstreams: { a: http://127.0.0.1:9001 }\n"
            "routes:\n  '*':\n"
            f"    /:\n      to: a\n      filters: {filters}\n{route}"
        )
        config = parse(text, "e.yaml", folder=tmp_path, environ={"TOKEN": "hush"})
        return [str(each).removeprefix("e.yaml:") for each in problems(config)]

    yield told
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] == "shop":
            del sys.modules[name]


RIGHT = [
    "shop.Plain",
    "[shop.Plain, shop.Tenant]",
    "{ use: shop.Hours, options: { closes: 17, names: [a, b] }, timeout: 1s, shadow: true }",
    "{ use: shop.Signed, options: { secret: '${env:TOKEN}' } }",
    "{ use: shop.Signed, options: { secret: '${file:secret}' } }",
    "none",
]


@pytest.mark.parametrize("filters", RIGHT)
def test_what_is_right(shop: Callable[[str], list[str]], filters: str) -> None:
    assert shop(filters) == []


WRONG = [
    ("shop.Hour", "6:16: shop (", "has no 'Hour'; did you mean 'Hours'?"),
    ("[shop.Plain, nowhere.Filter]", "6:29: there is no module 'nowhere'", ""),
    ("hours", "6:16: there is no drop-in 'hours' under twisted/plugins", ""),
    ("shop.number", "6:16: 'shop.number' is not a class", ""),
    ("shop.Nothing", "6:16: 'shop.Nothing' is no filter; a class with on_request", ""),
    ("shop.Misspelt", "6:16: 'shop.Misspelt' has 'on_requests', which is no hook", "'on_request'?"),
    (
        "shop.Narrow",
        "6:16: shop.Narrow.on_response is to be called as",
        "(self, request, response)",
    ),
    ("shop.Identity", "6:16: shop.Identity.sets: X-Consumer-Id tells upstreams", ""),
    ("shop.Cookies", "6:16: shop.Cookies.sets: Cookie would be taken out", "name it in `changes`"),
    ("shop.Text", "6:16: shop.Text.sets is no list of fields", ""),
    ("shop.Model", "6:16: shop.Model.Options is no pydantic model", ""),
    ("shop.Broken", "6:16: making 'shop.Broken' failed: KeyError: 'no such thing' (", ""),
    ("shop.Raising", "6:16: shop.Raising.Options failed: KeyError: 'oops' (", ""),
    ("{ use: shop.Hours }", "6:23: 'closes' is missing here; add it", ""),
    ("{ use: shop.Plain, options: { a: 1 } }", "6:44: shop.Plain takes no options", ""),
    (
        "{ use: shop.Hours, options: { close: 17 } }",
        "6:46: 'close' is not a setting here; did you mean 'closes'?",
        "",
    ),
    (
        "{ use: shop.Hours, options: { closes: late } }",
        "6:54: 'late' stands here; a whole number would be right",
        "",
    ),
    (
        "{ use: shop.Hours, options: { opens: 18, closes: 17 } }",
        "6:44: `opens` comes before `closes`",
        "",
    ),
    (
        "{ use: shop.Shown, options: { secret: '${env:TOKEN}' } }",
        "6:54: a secret stands here; the option has to be a pydantic.SecretStr",
        "",
    ),
]


@pytest.mark.parametrize(("filters", "begin", "end"), WRONG, ids=[each[0] for each in WRONG])
def test_what_is_wrong(
    shop: Callable[[str], list[str]], filters: str, begin: str, end: str
) -> None:
    told = shop(filters)
    (found,) = [each for each in told if each.startswith(begin)] or [""]
    assert found, told
    assert end in found
    assert "hush" not in found


def test_what_was_written_after_its_module_was_imported_needs_a_restart(
    shop: Callable[[str], list[str]], tmp_path: Path
) -> None:
    assert shop("shop.Plain") == []
    text = "class Slow(Filter):\n    def on_request(self, request): pass\n"
    (tmp_path / "shop.py").write_text(SHOP + text)
    (told,) = shop("shop.Slow")
    assert told.endswith(
        "shop.py) has no 'Slow' as it was imported, which stands there by now; "
        "a restart imports it anew"
    )
    (told,) = shop("shop.Slowly")
    assert told.endswith("shop.py) has no 'Slowly'")
    (tmp_path / "shop.py").write_text("class Slow(:\n")
    (told,) = shop("shop.Slow")
    assert "has no 'Slow'; did you mean 'Show" in told


def test_a_condition_on_a_field_that_a_filter_sets_is_told(
    shop: Callable[..., list[str]],
) -> None:
    (told,) = shop("shop.Tenant", "    /b: { to: a, when: { x_tenant: a } }\n")
    assert told.startswith("7:1: `when` names x_tenant, which the filter shop.Tenant sets")


def test_a_field_of_a_credentials_is_no_filters(tmp_path: Path) -> None:
    text = """
upstreams: { a: http://127.0.0.1:9001 }
auth:
  ext: { authorize: "https://auth.example.com/", take: [X-Tenant, X-User], principal: X-User }
routes: { "*": { /: { to: a, auth: ext, filters: tenant } } }
"""
    config = parse(text, "e.yaml", folder=tmp_path)

    class Tenant(Filter):
        sets = ["X-Tenant"]

        def on_request(self, request: Any) -> None:
            pass

    with pytest.raises(ConfigError, match="Tenant.sets: X-Tenant is set by a credential"):
        Filters(None, None, {"tenant": Tenant}).build(config)  # type: ignore[arg-type]
