"""docs/edge-token.md: its service verifies what the gateway of its example sends it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import yaml
from docs_support import of, page, table
from real_support import Start
from running_support import Child, accepts, free_port, wait_for


def test_the_service_of_the_page(
    gateway: Start, child: Callable[..., Child], tmp_path: Path
) -> None:
    health, service = free_port(), free_port()
    (source,) = of("docs/edge-token.md", "python")
    script = tmp_path / "service.py"
    script.write_text(
        source.replace("127.0.0.1:9000", f"127.0.0.1:{health}").replace("9001", str(service))
    )
    configuration = yaml.safe_load(of("docs/edge-token.md", "yaml")[0])
    del configuration["listen"]
    configuration["health"] = f"127.0.0.1:{health}"
    configuration["upstreams"]["users"]["targets"] = f"http://127.0.0.1:{service}"
    running = gateway(configuration)
    child([sys.executable, script])
    wait_for(lambda: accepts(service))
    found = running.ask("/users/7", fields={"X-Edge-Token": "forged"})
    assert found.status == 200, found.body
    told = {row[0] for row in table(page("docs/edge-token.md"), "What it says")}
    names = {name for cell in told for name in cell.strip("`").split("`, `")}
    claims = found.json()
    assert set(claims) <= names
    assert names - set(claims) <= {"plan"}
    assert (claims["iss"], claims["aud"]) == ("https://edge.example.com", "users")
    direct = HTTPConnection("127.0.0.1", service, timeout=20)
    direct.request("GET", "/users")
    assert direct.getresponse().status == 401, "who does not come by the gateway has no token"
    direct.close()
    file = running.folder / "state" / "edge-token-keys.json"
    assert file.stat().st_mode & 0o777 == 0o600
    status = json.loads(running.command("status", "--json").stdout)["edge_token"]
    assert (status["published"], status["signed"], status["trouble"]) == (2, 1, "")
