"""From dotted paths to resources: what is found, and what is told of what is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from config_support import assert_problems
from twisted.web.resource import Resource

from edgeproxy.config import parse
from edgeproxy.mounted.loading import LoadError, find, make, make_importable, problems

SHOP = """
from twisted.web.resource import Resource
class Status(Resource):
    isLeaf = True
    def __init__(self, greeting="hello"):
        super().__init__()
        self.greeting = greeting
class Plain: pass
class Broken(Resource):
    def __init__(self):
        raise KeyError("no such thing")
ready = Status("ready")
number = 3
def made(**options): return Status(**options)
def none(): return None
async def later(): return Status()
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`shop(name=text, …)`: modules beside a configuration; what was imported is forgotten."""
    path, modules = list(sys.path), set(sys.modules)
    written: set[str] = set()

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            written.add(name.partition("__")[0])
            file = tmp_path / (name.replace("__", "/") + ".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        return tmp_path

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in written:
            del sys.modules[name]


def made(folder: Path, path: str, /, **options: Any) -> Any:
    return make(find(path, folder), path, options)


def wrong(folder: Path, path: str, **options: Any) -> str:
    with pytest.raises(LoadError) as caught:
        made(folder, path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_class_an_instance_and_a_function(shop: Callable[..., Path]) -> None:
    folder = shop(myshop__status=SHOP)
    assert made(folder, "myshop.status.Status").greeting == "hello"
    assert made(folder, "myshop.status.Status", greeting="hi").greeting == "hi"
    assert made(folder, "myshop.status.ready").greeting == "ready"
    assert made(folder, "myshop.status.made", greeting="hi").greeting == "hi"
    assert isinstance(made(folder, "twisted.web.static.File", path="."), Resource)


def test_options_are_the_resources_own_copy(shop: Callable[..., Path]) -> None:
    folder = shop(myshop=SHOP)
    options = {"greeting": ["a"]}
    made(folder, "myshop.Status", **options).greeting.append("b")
    assert options == {"greeting": ["a"]}


@pytest.mark.parametrize(
    ("path", "options", "told"),
    [
        ("myshp.Status", {}, "there is no module 'myshp'; did you mean 'myshop'?"),
        ("xyzzy.Status", {}, "install it, or put xyzzy.py beside the configuration, in /"),
        ("myshop.Staus", {}, "has no 'Staus'; did you mean 'Status'?"),
        ("myshop.Status.deeper", {}, "myshop.Status has no 'deeper'"),
        ("json.decoder", {}, "'json.decoder' is a module; name what is in it"),
        ("myshop.Plain", {}, "'myshop.Plain' is not a class of resources; a class derived from"),
        ("myshop.number", {}, "'myshop.number' is an int, not a resource"),
        ("myshop.none", {}, "'myshop.none' gave nothing (None), not a resource"),
        ("myshop.later", {}, "'myshop.later' gave a coroutine, not a resource"),
        ("myshop.ready", {"a": 1}, "is there already and takes no options; remove them"),
        ("myshop.Status", {"greting": 1}, "making 'myshop.Status' failed: TypeError: "),
        ("myshop.Broken", {}, "failed: KeyError: 'no such thing' (/"),
        ("syntax.Status", {}, "importing syntax failed: SyntaxError: "),
        ("raises.Status", {}, "importing raises failed: ZeroDivisionError: division by zero (/"),
        ("needs.Status", {}, "importing needs failed: ModuleNotFoundError: No module named 'abse"),
        ("leaves.Status", {}, "importing leaves failed: SystemExit: 3"),
    ],
)
def test_what_is_wrong_is_one_line(
    shop: Callable[..., Path], path: str, options: dict[str, Any], told: str
) -> None:
    folder = shop(
        myshop=SHOP,
        syntax="def (",
        raises="\n\n1/0\n",
        needs="import absent_module",
        leaves="import sys; sys.exit(3)",
    )
    assert told in wrong(folder, path, **options)


def test_places_are_the_modules_own_lines(shop: Callable[..., Path]) -> None:
    folder = shop(myshop=SHOP, raises="\n\n1/0\n", syntax="\ndef (")
    assert f"({folder}/myshop.py:11)" in wrong(folder, "myshop.Broken")
    assert f"({folder}/raises.py:3)" in wrong(folder, "raises.Status")
    assert f"({folder}/syntax.py:2)" in wrong(folder, "syntax.Status")


def test_a_wsgi_application(shop: Callable[..., Path]) -> None:
    folder = shop(wsgishop="def application(environ, start_response): return []\nnumber = 3\n")
    path = "edgeproxy.wsgi.WSGI"
    assert isinstance(made(folder, path, application="wsgishop.application"), Resource)
    told = wrong(folder, path, application="wsgishop.aplication")
    assert told.endswith("has no 'aplication'; did you mean 'application'?")
    assert "is not a WSGI application" in wrong(folder, path, application="wsgishop.number")
    for value in (5, None, ["wsgishop.application"]):
        told = wrong(folder, path, application=value)
        assert told.startswith("application: ") and told.endswith(
            " is not the dotted path of a WSGI application; write it as shop.wsgi.application"
        )
    assert "there is no module 'wsgishp'" in wrong(folder, path, application="wsgishp.a")


def test_a_module_that_was_mended_is_imported(shop: Callable[..., Path]) -> None:
    folder = shop(mending="1/0")
    wrong(folder, "mending.Status")
    shop(mending=SHOP + "\n# longer\n")
    assert made(folder, "mending.Status").greeting == "hello"


def test_nothing_beside_the_configuration_hides_a_module(shop: Callable[..., Path]) -> None:
    folder = shop(this=SHOP)  # as the standard library's `this`
    assert make_importable(folder)
    assert sys.path[-1] == str(folder.resolve())
    assert "lib/python" in wrong(folder, "this.Status")


def test_nothing_is_imported_from_where_everybody_writes(shop: Callable[..., Path]) -> None:
    folder = shop(openshop=SHOP)
    folder.chmod(0o777)
    assert "everybody may write there: `chmod o-w` it" in wrong(folder, "openshop.Status")
    assert "openshop" not in sys.modules
    folder.chmod(0o755)
    made(folder, "openshop.Status")


def test_all_problems_at_their_places(shop: Callable[..., Path]) -> None:
    folder = shop(myshop=SHOP)
    config = parse(
        """routes:
  "*":
    /a: { resource: myshop.Staus }
    /b: { auth: none, resource: myshop.none }
    /c: { resource: myshop.Status }
""",
        "e.yaml",
        folder,
    )
    found = [(each.file, each.line, each.column) for each in problems(config)]
    assert found == [("e.yaml", 3, 21), ("e.yaml", 4, 33)]


def test_what_the_configuration_itself_forbids() -> None:
    assert_problems(
        "routes:\n  '*':\n    /: { resource: »shop/status.py }\n",
        "'shop/status.py' is not a dotted path; did you mean 'shop.status.py'?",
    )
    assert_problems(
        "routes:\n  '*':\n    /: { resource: »shop }\n",
        "'shop' is not a dotted path; write it as package.module.Name",
    )
    assert_problems(
        "routes:\n  '*':\n    /: { resource: »shop:Status }\n",
        "did you mean 'shop.Status'?",
    )
    assert_problems(
        "routes:\n  '*':\n    /: { page: true, resource: »a.b }\n",
        "a route has `page` or `resource`, not both; remove one",
    )
    assert_problems(
        "upstreams: { users: http://10.0.0.1 }\nroutes:\n  '*':\n"
        "    /: { to: users, resource: »a.b }\n",
        "a route has `to` or `resource`, not both; remove one",
    )
    assert_problems(
        "upstreams: { users: http://10.0.0.1 }\nroutes:\n  '*':\n"
        "    /: { to: users, options: »{ a: 1 } }\n",
        "`options` are for a `resource`; remove them",
    )
    assert_problems(
        "routes:\n  '*':\n    /: { resource: a.b, host: »x.com }\n",
        "a resource gets the Host that the client sent; remove `host`",
    )
    assert_problems(
        "routes:\n  '*':\n    /: { resource: a.b, options: { »a-b: 1, c: »'${env:X}' } }\n",
        "'a-b' cannot be an argument's name; letters, digits and _ can",
        "references are put in only under an upstream's `set`",
    )
