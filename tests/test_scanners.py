"""What scanners of TLS say of a gateway: sslyze by Mozilla's profiles, testssl.sh by severity."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from scanners_support import (
    REPORTS,
    Missing,
    alarming,
    find_sslyze,
    find_testssl,
    gateway,
    scan_by_sslyze,
    scan_by_testssl,
)

from edgeproxy.certs.posture import TLS12_CIPHERS, TLS13_CIPHERS

TRIES = 3
"""Scans until all checks were made. For resumption testssl.sh runs `openssl s_client </dev/null`,
which sometimes leaves before the tickets of TLS 1.3 have come: nginx fails that check as often."""


def needed(program: object) -> None:
    """Skip aloud what is not here; fail under CI."""
    try:
        program()  # type: ignore[operator]
    except Missing as missing:
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.mark.timeout(300)  # the first time it is installed
@pytest.mark.parametrize("posture", ["intermediate", "modern"])
def test_mozillas_profiles(tmp_path: Path, posture: str) -> None:
    needed(find_sslyze)
    with gateway(tmp_path, posture) as running:
        scanned = scan_by_sslyze(running, posture)
        assert scanned.code == 0, scanned.text
        assert f"localhost:{running.port}: OK - Compliant." in scanned.text
        if posture == "intermediate":
            assert scan_by_sslyze(running, "modern").code != 0, "it tells the one from the other"


@pytest.mark.posture
@pytest.mark.timeout(1000)
def test_testssl_finds_nothing(tmp_path: Path) -> None:
    needed(find_testssl)
    with gateway(tmp_path, "intermediate") as running:
        for _ in range(TRIES):
            scanned, findings = scan_by_testssl(running)
            if not unmade(findings):
                break
        assert len(findings) > 100, scanned.text
        severities = {each["id"]: each["severity"] for each in findings}
        assert severities["TLS1_3"] == "OK"
        assert alarming(findings) == [], scanned.text
    assert "Traceback" not in running.child.said()


def unmade(findings: list[dict[str, Any]]) -> bool:
    """Whether the scanner could not connect for one of its checks."""
    return any("connect problem" in each["finding"] for each in findings)


def test_what_alarms() -> None:
    def told(name: str, severity: str) -> dict[str, str]:
        return {"id": name, "severity": severity, "finding": "so it is"}

    harmless = [told("one", "OK"), told("two", "INFO"), told("three", "LOW")]
    assert alarming([*harmless, told("engine_problem", "WARN")]) == []
    for severity in ("MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"):
        assert alarming([*harmless, told("x", severity)]) == [f"x {severity}: so it is"]


def test_reports_are_of_this_gateway() -> None:
    """Kept in docs/; `make tls-reports` writes them anew."""
    for name, path in REPORTS.items():
        text = path.read_text()
        assert re.match(r"(sslyze|testssl\.sh) \d\S*\d", text), f"{path}: by which version"
        assert not re.search(r"(^|[\s:'\"])/(?!etc/hosts)[a-z]+/", text), "paths of a machine"
        assert not re.search(r"(localhost|127\.0\.0\.1):(?!8443)\d", text)
        assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", text)) <= {"127.0.0.1"}
        offered = set(re.findall(r"TLS_[A-Z0-9_]+|ECDHE-[A-Z0-9-]+", text))
        ours = {each.decode() for each in TLS13_CIPHERS.split(b":")}
        assert ours <= offered, name
        if name == "testssl":
            assert {
                each.decode() for each in TLS12_CIPHERS.split(b":") if b"ECDSA" in each
            } <= offered
        else:
            assert "OK - Compliant." in text
            assert f'"{name}" configuration' in text
