"""`edgeproxy certs`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certs_support import Issued, intermediate, issue, key, key_pem
from cli_support import call, called, write
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

NOW = datetime.now(UTC)


def issued(*names: str, days: float = 60, life: float = 90, **options: Any) -> Issued:
    """A certificate with so many days left of so many."""
    end = NOW + timedelta(days=days)
    return issue(names, start=end - timedelta(days=life), end=end, **options)


Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    write(tmp_path, routes={"*": {"/": {"page": True}}})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "certs").mkdir()

    def put(name: str, one: Issued, mode: int = 0o600) -> None:
        path = tmp_path / "certs" / name
        path.write_bytes(one.full + one.key)
        path.chmod(mode)

    return put


@pytest.fixture
def three(put: Put) -> dict[str, Issued]:
    """Two certificates for one name, and a wildcard."""
    made = {
        "short.pem": issued("api.example.com", days=50, private=key("ECDSA", 1)),
        "long.pem": issued("api.example.com", "www.example.com", days=80, private=key("ECDSA", 2)),
        "wild.pem": issued("*.example.com", days=85, private=key("ECDSA", 3)),
    }
    for name, one in made.items():
        put(name, one)
    return made


def explained(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call("certs", "--for", name, "--json").stdout)
    return found


def fingerprint(one: Issued) -> str:
    from cryptography.hazmat.primitives import hashes

    return one.certificate.fingerprint(hashes.SHA256()).hex()


def test_names_issuer_expiry_and_which_file_wins(three: dict[str, Issued]) -> None:
    text = called("certs")
    assert text.split()[:4] == ["NAMES", "KEY", "ISSUER", "EXPIRES"]
    by_file = {line.split(".pem")[0].split()[-1]: line for line in text.splitlines()[1:]}
    assert by_file["short"].endswith("nothing: another lasts longer")
    assert by_file["long"].endswith("all its names")
    assert "(in 79 days)" in by_file["long"]
    assert "*.example.com" in by_file["wild"]


def test_as_json(three: dict[str, Issued]) -> None:
    found = json.loads(called("certs", "--json"))
    answers = {c["files"][0]: c["answers_for"] for c in found["certificates"]}
    assert answers["short.pem"] == []
    assert answers["long.pem"] == ["api.example.com", "www.example.com"]
    assert found["problems"] == found["warnings"] == []


def test_a_name_and_why(three: dict[str, Issued]) -> None:
    text = called("certs", "--for", "API.example.com.")
    assert text.splitlines()[0] == "api.example.com: a certificate carries exactly this name"
    assert "answers: certs/long.pem (ECDSA" in text and "to every client" in text
    assert "does not:  certs/short.pem" in text
    assert "another ECDSA certificate lasts longer" in text
    assert text.splitlines()[-1].endswith("the exact name goes before a wildcard")
    assert "wildcard over it" in called("certs", "--for", "other.example.com")
    found = explained("other.example.com")
    assert (found["rule"], found["files"], found["alert"]) == ("wildcard", [["wild.pem"]], None)
    assert found["answers"][0]["fingerprint"] == fingerprint(three["wild.pem"])


def test_a_name_that_nobody_covers(three: dict[str, Issued], tmp_path: Path) -> None:
    result = call("certs", "--for", "a.b.example.com")
    assert result.exit_code == 1
    assert "the handshake is refused (unrecognized_name)" in result.stdout
    assert explained("a.b.example.com")["alert"] == "unrecognized_name"
    certs = {"folder": "certs", "default": "www.example.com"}
    write(tmp_path, certs=certs, routes={"*": {"/": {"page": True}}})
    result = call("certs", "--for", "a.b.example.com")
    assert result.exit_code == 1
    assert "the default answers" in result.stdout and "certs/long.pem" in result.stdout
    found = explained("a.b.example.com")
    assert (found["rule"], found["accepted"], found["alert"]) == ("default", False, None)
    assert found["files"] == [["long.pem"]]


def test_what_is_no_host_name(three: dict[str, Issued]) -> None:
    result = call("certs", "--for", "*.example.com")
    assert result.exit_code == 1
    assert result.stdout.startswith("that is no host name: ")


def test_ecdsa_and_rsa_for_one_name(put: Put) -> None:
    both = {kind: issued("a.example", private=key(kind)) for kind in ("RSA", "ECDSA")}
    for kind, one in both.items():
        put(kind, one)
    put("older", issued("a.example", days=20, private=key("RSA")))
    text = called("certs", "--for", "a.example")
    first, second, third = text.splitlines()[1:]
    assert "certs/ECDSA (ECDSA" in first and "to clients that can verify ECDSA" in first
    # One key for two certificates: the file of the other is named as the key's too.
    assert "certs/RSA" in second and "to others, if they can verify RSA" in second
    assert "another RSA certificate lasts longer" in third
    answers = explained("a.example")["answers"]
    assert [a["fingerprint"] for a in answers] == [
        fingerprint(both["ECDSA"]),
        fingerprint(both["RSA"]),
    ]


def test_an_expired_certificate_answers_for_what_nothing_else_covers(put: Put) -> None:
    put("old", issued("a.example", "b.example", days=-1, private=key("ECDSA", 1)))
    result = call("certs")
    assert result.exit_code == 1
    assert "(expired)" in result.stdout
    assert "warning: certs/old: certificate for a.example expired on" in result.stderr
    result = call("certs", "--for", "a.example")
    assert result.exit_code == 1
    assert "not valid now: clients will refuse it" in result.stdout
    assert explained("a.example")["accepted"] is False
    # A valid wildcard goes before an expired exact name, and the list knows it.
    put("wild", issued("*.example", private=key("ECDSA", 2)))
    assert "nothing: not valid now" in called("certs")
    assert explained("a.example")["rule"] == "wildcard"
    assert "expired" in called("certs", "--for", "a.example")


def test_what_is_wrong_is_told_and_is_the_exit_status(three: dict[str, Issued]) -> None:
    Path("certs/bad.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    result = call("certs")
    assert result.exit_code == 1
    assert "warning: certs/bad.pem:" in result.stderr
    assert call("certs", "--json").exit_code == 1
    assert call("certs", "--for", "api.example.com").exit_code == 0


def test_a_folder_of_which_nothing_can_be_served(put: Put) -> None:
    Path("certs/README").write_text("certificates go here")
    for options in ((), ("--json",)):
        assert call("certs", *options).exit_code == 1
    assert call("certs").stderr == (
        "warning: certs: no usable certificate with its key; put both there\n"
    )
    put("a.pem", issued("a.example"))
    assert call("certs").exit_code == 0


def test_what_is_not_pem_is_wrong_where_nothing_else_is_there(put: Put) -> None:
    one = issued("a.example")
    Path("certs/a.cer").write_bytes(one.certificate.public_bytes(Encoding.DER))
    for command in ("certs", "check"):
        result = call(command)
        assert result.exit_code == 1
        assert "certs/a.cer" in result.output and "`openssl x509 -in" in result.output
    put("a.pem", one)
    assert call("certs").exit_code == 0
    for command in ("certs", "check"):
        assert "warning: certs/a.cer: is DER, which is not read" in call(command).stderr


def test_what_openssl_refuses_wins_nothing(put: Put) -> None:
    weak_ca = issue(
        cn="Weak", private=key("RSA1024"), ca=True, issuer=intermediate(), end=NOW + timedelta(999)
    )
    put("weak", issued("a.example", days=80, issuer=weak_ca, private=key("ECDSA", 1)))
    put("good", issued("a.example", days=50, private=key("ECDSA", 2)))
    result = call("certs")
    assert "OpenSSL does not load it: " in result.stderr
    assert "nothing: OpenSSL does not load it" in result.stdout
    assert explained("a.example")["files"] == [["good"]]


def test_a_client_certificate_beside_the_servers_wins_nothing(put: Put) -> None:
    clients = [ExtendedKeyUsageOID.CLIENT_AUTH]
    put("client", issued("a.example", days=80, private=key("ECDSA", 1), usages=clients))
    put("good", issued("a.example", days=50, private=key("ECDSA", 2)))
    result = call("certs")
    assert result.exit_code == 1
    assert "certs/client: certificate for a.example: its extended key usage" in result.stderr
    assert explained("a.example")["files"] == [["good"]]
    Path("certs/good").unlink()
    assert call("certs", "--for", "a.example").exit_code == 1


def test_names_of_files_are_one_line_each(three: dict[str, Issued], put: Put) -> None:
    """Whatever stands in them; also where another file's message names them."""
    forged = "x\nwarning: all.pem: is well\x1b[2J"
    Path("certs", forged).write_text("-----BEGIN CERTIFICATE-----\n")
    Path(os.fsdecode(b"certs/\xff.pem")).write_text("-----BEGIN CERTIFICATE-----\n")
    put("a\nb", issued("a.example", "b.example", days=80, private=key("ECDSA", 4)))
    put("ac", issued("a.example", "c.example", private=key("ECDSA", 5)))
    shown = r"x\nwarning: all.pem: is well\x1b[2J"
    for command in ("certs", "check"):
        result = call(command)
        assert f"certs/{shown}:" in result.output
        assert r"certs/\udcff.pem:" in result.output
        assert r"a\nb answers" in result.stderr
        assert "\nwarning: all.pem" not in result.output
        assert "\x1b" not in result.output
    assert r"answers: certs/a\nb (ECDSA" in called("certs", "--for", "a.example")
    told = json.loads(call("certs", "--json").stdout)["problems"]
    assert {each["file"] for each in told} == {forged, os.fsdecode(b"\xff.pem")}


@pytest.mark.parametrize(
    ("days", "words"), [(19, None), (17, "a fifth"), (8, "a tenth"), (-1, None)]
)
def test_a_certificate_near_its_end(put: Put, days: float, words: str | None) -> None:
    put("a.pem", issued("a.example", days=days))
    for command in ("certs", "check"):
        said = call(command).stderr
        assert (f"less than {words} of its life is left" in said) == (words is not None)
    if words is not None:
        assert call("certs").exit_code == 0
        # What is replaced may grow old in peace.
        put("b.pem", issued("a.example", private=key("ECDSA", 5)))
        assert "of its life" not in call("certs").stderr


@pytest.mark.parametrize(
    ("mode", "words"),
    [(0o600, None), (0o640, None), (0o644, "others may read"), (0o660, "others may write")],
)
def test_a_key_that_others_can_read(put: Put, mode: int, words: str | None) -> None:
    put("a.pem", issued("a.example"), mode)
    for command in ("certs", "check"):
        said = call(command).stderr
        assert ("a.pem: holds a private key" in said) == (words is not None)
        assert words is None or f"has mode {mode:04o}: {words}" in said
    assert call("certs").exit_code == 0


def test_one_name_in_two_certificates_that_are_in_use(put: Put) -> None:
    put("ab", issued("a.example", "b.example", private=key("ECDSA", 1)))
    put("bc", issued("b.example", "c.example", days=70, private=key("ECDSA", 2)))
    said = call("certs").stderr
    assert "certs/ab: its certificate is for b.example too, and bc answers" in said
    assert len(said.splitlines()) == 1
    # Another type of key, a wildcard over the name, or what a renewal left: all as it should be.
    put("bc", issued("b.example", "c.example", private=key("RSA")))
    put("old", issued("a.example", days=20, private=key("ECDSA", 3)))
    put("wild", issued("*.example", days=80, private=key("ECDSA", 4)))
    assert call("certs").stderr == ""


def test_keys_never_show(put: Put) -> None:
    put("a.pem", issued("a.example"))
    secret = key_pem(key()).split()[4].decode()
    for options in ((), ("--json",), ("--for", "a.example"), ("--for", "a.example", "--json")):
        assert secret not in call("certs", *options).output


def test_what_a_name_asks_of_its_clients(three: dict[str, Issued], tmp_path: Path) -> None:
    write(
        tmp_path,
        auth={"staff": {"client_certificate": "ca.pem"}},
        client_certificates={
            "api.example.com": "staff",
            "*.example.com": {"by": "staff", "required": False},
        },
        routes={"*": {"/": {"page": True}}},
    )
    asked = "asks for:  a client certificate of staff, "
    assert asked + "required" in called("certs", "--for", "API.example.com")
    assert asked + "voluntary" in called("certs", "--for", "www.example.com")
    assert "asks for" not in call("certs", "--for", "example.org").stdout
    told = json.loads(called("certs", "--for", "api.example.com", "--json"))
    assert told["client_certificate"]["by"] == "staff"


def test_what_an_address_or_no_name_at_all_asks_of_its_clients(put: Put, tmp_path: Path) -> None:
    """As `Policies` has it: IPv6 in brackets; what is no host name counts as none, and gets the
    default's certificate under the default's policy."""
    put("address", issued("::1", "127.0.0.1", private=key("ECDSA", 1)))
    put("default", issued("d.example", private=key("ECDSA", 2)))
    settings: dict[str, Any] = {
        "auth": {
            "staff": {"client_certificate": "ca.pem"},
            "any": {"client_certificate": "ca.pem"},
        },
        "client_certificates": {"[::1]": "staff", "d.example": "staff", "*": "any"},
        "routes": {"*": {"/": {"page": True}}},
    }
    write(tmp_path, certs={"folder": "certs", "default": "d.example"}, **settings)

    def by(name: str) -> str | None:
        asked = explained(name)["client_certificate"]
        return None if asked is None else asked["by"]

    assert [by(name) for name in ("::1", "[::1]", "0:0::1", "-bad-", "", "d.example:443")] == (
        ["staff"] * 6
    )
    assert [by(name) for name in ("127.0.0.1", "other.example")] == ["any", "any"]
    # Without a default those are refused before they are asked for anything.
    write(tmp_path, **settings)
    assert [by(name) for name in ("-bad-", "other.example", "d.example")] == [None, None, "staff"]
