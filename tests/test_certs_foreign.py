"""What is not PEM."""

from __future__ import annotations

import subprocess
from pathlib import Path

from certs_support import NOW, issue, key, root
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from edgeproxy.certs.foreign import hint
from edgeproxy.certs.scan import scan


def test_what_is_not_pem_is_told_where_a_server_could_have_needed_it() -> None:
    one = issue(["a.example"], private=key("RSA"))
    sealed = BestAvailableEncryption(b"secret")
    pkcs8 = (Encoding.DER, PrivateFormat.PKCS8)
    older = (Encoding.DER, PrivateFormat.TraditionalOpenSSL)
    text = (one.pem + one.key).decode()
    files = {
        "cert.der": one.certificate.public_bytes(Encoding.DER),
        "key.der": one.private.private_bytes(*pkcs8, NoEncryption()),
        "key.older": one.private.private_bytes(*older, NoEncryption()),
        "key.sealed": one.private.private_bytes(*pkcs8, sealed),
        "one.p12": serialize_key_and_certificates(
            None, one.private, one.certificate, None, NoEncryption()
        ),
        "one.pfx": serialize_key_and_certificates(
            b"shop", one.private, one.certificate, [root().certificate], sealed
        ),
        "be.txt": text.encode("utf-16-be"),
        "le.txt": text.encode("utf-16"),
    }
    found = scan(files, NOW)
    assert {problem.file: problem.message.split(",")[0] for problem in found.problems} == {
        "cert.der": "is DER",
        **dict.fromkeys(("key.der", "key.older", "key.sealed"), "is a key in DER"),
        **dict.fromkeys(("one.p12", "one.pfx"), "is PKCS#12"),
        **dict.fromkeys(("be.txt", "le.txt"), "is in UTF-16"),
    }
    assert set(found.foreign) == set(found.problems)
    assert found.broken == frozenset(), "they take nothing away"
    for data in files.values():
        for cut in range(0, len(data), 50):
            hint(data[:cut])


def test_der_that_is_no_servers_is_passed_over(tmp_path: Path) -> None:

    def openssl(command: str) -> None:
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)

    openssl("req -new -newkey rsa:2048 -nodes -keyout key -out csr -subj /CN=x")
    openssl("req -in csr -outform DER -out csr.der")
    openssl("pkey -in key -pubout -outform DER -out public.der")
    openssl("dhparam -dsaparam -outform DER -out dh.der 512")
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*.der")}
    assert len(files) == 3
    assert scan(files, NOW).problems == ()


def test_a_key_that_openssl_chokes_on_is_nothing() -> None:
    """An Ed448 key by its algorithm, of the length of an Ed25519 one."""
    der = key("Ed25519").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert hint(der) is not None
    assert hint(der.replace(b"\x2b\x65\x70", b"\x2b\x65\x71")) is None
