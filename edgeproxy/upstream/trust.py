"""The OpenSSL context of an upstream's `https://` targets: whom we trust, and who we are."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from edgeproxy.certs.loading import as_file, openssl_words
from edgeproxy.config.asking import Asked
from edgeproxy.config.model import Config, UpstreamTls
from edgeproxy.transport.openssl import MODES


class Unusable(Exception):
    """OpenSSL does not take what the configuration names; says what, and why."""


def client_context(tls: UpstreamTls) -> SSL.Context:
    """A context that verifies services, unless it is told not to.

    :raises Unusable: it cannot be made.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(MODES)
    context.set_alpn_protos([b"http/1.1"])
    context.set_verify(SSL.VERIFY_PEER if tls.verify else SSL.VERIFY_NONE)
    try:
        if tls.ca is not None:
            with as_file(tls.ca) as path:
                context.load_verify_locations(path)
            # Whoever names one certificate trusts that one, whether it is an authority or not.
            store = context.get_cert_store()
            assert store is not None
            store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        elif tls.verify:
            context.set_default_verify_paths()
    except SSL.Error as error:
        raise Unusable(f"ca: {openssl_words(error)}") from None
    if tls.certificate is not None and tls.key is not None:
        _show(context, tls.certificate, tls.key.get_secret_value())
    return context


def _show(context: SSL.Context, chain: bytes, key: bytes) -> None:
    """Show this chain to services that ask for one."""
    try:
        with as_file(chain) as path:
            context.use_certificate_chain_file(path)
        private = load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
        context.use_privatekey(private)  # type: ignore[arg-type]
        context.check_privatekey()
    except SSL.Error as error:
        raise Unusable(f"certificate: {openssl_words(error)}") from None


def unverified(config: Config) -> list[str]:
    """A warning for each upstream whose services need not prove who they are, and for each
    endpoint that is asked about callers and need not either."""
    return [
        f"auth {name}: `plain: true`: whoever is on the way to {each.said.url} says who is calling"
        for name, each in config.credentials.items()
        if isinstance(each, Asked) and each.said.plain and each.said.url.startswith("http:")
    ] + [
        f"upstream {name}: `verify: false`: whoever answers is believed to be the service"
        for name, upstream in config.upstreams.items()
        if upstream.tls is not None and not upstream.tls.verify
    ]
