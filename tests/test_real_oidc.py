"""A real OpenID Connect provider (oidc-provider, on Node) before a real gateway."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey
from real_support import Start
from running_support import ROOT, Child, RunningGateway, free_port, wait_for

FOLDER = ROOT / ".run" / "oidc"
PACKAGE = "oidc-provider@9.13.3"
SCRIPT = Path(__file__).with_name("oidc_provider.mjs")
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")


@dataclass
class Provider:
    """A provider that runs; `keys` are its private ones."""

    port: int
    folder: Path
    child: Child | None = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *keys: Any) -> None:
        """Start it, or start it again with other keys."""
        if self.child is not None:
            self.child.end()
        shown = self.folder / "keys.json"
        shown.write_text(json.dumps({"keys": [key.as_dict(private=True) for key in keys]}))
        command = ["node", FOLDER / SCRIPT.name, self.port, shown]
        self.child = Child.start(command, self.folder / "provider.out", cwd=FOLDER)
        self.child.wait_until_said("^listening")

    def token(self, algorithm: str = "ES256", seconds: int = 300, scope: str = "read") -> str:
        """An access token by the grant of client credentials (RFC 6749 4.4, RFC 8707)."""
        form = {
            "grant_type": "client_credentials",
            "resource": f"urn:shop:{algorithm}:{seconds}",
            "scope": scope,
        }
        request = urllib.request.Request(
            self.issuer + "/token", urllib.parse.urlencode(form).encode()
        )
        secret = base64.b64encode(b"robot:not-a-secret").decode()
        request.add_header("Authorization", f"Basic {secret}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            token: str = json.load(answer)["access_token"]
        return token


def _installed() -> str:
    """Why there is no provider; "" when there is."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "needs node and npm (make test-packages)"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several runs at once one installs
        if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
            (FOLDER / "package.json").write_text('{"private": true, "type": "module"}')
            command = ["npm", "install", "--no-audit", "--no-fund", "--silent", PACKAGE]
            try:
                made = subprocess.run(command, cwd=FOLDER, capture_output=True, timeout=100)
            except subprocess.TimeoutExpired:
                return "npm has not installed oidc-provider within 100 s"
            if made.returncode:
                shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
                return f"npm cannot install oidc-provider: {made.stderr.decode()[-300:]}"
        shutil.copy(SCRIPT, FOLDER)
    return ""


@pytest.fixture(scope="module")
def there() -> None:
    why = _installed()
    if why and os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(why, pytrace=False)
    if why:
        pytest.skip(why)


@pytest.fixture
def provider(there: None, tmp_path: Path) -> Iterator[Provider]:
    found = Provider(free_port(), tmp_path)
    yield found
    if found.child is not None:
        found.child.end()


def ec(kid: str, curve: str = "P-256") -> Any:
    return ECKey.generate_key(curve, {"kid": kid, "use": "sig"})


def start(gateway: Start, provider: Provider, **more: Any) -> RunningGateway:
    audience = [f"urn:shop:{name}:{ttl}" for name in ALGORITHMS for ttl in (300, 1)]
    entry = {"jwt": provider.issuer, "audience": audience, "leeway": "1s", **more}
    routes = {
        "/": {"page": True, "auth": "partner"},
        "/write": {"page": True, "auth": "partner", "scopes": "write"},
    }
    return gateway({"auth": {"partner": entry}, "routes": {"localhost": routes}})


def status(running: RunningGateway, token: str, path: str = "/") -> int:
    fields = {"Authorization": f"Bearer {token}"}
    return running.ask(path, fields=fields, key=None).status


def test_tokens_of_a_provider(gateway: Start, provider: Provider) -> None:
    rsa: dict[str, Any] = {"kid": "rsa", "use": "sig"}
    provider.start(
        RSAKey.generate_key(2048, rsa),
        ec("p256"),
        ec("p384", "P-384"),
        ec("p521", "P-521"),
        OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"}),
    )
    running = start(gateway, provider, type="at+jwt")
    for algorithm in ALGORITHMS:
        assert status(running, provider.token(algorithm)) == 200, algorithm
    line = running.control("status") and running.log_lines()[-1]
    assert (line["principal"], line["kind"]) == ("partner:robot", "jwt")
    good = provider.token()
    assert status(running, good, "/write") == 403
    assert status(running, provider.token(scope="read write"), "/write") == 200
    assert status(running, provider.token("RS256", 299)) == 401  # another audience
    head, payload, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["scope"] = "read write"
    other = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert status(running, f"{head}.{other}.{signature}") == 401
    assert status(running, f"{head}.{payload}.{signature[:-8]}AAAAAAAA") == 401
    told = running.control("status")["credentials"]["partner"]
    assert (told["issuer"], told["keys"], told["error"]) == (provider.issuer, 5, "")
    said = running.command("status").stdout
    assert f"partner       {provider.issuer}, 5 keys" in said


def test_a_token_expires(gateway: Start, provider: Provider) -> None:
    provider.start(ec("p256"))
    running = start(gateway, provider)
    short = provider.token(seconds=1)
    assert status(running, short) == 200
    wait_for(lambda: status(running, short) == 401, what="the token expires")
    assert running.log_lines()


def test_a_provider_rotates_its_keys_and_goes_away(gateway: Start, provider: Provider) -> None:
    first, second = ec("first"), ec("second")
    provider.start(first)
    running = start(gateway, provider)
    old = provider.token()
    assert status(running, old) == 200
    provider.start(second, first)
    new = provider.token()
    wait_for(lambda: status(running, new) == 200, what="the new key is fetched")
    assert status(running, old) == 200
    assert provider.child is not None
    provider.child.end()
    assert status(running, new) == 200
    assert status(running, old) == 200


def test_no_provider_yet(gateway: Start, provider: Provider, wait_for: Callable[..., Any]) -> None:
    running = start(gateway, provider)
    key = ec("p256")
    provider.start(key)
    token = provider.token()
    provider.child.end()  # type: ignore[union-attr]
    assert status(running, token) == 503
    running.child.wait_until_said("auth: partner: no keys from its issuer: cannot connect")
    assert "cannot connect" in running.command("status").stderr
    provider.start(key)
    wait_for(lambda: status(running, token) == 200, what="the keys are fetched")
    running.child.wait_until_said("auth: partner: the keys of its issuer are there again")
    assert running.child.said().count("no keys from its issuer") == 1
    assert "factory" not in running.child.said()
