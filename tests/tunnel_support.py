"""Peers that speak WebSocket, by the library `websockets`, wherever their bytes come from."""

from __future__ import annotations

from hashlib import sha256
from random import Random

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

URL = "wss://localhost/chat?room=1"


class Talker:
    """One peer, which says random frames (seeded) and notes what it hears.

    ``said`` and ``heard`` digest bytes, ``frames`` the frames that were heard; ``answered`` are
    the bytes of its own that the other peer asked for: pongs, and the answer to a close.
    """

    def __init__(self, protocol: Protocol, seed: int, frames: int) -> None:
        self.protocol = protocol
        self.random = Random(seed)
        self.left = frames
        self.said = sha256()
        self.heard = sha256()
        self.frames = sha256()
        self.count = 0
        self._open = False

    def say(self, most: int = 40) -> bytes:
        """The next few frames, and what the protocol wants to say besides."""
        for _ in range(min(self.left, self.random.randint(1, most))):
            self.left -= 1
            self._frame()
        return self.flush()

    def flush(self) -> bytes:
        data = b"".join(self.protocol.data_to_send())
        self.said.update(data)
        return data

    def hear(self, data: bytes) -> None:
        self.heard.update(data)
        note(self.protocol, data, self)

    def _frame(self) -> None:
        random, protocol = self.random, self.protocol
        kind = random.random()
        if kind < 0.04:
            protocol.send_ping(random.randbytes(random.randint(0, 125)))
        elif kind < 0.06:
            protocol.send_pong(random.randbytes(random.randint(0, 125)))
        elif self._open:
            self._open = random.random() < 0.5 and self.left > 1
            protocol.send_continuation(self._data(), fin=not self._open)
        else:
            self._open = random.random() < 0.2 and self.left > 1
            protocol.send_binary(self._data(), fin=not self._open)

    def _data(self) -> bytes:
        random = self.random
        most = random.choices((125, 1500, 16384, 65536), (850, 130, 18, 2))[0]
        return random.randbytes(random.randint(0, most))


def note(protocol: Protocol, data: bytes, noting: Talker) -> None:
    """Give a protocol what came, and note the frames in it."""
    protocol.receive_data(data)
    for event in protocol.events_received():
        if isinstance(event, Frame):
            noting.count += 1
            noting.frames.update(b"%d %d %d " % (event.opcode, event.fin, len(event.data)))
            noting.frames.update(event.data)


class Reference:
    """What a peer would have heard without anything in between."""

    def __init__(self, protocol: Protocol) -> None:
        self._talker = Talker(protocol, 0, 0)

    def hear(self, data: bytes) -> None:
        note(self._talker.protocol, data, self._talker)
        self._talker.protocol.data_to_send()

    def same(self, heard: Talker) -> bool:
        mine = self._talker
        return (mine.count, mine.frames.digest()) == (heard.count, heard.frames.digest())


def pair(seed: int, frames: int) -> tuple[Talker, Talker, Reference, Reference]:
    """A client and a server that will say so many frames each, and what each should hear."""
    return (
        Talker(ClientProtocol(parse_uri(URL), max_size=None), seed, frames),
        Talker(ServerProtocol(max_size=None), seed + 1, frames),
        Reference(ClientProtocol(parse_uri(URL), state=State.OPEN, max_size=None)),
        Reference(ServerProtocol(state=State.OPEN, max_size=None)),
    )


def ask(client: Talker, fields: dict[str, str] | None = None) -> bytes:
    """The client's handshake."""
    protocol = client.protocol
    assert isinstance(protocol, ClientProtocol)
    request = protocol.connect()
    for name, value in (fields or {}).items():
        request.headers[name] = value
    protocol.send_request(request)
    return b"".join(protocol.data_to_send())


def agree(server: Talker, head: bytes) -> bytes:
    """The server's answer to what it got of the client's handshake."""
    protocol = server.protocol
    assert isinstance(protocol, ServerProtocol)
    protocol.receive_data(head)
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    assert protocol.state is State.OPEN, protocol.handshake_exc
    return b"".join(protocol.data_to_send())


def agreed(client: Talker, head: bytes) -> None:
    """Give the client the answer to its handshake: it is for the library to say whether it is."""
    protocol = client.protocol
    assert isinstance(protocol, ClientProtocol)
    protocol.receive_data(head)
    assert protocol.state is State.OPEN, protocol.handshake_exc
    assert len(protocol.events_received()) == 1


def pieces(data: bytes, random: Random) -> list[bytes]:
    """``data`` cut at random, mostly into few pieces."""
    cuts = sorted(random.randrange(len(data)) for _ in range(random.choice((0, 0, 1, 2, 5))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
