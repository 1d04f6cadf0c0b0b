"""From a client certificate that was found valid to the principal that it names.

What a certificate says of its holder is one of its alternative names, its subject, or nothing but
its fingerprint; the credential's configuration says which counts. Where the certificate leaves that
open (two addresses where one is asked for), nobody is let in: which one counts would be a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from edgeproxy.identity.principal import Principal, is_sayable

if TYPE_CHECKING:
    from edgeproxy.config.clientcerts import Caller, ClientCertificate

KIND = "client_certificate"

_ALTERNATIVE: dict[
    str, tuple[type[x509.RFC822Name | x509.DNSName | x509.UniformResourceIdentifier], str]
]
_ALTERNATIVE = {
    "san:email": (x509.RFC822Name, "e-mail address"),
    "san:dns": (x509.DNSName, "DNS name"),
    "san:uri": (x509.UniformResourceIdentifier, "URI"),
}


class Unknown(Exception):
    """The certificate names nobody who is let in; the text says why, for the log."""


class Holders:
    """Who the holders of one credential's certificates are.

    A caller's id is the credential's name, a colon and the caller's own name, so that it never is
    an API key's, nor another credential's; the table of callers may give it another.
    """

    def __init__(self, credential: str, config: ClientCertificate) -> None:
        self.credential = credential
        self._config = config

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Holders)
            and self.credential == other.credential
            and self._config == other._config
        )

    def __hash__(self) -> int:
        return hash((self.credential, self._config.principal))

    def principal(self, certificate: x509.Certificate) -> Principal:
        """The holder of a certificate.

        :raises Unknown: it names nobody, or somebody who is not in the table.
        """
        try:
            value = self._value(certificate)
            groups = self._groups(certificate)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            first = str(error).partition("\n")[0]
            raise Unknown(f"a certificate that cannot be read: {first}") from None
        callers = self._config.callers
        caller = callers.get(value)
        if callers and caller is None:
            raise Unknown(f"{_shown(value)} is not among the callers")
        return self._made(value, groups, caller)

    def _made(self, value: str, groups: tuple[str, ...], caller: Caller | None) -> Principal:
        if caller is None:
            return Principal(f"{self.credential}:{value}", value, groups, kind=KIND)
        name = caller.name or value
        return Principal(
            caller.consumer or f"{self.credential}:{name}",
            name,
            tuple(dict.fromkeys((*groups, *caller.groups))),
            frozenset(caller.scopes),
            caller.plan or "",
            KIND,
        )

    def _value(self, certificate: x509.Certificate) -> str:
        source = self._config.principal
        if source == "fingerprint":
            return certificate.fingerprint(SHA256()).hex()
        if source == "subject":
            value = certificate.subject.rfc4514_string()
        elif source == "subject:cn":
            found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            value = _only([_text(each.value) for each in found], "common name")
        else:
            kind, what = _ALTERNATIVE[source]
            value = _only(_alternatives(certificate, kind), what)
            if source == "san:dns":
                value = value.lower()
        if not is_sayable(value):
            raise Unknown(
                f"its {source} is empty, too long, or holds what no name may: {_shown(value)}"
            )
        return value

    def _groups(self, certificate: x509.Certificate) -> tuple[str, ...]:
        if self._config.groups is None:
            return ()
        units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        found = tuple(dict.fromkeys(_text(each.value) for each in units))
        if not all(map(is_sayable, found)):
            raise Unknown("an organizational unit holds what no group's name may")
        return found


def _alternatives(
    certificate: x509.Certificate,
    kind: type[x509.RFC822Name | x509.DNSName | x509.UniformResourceIdentifier],
) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.value for name in extension.value if isinstance(name, kind)]


def _only(found: list[str], what: str) -> str:
    if not found:
        raise Unknown(f"it holds no {what}")
    if len(found) > 1:
        raise Unknown(f"it holds {len(found)} of {what}: which one counts is open")
    return found[0]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _shown(value: str) -> str:
    """One line for the log, whatever stands in a certificate."""
    return ascii(value[:100])
