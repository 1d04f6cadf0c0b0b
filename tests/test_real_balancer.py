"""HAProxy before the gateway, and what it asks of it: may requests come?"""

from __future__ import annotations

import csv
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from real_support import Start
from running_support import DEADLINE, Child, free_port, wait_for

HAPROXY = """
global
    maxconn 100
    stats socket {folder}/haproxy.sock
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
backend edge
    option httpchk GET {path}
    server edge 127.0.0.1:{port} check inter 100ms rise 1 fall 1
frontend in
    bind 127.0.0.1:{own}
    default_backend edge
"""


def seen(folder: Path) -> tuple[str, str, str]:
    """The state of the gateway in HAProxy's eyes, how its last check ended, and the HTTP status."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(str(folder / "haproxy.sock"))
        sock.sendall(b"show stat\n")
        with sock.makefile(encoding="ascii") as lines:
            rows = list(csv.DictReader(line.removeprefix("# ") for line in lines))
    (row,) = [row for row in rows if row["svname"] == "edge"]
    return row["status"], row["check_status"], row["check_code"]


@pytest.mark.debian("haproxy")
@pytest.mark.parametrize("own", [False, True], ids=["plain listener", "health:"])
def test_haproxy_checks_without_a_host(
    gateway: Start, child: Callable[..., Child], tmp_path: Path, own: bool
) -> None:
    """Its default check is HTTP/1.0 without a field; another path stays refused."""
    listen = {"https": "127.0.0.1:0"}
    config = {"listen": listen, "routes": {"*": {"/": {"page": True}}}}
    if own:
        config["health"] = "127.0.0.1:0"
    else:
        listen["http"] = "127.0.0.1:0"
    running = gateway(config)
    kind = "health" if own else "http"
    port = int(running.child.wait_until_said(rf"listening on {kind} port (\d+)")[1])
    for path, expected in (
        ("/readyz", ("UP", "L7OK", "200")),
        ("/", ("DOWN", "L7STS", "400")),
    ):
        file = tmp_path / "haproxy.cfg"
        file.write_text(HAPROXY.format(folder=tmp_path, path=path, port=port, own=free_port()))
        proxy = child(["/usr/sbin/haproxy", "-db", "-f", file])
        wait_for((tmp_path / "haproxy.sock").exists)
        checked = wait_for(lambda: (found := seen(tmp_path))[1].startswith("L") and found)
        assert checked == expected
        proxy.end()
        (tmp_path / "haproxy.sock").unlink(missing_ok=True)
