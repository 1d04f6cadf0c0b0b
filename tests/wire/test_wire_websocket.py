"""A long talk between two real WebSocket peers through a tunnel in memory, cut at random."""

from __future__ import annotations

from random import Random

import pytest
from tunnel_support import agree, agreed, ask, pair, pieces

from edgeproxy.testing import Ending, MemoryGateway, Way

CONFIGURATION = """
access_log: access.log
upstreams: { chat: http://10.0.0.1:80 }
routes: { localhost: { /chat: { to: chat, websocket: true } } }
"""


@pytest.mark.parametrize(("way", "frames"), [(Way.WHOLE, 50_000), (Way.TLS, 5_000)])
@pytest.mark.parametrize("seed", [7])
def test_a_talk_is_what_it_is_without_the_gateway(way: Way, frames: int, seed: int) -> None:
    gateway = MemoryGateway(CONFIGURATION, way)
    random = Random(seed)
    client, server, client_hears, server_hears = pair(seed, frames)
    near = gateway.client()
    near.send(ask(client, {"X-API-Key": gateway.key("alice")}), apart=False)
    far = gateway.service("chat").accept()
    far.send(agree(server, far.forget()), apart=False)
    agreed(client, near.forget())

    while client.left or server.left:
        first = random.random() < 0.5
        talker, wire = (client, near) if first else (server, far)
        data = talker.say()
        if not data:
            continue
        (server_hears if first else client_hears).hear(data)
        for piece in pieces(data, random):
            wire.send(piece, apart=False)
        server.hear(far.forget())
        client.hear(near.forget())
    client.protocol.send_close(1000, "enough")
    for _ in range(3):  # pongs that are owed, and the answer to the close
        for talker, wire, hears in ((client, near, server_hears), (server, far, client_hears)):
            data = talker.flush()
            hears.hear(data)
            wire.send(data, apart=False)
            server.hear(far.forget())
            client.hear(near.forget())
    assert server.heard.digest() == client.said.digest()
    assert client.heard.digest() == server.said.digest()
    assert server_hears.same(server)
    assert client_hears.same(client)
    assert min(client.count, server.count) >= frames
    far.end()
    near.end()
    assert near.ending is far.ending is Ending.ENDED
    for talker in (client, server):
        talker.protocol.receive_eof()
        assert talker.protocol.close_code == 1000
    (line,) = gateway.log
    assert (line["status"], line["outcome"]) == (101, "ok")
