"""The real wheel, installed into an environment of its own, used from another folder.

Nothing is fetched: what edgeproxy needs is copied from the environment that runs the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from running_support import ROOT, Child, run

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built as `pip install .` builds it, from a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "dropin.cache")
    source.mkdir()
    for name in ("edgeproxy", "twisted"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    built = run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source),
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel and what it needs; not of this tree."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    made = run(sys.executable, "-m", "venv", "--without-pip", home)
    assert made.returncode == 0, made.stderr
    packages = next((home / "lib").glob("python3*/site-packages"))
    for name in sorted(_needed("edgeproxy")):
        _copy(metadata.distribution(name), packages)
    done = run(
        *(sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install"),
        *("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", wheel),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return home / "bin"


def _needed(name: str) -> set[str]:
    """What a distribution needs, and what that needs, without the extras of tests."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    pending = [name]
    while pending:
        for line in metadata.requires(pending.pop()) or ():
            requirement = Requirement(line)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            key = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if wanted and key not in found:
                found.add(key)
                pending.append(key)
    return found


def _copy(distribution: metadata.Distribution, packages: Path) -> None:
    """Copy a distribution's files, and its programs with their first line made right."""
    for file in distribution.files or ():
        source = Path(str(distribution.locate_file(file)))
        if "__pycache__" in file.parts or not source.is_file():
            continue
        target = Path(os.path.normpath(packages / file))
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent.name == "bin":
            text = source.read_text().split("\n", 1)[1]
            target.write_text(f"#!{target.parent / 'python'}\n{text}")
            target.chmod(0o755)
        else:
            shutil.copy2(source, target)


def clean() -> dict[str, str]:
    """An environment in which nothing leads back to this tree."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def call(installed: Path, program: str, *arguments: Any, cwd: Path) -> Any:
    return run(installed / program, *arguments, cwd=cwd, env=clean())


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "twisted/plugins/edgeproxy_plugin.py" in names
    assert {"edgeproxy/py.typed", "edgeproxy/config/schema.json"} <= names
    # A package file there would hide Twisted's own.
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"edgeproxy", "twisted"}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "edgeproxy").rglob("*.py")}
    assert modules <= names


def test_it_is_this_copy_that_runs(installed: Path, tmp_path: Path) -> None:
    done = call(installed, "python", "-c", "print(__import__('edgeproxy').__file__)", cwd=tmp_path)
    assert done.stdout.startswith(str(installed.parent)), done.stderr


def test_twistd_lists_it_from_another_folder(installed: Path, tmp_path: Path) -> None:
    done = call(installed, "twistd", "--help", cwd=tmp_path)
    assert re.search(r"^ +edgeproxy +A TLS-terminating edge proxy", done.stdout, re.M), done
    assert "Traceback" not in done.stdout + done.stderr
    # Twisted's own plugins are still there.
    assert re.search(r"^ +web +", done.stdout, re.M)
    reactors = call(installed, "twistd", "--help-reactors", cwd=tmp_path)
    assert re.search(r"^ *edgeproxy\b", reactors.stdout, re.M), reactors


def test_from_install_to_the_first_answer(
    installed: Path, tmp_path: Path, child: Callable[..., Child], free_port: int
) -> None:
    made = call(installed, "edgeproxy", "init", "shop", "--port", free_port, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    line = next(line for line in made.stdout.splitlines() if line.startswith("curl "))
    started = child([installed / "twistd", "-n", "edgeproxy"], cwd=tmp_path / "shop", env=clean())
    started.wait_until_said("listening on https")
    done = run("sh", "-c", line, cwd="/")
    assert '"name": "first"' in done.stdout, done


@pytest.fixture
def read_only(installed: Path) -> Iterator[list[str]]:
    """A prefix for commands for which site-packages cannot be written; the cache is not there."""
    packages = next((installed.parent / "lib").glob("python3*/site-packages"))
    cache = packages / "twisted" / "plugins" / "dropin.cache"
    cache.unlink(missing_ok=True)
    cache.parent.chmod(0o555)
    powers = "-dac_override,-dac_read_search"
    yield (
        ["setpriv", f"--inh-caps={powers}", f"--bounding-set={powers}"] if os.geteuid() == 0 else []
    )
    cache.parent.chmod(0o755)
    assert not cache.exists(), "the folder could be written after all"


def test_where_site_packages_cannot_be_written(
    installed: Path, tmp_path: Path, child: Callable[..., Child], read_only: list[str]
) -> None:
    """Installed by root, used by others: no cache of plugins can be kept, and nothing minds."""
    listed = run(*read_only, installed / "twistd", "--help", cwd=tmp_path, env=clean())
    assert " edgeproxy " in listed.stdout
    assert "Traceback" not in listed.stdout + listed.stderr
    call(installed, "edgeproxy", "init", ".", cwd=tmp_path)
    text = (tmp_path / "edgeproxy.yaml").read_text()
    (tmp_path / "edgeproxy.yaml").write_text(text.replace(":8443", "127.0.0.1:0"))
    started = child(
        [*read_only, installed / "twistd", "-n", "edgeproxy"], cwd=tmp_path, env=clean()
    )
    started.wait_until_said("listening on https")
    assert "Traceback" not in started.said()


@pytest.mark.parametrize("name", ["select", "poll", "epoll"])
def test_a_reactor_that_was_named_is_the_one_that_runs(
    installed: Path, tmp_path: Path, child: Callable[..., Child], name: str
) -> None:
    _prepare(installed, tmp_path)
    started = child(
        [installed / "twistd", "-n", "--reactor", name, "edgeproxy"], cwd=tmp_path, env=clean()
    )
    started.wait_until_said("listening on https")
    assert f"reactor class: twisted.internet.{name}reactor." in started.said()


def test_the_reactor_by_default_is_ours(
    installed: Path, tmp_path: Path, child: Callable[..., Child]
) -> None:
    _prepare(installed, tmp_path)
    started = child([installed / "twistd", "-n", "edgeproxy"], cwd=tmp_path, env=clean())
    started.wait_until_said("listening on https")
    assert "reactor class: edgeproxy.transport.reactor." in started.said()


def _prepare(installed: Path, folder: Path) -> None:
    call(installed, "edgeproxy", "init", ".", cwd=folder)
    text = (folder / "edgeproxy.yaml").read_text()
    (folder / "edgeproxy.yaml").write_text(text.replace(":8443", "127.0.0.1:0"))


def test_uninstalling_leaves_twisted_alone(wheel: Path, installed: Path, tmp_path: Path) -> None:
    """Last: pip takes away exactly what the wheel brought."""
    python = installed / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet"]
    subprocess.run([*pip, "uninstall", "--yes", "edgeproxy"], check=True, capture_output=True)
    done = call(installed, "twistd", "--help", cwd=tmp_path)
    assert " edgeproxy " not in done.stdout
    assert re.search(r"^ +web +", done.stdout, re.M)
    assert "Traceback" not in done.stdout + done.stderr
