"""The files that an upstream's `tls` names: read with the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from certs_support import Issued, issue, key, root
from config_support import unmarked

from edgeproxy.config import Config, ConfigError, Problem, parse
from edgeproxy.config.model import UpstreamTls


@pytest.fixture
def ours() -> Issued:
    return issue(["client.test"], root())


@pytest.fixture
def folder(tmp_path: Path, ours: Issued) -> Path:
    (tmp_path / "ca.pem").write_bytes(root().pem)
    (tmp_path / "ours.pem").write_bytes(ours.full)
    (tmp_path / "ours.key").write_bytes(ours.key)
    (tmp_path / "both.pem").write_bytes(ours.key + ours.full)
    (tmp_path / "other.key").write_bytes(issue(["a.test"], private=key("ECDSA", 77)).key)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut.pem").write_bytes(root().pem[:200])
    return tmp_path


def load(tls: str, folder: Path) -> Config:
    text = "upstreams: { a: { targets: https://a, tls: %s } }\nroutes: {}\n" % tls
    return parse(text, "e.yaml", folder=folder)


def problem(marked: str, folder: Path) -> Problem:
    text, places = unmarked(marked)
    with pytest.raises(ConfigError) as caught:
        load(text, folder)
    (found,) = caught.value.problems
    prefix = len("upstreams: { a: { targets: https://a, tls: ")
    assert [(found.line, found.column - prefix)] == places
    return found


def tls(config: Config) -> UpstreamTls:
    found = config.upstreams["a"].tls
    assert found is not None
    return found


def test_what_is_read(folder: Path, ours: Issued) -> None:
    found = tls(load("{ ca: ca.pem, name: b.test, certificate: ours.pem, key: ours.key }", folder))
    assert (found.ca, found.name, found.certificate) == (root().pem, "b.test", ours.full)
    assert found.key is not None
    assert found.key.get_secret_value() == ours.key
    assert "PRIVATE" not in repr(found), "a key is never shown"
    assert tls(load("{ certificate: both.pem }", folder)).key == found.key
    assert tls(load("{ verify: false }", folder)) == UpstreamTls(verify=False)
    plain = parse("upstreams: { a: https://a, b: http://b }\nroutes: {}", folder=folder)
    assert (plain.upstreams["a"].tls, plain.upstreams["b"].tls) == (UpstreamTls(), None)


def test_the_same_setting_with_another_file_is_another_configuration(folder: Path) -> None:
    before = load("{ ca: ca.pem }", folder)
    assert load("{ ca: ca.pem }", folder) == before
    (folder / "ca.pem").write_bytes(issue(cn="Other Root", ca=True, private=key("ECDSA", 5)).pem)
    assert load("{ ca: ca.pem }", folder) != before


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("{ ca: »empty }", "'empty' holds no certificate; PEM would be right"),
        ("{ ca: »ours.key }", "'ours.key' holds no certificate; PEM would be right"),
        ("{ ca: »cut.pem }", "'cut.pem': a CERTIFICATE block has no end: the file is cut short"),
        ("{ ca: »'.' }", "'.' cannot be read: it is not a regular file"),
        ("{ ca: »ca.pem, verify: false }", "`verify: false` looks at no `ca`; remove one of both"),
        ("{ certificate: »ours.pem }", "'ours.pem' holds no private key; add `key`"),
        ("{ certificate: »ours.key }", "'ours.key' holds no certificate; PEM would be right"),
        (
            "{ certificate: ours.pem, key: »ca.pem }",
            "'ca.pem' holds no private key; PEM would be right",
        ),
        (
            "{ certificate: ours.pem, key: »other.key }",
            "'other.key' holds no key of the first certificate, which is for client.test",
        ),
        ("{ certificate: ours.pem, key: »none }", "'none' cannot be read: no such file"),
    ],
)
def test_what_is_wrong(marked: str, message: str, folder: Path) -> None:
    assert message in problem(marked, folder).message


def test_an_encrypted_key(folder: Path) -> None:
    (folder / "locked.pem").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    found = problem("{ certificate: ours.pem, key: »locked.pem }", folder)
    assert "write it without a passphrase" in found.message


def test_sockets_lie_beside_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.yaml").write_text("upstreams: { b: unix:b.sock }\n")
    text = "include: conf.d/*.yaml\nupstreams: { a: unix:a.sock, c: unix:/run/c.sock }\nroutes: {}"
    upstreams = parse(text, folder=tmp_path).upstreams
    shown = {name: str(upstream.targets[0]) for name, upstream in upstreams.items()}
    assert shown == {
        "a": f"unix:{tmp_path}/a.sock",
        "b": f"unix:{tmp_path}/conf.d/b.sock",
        "c": "unix:/run/c.sock",
    }
