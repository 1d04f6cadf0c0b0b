"""A Debian of its own, booted: made once by debootstrap, run as a copy by systemd-nspawn.

Its network is this machine's, so that tests reach it on ports of 127.0.0.1; all else is its own.
It ends with the tests, and should they be killed, with them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from contextlib import suppress
from pathlib import Path
from typing import Any

from running_support import ROOT, run, wait_for

HOME = ROOT / ".run" / "systemd"
PACKAGES = ",".join(
    ("systemd", "systemd-sysv", "dbus", "procps", "make", "python3", "python3-venv")
    + ("curl", "ca-certificates", "logrotate", "openssl")
)
Done = subprocess.CompletedProcess[str]


def must(*command: Any, **options: Any) -> str:
    """Run a command to its end; what it printed. Fails the test with what it said."""
    done = run(*command, **{"timeout": 600, **options})
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


# -- made once ------------------------------------------------------------------------------------


def debian() -> Path:
    """The folder of a Debian as this machine's apt would install it."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    key = hashlib.sha256(f"{release} {PACKAGES}".encode()).hexdigest()[:12]
    root = HOME / f"{release}-{key}"
    if not root.exists():
        partial = HOME / f"{release}-{key}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        must(
            *("debootstrap", "--variant=minbase", f"--include={PACKAGES}"),
            *(release, partial, _mirror(release)),
            env={**os.environ, **_proxy()},
            timeout=900,
        )
        partial.rename(root)
    return root


def _mirror(release: str) -> str:
    """Where apt on this machine has its release from."""
    form = "$(CODENAME)\t$(COMPONENT)\t$(REPO_URI)"
    for line in must("apt-get", "indextargets", "--format", form, "Created-By: Packages").split(
        "\n"
    ):
        name, _, rest = line.partition("\t")
        component, _, address = rest.partition("\t")
        if (name, component) == (release, "main"):
            return address
    raise AssertionError(f"apt knows no source of {release} main")


def _proxy() -> dict[str, str]:
    """apt's own proxy, for debootstrap."""
    address = re.search(r"P='(.+)'", must("apt-config", "shell", "P", "Acquire::http::Proxy"))
    return {"http_proxy": address[1]} if address else {}


def wheels(root: Path) -> Path:
    """A folder with all that `make install` would fetch, for the Python in there."""
    version = os.readlink(root / "usr/bin/python3").removeprefix("python")
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = [*setup["options"]["install_requires"].split(), "setuptools>=77", "wheel"]
    key = hashlib.sha256(f"{version} {needed}".encode()).hexdigest()[:12]
    folder = HOME / f"wheels-{key}"
    if not folder.exists():
        partial = HOME / f"wheels-{key}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        must(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--python-version", version, "--implementation", "cp", "--only-binary", ":all:"),
            *("--dest", partial, *needed),
        )
        partial.rename(folder)
    return folder


# -- booted ---------------------------------------------------------------------------------------


class Machine:
    """The booted copy. ``root`` is its file system, as seen from here."""

    def __init__(self) -> None:
        source = debian()
        packages = wheels(source)
        self.root = HOME / f"machine-{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        try:
            must("cp", "-a", "--reflink=auto", source, self.root)
            shutil.copytree(packages, self.root / "wheels")
            ignored = shutil.ignore_patterns(
                ".*", "__pycache__", "*.egg-info", "dropin.cache", "build", "dist"
            )
            shutil.copytree(ROOT, self.root / "src", ignore=ignored)
            self._boot()
        except BaseException:
            self.end()
            raise

    def _boot(self) -> None:
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1" if unified else "0"}
        with (HOME / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "systemd-nspawn", "--quiet"),
                    *("-D", str(self.root), "--register=no", "--keep-unit", "--boot"),
                    *("--console=pipe", "--hostname=edgeproxy-test", "--resolv-conf=off"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self._leader = wait_for(self._systemd, 60, "systemd in the container")
        wait_for(
            lambda: self.run("systemctl", "is-system-running").stdout.strip() in UP, 120, "boot"
        )

    def _systemd(self) -> int | None:
        assert self._process is not None
        said = (HOME / "console.log").read_text(errors="replace")
        assert self._process.poll() is None, f"the container has ended:\n{said[-3000:]}"
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        return None

    def run(self, *command: Any, **options: Any) -> Done:
        """Run a command in there, as root, to its end."""
        enter = [
            "nsenter",
            f"--target={self._leader}",
            "--all",
            "--wd",
            "env",
            "-i",
            *ENVIRONMENT,
        ]
        return run(*enter, *command, **{"timeout": 300, **options})

    def must(self, *command: Any, **options: Any) -> str:
        """Run a command in there that has to succeed; what it printed."""
        done = self.run(*command, **options)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self.journal(30)}"
        return done.stdout

    def sh(self, text: str, **options: Any) -> str:
        return self.must("sh", "-ec", text, **options)

    def show(self, name: str, unit: str = "edgeproxy.service") -> str:
        """A property of a unit."""
        return self.must("systemctl", "show", "--value", "-p", name, unit).strip()

    def journal(self, lines: int = 200) -> str:
        done = self.run("journalctl", "-u", "edgeproxy*", "-n", lines, "--no-pager", "-o", "cat")
        return done.stdout

    def write(self, path: str, text: str | bytes) -> None:
        """Write a file in there; its owner and mode stay if it exists."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def end(self) -> None:
        """Power off, or kill, and leave nothing."""
        process = self._process
        if process is not None and process.poll() is None:
            if self._leader:
                self.run("systemctl", "poweroff", "--no-block")
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _remove_cgroups()
        wait_for(self._removed, 30, "the container's files can be removed")

    def _removed(self) -> bool:
        assert str(self.root) not in Path("/proc/self/mounts").read_text()
        shutil.rmtree(self.root, ignore_errors=True)
        return not self.root.exists()


def _remove_cgroups() -> None:
    """systemd-nspawn leaves the two groups that it makes below ours, empty."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=")
        for mount in (f"/sys/fs/cgroup/{name}", "/sys/fs/cgroup/unified"):
            for own in ("payload", "supervisor"):
                for folder, _, _ in os.walk(f"{mount}{path}/{own}", topdown=False):
                    with suppress(OSError):  # not empty: somebody else's
                        os.rmdir(folder)


UP = ("running", "degraded")
ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "PIP_NO_INDEX=1",
    "PIP_FIND_LINKS=/wheels",
)
