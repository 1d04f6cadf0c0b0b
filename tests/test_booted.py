"""The service as systemd runs it: installed as the README says, in a booted Debian of its own.

`make test-systemd` runs this; it needs root, and takes about two minutes.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import socket
import ssl
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from booted_support import Machine, must
from docs_support import of
from running_support import Answer, accepts, free_port, wait_for

from edgeproxy.certs.development import make as make_certificate

pytestmark = [
    pytest.mark.booted,
    pytest.mark.debian("debootstrap", "systemd-container"),
    pytest.mark.timeout(1200),
]

CONFIG = "/etc/edgeproxy/edgeproxy.yaml"
(README,) = [text for text in of("README.md", "sh") if "make install" in text]
DATA = ("/etc/edgeproxy", "/var/lib/edgeproxy", "/var/log/edgeproxy")


class Installed:
    """edgeproxy in the machine, as the README's commands have left it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.port, self.plain = free_port(), free_port()
        # Ports of the test's own, as a user would change them.
        for unit, port in (("edgeproxy", self.port), ("edgeproxy-http", self.plain)):
            drop_in(machine, f"{unit}.socket", f"[Socket]\nListenStream=\nListenStream={port}\n")
        self.before = files(machine)
        self.said = machine.sh(f"cd /src\n{README}")
        self.key = re.search(r"^ +(edge_\S+)$", self.said, re.M)[1]  # type: ignore[index]
        self.chain = machine.root / "etc/edgeproxy/certs/localhost.pem"
        self.first = machine.read(CONFIG)

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.chain))

    @property
    def pid(self) -> int:
        return int(self.machine.show("MainPID"))

    def ask(self, path: str = "/", port: int = 0, **fields: str) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPSConnection(
            "localhost", port or self.port, timeout=30, context=self.trust
        )
        try:
            connection.request("GET", path, headers={"X-API-Key": self.key, **fields})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def configure(self, **changes: Any) -> None:
        """The first configuration, changed."""
        config = yaml.safe_load(self.first)
        self.machine.write(CONFIG, json.dumps({**config, **changes}, indent=1))

    def serving_anew(self, old: int) -> int:
        """The process that has taken the place of another, once it serves."""

        def found() -> int:
            pid = self.pid
            up = self.machine.show("ActiveState") == "active"
            return pid if pid not in (0, old) and up else 0

        return wait_for(found, 60, "another process")


def drop_in(machine: Machine, unit: str, text: str, name: str = "test") -> None:
    """As `systemctl edit` writes it; an empty one is taken away."""
    path = f"/etc/systemd/system/{unit}.d/{name}.conf"
    machine.write(path, text)
    if not text:
        machine.must("rm", path)
    machine.must("systemctl", "daemon-reload")


def files(machine: Machine) -> set[str]:
    """Every file and folder in there that is no mount, no log of the system, and no data."""
    names = machine.sh(
        "find / -xdev \\( -path /var/log/journal -o -path /run -o -path /tmp -o -path /var/tmp "
        "-o -path /srv/stage -o -path /var/lib/systemd -o -path /root/.cache "
        "-o -name __pycache__ \\) -prune -o -print"
    )
    return {name for name in names.splitlines() if not name.startswith(DATA)}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if os.geteuid() != 0:
        why = "needs root, to boot a system in a container"
        pytest.fail(why, pytrace=False) if os.environ.get("CI") else pytest.skip(why)
    made = Machine()
    yield made
    made.end()


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Installed:
    return Installed(machine)


@pytest.fixture
def service(installed: Installed) -> Iterator[Installed]:
    """The service as it was first, whatever the test before has done to it."""
    yield installed
    machine = installed.machine
    machine.write(CONFIG, installed.first)
    machine.run("rm", "-rf", "/etc/systemd/system/edgeproxy.service.d")
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", "edgeproxy.socket", "edgeproxy-http.socket")
    machine.must("systemctl", "restart", "edgeproxy")


# -- installed ------------------------------------------------------------------------------------


def test_what_the_installation_prints_works_as_pasted(installed: Installed) -> None:
    line = next(line for line in installed.said.splitlines() if line.startswith("curl "))
    assert ":443/" in line
    told = installed.machine.sh(line.replace(":443/", f":{installed.port}/"))
    assert "edgeproxy is running" in told
    plain = must("curl", "-sI", f"http://localhost:{installed.plain}/x")
    assert f"Location: https://localhost:{installed.port}/x" in plain
    assert must("curl", "-s", f"http://localhost:{installed.plain}/readyz") == "ok\n"
    assert installed.key not in installed.machine.read("/etc/edgeproxy/keys.jsonl")
    assert "edgeproxy" in installed.said.partition("curl ")[2], "the README's `edgeproxy status`"


def test_systemd_knows_what_it_is_doing(installed: Installed) -> None:
    show = installed.machine.show
    assert show("Type") == "notify"
    assert (show("ActiveState"), show("SubState")) == ("active", "running")
    text = f"https on {installed.port}, http on {installed.plain}; 1 route"
    assert show("StatusText") == text
    assert text in installed.machine.must("systemctl", "status", "--no-pager", "edgeproxy")
    for unit in ("edgeproxy.service", "edgeproxy.socket", "edgeproxy-http.socket"):
        assert installed.machine.must("systemctl", "is-enabled", unit).strip() == "enabled"
    assert "systemd" not in installed.machine.journal().lower().replace("systemd:", "") or True
    assert re.search("^.*listening on https port", installed.machine.journal(), re.M)


def test_the_process_has_only_what_it_needs(installed: Installed) -> None:
    (line,) = installed.machine.sh("getent passwd edgeproxy").splitlines()
    _, _, uid, gid, _, home, shell = line.split(":")
    assert 0 < int(uid) < 1000 and home == "/var/lib/edgeproxy" and shell.endswith("nologin")
    text = installed.machine.sh(f"cat /proc/{installed.pid}/status")
    status = dict(re.findall(r"^(\w+):\s*(.*)$", text, re.M))
    assert set(status["Uid"].split()) == {uid} and set(status["Gid"].split()) == {gid}
    assert status["Groups"].split() in ([], [gid])
    for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 1 << 10, f"{name}: CAP_NET_BIND_SERVICE alone"
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_its_exposure(installed: Installed) -> None:
    said = installed.machine.run("systemd-analyze", "security", "--no-pager", "edgeproxy").stdout
    level = re.search(r"Overall exposure level for edgeproxy.service: ([\d.]+)", said)
    assert level is not None and float(level[1]) <= 2.5, said


def test_owners_and_modes(installed: Installed) -> None:
    wanted = """
        /etc/edgeproxy                          root edgeproxy 750
        /etc/edgeproxy/edgeproxy.yaml           root edgeproxy 640
        /etc/edgeproxy/keys.jsonl               root edgeproxy 640
        /etc/edgeproxy/certs                    root edgeproxy 2750
        /etc/edgeproxy/certs/localhost-key.pem  root edgeproxy 640
        /var/lib/edgeproxy                      edgeproxy edgeproxy 750
        /var/log/edgeproxy                      edgeproxy edgeproxy 750
        /var/log/edgeproxy/access.log           edgeproxy edgeproxy 640
        /run/edgeproxy                          edgeproxy edgeproxy 750
        /run/edgeproxy/control.sock             edgeproxy edgeproxy 660
        /opt/edgeproxy/bin/twistd               root root 755
    """
    for line in wanted.split("\n"):
        if line.strip():
            path, *rest = line.split()
            assert installed.machine.must("stat", "-c", "%U %G %a", path).split() == rest, path
    stranger = installed.machine.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", CONFIG)
    assert stranger.returncode != 0
    writable = installed.machine.sh("find /opt/edgeproxy /etc/edgeproxy -user edgeproxy")
    assert writable == "", "a gateway that was taken over could change itself"


def test_who_may_use_the_control_socket(installed: Installed) -> None:
    machine = installed.machine
    machine.sh("useradd -G edgeproxy ops; useradd stranger")
    for user in ("root", "ops"):
        said = machine.must("runuser", "-u", user, "--", "edgeproxy", "status")
        assert f"process {installed.pid}" in said
    done = machine.run("runuser", "-u", "stranger", "--", "edgeproxy", "status")
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    done = machine.run("runuser", "-u", "ops", "--", "edgeproxy", "keys", "add", "mine")
    assert done.returncode == 1 and "ermission denied" in done.stderr
    machine.sh("userdel ops; userdel stranger")


def test_a_key_that_root_adds_works(installed: Installed) -> None:
    added = installed.machine.must("edgeproxy", "keys", "add", "partner").strip().splitlines()
    key = next(word for line in added for word in line.split() if word.startswith("edge_"))
    wait_for(lambda: installed.ask("/", **{"X-API-Key": key}).status == 200, what="the key")


# -- reload ---------------------------------------------------------------------------------------


def test_a_reload(service: Installed) -> None:
    machine = service.machine
    assert service.ask("/more").status == 200
    pid = service.pid
    service.configure(routes={"*": {"exact:/": {"page": True}, "/more": {"page": True}}})
    machine.must("systemctl", "reload", "edgeproxy")
    assert service.ask("/other").status == 404
    assert "; reloaded: route" in machine.show("StatusText")
    assert (machine.show("SubState"), service.pid) == ("running", pid)


def test_a_reload_that_is_refused_fails_and_says_why(service: Installed) -> None:
    machine = service.machine
    service.configure(routes={"*": {"/": "nowhere"}})
    done = machine.run("systemctl", "reload", "edgeproxy")
    assert done.returncode != 0
    why = "there is no upstream 'nowhere'"
    assert why in machine.journal(30)
    assert f"the last reload was refused: {CONFIG}:" in machine.show("StatusText")
    assert (machine.show("ActiveState"), machine.show("SubState")) == ("active", "running")
    assert service.ask().status == 200, "what was in force still is"
    machine.write(CONFIG, service.first)
    machine.must("systemctl", "reload", "edgeproxy")
    assert "nothing had changed" in machine.show("StatusText")


# -- ends and starts ------------------------------------------------------------------------------


def test_a_process_that_is_killed_comes_back(service: Installed) -> None:
    pid = service.pid
    service.machine.must("kill", "-9", pid)
    assert service.ask().status == 200, "the connection waited in the socket unit"
    assert service.serving_anew(pid) != pid
    assert int(service.machine.show("NRestarts")) >= 1
    assert service.machine.run("edgeproxy", "status").returncode == 0


def test_a_process_that_hangs_is_replaced(service: Installed) -> None:
    machine = service.machine
    drop_in(machine, "edgeproxy.service", "[Service]\nWatchdogSec=2\nTimeoutAbortSec=5\n")
    machine.must("systemctl", "restart", "edgeproxy")
    pid = service.pid
    time_in_peace = time.monotonic() + 5
    wait_for(lambda: time.monotonic() > time_in_peace, 10)
    assert service.pid == pid, "one that lives is left alone"
    machine.must("kill", "-STOP", pid)
    assert service.serving_anew(pid) != pid
    assert service.ask().status == 200
    journal = machine.must("journalctl", "-u", "edgeproxy", "-n", "100", "--no-pager", "-o", "cat")
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal, "and where it was stuck"


class Callers:
    """Clients that ask again and again, each time on a new connection."""

    def __init__(self, service: Installed) -> None:
        self.ended: list[int | str] = []
        self._stop = threading.Event()
        self._service = service
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.ended.append(self._service.ask().status)
            except (OSError, http.client.HTTPException) as error:
                self.ended.append(repr(error))

    def stop(self) -> Counter[int | str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive()
        return Counter(self.ended)


def test_a_restart_under_load_refuses_nobody(service: Installed) -> None:
    machine = service.machine
    # The page has a limit of its own; here every answer is to be 200.
    service.configure(defaults={"auth": "api_key"}, limits={})
    machine.must("systemctl", "reload", "edgeproxy")
    callers = Callers(service)
    try:
        for _ in range(3):
            before, pid = len(callers.ended), service.pid
            wait_for(lambda: len(callers.ended) > before + 50)  # noqa: B023
            machine.must("systemctl", "restart", "edgeproxy")
            assert service.pid != pid
            after = len(callers.ended)
            wait_for(lambda: len(callers.ended) > after + 50)  # noqa: B023
    finally:
        ended = callers.stop()
    assert ended.keys() == {200}, ended
    assert ended[200] > 300


def test_drained_it_stays_down_until_somebody_comes(service: Installed) -> None:
    machine = service.machine
    restarts = machine.show("NRestarts")
    machine.must("edgeproxy", "drain")
    wait_for(lambda: machine.show("ActiveState") == "inactive", 10)
    assert machine.show("Result") == "success"
    assert service.ask().status == 200, "the sockets are still there"
    assert machine.show("NRestarts") == restarts
    machine.must("systemctl", "stop", "edgeproxy*")
    assert not accepts(service.port) and not accepts(service.plain)
    assert machine.run("ls", "/run/edgeproxy").returncode != 0


def test_a_drain_may_take_longer_than_the_unit_says(service: Installed) -> None:
    machine = service.machine
    with echo() as (port, held):
        service.configure(
            timeouts={"drain": "60s"},
            upstreams={"slow": f"http://127.0.0.1:{port}"},
            routes={"*": {"/": "slow"}},
        )
        drop_in(machine, "edgeproxy.service", "[Service]\nTimeoutStopSec=1\n")
        machine.must("systemctl", "restart", "edgeproxy")
        answers: list[Answer] = []
        caller = threading.Thread(target=lambda: answers.append(service.ask("/hold")))
        caller.start()
        wait_for(lambda: held.waiting)
        machine.must("systemctl", "stop", "--no-block", "edgeproxy")
        wait_for(lambda: "draining 1 connections" in machine.show("StatusText"))
        end = time.monotonic() + 4
        wait_for(lambda: time.monotonic() > end)
        assert machine.show("ActiveState") == "deactivating"
        held.go.set()
        caller.join(20)
        assert [answer.status for answer in answers] == [200]
        wait_for(lambda: machine.show("ActiveState") == "inactive")
        assert machine.show("Result") == "success"


def test_a_broken_configuration_is_told_and_mended_without_ado(service: Installed) -> None:
    machine = service.machine
    machine.write(CONFIG, "routes: {'*': {/: nowhere}}\n")
    done = machine.run("systemctl", "restart", "edgeproxy")
    assert done.returncode != 0
    why = rf"^edgeproxy: {CONFIG}:1:\d+: there is no upstream 'nowhere'"
    wait_for(lambda: re.search(why, machine.journal(60), re.M))
    wait_for(lambda: int(machine.show("NRestarts")) > 6, 60, "more tries than systemd's usual five")
    machine.write(CONFIG, service.first)
    assert service.ask().status == 200


# -- sockets, ports, secrets ----------------------------------------------------------------------


def test_a_name_that_no_socket_unit_has(service: Installed) -> None:
    service.configure(listen="systemd:web")
    assert service.machine.run("systemctl", "restart", "edgeproxy").returncode != 0
    why = "systemd passed no socket of that name, it passed http, https; start the socket unit"
    assert why in service.machine.journal(30)


def test_a_low_port_of_its_own(service: Installed) -> None:
    machine = service.machine
    low = next(port for port in range(600, 1000) if not accepts(port))
    service.configure(listen=f"127.0.0.1:{low}")
    machine.must("systemctl", "restart", "edgeproxy")
    assert service.ask(port=low).status == 200
    assert "does not use, nobody answers there: http, https" in machine.journal(30)
    drop_in(machine, "edgeproxy.service", "[Service]\nAmbientCapabilities=\n")
    assert machine.run("systemctl", "restart", "edgeproxy").returncode != 0
    assert f"no permission to listen on 127.0.0.1:{low}; ports below 1024" in machine.journal(30)


class Held:
    def __init__(self) -> None:
        self.waiting = False
        self.go = threading.Event()


@contextmanager
def echo() -> Iterator[tuple[int, Held]]:
    """A service on this machine that answers with the fields that it got."""
    held = Held()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/hold":
                held.waiting = True
                held.go.wait(60)
            data = str(self.headers).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], held
    held.go.set()
    server.shutdown()
    server.server_close()


def test_a_secret_that_only_root_can_read(service: Installed) -> None:
    machine = service.machine
    machine.write("/etc/edgeproxy/credentials/pay-token", "t0p-secret\n")
    machine.sh("chmod -R go= /etc/edgeproxy/credentials")
    unit = machine.read("/usr/local/lib/systemd/system/edgeproxy.service")
    (example,) = re.findall(r"^#(LoadCredential=.*)$", unit, re.M)
    with echo() as (port, _):
        target = {
            "targets": f"http://127.0.0.1:{port}",
            "set": {"X-Token": "${credential:pay-token}"},
        }
        service.configure(upstreams={"pay": target}, routes={"*": {"/": "pay"}})
        assert machine.run("systemctl", "restart", "edgeproxy").returncode != 0
        assert "the systemd unit needs LoadCredential=pay-token:" in machine.journal(30)
        drop_in(machine, "edgeproxy.service", f"[Service]\n{example}\n")
        machine.must("systemctl", "restart", "edgeproxy")
        assert "X-Token: t0p-secret" in service.ask().body.decode()
        machine.must("systemctl", "reload", "edgeproxy")
        assert "t0p-secret" not in machine.journal(500)
        assert "t0p-secret" not in machine.sh(f"tr '\\0' '\\n' </proc/{service.pid}/environ")


def test_its_environment_is_not_for_children(service: Installed) -> None:
    """What systemd passes is taken out of the process's own view of it."""
    names = "NOTIFY_SOCKET|WATCHDOG_|LISTEN_"
    assert re.search(names, service.machine.sh(f"cat /proc/{service.pid}/environ | tr '\\0' '\\n'"))
    descriptors = service.machine.sh(f"grep -h flags /proc/{service.pid}/fdinfo/3")
    assert int(descriptors.split()[1], 8) & os.O_CLOEXEC


# -- logs, certificates ---------------------------------------------------------------------------


def test_logrotate(service: Installed) -> None:
    machine = service.machine
    assert service.ask("/before").status == 200
    log = "/var/log/edgeproxy/access.log"
    wait_for(lambda: '"path":"/before"' in machine.read(log))
    said = machine.run("logrotate", "--verbose", "--force", "/etc/logrotate.d/edgeproxy")
    assert said.returncode == 0, said
    wait_for(lambda: (machine.root / log[1:]).exists(), what=f"a new log\n{said}")
    assert service.ask("/after").status == 200
    wait_for(lambda: '"path":"/after"' in machine.read(log))
    assert '"path":"/before"' in machine.read(f"{log}.1")
    assert '"path":"/after"' not in machine.read(f"{log}.1")
    assert machine.must("stat", "-c", "%U %a", log).split() == ["edgeproxy", "640"]


def presented(port: int, name: str) -> bytes | None:
    """The certificate that answers for a name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as sock,
            context.wrap_socket(sock, server_hostname=name) as tls,
        ):
            return tls.getpeercert(True)
    except ssl.SSLError:
        return None


def test_the_hook_of_certbot(service: Installed) -> None:
    machine = service.machine
    name = "shop.example.com"
    live, archive = f"/etc/letsencrypt/live/{name}", f"/etc/letsencrypt/archive/{name}"
    folder = machine.root / f"etc/edgeproxy/certs/{name}"
    for number in (1, 2):
        made = make_certificate([name], datetime.now(UTC))
        machine.write(f"{archive}/fullchain{number}.pem", made.chain_pem)
        machine.write(f"{archive}/privkey{number}.pem", made.key_pem)
        machine.sh(
            f"mkdir -p {live}; chmod 700 /etc/letsencrypt/live /etc/letsencrypt/archive\n"
            f"chmod 600 {archive}/privkey{number}.pem\n"
            f"ln -sf {archive}/fullchain{number}.pem {live}/fullchain.pem\n"
            f"ln -sf {archive}/privkey{number}.pem {live}/privkey.pem"
        )
        # certbot runs every executable file in the folder.
        hook = "/etc/letsencrypt/renewal-hooks/deploy/edgeproxy"
        machine.must("env", f"RENEWED_LINEAGE={live}", f"RENEWED_DOMAINS={name}", hook)
        der = ssl.PEM_cert_to_DER_cert(
            made.chain_pem.decode().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
        )
        wait_for(lambda: presented(service.port, name) == der, 30, f"certificate {number}")  # noqa: B023
    assert sorted(path.name for path in folder.iterdir()) == ["fullchain.pem", "privkey.pem"]
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.group() != "root" and path.owner() == "root"
    broken = machine.run("env", "RENEWED_LINEAGE=/nonexistent", hook)
    assert broken.returncode != 0
    assert machine.run(hook).returncode != 0
    assert presented(service.port, name) == der
    machine.sh(
        f"rm -r /etc/edgeproxy/certs/{name} /etc/edgeproxy/certs/nonexistent "
        "/etc/letsencrypt/live /etc/letsencrypt/archive"
    )


# -- upgrade, packages, the end -------------------------------------------------------------------


def test_installing_again_is_an_upgrade(service: Installed) -> None:
    machine = service.machine
    changed = service.first + "\n# changed here\n"
    machine.write(CONFIG, changed)
    machine.sh(
        "echo '# mine' >>/etc/logrotate.d/edgeproxy; cp /etc/logrotate.d/edgeproxy /tmp/mine"
    )
    machine.sh("rm /etc/letsencrypt/renewal-hooks/deploy/edgeproxy")
    machine.sh("echo 'UPGRADED = True' >>/src/edgeproxy/page.py")
    machine.sh("echo '# newer' >>/src/systemd/edgeproxy.service")
    keys, pid = machine.read("/etc/edgeproxy/keys.jsonl"), service.pid
    said = machine.sh("cd /src && make install")
    assert "kept /etc/logrotate.d/edgeproxy, which was changed here" in said
    assert "systemctl restart edgeproxy" in said and "edge_" not in said
    assert service.pid == pid and service.ask().status == 200
    assert machine.read(CONFIG) == changed
    assert machine.read("/etc/edgeproxy/keys.jsonl") == keys
    machine.must("cmp", "/etc/logrotate.d/edgeproxy", "/tmp/mine")
    machine.must("test", "!", "-e", "/etc/letsencrypt/renewal-hooks/deploy/edgeproxy")
    assert "# newer" in machine.read("/usr/local/lib/systemd/system/edgeproxy.service")
    machine.must("systemctl", "restart", "edgeproxy")
    machine.must("/opt/edgeproxy/bin/python", "-c", "from edgeproxy.page import UPGRADED")
    assert service.ask().status == 200
    assert machine.sh("ls -A /src | grep -E '^(build|dist)$|egg-info' || true") == ""
    machine.sh("cd /opt/edgeproxy/share/edgeproxy/etc && cp -R logrotate.d letsencrypt /etc/")


def test_for_a_package(installed: Installed) -> None:
    machine = installed.machine
    before = files(machine)
    machine.sh("cd /src && make install DESTDIR=/srv/stage/ PREFIX=/opt/elsewhere")
    assert files(machine) == before, "nothing outside of DESTDIR"
    stage = "/srv/stage"
    unit = machine.read(f"{stage}/usr/local/lib/systemd/system/edgeproxy.service")
    assert "ExecStart=/opt/elsewhere/bin/twistd " in unit and "/opt/edgeproxy" not in unit
    assert machine.sh(f"grep -rIl {stage} {stage}/opt/elsewhere/bin || true") == ""
    machine.must("test", "!", "-e", f"{stage}/etc/edgeproxy")
    machine.sh(f"mv {stage}/opt/elsewhere /opt/elsewhere")
    assert "edgeproxy" in machine.must("/opt/elsewhere/bin/edgeproxy", "--version")
    assert " edgeproxy " in machine.must("/opt/elsewhere/bin/twistd", "--help")
    machine.sh(f"mv /opt/elsewhere {stage}/opt/elsewhere")
    machine.sh("cd /src && make uninstall DESTDIR=/srv/stage PREFIX=/opt/elsewhere")
    assert machine.sh(f"find {stage} -type f -o -type l") == ""
    machine.sh(f"rm -r {stage}")


@pytest.mark.parametrize("prefix", ["/", "/usr", "/usr/", "/opt", "opt/x", "/opt/a b"])
def test_a_prefix_that_cannot_be_meant(installed: Installed, prefix: str) -> None:
    done = installed.machine.run(
        "sh", "-c", f"cd /src && make uninstall PREFIX={shlex.quote(prefix)}"
    )
    assert done.returncode != 0 and "edgeproxy: PREFIX is" in done.stderr
    installed.machine.must("test", "-e", "/opt/edgeproxy/bin/edgeproxy")


def test_removed_it_leaves_only_data(installed: Installed) -> None:
    machine = installed.machine
    data = machine.sh(f"find {' '.join(DATA)} -type f | sort")
    assert "/etc/edgeproxy/keys.jsonl" in data and "/var/log/edgeproxy/access.log" in data
    pid = installed.pid
    assert "kept, with what you put there: /etc/edgeproxy" in machine.sh(
        "cd /src && make uninstall"
    )
    assert not Path(f"/proc/{pid}/root{machine.root}").exists()
    assert not accepts(installed.port) and not accepts(installed.plain)
    assert machine.sh(f"find {' '.join(DATA)} -type f | sort") == data
    left = files(machine) - installed.before
    own = {
        name
        for name in left
        if not re.match(
            r"(/etc/(passwd|group|g?shadow|sub[ug]id)-?|/var/lib/logrotate/status)$", name
        )
    }
    assert own == set(), own
    assert machine.run("systemctl", "cat", "edgeproxy.service").returncode != 0
    machine.sh("cd /src && make install >/tmp/again && systemctl start edgeproxy")
    assert installed.ask().status == 200, "with the configuration and the keys that were kept"
