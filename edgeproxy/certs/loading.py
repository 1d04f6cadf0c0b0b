"""Puts a checked chain and its key into an OpenSSL context."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Iterator, Mapping

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL, crypto

from edgeproxy.certs.certificate import without_warnings
from edgeproxy.certs.scan import Chain, Problem, Scan
from edgeproxy.transport.openssl import Pair

REFUSED = (SSL.Error, crypto.Error, ValueError)
"""What `load` raises when OpenSSL does not take a chain."""

_END = b"-----END CERTIFICATE-----\n"


def load(context: SSL.Context, chain: Chain) -> Pair:
    """Put a chain and its key into a context, beside those of other key types.

    Only `use_certificate_chain_file` keeps the intermediates per certificate, and asks of all
    that they are strong enough; so the bytes that were checked are given to it as a file.

    :raises SSL.Error, crypto.Error, ValueError: OpenSSL refuses, for `openssl_words`.
    :raises OSError: the system has no descriptor for it at this moment; the chain may be good.
    """
    with as_file(chain.chain_pem) as path:
        try:
            context.use_certificate_chain_file(path)
        except SSL.Error as error:
            if _of_the_system(error):
                raise OSError("OpenSSL was refused a file by the system") from error
            raise
    pair = Pair(chain.chain_pem, chain.key_pem)
    pair.key_into(context)
    context.check_privatekey()
    return pair


def intermediates(chain: Chain) -> bytes:
    """The certificates between the leaf and the root, as PEM; empty where there are none."""
    return chain.chain_pem.partition(_END)[2]


def load_intermediates(context: SSL.Context, pem: bytes) -> None:
    """Let all connections of a context send these after their leaf: the leaf is theirs."""
    if pem:
        with without_warnings():
            found = load_pem_x509_certificates(pem)
        for each in found:
            context.add_extra_chain_cert(each)


def loadable(found: Scan, known: Mapping[str, Chain]) -> Generator[None, None, Scan]:
    """Return what was found without the chains that OpenSSL refuses, which are told instead.

    `known`, by fingerprint, were loaded before. Yields after each chain that is tried.

    :raises OSError: see `load`.
    """
    yield
    refused: dict[Chain, Problem] = {}
    for number, chain in enumerate(found.chains):
        if number % 1000 == 0:
            yield
        if chain == known.get(chain.fingerprint):
            continue
        reason = _refusal(chain)
        if reason is not None:
            message = f"certificate for {chain.names[0]}: OpenSSL does not load it: {reason}"
            refused[chain] = Problem(chain.files[0], message)
        yield
    if not refused:
        return found
    return found._replace(
        chains=tuple(chain for chain in found.chains if chain not in refused),
        problems=tuple(sorted({*found.problems, *refused.values()})),
        broken=found.broken.union(*(chain.files for chain in refused)),
    )


def _refusal(chain: Chain) -> str | None:
    """Try a chain in a context of its own (0.3 ms): why OpenSSL refuses it, or None."""
    try:
        load(SSL.Context(SSL.TLS_SERVER_METHOD), chain)
    except REFUSED as error:
        return openssl_words(error)
    return None


def _of_the_system(error: SSL.Error) -> bool:
    """Say whether an error comes from a call into the system, and not from what was read."""
    entries = error.args[0] if error.args else ()
    return any(library == "system library" for library, *_ in entries)


@contextlib.contextmanager
def as_file(data: bytes) -> Iterator[str]:
    """Give a path under which the bytes can be read: in memory where Linux allows it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("edgeproxy-certificate")
        try:
            os.write(descriptor, data)
            path = f"/proc/self/fd/{descriptor}"
            if os.path.exists(path):
                yield path
                return
        finally:
            os.close(descriptor)
    # macOS, or no /proc. Certificates are no secret; the key never goes this way.
    with tempfile.NamedTemporaryFile(prefix="edgeproxy-") as file:
        file.write(data)
        file.flush()
        yield file.name


def openssl_words(error: Exception) -> str:
    """Return OpenSSL's reasons on one line: `ee key too small`."""
    if (
        isinstance(error, SSL.Error | crypto.Error)
        and error.args
        and isinstance(error.args[0], list)
    ):
        return ", ".join(str(item[-1]) for item in error.args[0]) or "no reason given"
    return str(error) or type(error).__name__
