"""Tunnels in which anything happens, in any order; and services that answer anything to the
request for one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from test_wire_tunnel import AGREED, ASK, BACK, FRAME, opened, standard_tunnels, tunnels
from wire_support import check, get

from edgeproxy.testing import Ending, MemoryGateway, Way

SIDES = st.sampled_from(["client", "service"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), SIDES, st.integers(1, 200_000)),
        st.tuples(st.sampled_from(["end", "stall", "flow", "reset"]), SIDES, st.just(0)),
        st.tuples(st.just("wait"), SIDES, st.sampled_from([1, 9, 11])),
    ),
    max_size=12,
)


class Side:
    """What one side has sent and got."""

    def __init__(self) -> None:
        self.sent = b""
        self.over = False
        self.gone = False


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([Way.WHOLE, Way.TLS]))
def test_any_course(steps: list[tuple[str, str, int]], way: Way) -> None:
    gateway = MemoryGateway(standard_tunnels(), way)
    client, service = opened(gateway, "/ws/short")
    wires = {"client": client, "service": service}
    sides = {"client": Side(), "service": Side()}
    before = {"client": len(client.received), "service": len(service.received)}
    for what, who, size in steps:
        wire, side = wires[who], sides[who]
        if side.gone or wire.ending is Ending.ABORTED:
            continue
        if side.over and what in ("send", "end"):
            continue
        if what == "send":
            data = (b"%d." % len(side.sent)) * size
            side.sent += data[:size]
            wire.send(data[:size])
        elif what == "wait":
            gateway.wait(size)
        else:
            getattr(wire, what)()
            side.over |= what == "end"
            side.gone |= what == "reset"
    for wire, side in zip(wires.values(), sides.values(), strict=True):
        if not side.gone:
            wire.flow()

    got = {who: wires[who].received[before[who] :] for who in wires}
    other = {"client": "service", "service": "client"}
    for who, data in got.items():
        assert sides[other[who]].sent.startswith(data)
    calm = not any(side.gone for side in sides.values()) and not gateway.finished
    outcomes = [each.outcome.value for each in gateway.finished if each.outcome]
    for who, wire in wires.items():
        theirs = sides[other[who]]
        if calm:
            assert got[who] == theirs.sent
            assert (wire.ending is Ending.ENDED) == theirs.over
        elif outcomes != ["idle"] and wire.ending is Ending.ENDED and theirs.over:
            # What was sent to a tunnel that had been idle for too long is nobody's.
            assert got[who] == theirs.sent
    if calm and all(side.over for side in sides.values()):
        raise AssertionError("both have ended, and the tunnel has not")
    if all(side.over and not side.gone for side in sides.values()):
        assert outcomes in (["ok"], ["idle"])
    assert len(outcomes) <= 1
    # A peer that is not read any more, and not written to, is not missed before that.
    gateway.wait(11)
    check(gateway)
    assert tunnels(gateway) == 0


BITS = st.sampled_from(
    [
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.0 101 Switching Protocols\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Hint\r\n\r\n",
        b"Upgrade: websocket\r\n",
        b"Upgrade: h2c\r\n",
        b"Connection: Upgrade\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"A: b\r\n",
        b"\r\n",
        b"abc",
        AGREED,
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(BITS, max_size=7).map(b"".join), st.booleans(), st.sampled_from(["end", "reset", ""])
)
def test_any_answer(data: bytes, early: bool, then: str) -> None:
    """What the client sends reaches the service only where it has agreed, word for word."""
    gateway = MemoryGateway(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws", ASK) + (FRAME if early else b""))
    service = gateway.service("users").accept()
    service.send(data)
    client.send(FRAME + get("/open/hidden"))
    service.send(BACK)
    reached = FRAME in service.received
    switched = client.received.rpartition(b"HTTP/1.1 101 Switching Protocols\r\n")[2]
    assert reached == (tunnels(gateway) == 1)
    if reached:
        assert b"HTTP/1.1 101 " in client.received
        assert switched.endswith(BACK)
        head = data.partition(b"HTTP/1.1 101")[2].partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert {b"Upgrade: websocket", b"Connection: Upgrade"} <= set(head)
        assert not {b"Upgrade: h2c", b"Transfer-Encoding: chunked", b"Content-Length: 3"} & set(
            head
        )
    # Hidden or not, it was never a request of its own.
    assert sum(s.attempts for s in gateway.services.values()) == 1
    assert len(gateway.exchanges(client)) <= 1
    if then:
        getattr(service, then)()
    assert 500 not in {exchange.status for exchange in gateway.finished}
    check(gateway)
