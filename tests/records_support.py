"""TLS records written by hand, after a real handshake: what no TLS library would send.

The handshake is Python's own; its key log then says with which keys records are protected, in TLS
1.3 (RFC 8446 7.3) and 1.2 (RFC 5246 6.3, RFC 5288).
"""

from __future__ import annotations

import hmac
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ALERT, HANDSHAKE, DATA = 21, 22, 23
USER_CANCELED = bytes((1, 90))
"""A warning, RFC 8446 6.1 and RFC 5246 7.2.2."""


class Protected:
    """Makes protected records in place of one side of a connection.

    ``secret`` is a traffic secret of TLS 1.3, or the master secret of TLS 1.2, and then ``seed``
    the two randoms, the server's first.
    """

    def __init__(self, cipher: str, secret: bytes, seed: bytes = b"") -> None:
        self._hash = "sha384" if "SHA384" in cipher else "sha256"
        self._size = 32 if "256" in cipher.replace("SHA256", "") else 16
        self._secret = secret
        self.modern = not seed
        if self.modern:
            self._rekey()
        else:
            self._twelve(b"key expansion" + seed)

    def _rekey(self) -> None:
        self._aead = AESGCM(self._expand(b"key", self._size))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self._sequence = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        """HKDF-Expand-Label, RFC 8446 7.1; one block is always enough."""
        label = b"tls13 " + label
        info = struct.pack("!HB", size, len(label)) + label + b"\0"
        return hmac.new(self._secret, info + b"\1", self._hash).digest()[:size]

    def _twelve(self, seed: bytes) -> None:
        """The client's side; its Finished was the first record."""
        block, chained = b"", seed
        while len(block) < 2 * self._size + 8:
            chained = hmac.new(self._secret, chained, self._hash).digest()
            block += hmac.new(self._secret, chained + seed, self._hash).digest()
        self._aead = AESGCM(block[: self._size])
        self._salt = block[2 * self._size :][:4]
        self._sequence = 1

    def record(self, kind: int, content: bytes) -> bytes:
        """One protected record."""
        number = self._sequence
        self._sequence += 1
        if self.modern:
            inner = content + bytes((kind,))
            head = struct.pack("!BHH", DATA, 0x303, len(inner) + 16)
            nonce = (self._iv ^ number).to_bytes(12, "big")
            return head + self._aead.encrypt(nonce, inner, head)
        explicit = number.to_bytes(8, "big")
        more = explicit + struct.pack("!BHH", kind, 0x303, len(content))
        sealed = explicit + self._aead.encrypt(self._salt + explicit, content, more)
        return struct.pack("!BHH", kind, 0x303, len(sealed)) + sealed

    def data(self, content: bytes = b"") -> bytes:
        return self.record(DATA, content)

    def key_update(self, asked: int = 1) -> bytes:
        """RFC 8446 4.6.3; with ``asked`` the other side has to answer with one of its own."""
        made = self.record(HANDSHAKE, bytes((24, 0, 0, 1, asked)))
        self._secret = self._expand(b"traffic upd", len(self._secret))
        self._rekey()
        return made


class Spoken(Protected):
    """A client whose handshake is done; ``record`` makes one record, ``sock`` takes it."""

    def __init__(self, port: int, version: ssl.TLSVersion, source: str = "127.0.0.1") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ECDHE+AESGCM")
        self.sock = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        with tempfile.NamedTemporaryFile("r") as log:
            context.keylog_filename = log.name
            self._incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self._incoming, outgoing, server_hostname="localhost")
            self._shake(self._incoming, outgoing)
            context.keylog_filename = None  # type: ignore[assignment]  # closes the file
            secrets = key_log(log)
        cipher = self.tls.cipher()
        assert cipher is not None
        if version is ssl.TLSVersion.TLSv1_3:
            super().__init__(cipher[0], secrets["CLIENT_TRAFFIC_SECRET_0"])
        else:
            randoms = self.received[11:43] + self.hello[11:43]
            super().__init__(cipher[0], secrets["CLIENT_RANDOM"], randoms)

    def _shake(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self.hello = b""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send_out(outgoing)
                data = self.sock.recv(65536)
                assert data, "the handshake was refused"
                self.received += data
                incoming.write(data)
        self._send_out(outgoing)

    def _send_out(self, outgoing: ssl.MemoryBIO) -> None:
        data = outgoing.read()
        self.hello = self.hello or data
        self.sock.sendall(data)

    def renegotiation(self) -> bytes:
        """TLS 1.2: the ClientHello once more, now protected."""
        return self.record(HANDSHAKE, self.hello[5:])

    def flood(self, make: Callable[[], bytes], most: int = 200_000) -> int:
        """Send records until the other side ends the connection; how many left."""
        sent = 0
        try:
            while sent < most:
                self.sock.sendall(b"".join(make() for _ in range(20)))
                sent += 20
        except OSError:
            pass
        return sent

    def read(self) -> bytes:
        """Some bytes of the other side's data; none when it has ended them."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self._incoming.write(self.sock.recv(65536))
            except ssl.SSLZeroReturnError:
                return b""

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Spoken:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def key_log(lines: Iterable[str]) -> dict[str, bytes]:
    """The secrets of one connection by their labels."""
    parts = [line.split() for line in lines if not line.startswith("#")]
    return {label: bytes.fromhex(secret) for label, _, secret in parts}
