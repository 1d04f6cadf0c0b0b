from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certs_support import DAY, NOW
from OpenSSL import SSL

from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.development import DEFAULT_NAMES, make
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import scan


def test_it_is_found_and_lasts_as_long_as_asked() -> None:
    made = make(["Localhost", "127.0.0.1", "*.dev.test", "bücher.test"], NOW, days=7)
    found = scan({"chain": made.chain_pem, "key": made.key_pem}, NOW)
    assert found.problems == ()
    (chain,) = found.chains
    assert chain.names == ("localhost", "127.0.0.1", "*.dev.test", "xn--bcher-kva.test")
    assert chain.key_type == "ECDSA"
    assert chain.valid(NOW) and chain.valid(NOW + 7 * DAY) and not chain.valid(NOW + 8 * DAY)


@pytest.mark.parametrize("name", ["", "a b", "x:443", "https://x", "*"])
def test_what_is_neither_name_nor_address_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        make([name], NOW)


@pytest.mark.parametrize("name", DEFAULT_NAMES)
def test_a_strict_client_that_trusts_it_accepts_it(name: str, tmp_path: Path) -> None:
    """As `curl --cacert` does: the standard library's client verifies chain and name."""
    now = datetime.now(UTC)
    made = make(DEFAULT_NAMES, now)
    chains = scan({"chain": made.chain_pem, "key": made.key_pem}, now).chains
    server = SSL.Connection(ServerTLS(NameMap(chains, "localhost", now)).context, None)
    server.set_accept_state()
    trust = ssl.create_default_context(cadata=made.ca_pem.decode())
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        if sent := to_server.read():
            server.bio_write(sent)
        try:
            server.do_handshake()
        except SSL.WantReadError:
            pass
        try:
            to_client.write(server.bio_read(65536))
        except SSL.WantReadError:
            pass
    assert client.getpeercert()["subjectAltName"]
    assert client.version() == "TLSv1.3"
