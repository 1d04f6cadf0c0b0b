"""Real certificates and real handshakes in memory, for the tests of `edgeproxy.certs`."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from OpenSSL import SSL

from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import scan

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
TLS12 = SSL.TLS1_2_VERSION
TLS13 = SSL.TLS1_3_VERSION


@functools.cache
def key(kind: str = "ECDSA", number: int = 0) -> Any:
    """A private key; the same for the same arguments, since RSA keys take long to make."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind == "RSA1024":
        return rsa.generate_private_key(65537, 1024)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "secp256k1":
        return ec.generate_private_key(ec.SECP256K1())
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(private: Any) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Issued:
    """A certificate, its key and who issued it."""

    certificate: x509.Certificate
    private: Any
    issuer: Issued | None = None
    names: tuple[str, ...] = field(default=())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key(self) -> bytes:
        return key_pem(self.private)

    @property
    def full(self) -> bytes:
        """Leaf and intermediates, without the root."""
        above = self.issuer
        pem = self.pem
        while above is not None and above.issuer is not None:
            pem += above.pem
            above = above.issuer
        return pem


def issue(
    names: Sequence[str] = (),
    issuer: Issued | None = None,
    *,
    private: Any = None,
    cn: str | None = None,
    start: datetime = NOW - DAY,
    end: datetime = NOW + 60 * DAY,
    ca: bool = False,
    aia: bool = False,
    hash_: Any = None,
    usages: Sequence[x509.ObjectIdentifier] = (),
) -> Issued:
    private = private if private is not None else key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn or (names or ["?"])[0][:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
        )
    if aia:
        where = x509.UniformResourceIdentifier("http://ca.example/issuer.der")
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signer = issuer.private if issuer else private
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(signer, hash_ or algorithm)
    return Issued(certificate, private, issuer, tuple(names))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@functools.cache
def root() -> Issued:
    return issue(cn="Test Root", private=key("ECDSA", 1000), ca=True, end=NOW + 3650 * DAY)


@functools.cache
def intermediate() -> Issued:
    return issue(
        cn="Test Intermediate",
        issuer=root(),
        private=key("ECDSA", 1001),
        ca=True,
        end=NOW + 1800 * DAY,
    )


def client_context(version: int, **options: Any) -> SSL.Context:
    """A client's context for exactly one TLS version that checks nothing by itself."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if "alpn" in options:
        context.set_alpn_protos(options["alpn"])
    if "ciphers" in options:
        context.set_cipher_list(options["ciphers"])
    if "sigalgs" in options:
        assert SSL._lib.SSL_CTX_set1_sigalgs_list(context._context, options["sigalgs"]) == 1
    if "groups" in options:
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, options["groups"]) == 1
    return context


@dataclass
class Handshake:
    """Both ends of a handshake in memory, run until nothing moves any more."""

    client: SSL.Connection
    server: SSL.Connection
    client_error: SSL.Error | None = None
    server_error: SSL.Error | None = None
    done: bool = False

    @property
    def alert(self) -> str | None:
        """The alert that reached the client, in OpenSSL's words."""
        if self.client_error is None or not self.client_error.args:
            return None
        return self.client_error.args[0][-1][-1]

    @property
    def served(self) -> bytes:
        """The leaf that the client saw, as PEM."""
        certificate = self.client.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return certificate.public_bytes(Encoding.PEM)

    @property
    def chain(self) -> list[bytes]:
        """What the client was sent, as PEM."""
        sent = self.client.get_peer_cert_chain(as_cryptography=True) or []
        return [certificate.public_bytes(Encoding.PEM) for certificate in sent]


def handshake(
    server_context: SSL.Context,
    client: SSL.Context,
    name: bytes | None,
    session: SSL.Session | None = None,
) -> Handshake:
    client_end = SSL.Connection(client, None)
    client_end.set_connect_state()
    if name is not None:
        client_end.set_tlsext_host_name(name)
    if session is not None:
        client_end.set_session(session)
    server_end = SSL.Connection(server_context, None)
    server_end.set_accept_state()
    result = Handshake(client_end, server_end)
    finished = [False, False]
    for _ in range(10):
        finished[0] = finished[0] or _advance(result, "client", client_end, server_end)
        finished[1] = finished[1] or _advance(result, "server", server_end, client_end)
    result.done = all(finished) and result.client_error is None and result.server_error is None
    if result.done:
        read(client_end)  # the session tickets of TLS 1.3
    return result


def _advance(result: Handshake, side: str, end: SSL.Connection, other: SSL.Connection) -> bool:
    if getattr(result, f"{side}_error") is not None:
        return False
    finished = False
    try:
        end.do_handshake()
        finished = True
    except SSL.WantReadError:
        pass
    except SSL.Error as error:
        setattr(result, f"{side}_error", error)
    pump(end, other)
    return finished


def pump(source: SSL.Connection, target: SSL.Connection) -> None:
    while True:
        try:
            target.bio_write(source.bio_read(65536))
        except SSL.WantReadError:
            return


def read(end: SSL.Connection) -> bytes:
    try:
        return end.recv(65536)
    except SSL.WantReadError:
        return b""


def name_map(*issued: Issued, default: str | None = None) -> NameMap:
    files = {str(n): one.full + one.key for n, one in enumerate(issued)}
    found = scan(files, NOW)
    assert found.problems == ()
    return NameMap(found.chains, default, NOW)


def meet(server: ServerTLS, version: int, name: bytes | None, **options: object) -> Handshake:
    return handshake(server.context, client_context(version, **options), name)
