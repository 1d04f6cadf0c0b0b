"""Documents from a real server, over real sockets and real TLS: what is taken, what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from origin_support import Origin, Reactor, running
from twisted.logger import LogEvent, globalLogPublisher

from edgeproxy.asking import IDLE
from edgeproxy.fetching import LARGEST, Fetcher, FetchError


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with running() as reactor:
        yield reactor


def fetched(reactor: Reactor, url: str, ca: bytes | None = None) -> bytes:
    return reactor.until(Fetcher(reactor, ca).get(url))


def test_a_document(reactor: Reactor) -> None:
    with Origin() as origin:
        origin.answers = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\n{}"
        assert fetched(reactor, origin.url + "/keys?a=b") == b"{}"
        (asked,) = origin.asked
    assert asked.startswith(b"GET /keys?a=b HTTP/1.1\r\n")
    assert b"\r\nAccept: application/json\r\n" in asked
    assert b"\r\nAccept-Encoding: identity\r\n" in asked
    assert b"Cookie" not in asked


@pytest.mark.parametrize("tls", ["", "127.0.0.1"])
def test_its_connection_is_closed(reactor: Reactor, tls: str) -> None:
    with Origin(tls) as origin:
        origin.hangs = True
        assert fetched(reactor, origin.url, origin.authority or None) == b"{}"
        begun = reactor.seconds()
        reactor.turn_until(origin.closed.is_set)
        assert reactor.seconds() - begun < IDLE, "at once, not when it has been of no use for long"


def test_chunks(reactor: Reactor) -> None:
    with Origin() as origin:
        origin.answers = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        )
        assert fetched(reactor, origin.url) == b"{}"


def test_interim_answers_are_passed_over_and_fill_no_log(reactor: Reactor) -> None:
    told: list[LogEvent] = []
    globalLogPublisher.addObserver(told.append)
    with Origin() as origin:
        begun = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        origin.answers = begun * 100 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        assert fetched(reactor, origin.url) == b"{}"
    globalLogPublisher.removeObserver(told.append)
    assert not told


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n", "status 301"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "status 404"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (b"SSH-2.0-OpenSSH\r\n", "understood"),
        (b"", "understood"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "understood"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            "not asked for",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (LARGEST + 1), "more than 524288 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * LARGEST, "more than 524288 bytes"),
    ],
)
def test_refused(reactor: Reactor, answer: bytes, why: str) -> None:
    with Origin() as origin:
        origin.answers = answer
        with pytest.raises(FetchError, match=why):
            fetched(reactor, origin.url)
        assert len(origin.asked) == 1  # nothing is followed, nothing asked again


def test_nobody_there(reactor: Reactor) -> None:
    with Origin() as origin:
        url = origin.url
    with pytest.raises(FetchError, match="cannot connect"):
        fetched(reactor, url)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_too_slow(reactor: Reactor, begun: bytes) -> None:
    with Origin() as origin:
        origin.answers, origin.hangs = begun, True
        done = Fetcher(reactor).get(origin.url)
        reactor.turn_until(lambda: origin.sent)
        reactor.pass_time(5.1)
        with pytest.raises(FetchError, match="no answer within 5 s"):
            reactor.until(done)
        reactor.turn_until(origin.closed.is_set)  # nothing is left of it


def test_tls(reactor: Reactor) -> None:
    with Origin(tls="127.0.0.1") as origin:
        assert fetched(reactor, origin.url, origin.authority) == b"{}"
        with pytest.raises(FetchError, match="TLS: .*(certificate|verify)"):
            fetched(reactor, origin.url)  # the system does not trust it
    with Origin(tls="localhost") as origin, pytest.raises(FetchError, match="another name"):
        fetched(reactor, origin.url, origin.authority)
