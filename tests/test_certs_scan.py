from __future__ import annotations

import ssl
import subprocess
import warnings
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from certs_support import DAY, NOW, Issued, intermediate, issue, key, key_pem, root
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.certs import pem
from edgeproxy.certs.pem import read_content
from edgeproxy.certs.scan import Chain, Problem, scan, scan_in_steps


def only(files: dict[str, bytes]) -> Chain:
    found = scan(files, NOW)
    assert found.problems == ()
    assert len(found.chains) == 1
    return found.chains[0]


def messages(files: dict[str, bytes]) -> list[Problem]:
    found = scan(files, NOW)
    assert found.chains == ()
    return list(found.problems)


@pytest.mark.parametrize("kind", ["ECDSA", "RSA", "Ed25519"])
def test_chain_and_key_in_one_file_in_any_order(kind: str) -> None:
    one = issue(["A.Example", "*.a.example", "127.0.0.1"], intermediate(), private=key(kind))
    for data in (one.full + one.key, one.key + one.full, intermediate().pem + one.key + one.pem):
        chain = only({"any name": data})
        assert chain.names == ("a.example", "*.a.example", "127.0.0.1")
        assert chain.key_type == kind
        assert chain.chain_pem == one.pem + intermediate().pem
        assert chain.files == ("any name",)
        assert chain.issuer == "Test Intermediate"
        assert (chain.not_before, chain.not_after) == (NOW - DAY, NOW + 60 * DAY)


def test_leaf_intermediate_key_and_root_each_in_a_file_of_their_own() -> None:
    one = issue(["a.example"], intermediate(), aia=True)
    chain = only({"1": one.key, "2": root().pem, "3/x": intermediate().pem, "4": one.pem})
    assert chain.chain_pem == one.pem + intermediate().pem
    assert chain.files == ("4", "1")


def test_an_odd_serial_number_of_an_authority_is_not_worth_a_word() -> None:
    """Old authorities have such numbers, and `cryptography` warns of each on standard error."""
    ca = issue(cn="Old", private=key("ECDSA", 3), ca=True)
    der = ca.certificate.public_bytes(Encoding.DER)
    at = der.index(b"\xa0\x03\x02\x01\x02") + 7  # the serial number, after the version
    negative = der[:at] + b"\x80" + der[at + 1 :]
    leaf = issue(["a.example"], ca)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        only({"ca": ssl.DER_cert_to_PEM_cert(negative).encode(), "a": leaf.pem + leaf.key})
    assert said == []


def test_a_key_that_openssl_chokes_on_is_a_problem_of_its_file() -> None:
    """Ed448 by its name and Ed25519 by its length: cryptography does not know OpenSSL's reason."""
    der = key("Ed25519").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    block = b64encode(der.replace(b"\x2b\x65\x70", b"\x2b\x65\x71"))
    pem = b"-----BEGIN PRIVATE KEY-----\n" + block + b"\n-----END PRIVATE KEY-----\n"
    good = issue(["a.example"])
    found = scan({"bad": pem, "good": good.pem + good.key}, NOW)
    assert [chain.names for chain in found.chains] == [("a.example",)]
    assert [problem.file for problem in found.problems] == ["bad"]
    assert "cannot be read" in found.problems[0].message


def test_the_same_certificate_in_several_files_is_one_chain() -> None:
    one = issue(["a.example"], intermediate())
    files = {
        "archive/cert1.pem": one.pem,
        "archive/chain1.pem": intermediate().pem,
        "archive/fullchain1.pem": one.full,
        "archive/privkey1.pem": one.key,
    }
    links = {name.replace("archive", "live").replace("1", ""): d for name, d in files.items()}
    chain = only({**files, **links})
    assert set(chain.files) == {
        f"{folder}{name}{number}.pem"
        for folder, number in (("archive/", "1"), ("live/", ""))
        for name in ("cert", "fullchain", "privkey")
    }


def test_two_certificates_for_one_key_are_both_found() -> None:
    old, new = issue(["a.example"], end=NOW + DAY), issue(["a.example", "b.example"])
    assert old.key == new.key
    found = scan({"old": old.pem, "new": new.pem, "key": new.key}, NOW)
    assert {chain.names for chain in found.chains} == {("a.example",), ("a.example", "b.example")}


def test_old_spellings_of_pem_are_read() -> None:
    one = issue(["a.example"], private=key("RSA"))
    traditional = one.private.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    assert b"RSA PRIVATE KEY" in traditional
    old = one.pem.replace(b" CERTIFICATE", b" X509 CERTIFICATE").replace(b"\n", b"\r\n")
    only({"a": b"Bag Attributes\n  friendlyName: x\n" + old, "b": b"\xef\xbb\xbf" + traditional})


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


def test_what_openssl_writes_is_read(tmp_path: Path) -> None:
    """`openssl req -x509` marks its certificate as an authority; EC keys come with parameters."""
    openssl(tmp_path, "ecparam -name prime256v1 -genkey -out ec.key")
    openssl(
        tmp_path,
        "req -x509 -new -key ec.key -out ec.crt -days 3650 -subj /CN=x "
        "-addext subjectAltName=DNS:ec.example",
    )
    openssl(
        tmp_path,
        "req -x509 -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.crt -days 3650 "
        "-subj /CN=x -addext subjectAltName=DNS:rsa.example",
    )
    openssl(tmp_path, "req -new -key ec.key -out ec.csr -subj /CN=x")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found = scan(files, datetime.now(UTC) + DAY)
    assert found.problems == ()
    assert {chain.names[0]: chain.key_type for chain in found.chains} == {
        "ec.example": "ECDSA",
        "rsa.example": "RSA",
    }


def test_what_is_not_pem_is_passed_over_in_silence() -> None:
    files = {
        "README.md": b"# Certificates go here",
        "empty": b"",
        "binary": bytes(range(256)),
        "der": root().certificate.public_bytes(Encoding.DER),
        "rootCA.pem": root().pem,
        "dh": b"-----BEGIN DH PARAMETERS-----\nMA==\n-----END DH PARAMETERS-----\n",
        "public": b"-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n",
    }
    assert scan(files, NOW)[:2] == ((), ())
    assert scan(files, NOW).broken == frozenset()


def test_an_authority_with_its_key_is_not_served() -> None:
    """mkcert's rootCA.pem and rootCA-key.pem, left in the folder."""
    leaf = issue(["a.example"], root())
    chain = only({"ca": root().pem, "ca-key": root().key, "a": leaf.pem + leaf.key})
    assert chain.chain_pem == leaf.pem


def test_what_is_marked_as_an_authority_and_meant_for_a_server_is_told() -> None:
    """As `openssl req -x509` writes it: without a host name, or with the key lost."""
    nameless = issue(cn="a.example", ca=True)
    (found,) = messages({"a": nameless.pem, "key": nameless.key})
    assert found == Problem(
        "a",
        "certificate for “a.example”: it names no host: clients look at its subjectAltName alone",
    )
    (found,) = messages({"b": issue(["b.example"], ca=True).pem})
    assert found == Problem("b", "certificate for b.example: its private key is not here")


def test_an_authority_that_names_hosts_completes_chains_in_silence() -> None:
    above = issue(["ca.example"], root(), private=key("ECDSA", 5), ca=True)
    leaf = issue(["a.example"], above)
    assert only({"ca": above.pem, "a": leaf.pem + leaf.key}).chain_pem == leaf.full


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: issue(["a.example"]).pem, "certificate for a.example: its private key is not"),
        (lambda: issue(["a.example"]).key, "no certificate here belongs to this private key"),
        (lambda: (one := issue(cn="only a CN")).pem + one.key, "“only a CN”: it names no host"),
        (lambda: issue(["a.example"]).key[:-40], "PRIVATE KEY block has no end"),
        (
            lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be read",
        ),
        (
            lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "cannot be read",
        ),
        (lambda: key_pem(key("RSA1024")), "an RSA key of 1024 bits: at least 2048"),
        (lambda: key_pem(key("secp256k1")), "on curve secp256k1"),
        (lambda: encrypted(), "encrypted"),
        (
            lambda: (
                b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n"
                b"-----END RSA PRIVATE KEY-----\n"
            ),
            "encrypted",
        ),
        (lambda: damaged(), "damaged"),
    ],
)
def test_what_is_wrong_is_told(make, words: str) -> None:
    found = messages({"dir/the file": make()})
    assert [problem.file for problem in found] == ["dir/the file"]
    assert words in found[0].message
    assert "\n" not in found[0].message


def encrypted() -> bytes:
    return key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))


def damaged() -> bytes:
    """An RSA key whose public half is right and whose private half is not."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    numbers = key("RSA").private_numbers()
    other = rsa.RSAPrivateNumbers(
        p=numbers.p,
        q=numbers.q,
        d=numbers.d ^ 4,
        dmp1=numbers.dmp1 ^ 4,
        dmq1=numbers.dmq1 ^ 4,
        iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    )
    return key_pem(other.private_key(unsafe_skip_rsa_key_validation=True))


def test_a_key_that_fits_another_certificate_is_told_for_both_files() -> None:
    one = issue(["a.example"], private=key("ECDSA", 1))
    found = messages({"cert": one.pem, "key": key_pem(key("ECDSA", 2))})
    assert [problem.file for problem in found] == ["cert", "key"]


def test_a_certificate_signed_with_sha1_is_refused(tmp_path: Path) -> None:
    # cryptography does not sign with SHA-1 any more; openssl does.
    (tmp_path / "ca.pem").write_bytes(root().pem + root().key)
    (tmp_path / "extensions").write_text("subjectAltName=DNS:old.example")
    openssl(tmp_path, "req -new -newkey rsa:2048 -nodes -keyout key -out request -subj /CN=old")
    openssl(tmp_path, "x509 -req -sha1 -in request -CA ca.pem -out leaf -extfile extensions")
    found = messages({name: (tmp_path / name).read_bytes() for name in ("leaf", "key")})
    assert [problem.file for problem in found] == ["leaf"]
    assert "signed with SHA1" in found[0].message


def test_a_certificate_that_is_not_for_servers_is_not_served_and_told() -> None:
    """It would win over the server's where it lasts longer, and every client would refuse it."""
    good = issue(["a.example"], intermediate())
    for usages in ([Usage.CLIENT_AUTH], [Usage.CODE_SIGNING, Usage.CLIENT_AUTH]):
        clients = issue(["a.example"], intermediate(), end=NOW + 200 * DAY, usages=usages)
        found = scan({"client": clients.full + clients.key, "good": good.full + good.key}, NOW)
        assert [chain.chain_pem for chain in found.chains] == [good.full]
        assert [problem.file for problem in found.problems] == ["client"]
        assert found.problems[0].message == (
            "certificate for a.example: its extended key usage lacks serverAuth: "
            "clients refuse it as a server's"
        )


@pytest.mark.parametrize("usage", [Usage.SERVER_AUTH, Usage.ANY_EXTENDED_KEY_USAGE])
def test_a_certificate_for_servers_and_others_is_served(
    usage: x509.ObjectIdentifier,
) -> None:
    only({"a": (one := issue(["a.example"], usages=[Usage.CLIENT_AUTH, usage])).pem + one.key})


def test_a_chain_that_lacks_its_intermediate_is_served_and_told() -> None:
    leaf = issue(["a.example"], intermediate(), aia=True)
    found = scan({"cert.pem": leaf.pem, "key.pem": leaf.key}, NOW)
    assert found.chains[0].chain_pem == leaf.pem
    assert found.problems == (
        Problem(
            "cert.pem",
            "certificate for a.example: the chain is incomplete, “Test Intermediate” is not here",
        ),
    )


def test_out_of_date_is_told_only_where_nothing_valid_covers_the_names() -> None:
    old = issue(["a.example"], end=NOW - DAY / 2)
    future = issue(["b.example"], start=NOW + DAY)
    found = scan({"old": old.pem + old.key, "future": future.pem}, NOW)
    assert len(found.chains) == 2
    assert [(p.file, p.message) for p in found.problems] == [
        ("future", "certificate for b.example is not valid before 2026-11-25 12:00 UTC"),
        ("old", "certificate for a.example expired on 2026-11-24 00:00 UTC"),
    ]
    good = issue(["a.example", "b.example"])
    found = scan({"old": old.pem + old.key, "future": future.pem, "good": good.pem}, NOW)
    assert len(found.chains) == 3
    assert found.problems == ()


def test_the_issuer_beside_the_leaf_wins_over_a_cross_signed_one() -> None:
    other_root = issue(cn="Other Root", private=key("ECDSA", 2000), ca=True)
    crossed = issue(
        cn="Test Intermediate",
        issuer=other_root,
        private=key("ECDSA", 1001),
        ca=True,
        end=NOW + 3000 * DAY,
    )
    leaf = issue(["a.example"], intermediate())
    beside = scan({"0": crossed.pem, "a": leaf.full + leaf.key}, NOW)
    assert beside.chains[0].chain_pem == leaf.pem + intermediate().pem
    apart = scan({"0": crossed.pem, "1": intermediate().pem, "a": leaf.pem + leaf.key}, NOW)
    assert apart.chains[0].chain_pem == leaf.pem + crossed.pem


def test_an_issuer_of_the_same_name_with_another_key_is_not_used() -> None:
    impostor = issue(cn="Test Intermediate", issuer=root(), private=key("ECDSA", 7), ca=True)
    leaf = issue(["a.example"], intermediate())
    found = scan({"0": impostor.pem, "a": leaf.pem + leaf.key}, NOW)
    assert found.chains[0].chain_pem == leaf.pem


def test_issuers_that_go_in_a_circle_end() -> None:
    one = issue(cn="One", private=key("ECDSA", 11), ca=True)
    two = issue(cn="Two", private=key("ECDSA", 12), ca=True)
    one_by_two = issue(cn="One", issuer=two, private=key("ECDSA", 11), ca=True)
    two_by_one = issue(cn="Two", issuer=one, private=key("ECDSA", 12), ca=True)
    leaf = issue(["a.example"], one_by_two)
    chain = only({"a": leaf.pem + leaf.key + one_by_two.pem + two_by_one.pem})
    assert chain.chain_pem == leaf.pem + one_by_two.pem + two_by_one.pem


def test_a_broken_file_does_not_touch_a_good_one() -> None:
    good, other = issue(["a.example"], intermediate()), issue(["b.example"], private=key("RSA"))
    alone = scan({"good": good.full + good.key}, NOW).chains
    for bad in (other.pem, other.key, (other.pem + other.key)[:-30], good.pem[:300], b"\0" * 99):
        assert scan({"bad": bad, "good": good.full + good.key}, NOW).chains == alone


def test_parsed_files_are_remembered_and_forgotten_with_their_file() -> None:
    memory: dict[bytes, pem.Content] = {}
    one, two = issue(["a.example"]), issue(["b.example"])
    scan({"1": one.pem + one.key, "2": two.pem}, NOW, memory)
    content = memory[one.pem + one.key]
    scan({"1": one.pem + one.key}, NOW, memory)
    assert memory == {one.pem + one.key: content}
    assert memory[one.pem + one.key] is content


def test_a_step_reads_one_block_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are in one file: a bundle of all authorities takes 40 ms."""
    counted: list[bytes] = []

    def counting(block: bytes, parse: Callable[[bytes], object]) -> object:
        counted.append(block)
        return parse(block)

    for name in ("parse", "_key"):
        monkeypatch.setattr(pem, name, partial(counting, parse=getattr(pem, name)))
    one = issue(["a.example"], intermediate())
    steps = scan_in_steps({"all": (one.full + one.key) * 20, "none": b"-----BEGIN X-----\n"}, NOW)
    most = before = 0
    for _ in steps:
        most = max(most, len(counted) - before)
        before = len(counted)
    assert (len(counted), most) == (60, 1)


def test_a_file_in_which_everything_is_wrong_is_left_after_ten_problems() -> None:
    one = issue(["a.example"])
    broken = b"".join(b"-----BEGIN A%d-----\n" % number for number in range(50_000))
    content = read_content(one.pem + broken + one.key)
    assert len(content.problems) == 11
    assert content.problems[-1] == "10 things are wrong with it: the rest is not read"
    assert (len(content.certificates), content.keys) == (1, ())
    few = read_content(b"-----BEGIN A-----\n" * 9 + one.key)
    assert (len(few.problems), len(few.keys)) == (9, 1)


SAMPLE: Issued = issue(["a.example"], intermediate())
SAMPLE_DATA = SAMPLE.key + SAMPLE.full


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_damaged_files_give_problems_and_never_exceptions(data: st.DataObject) -> None:
    damaged = bytearray(SAMPLE_DATA)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    found = scan({"damaged": bytes(damaged[:cut]), "good": SAMPLE_DATA}, NOW)
    mine = [chain for chain in found.chains if chain.fingerprint == GOOD.fingerprint]
    assert len(mine) == 1
    # Damage that can still be parsed as a certificate for the same key is taken for one that was
    # signed anew: without the root, which is seldom here, nobody can tell.
    if {each.fingerprint for each in read_content(bytes(damaged[:cut])).certificates} <= WHOLE:
        assert mine[0].chain_pem == GOOD.chain_pem
    assert all("\n" not in problem.message for problem in found.problems)


GOOD = scan({"good": SAMPLE_DATA}, NOW).chains[0]
WHOLE = {each.fingerprint for each in read_content(SAMPLE_DATA).certificates}


@settings(deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"CERTIFICATE", b"PRIVATE KEY", b"EC PRIVATE KEY"])
)
def test_any_bytes_between_the_lines_are_one_problem(inside: bytes, label: bytes) -> None:
    data = b"-----BEGIN " + label + b"-----\n" + inside + b"\n-----END " + label + b"-----\n"
    content = read_content(data)
    assert content.certificates == content.keys == ()
    assert len(content.problems) >= 1


def test_key_and_certificate_cut_at_every_byte_never_pair_wrongly() -> None:
    for cut in range(0, len(SAMPLE_DATA), 7):
        found = scan({"cut": SAMPLE_DATA[:cut]}, NOW)
        assert bool(found.chains) == (cut >= len(SAMPLE.key + SAMPLE.pem) - 1)


def test_a_valid_wildcard_covers_an_expired_name_but_no_expired_wildcard() -> None:
    old, wild = issue(["a.example"], end=NOW - DAY / 2), issue(["*.example"])
    assert scan({"old": old.pem + old.key, "wild": wild.pem}, NOW).problems == ()
    deep = issue(["*.a.example", "a.example"], end=NOW - DAY / 2)
    found = scan({"deep": deep.pem + deep.key, "wild": wild.pem}, NOW)
    assert [problem.error for problem in found.problems] == [True]
