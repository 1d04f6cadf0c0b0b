from __future__ import annotations

import pytest
from certs_support import (
    NOW,
    TLS12,
    TLS13,
    client_context,
    handshake,
    intermediate,
    issue,
    key,
    meet,
    name_map,
)
from OpenSSL import SSL, crypto

from edgeproxy.certs import posture
from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.loading import load
from edgeproxy.certs.scan import scan

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["TLS1.2", "TLS1.3"])

A = issue(["a.example", "127.0.0.1"], intermediate(), private=key("ECDSA", 1))
A_RSA = issue(["a.example"], intermediate(), private=key("RSA"))


@VERSIONS
def test_alpn_is_http_1_1(version: int) -> None:
    server = ServerTLS(name_map(A))
    met = meet(server, version, b"a.example", alpn=[b"h2", b"http/1.1"])
    assert met.done
    assert met.client.get_alpn_proto_negotiated() == b"http/1.1"
    assert met.server.get_alpn_proto_negotiated() == b"http/1.1"
    assert meet(server, version, b"a.example").client.get_alpn_proto_negotiated() == b""


@VERSIONS
@pytest.mark.parametrize("offer", [[b"h2"], [b"http/1.1x"], [b"xhttp/1.1"], [b"imap"]])
def test_no_common_protocol_ends_the_handshake(version: int, offer: list[bytes]) -> None:
    met = meet(ServerTLS(name_map(A)), version, b"a.example", alpn=offer)
    assert not met.done
    assert met.alert == "tlsv1 alert no application protocol"


@VERSIONS
def test_alpn_prefers_our_order(version: int) -> None:
    server = ServerTLS(name_map(A), protocols=(b"h2", b"http/1.1"))
    met = meet(server, version, b"a.example", alpn=[b"http/1.1", b"h2"])
    assert met.client.get_alpn_proto_negotiated() == b"h2"


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
def test_tls_before_1_2_is_refused(version: int) -> None:
    client = client_context(version, ciphers=b"ALL:@SECLEVEL=0")
    met = handshake(ServerTLS(name_map(A)).context, client, b"a.example")
    assert not met.done
    assert met.alert == "tlsv1 alert protocol version"


@pytest.mark.parametrize(
    "ciphers",
    [b"AES128-GCM-SHA256", b"ECDHE-RSA-AES128-SHA", b"DHE-RSA-AES128-GCM-SHA256", b"AES256-SHA"],
)
def test_ciphers_that_mozilla_leaves_out_are_refused(ciphers: bytes) -> None:
    client = client_context(TLS12, ciphers=ciphers + b":@SECLEVEL=0")
    met = handshake(ServerTLS(name_map(A_RSA)).context, client, b"a.example")
    assert met.alert is not None and "handshake failure" in met.alert


@pytest.mark.parametrize("cipher", posture.TLS12_CIPHERS.split(b":"))
def test_each_cipher_of_mozillas_intermediate_works(cipher: bytes) -> None:
    server = ServerTLS(name_map(A, A_RSA))
    met = meet(server, TLS12, b"a.example", ciphers=cipher)
    assert met.client.get_cipher_name() == cipher.decode()
    assert met.served == (A_RSA if b"RSA" in cipher.split(b"-")[1] else A).pem


def test_a_client_without_aes_hardware_gets_chacha() -> None:
    server = ServerTLS(name_map(A, A_RSA))
    ciphers = (
        b"ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"
    )
    met = meet(server, TLS12, b"a.example", ciphers=ciphers)
    assert met.client.get_cipher_name() == "ECDHE-ECDSA-CHACHA20-POLY1305"


@VERSIONS
@pytest.mark.parametrize("group", [b"X25519", b"P-256", b"P-384"])
def test_groups(version: int, group: bytes) -> None:
    assert meet(ServerTLS(name_map(A_RSA)), version, b"a.example", groups=group).done


def test_other_groups_are_refused_and_the_hybrid_is_taken() -> None:
    server = ServerTLS(name_map(A))
    assert not meet(server, TLS13, b"a.example", groups=b"X448").done
    hybrid = meet(server, TLS13, b"a.example", groups=b"X25519MLKEM768:X25519")
    assert hybrid.client.get_group_name() == "X25519MLKEM768"


def test_options_and_modes_of_the_base_reach_the_connection() -> None:
    base = ServerTLS(name_map(A)).context
    assert base.set_options(0) & posture.OPTIONS == posture.OPTIONS
    assert base.set_mode(0) & posture.MODES == posture.MODES
    assert base.get_session_cache_mode() == SSL.SESS_CACHE_OFF


@VERSIONS
def test_no_exception_escapes_the_choice_of_a_protocol(
    version: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = ServerTLS(name_map(A))
    monkeypatch.setattr(posture, "_offered", lambda offer: 1 / 0)
    assert not meet(server, version, b"a.example", alpn=[b"http/1.1"]).done
    assert capfd.readouterr().err == ""


@VERSIONS
def test_the_cas_that_clients_are_verified_by_are_not_sent_with_ours(version: int) -> None:
    """OpenSSL would complete a chain of one certificate from them."""
    lone = issue(["lone.example"], intermediate(), private=key("ECDSA", 7), aia=True)
    context = posture.new_context(posture.alpn_callback(posture.HTTP_1_1))
    (chain,) = scan({"lone.pem": lone.pem + lone.key}, NOW).chains
    load(context, chain)
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(intermediate().certificate))
    assert handshake(context, client_context(version), b"lone.example").chain == [lone.pem]
