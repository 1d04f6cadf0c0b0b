"""The rules of the house, read off the syntax trees.

    P  pure: bytes and values in, decisions out; time comes in as `now`
    T  Twisted: transports and Deferreds, the reactor passed in
    A  assembly: builds, starts, stops; the only place of the global reactor

Imports go one way, P <- T <- A.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"

#: The first pattern that fits tells the room; what is named nowhere is an error.
ROOMS = {
    "edgeproxy": "P",
    "edgeproxy.errors": "P",
    "edgeproxy.routing": "P",
    "edgeproxy.paths": "P",
    "edgeproxy.forward": "P",
    "edgeproxy.hsts": "P",
    "edgeproxy.cors": "P",
    "edgeproxy.edgetokens": "T",
    "edgeproxy.state": "T",
    "edgeproxy.proxyprotocol": "P",
    "edgeproxy.announced": "T",
    "edgeproxy.bursts": "P",
    "edgeproxy.config": "P",
    "edgeproxy.config.*": "P",
    "edgeproxy.filters": "P",
    "edgeproxy.filters.contract": "P",
    "edgeproxy.filters.counts": "P",
    "edgeproxy.filters.entry": "P",
    "edgeproxy.filters.headers": "P",
    "edgeproxy.filters.request": "P",
    "edgeproxy.filters.*": "T",
    "edgeproxy.http1.grammar": "P",
    "edgeproxy.http1.fields": "P",
    "edgeproxy.http1.framing": "P",
    "edgeproxy.http1.upgrade": "P",
    "edgeproxy.http1.*": "T",
    "edgeproxy.certs": "P",
    "edgeproxy.certs.advice": "P",
    "edgeproxy.certs.authority": "P",
    "edgeproxy.certs.certificate": "P",
    "edgeproxy.certs.development": "P",
    "edgeproxy.certs.foreign": "P",
    "edgeproxy.certs.hostname": "P",
    "edgeproxy.certs.names": "P",
    "edgeproxy.certs.pem": "P",
    "edgeproxy.certs.scan": "P",
    "edgeproxy.certs.steps": "P",
    "edgeproxy.certs.*": "T",
    "edgeproxy.identity": "P",
    "edgeproxy.identity.keyadmin": "T",
    "edgeproxy.identity.lastused": "T",
    "edgeproxy.identity.keystore": "T",
    "edgeproxy.identity.*": "P",
    "edgeproxy.limits": "P",
    "edgeproxy.limits.*": "P",
    "edgeproxy.upstream": "P",
    "edgeproxy.upstream.pool": "P",
    "edgeproxy.upstream.balance": "P",
    "edgeproxy.upstream.budget": "P",
    "edgeproxy.upstream.health": "P",
    "edgeproxy.upstream.*": "T",
    "edgeproxy.transport": "T",
    "edgeproxy.transport.*": "T",
    "edgeproxy.mounted": "T",
    "edgeproxy.mounted.*": "T",
    "edgeproxy.observe": "T",
    "edgeproxy.observe.*": "T",
    "edgeproxy.exchange": "T",
    "edgeproxy.resource": "T",
    "edgeproxy.arriving": "T",
    "edgeproxy.hostview": "T",
    "edgeproxy.limiting": "T",
    "edgeproxy.identifying": "T",
    "edgeproxy.policy": "T",
    "edgeproxy.guessing": "T",
    "edgeproxy.credentials": "T",
    "edgeproxy.waiting": "T",
    "edgeproxy.tokens": "T",
    "edgeproxy.issuer": "T",
    "edgeproxy.fetching": "T",
    "edgeproxy.lookups": "T",
    "edgeproxy.asking": "T",
    "edgeproxy.authorizing": "T",
    "edgeproxy.relay": "T",
    "edgeproxy.tunnel": "T",
    "edgeproxy.site": "T",
    "edgeproxy.page": "T",
    "edgeproxy.redirect": "T",
    "edgeproxy.readiness": "T",
    "edgeproxy.notify": "T",
    "edgeproxy.listening": "T",
    "edgeproxy.snapshot": "T",
    "edgeproxy.changes": "T",
    "edgeproxy.slices": "T",
    "edgeproxy.upkeep": "T",
    "edgeproxy.wsgi": "T",
    "edgeproxy.service": "A",
    "edgeproxy.starting": "A",
    "edgeproxy.reloading": "A",
    "edgeproxy.control": "A",
    "edgeproxy.signals": "A",
    "edgeproxy.search": "A",
    "edgeproxy.quickstart": "A",
    "edgeproxy.tap": "A",
    "edgeproxy.demo": "A",
    "edgeproxy.cli": "A",
    "edgeproxy.cli.*": "A",
    "edgeproxy.testing": "testing",
    "edgeproxy.testing.*": "testing",
}

MAY_IMPORT = {"P": "P", "T": "PT", "A": "PTA", "testing": "PTA"}

#: What a pure module does not import, since each of them asks the world for something.
WORLD = frozenset(
    [
        "twisted",
        "OpenSSL",
        "asyncio",
        "concurrent",
        "fcntl",
        "glob",
        "logging",
        "multiprocessing",
        "os",
        "queue",
        "random",
        "requests",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "treq",
    ]
)
#: Methods that ask the clock or the disk, whatever they are called on.
WORLDLY = frozenset(
    [
        "now",
        "today",
        "utcnow",
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "exists",
        "is_file",
        "is_dir",
        "iterdir",
        "rglob",
        "unlink",
        "mkdir",
    ]
)
#: Pure but for one thing, and which.
EXCEPTED = {
    "edgeproxy.config.load": "reads the configuration's files",
    "edgeproxy.config.secrets": "reads files and variables with secrets",
    "edgeproxy.config.schema": "prints the schema when it is run as a program",
}

PRIVATE_BINDING = frozenset(
    {"edgeproxy.certs.contexts", "edgeproxy.certs.posture", "edgeproxy.transport.openssl"}
)


@cache
def modules() -> dict[str, Path]:
    """All modules by dotted name."""
    found = {}
    for path in sorted((ROOT / "edgeproxy").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text("utf-8"))


def room(name: str) -> str:
    for pattern, found in ROOMS.items():
        if fnmatchcase(name, pattern):
            return found
    raise AssertionError(f"{name} is in no room: name it in ROOMS")


def nodes(root: ast.AST, *, deferred: bool, types: bool) -> Iterator[ast.AST]:
    """The nodes below; `deferred` with what runs only when called, `types` with what only type
    checkers read."""
    for node in ast.iter_child_nodes(root):
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from (other, *nodes(other, deferred=deferred, types=types))
            continue
        if not deferred and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        yield from nodes(node, deferred=deferred, types=types)


def imported(name: str, *, deferred: bool = True) -> Iterator[tuple[str, int]]:
    """Each module that `name` imports at run time, with its line."""
    for node in nodes(tree(name), deferred=deferred, types=False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are written in full here"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules() else node.module, node.lineno


@pytest.mark.parametrize("name", modules())
def test_imports_go_one_way(name: str) -> None:
    allowed = MAY_IMPORT[room(name)]
    for other, line in imported(name):
        if other.split(".")[0] != "edgeproxy" or room(name) == room(other):
            continue
        assert room(other) in allowed, (
            f"{name}:{line}: {room(name)} imports {other}, which is {room(other)}"
        )


@pytest.mark.parametrize("name", [name for name in modules() if room(name) == "P"])
def test_pure_modules_ask_nothing_of_the_world(name: str) -> None:
    if name in EXCEPTED:
        return
    for other, line in imported(name):
        assert other.split(".")[0] not in WORLD, f"{name}:{line}: a pure module imports {other}"
    for node in nodes(tree(name), deferred=True, types=True):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            assert called.id not in ("open", "input", "print"), f"{name}:{node.lineno}"
        if isinstance(called, ast.Attribute) and not node.args:
            assert called.attr not in WORLDLY, f"{name}:{node.lineno}: .{called.attr}()"


@pytest.mark.parametrize("name", [name for name in modules() if room(name) in "PT"])
def test_the_global_reactor_is_for_assembly_alone(name: str) -> None:
    for node in nodes(tree(name), deferred=True, types=True):
        if isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            continue
        assert "twisted.internet.reactor" not in found, f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", [name for name in modules() if room(name) != "testing"])
def test_the_private_binding_stays_in_its_two_modules(name: str) -> None:
    if name in PRIVATE_BINDING:
        return
    for node in nodes(tree(name), deferred=True, types=True):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("_lib", "_ffi"), f"{name}:{node.lineno}: .{node.attr}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("OpenSSL"):
            for alias in node.names:
                assert not alias.name.startswith("_"), f"{name}:{node.lineno}: {alias.name}"


def test_the_allowed_two_do_use_the_private_binding() -> None:
    """Else the list is too long."""
    for name in PRIVATE_BINDING:
        assert "_lib" in modules()[name].read_text()


def test_no_cycles_while_importing() -> None:
    """Including the packages above a module, whose `__init__` runs first."""
    needs: dict[str, set[str]] = {}
    for name in modules():
        found = set()
        for other, _ in imported(name, deferred=False):
            parts = other.split(".")
            for length in range(1, len(parts) + 1):
                above = ".".join(parts[:length])
                # A package that is being imported already asks for nothing anew.
                if above in modules() and not f"{name}.".startswith(f"{above}."):
                    found.add(above)
        needs[name] = found
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(needs[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in needs:
        visit(name, ())


# -- each module has its test --------------------------------------------------------------------

_WIRE = "whole conversations in memory, byte by byte"
_PARTS = "a part of what that test looks at as a whole"
_PROCESS = "needs a process of its own, with its signals and files"

#: Modules whose test has another name, and why; one of its own counts before that. The first
#: pattern that fits.
TESTED_IN = {
    "edgeproxy.certs.authority": ("test_certs_clients.py", _PARTS),
    "edgeproxy.certs.trust": ("test_certs_clients.py", _PARTS),
    "edgeproxy.certs.certificate": ("test_certs_scan.py", _PARTS),
    "edgeproxy.certs.pem": ("test_certs_scan.py", _PARTS),
    "edgeproxy.certs.steps": ("test_certs_scan.py", _PARTS),
    "edgeproxy.certs.keeping": ("test_certs_folder.py", _PARTS),
    "edgeproxy.certs.telling": ("test_certs_folder.py", _PARTS),
    "edgeproxy.certs.loading": ("test_certs_contexts.py", _PARTS),
    "edgeproxy.certs.watching": ("test_certs_folder.py", _PARTS),
    "edgeproxy.cli.completion": ("test_cli_main.py", _PARTS),
    "edgeproxy.cli.options": ("test_cli_check.py", _PARTS),
    "edgeproxy.cli.output": ("test_cli_listing.py", _PARTS),
    "edgeproxy.config.assemble": ("test_config_problems.py", _PARTS),
    "edgeproxy.config.fields": ("test_config_problems.py", _PARTS),
    "edgeproxy.config.model": ("test_config_load.py", _PARTS),
    "edgeproxy.config.frozen": ("test_config_load.py", _PARTS),
    "edgeproxy.config.anonymous": ("test_config_policy.py", _PARTS),
    "edgeproxy.config.guessing": ("test_guessing.py", _PARTS),
    "edgeproxy.config.credentials": ("test_config_clientcerts.py", _PARTS),
    "edgeproxy.config.filters": ("test_filters_loading.py", _PARTS),
    "edgeproxy.filters.answering": ("test_filters_run.py", _WIRE),
    "edgeproxy.filters.chain": ("test_filters_run.py", _WIRE),
    "edgeproxy.filters.counts": ("test_filters_run.py", _WIRE),
    "edgeproxy.filters.dropins": ("test_filters_inforce.py", _PARTS),
    "edgeproxy.filters.entry": ("test_filters_contract.py", _PARTS),
    "edgeproxy.filters.headers": ("test_filters_contract.py", _PARTS),
    "edgeproxy.filters.judging": ("test_filters_run.py", _WIRE),
    "edgeproxy.filters.telling": ("test_filters_wire.py", _WIRE),
    "edgeproxy.filters.pending": ("test_filters_run.py", _WIRE),
    "edgeproxy.filters.plugin": ("test_filters_inforce.py", _PARTS),
    "edgeproxy.filters.request": ("test_filters_run.py", _WIRE),
    "edgeproxy.filters.shadow": ("test_filters_wire.py", _WIRE),
    "edgeproxy.config.reading": ("test_config_problems.py", _PARTS),
    "edgeproxy.config.reserved": ("test_config_problems.py", _PARTS),
    "edgeproxy.config.routes": ("test_config_load.py", _PARTS),
    "edgeproxy.config.lookups": ("test_config_asking.py", _PARTS),
    "edgeproxy.config.authorization": ("test_config_asking.py", _PARTS),
    "edgeproxy.asking": ("test_real_sessions.py", _PROCESS),
    "edgeproxy.config.rules": ("test_config_problems.py", _PARTS),
    "edgeproxy.config.syntax": ("test_config_nodes.py", _PARTS),
    "edgeproxy.announced": ("test_real_proxyprotocol.py", _PROCESS),
    "edgeproxy.config.written": ("test_config_load.py", _PARTS),
    "edgeproxy.identity.keyrecord": ("test_identity_keyindex.py", _PARTS),
    "edgeproxy.limits.group": ("test_limits_table.py", _PARTS),
    "edgeproxy.observe.counters": ("test_control.py", _PARTS),
    "edgeproxy.observe.status": ("test_control.py", _PARTS),
    "edgeproxy.quickstart": ("test_demo.py", _PROCESS),
    "edgeproxy.reloading": ("test_control.py", _PROCESS),
    "edgeproxy.search": ("test_tap.py", _PROCESS),
    "edgeproxy.service": ("test_control.py", _PROCESS),
    "edgeproxy.signals": ("test_control.py", _PROCESS),
    "edgeproxy.starting": ("test_tap.py", _PROCESS),
    "edgeproxy.mounted.files": ("test_real_resources.py", _PROCESS),
    "edgeproxy.wsgi": ("test_real_resources.py", _PROCESS),
    "edgeproxy.transport.reactor": ("test_wheel.py", _PROCESS),
    "edgeproxy.transport.port": ("test_tap.py", _PROCESS),
    "edgeproxy.transport.client": ("test_real_tls.py", _PROCESS),
    "edgeproxy.transport.*": ("test_wire_relay.py", _WIRE),
    "edgeproxy.http1.upgrade": ("test_wire_tunnel.py", _WIRE),
    "edgeproxy.http1.*": ("test_wire_refusals.py", _WIRE),
    "edgeproxy.upstream.trust": ("test_real_tls.py", _PROCESS),
    "edgeproxy.upstream.address": ("test_real_targets.py", _PROCESS),
    "edgeproxy.upstream.fleet": ("test_upstream_resolve.py", _WIRE),
    "edgeproxy.upstream.probe": ("test_wire_health.py", _WIRE),
    "edgeproxy.upstream.watch": ("test_wire_health.py", _WIRE),
    "edgeproxy.upstream.*": ("test_wire_relay.py", _WIRE),
    "edgeproxy.observe.accesslog": ("test_control.py", _PROCESS),
    "edgeproxy.errors": ("test_wire_refusals.py", _WIRE),
    "edgeproxy.exchange": ("test_wire_relay.py", _WIRE),
    "edgeproxy.forward": ("test_wire_relay.py", _WIRE),
    "edgeproxy.listening": ("test_wire_relay.py", _WIRE),
    "edgeproxy.page": ("test_cli_init.py", _PROCESS),
    "edgeproxy.paths": ("test_wire_relay.py", _WIRE),
    "edgeproxy.relay": ("test_wire_relay.py", _WIRE),
    "edgeproxy.resource": ("test_wire_policy.py", _WIRE),
    "edgeproxy.arriving": ("test_wire_policy.py", _WIRE),
    "edgeproxy.hostview": ("test_wire_policy.py", _WIRE),
    "edgeproxy.limiting": ("test_wire_policy.py", _WIRE),
    "edgeproxy.routing": ("test_wire_policy.py", _WIRE),
    "edgeproxy.snapshot": ("test_wire_policy.py", _WIRE),
    "edgeproxy.tunnel": ("test_wire_tunnel.py", _WIRE),
}


#: Without any test so far. To be emptied, not filled.
UNTESTED = {"edgeproxy.site"}


def _tested_in(name: str) -> tuple[str, str] | None:
    for pattern, found in TESTED_IN.items():
        if fnmatchcase(name, pattern):
            return found
    return None


def _is_prose(name: str) -> bool:
    """A module of docstring, imports and `__all__` alone."""
    return all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        for node in tree(name).body
    )


@pytest.mark.parametrize("name", [name for name in modules() if room(name) != "testing"])
def test_each_module_has_its_test(name: str) -> None:
    if _is_prose(name) or name in UNTESTED:
        return
    own = "test_" + "_".join(name.split(".")[1:]) + ".py"
    if list(TESTS.rglob(own)):
        return
    found = _tested_in(name)
    assert found is not None, f"there is no {own}, and TESTED_IN does not name {name}"
    assert list(TESTS.rglob(found[0])), f"{found[0]}, which is to test {name}, is not there"


def test_the_list_names_modules_that_are_there() -> None:
    for pattern in (*ROOMS, *TESTED_IN, *EXCEPTED, *PRIVATE_BINDING):
        assert any(fnmatchcase(name, pattern) for name in modules()), f"{pattern} names nothing"


def test_no_expression_repeats_a_group_possessively() -> None:
    """CPython before 3.11.5 (Debian 12 has 3.11.2) loses its place in one: see http1/grammar."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "edgeproxy").rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"\)[*+?]\+|\(\?>", re.sub(r"\[[^\]]*\]", "[]", line))
    ]
    assert found == []
