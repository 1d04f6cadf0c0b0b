from __future__ import annotations

import contextlib
import gc
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
from certs_support import (
    DAY,
    NOW,
    TLS12,
    TLS13,
    Handshake,
    client_context,
    handshake,
    intermediate,
    issue,
    key,
    meet,
    name_map,
    pump,
    read,
)
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.logger import globalLogPublisher

from edgeproxy.certs import contexts, loading
from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.names import NameMap
from edgeproxy.transport.openssl import Pair

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["TLS1.2", "TLS1.3"])


@pytest.fixture
def log() -> Iterator[list[dict]]:
    events: list[dict] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def lines(events: list[dict]) -> list[str]:
    return [
        e["log_format"].format(**e) for e in events if e["log_namespace"].startswith("edgeproxy")
    ]


A = issue(["a.example", "127.0.0.1"], intermediate(), private=key("ECDSA", 1))
A_RSA = issue(["a.example"], intermediate(), private=key("RSA"))
B = issue(["b.example"], private=key("ECDSA", 2))
WILD = issue(["*.example"], private=key("ECDSA", 3))


@VERSIONS
def test_each_name_gets_its_certificate_with_its_chain(version: int) -> None:
    server = ServerTLS(name_map(A, B, WILD))
    met = meet(server, version, b"a.example")
    assert met.done and met.served == A.pem
    assert met.chain == [A.pem, intermediate().pem]
    assert met.server.get_app_data() == "a.example"
    assert meet(server, version, b"B.Example.").served == B.pem
    assert meet(server, version, b"B.Example.").server.get_app_data() == "b.example"
    assert meet(server, version, b"c.example").served == WILD.pem


@VERSIONS
def test_names_of_one_issuer_share_a_context_and_show_their_own_certificates(version: int) -> None:
    beside = issue(["c.test"], intermediate(), private=key("ECDSA", 4))
    other = issue(["d.test"], intermediate(), private=key("RSA"))
    server = ServerTLS(name_map(A, beside, other, B, WILD))
    contexts_of = {entry.name: served.context for entry, served in server._live.served.items()}
    assert contexts_of["a.example"] is contexts_of["c.test"] is contexts_of["d.test"]
    assert contexts_of["b.example"] is contexts_of["*.example"] is not contexts_of["a.example"]
    for _ in range(2):  # met for the first time, and known
        for one in (A, beside, other):
            met = meet(server, version, one.names[0].encode())
            assert met.chain == [one.pem, intermediate().pem]
        assert meet(server, version, b"b.example").chain == [B.pem]


def test_a_shared_context_goes_with_the_last_certificate_that_needs_it() -> None:
    server = ServerTLS(name_map(A, B))
    assert len(server._shared) == 2
    server.swap(name_map(WILD))
    gc.collect()
    assert len(server._shared) == 1


@VERSIONS
def test_a_certificate_that_a_connection_does_not_take_is_a_refusal(
    version: int, log: list[dict]
) -> None:
    server = ServerTLS(name_map(A, B))
    for entry, served in server._live.served.items():
        mixed = Pair(A.pem, B.key)
        server._live.served[entry] = served._replace(pair=mixed)
    assert meet(server, version, b"a.example").alert == "tlsv1 unrecognized name"
    assert lines(log) == ["handshake refused: choosing a certificate failed"]
    assert "key values mismatch" in str(log[-1]["log_failure"].value)


@VERSIONS
def test_a_spelling_met_before_follows_the_names_in_use(version: int) -> None:
    server = ServerTLS(name_map(A, B))
    for _ in range(2):
        assert meet(server, version, b"A.example").served == A.pem
    server.swap(name_map(WILD))
    for _ in range(2):
        met = meet(server, version, b"A.example")
        assert met.served == WILD.pem
        assert met.server.get_app_data() == "a.example"


def test_spellings_met_before_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "_MOST_KNOWN", 2)
    server = ServerTLS(name_map(WILD))
    for number in range(5):
        assert meet(server, TLS13, b"n%d.example" % number).served == WILD.pem
        assert len(server._live.known) <= 3


@VERSIONS
@pytest.mark.parametrize("name", [b"c.test", b"x.a.example", b"example", b"\xff\xfe", None])
def test_an_unknown_name_and_none_are_refused_with_one_line(
    version: int, name: bytes | None, log: list[dict]
) -> None:
    server = ServerTLS(name_map(A, WILD))
    met = meet(server, version, name)
    assert not met.done
    assert met.alert == "tlsv1 unrecognized name"
    assert met.server_error is not None
    assert len(lines(log)) == 1
    assert lines(log)[0].startswith("handshake refused: no ")


@VERSIONS
def test_with_a_default_both_get_it(version: int, log: list[dict]) -> None:
    server = ServerTLS(name_map(A, B, default="b.example"))
    for name, remembered in ((b"c.test", "c.test"), (None, None), (b"\xff\xfe", None)):
        met = meet(server, version, name)
        assert met.done and met.served == B.pem
        assert met.server.get_app_data() == remembered
    assert lines(log) == []


@VERSIONS
def test_what_the_connection_remembers_chooses_what_it_was_given(version: int) -> None:
    names = name_map(A, B, WILD, default="b.example")
    server = ServerTLS(names)
    for name in (b"a.example", b"A.EXAMPLE.", b"127.0.0.1", b"x.example", b"c.test", b"_.-", None):
        met = meet(server, version, name)
        entry = names.choose(met.server.get_app_data())
        assert entry is not None and entry.ecdsa is not None
        assert entry.ecdsa.chain_pem.startswith(met.served)


@VERSIONS
@pytest.mark.parametrize("first", ["ECDSA", "RSA"])
def test_ecdsa_for_clients_that_can_rsa_for_the_others(version: int, first: str) -> None:
    pair = (A, A_RSA) if first == "ECDSA" else (A_RSA, A)
    server = ServerTLS(name_map(*pair))
    # Clients such as Go's list RSA first although they can do both.
    both = meet(server, version, b"a.example", sigalgs=b"RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA256")
    assert both.served == A.pem
    assert both.chain == [A.pem, intermediate().pem]
    old = meet(server, version, b"a.example", sigalgs=b"RSA-PSS+SHA256:RSA+SHA256")
    assert old.served == A_RSA.pem
    assert old.chain == [A_RSA.pem, intermediate().pem]


@VERSIONS
def test_only_rsa_and_only_ed25519(version: int) -> None:
    ed25519 = issue(["ed.example"], private=key("Ed25519"))
    server = ServerTLS(name_map(A_RSA, ed25519))
    assert meet(server, version, b"a.example").served == A_RSA.pem
    assert meet(server, version, b"ed.example").served == ed25519.pem


def test_a_retried_hello_is_asked_for_its_name_again() -> None:
    """A client whose key share does not fit sends its hello twice, each time with a name."""
    server = ServerTLS(name_map(A, B))
    met = meet(server, TLS13, b"b.example", groups=b"X448:P-384")
    assert met.done and met.served == B.pem


def test_a_retried_hello_with_another_name_gets_that_ones_certificate() -> None:
    """No client may change it (RFC 8446 4.1.2). Both are served by one context."""
    other = issue(["d.test"], intermediate(), private=key("RSA"))
    server = ServerTLS(name_map(A, other))
    client = SSL.Connection(client_context(TLS13, groups=b"X448:P-384"), None)
    client.set_connect_state()
    end = SSL.Connection(server.context, None)
    end.set_accept_state()
    for name in (b"a.example", b"d.test", b"d.test"):
        client.set_tlsext_host_name(name)
        for one, peer in ((client, end), (end, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            pump(one, peer)
    assert end.get_app_data() == "d.test"
    shown = client.get_peer_certificate(as_cryptography=True)
    assert shown is not None and shown.public_bytes(Encoding.PEM) == other.pem


def session_of(met: Handshake) -> SSL.Session:
    session = met.client.get_session()
    assert session is not None
    return session


@VERSIONS
def test_a_session_is_resumed_by_ticket_under_its_name(version: int) -> None:
    server = ServerTLS(name_map(A, B))
    client = client_context(version)
    first = handshake(server.context, client, b"a.example")
    again = handshake(server.context, client, b"a.example", session_of(first))
    assert reused(again)
    assert again.server.get_app_data() == "a.example"


@VERSIONS
def test_a_session_of_one_name_does_not_put_a_connection_under_another(version: int) -> None:
    """Whatever OpenSSL resumes, the name that is remembered is the one that was agreed upon."""
    server = ServerTLS(name_map(A, B))
    client = client_context(version)
    session = session_of(handshake(server.context, client, b"a.example"))
    met = handshake(server.context, client, b"b.example", session)
    assert met.done
    served = A if met.server.get_app_data() == "a.example" else B
    assert met.served == served.pem or reused(met)
    refused = handshake(server.context, client, b"c.test", session)
    assert not refused.done or refused.server.get_app_data() == "a.example"


@VERSIONS
def test_a_ticket_from_before_a_rotation_means_a_full_handshake(version: int) -> None:
    server = ServerTLS(name_map(A))
    client = client_context(version)
    session = session_of(handshake(server.context, client, b"a.example"))
    before = server.context
    server.rotate()
    assert server.context is not before
    met = handshake(server.context, client, b"a.example", session)
    assert met.done and not reused(met)


def test_modern_is_tls_1_3_alone_also_for_sessions_from_before() -> None:
    server = ServerTLS(name_map(A, B))
    old, new = client_context(TLS12), client_context(TLS13)
    of_old = session_of(handshake(server.context, old, b"a.example"))
    of_new = session_of(handshake(server.context, new, b"a.example"))
    before = server.context
    server.require("intermediate")
    assert server.context is before, "nothing has changed, tickets go on"
    server.require("modern")
    for session in (None, of_old):
        met = handshake(server.context, old, b"a.example", session)
        assert not met.done and met.alert == "tlsv1 alert protocol version"
    met = handshake(server.context, new, b"a.example", of_new)
    assert met.done and met.served == A.pem and not reused(met)
    server.rotate()
    server.swap(name_map(A, WILD))
    assert not meet(server, TLS12, b"c.example").done, "nor after a rotation, nor for new names"
    server.require("intermediate")
    assert meet(server, TLS12, b"a.example").done


def reused(met: Handshake) -> bool:
    return bool(SSL._lib.SSL_session_reused(met.client._ssl))


# --- swapping -----------------------------------------------------------------------------


@VERSIONS
def test_a_swap_serves_the_new_and_leaves_running_connections_alone(version: int) -> None:
    server = ServerTLS(name_map(A, B))
    running = meet(server, version, b"a.example")
    renewed = issue(["a.example"], private=key("ECDSA", 5), end=NOW + 90 * DAY)
    names = name_map(renewed)
    server.swap(names)
    assert server.names is names
    gc.collect()
    assert meet(server, version, b"a.example").served == renewed.pem
    assert meet(server, version, b"b.example").alert == "tlsv1 unrecognized name"
    running.server.send(b"still here")
    pump(running.server, running.client)
    assert read(running.client) == b"still here"


def test_a_swap_builds_only_what_is_new() -> None:
    server = ServerTLS(name_map(A, B))
    before = dict(server._live.served)
    server.swap(name_map(A, WILD))
    kept = [entry for entry in server.names.entries if entry.name == "a.example"]
    assert server._live.served[kept[0]] is before[kept[0]]
    assert len(server._live.served) == 2


def test_a_swap_in_steps_changes_over_at_the_end_and_may_be_dropped() -> None:
    server = ServerTLS(name_map(A))
    steps = server.steps(name_map(A, B, WILD))
    next(steps)
    assert not meet(server, TLS13, b"b.example").done
    steps.close()
    assert not meet(server, TLS13, b"b.example").done
    assert len(list(server.steps(name_map(A, B, WILD)))) >= 3
    assert meet(server, TLS13, b"b.example").served == B.pem


def test_a_handshake_begun_before_a_swap_goes_by_the_names_after_it() -> None:
    server = ServerTLS(name_map(A))
    connection = SSL.Connection(server.context, None)
    connection.set_accept_state()
    client = SSL.Connection(client_context(TLS13), None)
    client.set_connect_state()
    client.set_tlsext_host_name(b"b.example")
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    server.swap(name_map(B))
    gc.collect()
    pump(client, connection)
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    assert connection.get_app_data() == "b.example"


def test_a_chain_that_openssl_rejects_gives_way_to_the_next_best(log: list[dict]) -> None:
    good = issue(["a.example", "z.example"], private=key("ECDSA", 1))
    names = name_map(good, B)
    best = next(chain for chain in names.chains if "a.example" in chain.names)
    bad = replace(
        best,
        key_pem=B.key,
        names=("a.example",),
        not_after=NOW + 900 * DAY,
        fingerprint="other",
        files=("bad.pem",),
    )
    server = ServerTLS(NameMap([*names.chains, bad], None, NOW))
    assert meet(server, TLS13, b"a.example").served == good.pem
    assert meet(server, TLS13, b"b.example").served == B.pem
    assert [rejected.chain for rejected in server.rejected] == [bad]
    assert "bad.pem" in lines(log)[0] and "key values mismatch" in lines(log)[0]
    assert len(lines(log)) == 1


def test_a_chain_that_openssl_rejects_leaves_what_was_there_before_it() -> None:
    old = issue(["a.example"], private=key("ECDSA", 1))
    server = ServerTLS(name_map(old, B))
    new = name_map(issue(["a.example"], private=key("ECDSA", 3), end=NOW + 90 * DAY)).chains[0]
    server.swap(NameMap([replace(new, key_pem=B.key)], None, NOW))
    assert meet(server, TLS13, b"a.example").served == old.pem
    assert len(server.rejected) == 1
    assert not meet(server, TLS13, b"b.example").done, "this one was taken away in earnest"
    server.swap(NameMap([new], None, NOW))
    assert meet(server, TLS13, b"a.example").served == new.chain_pem


def test_a_default_that_names_nothing_is_told_once_and_its_return_too(log: list[dict]) -> None:
    def told() -> list[tuple[str, str]]:
        found = [(event["log_level"].name, line) for event, line in zip(log, lines(log))]
        del log[:]
        return found

    server = ServerTLS(name_map(A, default="a.example"))
    assert told() == []
    server.swap(name_map(B, default="a.example"))
    ((level, line),) = told()
    assert level == "error" and "none is for a.example, which `certs: default:` names" in line
    server.swap(name_map(B, issue(["z.example"]), default="a.example"))
    assert told() == []
    server.swap(name_map(A, B, default="a.example"))
    ((level, line),) = told()
    assert level == "info" and "there is one for a.example, the default, again" in line
    server.fall_back("c.example")
    assert told()[0][0] == "error"
    server.fall_back(None)
    assert told() == []
    assert len(ServerTLS(name_map(A, default="c.example")).names.entries) == 1
    assert told()[0][0] == "error"


def test_nothing_at_all_refuses_everybody() -> None:
    server = ServerTLS(NameMap((), None, NOW))
    assert meet(server, TLS12, b"a.example").alert == "tlsv1 unrecognized name"
    assert meet(server, TLS13, None).alert == "tlsv1 unrecognized name"


# --- nothing escapes ----------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), KeyboardInterrupt(), SystemExit()])
def test_no_exception_escapes_the_callback(
    version: int,
    error: BaseException,
    log: list[dict],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = ServerTLS(name_map(A))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(ServerTLS, "_choose", fail)
    met = meet(server, version, b"a.example")
    assert met.alert == "tlsv1 unrecognized name"
    assert lines(log) == ["handshake refused: choosing a certificate failed"]
    monkeypatch.setattr(ServerTLS.log, "failure", fail)
    assert meet(server, version, b"a.example").alert == "tlsv1 unrecognized name"
    assert capfd.readouterr().err == ""


@VERSIONS
def test_a_context_and_connections_are_good_without_the_server_object(version: int) -> None:
    server = ServerTLS(name_map(A))
    base = server.context
    met = meet(server, version, b"a.example")
    gone = weakref.ref(server)
    del server
    gc.collect()
    assert handshake(base, client_context(version), b"a.example").served == A.pem
    del base
    gc.collect()
    assert gone() is None
    met.client.send(b"x")
    pump(met.client, met.server)
    assert read(met.server) == b"x"


SERVER = ServerTLS(name_map(A, B, WILD))


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.binary(min_size=250, max_size=300),
        st.sampled_from(
            [
                b"",
                b"a.example\0",
                b"\0a.example",
                b"a.example\n",
                b"*.example",
                b"a..example",
                b".example",
                b"A.exAMPLE.",
                b"127.0.0.1",
                b"127.1",
                b"b.example:443",
                b"\xc3\xa4.example",
                b"xn--.example",
            ]
        ),
    ),
    st.sampled_from([TLS12, TLS13]),
)
def test_any_bytes_as_server_name_are_answered_or_refused(name: bytes, version: int) -> None:
    server = SSL.Connection(SERVER.context, None)
    server.set_accept_state()
    server.bio_write(hello_with(name, version))
    try:
        server.do_handshake()
    except SSL.WantReadError:
        remembered = server.get_app_data()
        assert remembered is not None
        sent = name.decode("ascii").lower().removesuffix(".")
        assert remembered == sent
        entry = SERVER.names.choose(sent)
        shown = server.get_certificate(as_cryptography=True).public_bytes(Encoding.PEM)
        assert entry.chains[0].chain_pem.startswith(shown)
        assert server.get_context() is SERVER._live.served[entry].context
        covered = sent in ("a.example", "b.example", "127.0.0.1")
        assert covered or (sent.endswith(".example") and sent.count(".") == 1 and sent[0] != ".")
    except SSL.Error:
        pass


def hello_with(name: bytes, version: int) -> bytes:
    """A client's hello as OpenSSL makes it, with any bytes in place of the server name."""
    client = SSL.Connection(client_context(version, groups=b"X25519"), None)
    client.set_connect_state()
    client.set_tlsext_host_name(b"PLACEHOLDER")
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    record = client.bio_read(65536)
    old = extension(b"PLACEHOLDER")
    assert record.count(old) == 1
    difference = len(name) - len(b"PLACEHOLDER")
    body = record[5:].replace(old, extension(name))
    # Handshake length (3 octets at 1), then the length of all extensions behind session id,
    # cipher suites and compression methods.
    position = 4 + 2 + 32
    position += 1 + body[position]
    position += 2 + struct.unpack_from("!H", body, position)[0]
    position += 1 + body[position]
    (extensions,) = struct.unpack_from("!H", body, position)
    length = int.from_bytes(body[1:4], "big") + difference
    body = (
        body[:1]
        + length.to_bytes(3, "big")
        + body[4:position]
        + struct.pack("!H", extensions + difference)
        + body[position + 2 :]
    )
    return record[:3] + struct.pack("!H", len(body)) + body


def extension(name: bytes) -> bytes:
    """server_name (RFC 6066 section 3) with one host_name."""
    entry = b"\0" + struct.pack("!H", len(name)) + name
    return struct.pack("!HHH", 0, len(entry) + 2, len(entry)) + entry


# --- loading ------------------------------------------------------------------------------


def test_without_memfd_a_temporary_file_serves_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.delattr(loading.os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    met = meet(ServerTLS(name_map(A, A_RSA)), TLS13, b"a.example")
    assert met.chain == [A.pem, intermediate().pem]
    assert list(tmp_path.iterdir()) == []


def test_without_proc_a_temporary_file_serves(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(loading.os.path, "exists", lambda path: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    met = meet(ServerTLS(name_map(A)), TLS13, b"a.example")
    assert met.chain == [A.pem, intermediate().pem]


def test_loading_leaves_no_descriptor_open() -> None:
    with socket.socket() as before:
        number = before.fileno()
    for _ in range(5):
        ServerTLS(name_map(A, A_RSA, B))
    with socket.socket() as after:
        assert after.fileno() == number


def test_over_a_real_socket() -> None:
    """pyOpenSSL on a socket takes other ways than over memory."""
    server = ServerTLS(name_map(A))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = SSL.Connection(server.context, ours)
        connection.set_accept_state()
        thread = threading.Thread(target=connection.do_handshake)
        thread.start()
        client = SSL.Connection(client_context(TLS13), theirs)
        client.set_connect_state()
        client.set_tlsext_host_name(b"a.example")
        client.do_handshake()
        thread.join()
        assert connection.get_app_data() == "a.example"
