"""The commands of the README and of docs/embedding.md, run as they are pasted, in copies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from docs_support import of
from running_support import (
    BIN,
    ROOT,
    Child,
    Development,
    accepts,
    free_port,
    run,
    wait_for,
    write_config,
)
from test_wheel import _copy, _needed

from edgeproxy.certs.development import make as make_certificate

pytestmark = [pytest.mark.timeout(300), pytest.mark.debian("curl")]

RUN, TEST, INSTALL, CHANGED, CERTIFICATES, KEYS, SERVICE = of("README.md", "sh")


def test_the_service_is_installed_elsewhere() -> None:
    """In a booted system: tests/test_booted.py."""
    assert SERVICE.splitlines()[0] == "make install"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree, as a fresh clone would be."""
    ignored = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "dropin.cache", "twistd.pid", "build", "dist"
    )
    shutil.copytree(ROOT, tmp_path / "tree", ignore=ignored)
    return tmp_path / "tree"


# -- the two commands ----------------------------------------------------------------------------


@pytest.fixture
def prepared(tree: Path) -> Mapping[str, str]:
    """The virtual environment that `make` would make first: ours, by links, and marked as complete.

    Nothing may ever be installed into it from here: it is the one that runs the tests.
    """
    made = tree / ".venv"
    made.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (made / name).symlink_to(Path(sys.prefix) / name)
    for name in (".python", ".installed", ".test"):  # in the order in which make makes them
        (made / name).touch()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "VENV"))}
    return {**clean, "ARGS": "", "CI": "", "PIP_PYTHON": "/nonexistent"}


def test_make_run(tree: Path, prepared: Mapping[str, str], child: Callable[..., Child]) -> None:
    environment = {**prepared, "PORT": str(free_port())}
    started = child(["sh", "-c", RUN], cwd=tree, env=environment, start_new_session=True)
    line = started.wait_until_said(r"^curl .*$")[0]
    assert (tree / ".run" / "certs" / "localhost.pem").exists(), "it is the copy that runs"
    told = run("sh", "-c", line, cwd="/")
    assert "got this request" in told.stdout, told
    os.killpg(started.process.pid, signal.SIGINT)  # as Ctrl-C on a terminal
    started.wait()
    assert "Traceback" not in started.said()


def test_make_test(tree: Path, prepared: Mapping[str, str]) -> None:
    some = "tests/test_limits_fields.py -p no:cacheprovider"  # this test is one of them all
    done = run("sh", "-c", TEST, cwd=tree, env={**prepared, "ARGS": some}, timeout=200)
    assert done.returncode == 0, done
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    assert "installing" not in done.stdout


# -- from `pip install .` to a key ---------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment of its own for `pip install .`, with what edgeproxy needs and no index."""
    home = tmp_path / "venv"
    made = run(sys.executable, "-m", "venv", "--without-pip", home)
    assert made.returncode == 0, made.stderr
    packages = next((home / "lib").glob("python3*/site-packages"))
    for name in sorted(_needed("edgeproxy") | {"setuptools"}):
        _copy(metadata.distribution(name), packages)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {
        **kept,
        "PATH": f"{home / 'bin'}:{BIN}:{os.environ['PATH']}",
        "PIP_PYTHON": str(home / "bin" / "python"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "false",  # pip's spelling of yes
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


class Terminal:
    """Runs commands one after the other; remembers where `cd` led."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def paste(self, text: str) -> str:
        """What the commands print. The test fails with the first that fails."""
        said = ""
        for line in text.splitlines():
            if line.startswith("cd "):
                self.folder /= line.removeprefix("cd ")
                continue
            done = run("sh", "-c", line, cwd=self.folder, env=self.environment, timeout=120)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            said += done.stdout
        return said

    def ask(self, *arguments: Any) -> str:
        """The status that curl gets."""
        done = run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *arguments)
        return done.stdout


def test_from_pip_install_to_a_key(
    tree: Path, shell: Mapping[str, str], child: Callable[..., Child]
) -> None:
    terminal = Terminal(tree, shell)
    *first, start = INSTALL.splitlines()
    said = terminal.paste("\n".join(first))
    assert (Path(shell["PIP_PYTHON"]).parent / "edgeproxy").exists(), "it is the one installed"
    port, plain, service = (str(free_port()) for _ in range(3))

    # Ports of the test's own, since others may be at work on this machine.
    configuration = terminal.folder / "edgeproxy.yaml"
    configuration.write_text(configuration.read_text().replace(":8443", f":{port}"))
    gateway = child(["sh", "-c", f"exec {start}"], cwd=terminal.folder, env=shell)
    gateway.wait_until_said("listening on https")
    line = next(text for text in said.splitlines() if text.startswith("curl "))
    told = run("sh", "-c", line.replace(":8443", f":{port}"), cwd="/")
    assert "edgeproxy is running" in told.stdout, told

    (example,) = of("README.md", "yaml")
    example = example.replace("8443", port).replace("8080", plain).replace("9001", service)
    (terminal.folder / "shop").mkdir()
    for name, text in zip(("status", "policy"), of("README.md", "python"), strict=True):
        (terminal.folder / "shop" / f"{name}.py").write_text(text)
    write_config(terminal.folder, example)
    said = terminal.paste(CHANGED)
    for expected in ("all right: 4 routes", "OPEN", "routes added: ", "limit added: pay"):
        assert expected in said, said

    made = make_certificate(["api.example.com"], datetime.now(UTC))
    (terminal.folder / "fullchain.pem").write_bytes(made.chain_pem)
    (terminal.folder / "privkey.pem").write_bytes(made.key_pem)
    (terminal.folder / "ca.pem").write_bytes(made.ca_pem)
    assert "answers: certs/fullchain.pem" in terminal.paste(CERTIFICATES)
    key = terminal.paste(KEYS).strip()
    assert key.startswith("edge_") and key not in (terminal.folder / "keys.jsonl").read_text()

    url = f"https://api.example.com:{port}"
    common = ["--cacert", terminal.folder / "ca.pem"]
    common += ["--connect-to", f"api.example.com:{port}:127.0.0.1:{port}"]
    with_key = ["-H", f"X-API-Key: {key}"]
    # No service is there: who gets past the gateway's own questions is answered 502.
    wait_for(lambda: terminal.ask(*common, *with_key, f"{url}/users") == "502", what="the key")
    assert terminal.ask(*common, f"{url}/users") == "401"
    assert terminal.ask(*common, f"{url}/status") == "200"
    assert terminal.ask(*common, *with_key, "-X", "POST", f"{url}/payments") == "502"
    assert terminal.ask(*common, *with_key, f"{url}/payments") == "405"

    gateway.signal(signal.SIGINT)
    assert gateway.wait() == -signal.SIGINT  # as docs/operations.md says


# -- embedding -----------------------------------------------------------------------------------


def test_the_gateway_in_a_site(
    tmp_path: Path, development: Development, child: Callable[..., Child]
) -> None:
    (example,) = [text for text in of("docs/embedding.md", "python") if "Site(" in text]
    (configuration,) = of("docs/embedding.md", "yaml")
    port, service = free_port(), free_port()
    assert "tcp:8080:" in example and ":9001" in configuration
    (tmp_path / "shop.tac").write_text(example.replace("tcp:8080:", f"tcp:{port}:"))
    write_config(tmp_path, configuration.replace(":9001", f":{service}"))
    (tmp_path / "keys.jsonl").write_bytes(development.key_line)
    behind = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", service]
    child(behind, cwd=ROOT / "docs")
    wait_for(lambda: accepts(service), what="the service")
    site = child([BIN / "twistd", "-ny", "shop.tac", "--pidfile="], cwd=tmp_path)
    site.wait_until_said("Site starting on")
    url = f"http://127.0.0.1:{port}"
    key = f"X-API-Key: {development.credential}"
    assert run("curl", "-s", url).stdout == "the shop\n"
    assert "A valid credential is needed" in run("curl", "-s", f"{url}/api/users").stdout
    done = run("curl", "-s", "-i", "-H", key, f"{url}/api/users")
    assert done.stdout.startswith("HTTP/1.1 404"), done
    assert 'ratelimit: "default";r=99' in done.stdout.lower(), done
    assert 'GET /users HTTP/1.1" 404' in wait_for(
        lambda: next((c for c in _said(tmp_path) if "/users" in c), None), what="its log"
    )
    site.signal(signal.SIGTERM)
    assert site.wait() == -signal.SIGTERM
    log = (tmp_path / "access.log").read_text()
    assert '"route":"* /api/users"' in log


def _said(folder: Path) -> list[str]:
    return [line for path in folder.glob("*.out") for line in path.read_text().splitlines()]
