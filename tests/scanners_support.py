"""Scanners of TLS against a gateway at work: sslyze and testssl.sh, and the reports kept in docs/.

`python tests/scanners_support.py` (`make tls-reports`) writes the reports anew.

sslyze lives in an environment of its own, `.run/sslyze`, made once: it wants an older
`cryptography` than edgeproxy does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from certs_support import key, key_pem
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from running_support import ROOT, Development, RunningGateway, run, start_gateway

SSLYZE = ROOT / ".run" / "sslyze"
REQUIREMENT = "sslyze>=6.3,<7"
REPORTS = {
    "intermediate": ROOT / "docs" / "tls-sslyze-intermediate.txt",
    "modern": ROOT / "docs" / "tls-sslyze-modern.txt",
    "testssl": ROOT / "docs" / "tls-testssl.txt",
}

#: What testssl.sh says that is not about the gateway, and why.
EXCEPTIONS = {
    "engine_problem": "it looks for GOST ciphers in the OpenSSL of the machine that it runs on",
}
HARMLESS = {"OK", "INFO", "LOW"}


class Missing(Exception):
    """A scanner that is not here; ``str()`` says how it would come here."""


class Scanned(NamedTuple):
    """What a scanner wrote, and how it ended."""

    text: str
    code: int


# -- what is scanned -----------------------------------------------------------------------------


@contextmanager
def gateway(folder: Path, posture: str) -> Iterator[RunningGateway]:
    """A gateway as the documentation wants one on the internet, with a certificate like those
    of public CAs."""
    config = {
        "listen": {"https": "127.0.0.1:0", "tls": posture},
        "certs": {"folder": "certs", "default": "localhost"},
        "hsts": {"*": "730d"},
        "routes": {"*": {"/": {"page": True, "auth": "none"}}},
    }
    running = start_gateway(folder / posture, _development(folder / "made"), config)
    try:
        yield running
    finally:
        running.child.end()


def _development(folder: Path) -> Development:
    certs = folder / "certs"
    certs.mkdir(parents=True, exist_ok=True)
    authority = _signed("Example Test CA", 3650)
    leaf = _signed("localhost", 89)
    (folder / "ca.pem").write_bytes(authority)
    (certs / "localhost.pem").write_bytes(leaf + key_pem(key("ECDSA", 3001)))
    (certs / "localhost.pem").chmod(0o600)
    return Development(certs, folder / "ca.pem", b"", "", "")


def _signed(subject: str, days: int) -> bytes:
    """The CA's certificate, or one from it, each with what the guidelines and RFC 5280 ask for."""
    ca = subject != "localhost"
    issuer, mine = key("ECDSA", 3000), key("ECDSA", 3000 if ca else 3001)
    now, public = datetime.now(UTC), mine.public_key()
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    usages |= {"encipher_only": False, "decipher_only": False, "digital_signature": not ca}
    usages |= {"key_cert_sign": ca, "crl_sign": ca}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("Example Test CA"))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, 0 if ca else None), True)
        .add_extension(x509.KeyUsage(**usages), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    )
    if not ca:
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
        uri = x509.UniformResourceIdentifier("http://crl.example.com/test.crl")
        lists = x509.CRLDistributionPoints([x509.DistributionPoint([uri], None, None, None)])
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        made_for = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        for each in (above, lists, names, made_for):
            builder = builder.add_extension(each, False)
    return builder.sign(issuer, SHA256()).public_bytes(Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


# -- the scanners --------------------------------------------------------------------------------


def find_sslyze() -> Path:
    """sslyze, installed if it is not there yet.

    :raises Missing: it cannot be installed.
    """
    done = SSLYZE / "installed"
    if not done.exists() or done.read_text() != REQUIREMENT:
        steps = (
            (sys.executable, "-m", "venv", "--clear", SSLYZE),
            (SSLYZE / "bin" / "python", "-m", "pip", "install", "--quiet", REQUIREMENT),
        )
        for step in steps:
            made = run(*step, timeout=240)
            if made.returncode:
                last = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise Missing(f"needs {REQUIREMENT} in {SSLYZE.relative_to(ROOT)}: {last}")
        done.write_text(REQUIREMENT)
    return SSLYZE / "bin" / "sslyze"


def scan_by_sslyze(running: RunningGateway, profile: str) -> Scanned:
    """Compare a gateway with one of Mozilla's profiles."""
    found = run(
        *(find_sslyze(), f"--mozilla_config={profile}"),
        *("--certinfo_ca_file", running.development.chain, f"localhost:{running.port}"),
        timeout=100,
    )
    return Scanned(found.stdout, found.returncode)


def find_testssl() -> str:
    """:raises Missing: it is not installed."""
    found = shutil.which("testssl") or shutil.which("testssl.sh")
    if found is None:
        raise Missing("needs testssl: apt-get install testssl.sh (make test-packages)")
    return found


def scan_by_testssl(running: RunningGateway) -> tuple[Scanned, list[dict[str, Any]]]:
    """All tests of testssl.sh; what it wrote, and its findings."""
    findings = running.folder / "testssl.json"
    found = subprocess.run(
        [find_testssl(), "--quiet", "--color", "0", "--warnings", "off"]
        + ["--add-ca", str(running.development.chain), "--jsonfile", str(findings)]
        + [f"localhost:{running.port}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        cwd=running.folder,
        check=False,
        env={**os.environ, "TERM": "dumb"},
    )
    told: list[dict[str, Any]] = json.loads(findings.read_text())
    return Scanned(found.stdout, found.returncode), told


def alarming(findings: list[dict[str, Any]]) -> list[str]:
    """What is above LOW, or could not be looked at, and is no exception."""
    return [
        f"{each['id']} {each['severity']}: {each['finding']}"
        for each in findings
        if each["severity"] not in HARMLESS and each["id"] not in EXCEPTIONS
    ]


# -- the reports ---------------------------------------------------------------------------------


def write_reports(folder: Path) -> None:
    """Scan, and write what was found into docs/."""
    for posture in ("intermediate", "modern"):
        with gateway(folder, posture) as running:
            scanned = scan_by_sslyze(running, posture)
            name = run(SSLYZE / "bin" / "python", "-m", "pip", "show", "sslyze").stdout
            number = re.search(r"(?m)^Version: (.*)$", name)
            by = f"sslyze {number[1] if number else ''} --mozilla_config={posture}"
            REPORTS[posture].write_text(_report(by, posture, scanned.text, running.port))
            if posture == "intermediate":
                scanned, findings = scan_by_testssl(running)
                by = _testssl_version()
                text = _report(by, posture, scanned.text + _judged(findings), running.port)
                REPORTS["testssl"].write_text(text)


def _testssl_version() -> str:
    said = re.sub(r"\x1b\[[0-9;]*m", "", run(find_testssl(), "--version", cwd="/").stdout)
    number = re.search(r"testssl(?:\.sh)? +([0-9]\S*)", said)
    return f"testssl.sh {number[1] if number else ''}"


def _report(by: str, posture: str, text: str, port: int) -> str:
    openssl = SSL.SSLeay_version(0).decode().split(" ")[1]
    head = f"""{by}
against edgeproxy {version("edgeproxy")} with OpenSSL {openssl}, `listen: {{ tls: {posture} }}`,
`hsts: {{ "*": 730d }}`, and an ECDSA certificate for localhost from a CA of the test's own, which
the scanner was given. Written by `make tls-reports`.
"""
    text = text.replace(f":{port}", ":8443").replace("/usr/bin/openssl", "openssl")
    lines = text.rstrip().splitlines()
    return head + "\n" + "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def _judged(findings: list[dict[str, Any]]) -> str:
    lines = [f"\n\n Findings above INFO, of {len(findings)}:\n"]
    for each in findings:
        if each["severity"] not in ("OK", "INFO"):
            why = EXCEPTIONS.get(each["id"])
            note = f" (not about the gateway: {why})" if why else ""
            lines.append(f" {each['severity']} {each['id']}: {each['finding']}{note}")
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        write_reports(Path(temporary))
