"""An answer that lets somebody in: who, and with which fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.web.http_headers import Headers

from edgeproxy.identity.authorization import LARGEST, Read, allowed, passed_on, redirection

READ = Read("X-User", "X-Name", "X-Groups", "X-Scopes", "X-Plan", ("X-User", "X-Extra"))


def values(**fields: Any) -> Any:
    headers = Headers()
    for name, said in fields.items():
        for value in [said] if isinstance(said, bytes) else said:
            headers.addRawHeader(name.replace("_", "-"), value)

    def find(name: bytes) -> Sequence[bytes]:
        return headers.getRawHeaders(name, [])

    return find


def test_all_of_it() -> None:
    found, lines = allowed(
        "checked",
        values(
            X_User=b"ann",
            X_Name="Änn".encode(),
            X_Groups=[b"ops, dev", b"dev,,qa"],
            X_Scopes=b"read  write",
            X_Plan=b"gold",
            X_Extra=[b"1", b"2"],
        ),
        READ,
    )
    assert (found.id, found.name, found.plan) == ("checked:ann", "Änn", "gold")
    assert found.groups == ("ops", "dev", "qa")
    assert found.scopes == {"read", "write"}
    assert found.kind == "authorization"
    assert lines == (b"X-User: ann", b"X-Extra: 1", b"X-Extra: 2")


def test_nothing_but_who() -> None:
    found, lines = allowed("checked", values(X_User=b"ann"), READ)
    assert lines == (b"X-User: ann",)
    assert (found.id, found.name, found.groups, found.plan) == ("checked:ann", "ann", (), "")


def test_nobody_in_particular() -> None:
    assert allowed("checked", values(), Read()).principal.id == "checked"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"X_User": b""},
        {"X_User": [b"ann", b"bob"]},
        {"X_User": b"\xff"},
        {"X_User": "a\u0085b".encode()},
        {"X_User": b"ann", "X_Plan": [b"a", b"b"]},
        {"X_User": b"ann", "X_Groups": b"a\x01,b"},
        {"X_User": b"ann", "X_Groups": b",".join(b"%d" % number for number in range(201))},
        {"X_User": b"ann", "X_Extra": b"x" * LARGEST},
        {"X_User": b"ann", "X_Extra": b"a\x00b"},
    ],
)
def test_no_such_answer(fields: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        allowed("checked", values(**fields), READ)


def test_passed_on() -> None:
    assert passed_on(values(A=b"1", B=b"2", C=b"3"), [b"c", b"A"]) == [b"c: 3", b"A: 1"]


def test_elsewhere() -> None:
    found = redirection(values(Location=b"/login", Set_Cookie=[b"a=1", b"b=2"], Other=b"x"))
    assert found == [b"Location: /login", b"Set-Cookie: a=1", b"Set-Cookie: b=2"]


@pytest.mark.parametrize("target", [[], [b""], [b"/a", b"/b"], [b"/a b"], [b"/\xe4"]])
def test_nowhere(target: list[bytes]) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        redirection(values(Location=target))
