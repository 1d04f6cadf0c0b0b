"""Whether a peer does the job that it is measured at; asked before anything is measured."""

from bench import job, load
from bench.peers.base import Peer
from bench.process import BenchError


def check(peer: Peer) -> None:
    """A look at what the origin is told, at fields, refusals and bodies. Raises BenchError."""
    caller = peer.setting.job.keys[1]
    context = load.client_context()
    with load.connect(context, peer.port) as connection:
        answer = load.ask(connection, peer.setting.job.request(job.ECHO_PATH, caller))
        told = dict(part.partition("=")[::2] for part in answer.text.split("|"))
        _demand(peer, answer.status == 200, "the request is not relayed", answer)
        for name in peer.tells:
            _demand(peer, told.get(name) == getattr(caller, name), f"{name} not told", answer)
        if peer.closed:
            _demand(peer, not told["key"], "the origin sees the key", answer)
        if peer.limits:
            _demand(peer, "ratelimit" in answer.head.lower(), "no rate fields", answer)
    with load.connect(context, peer.port) as connection:
        for request in peer.setting.job.requests(count=40):
            answer = load.ask(connection, request)
            _demand(peer, answer.status == 200, "a request of the job is refused", answer)
            _demand(peer, len(answer.body) == job.BODY, "a body is not the origin's", answer)
    stranger = job.Key("edge_nobody", "", "", "")
    with load.connect(context, peer.port) as connection:
        answer = load.ask(connection, peer.setting.job.request(job.ECHO_PATH, stranger))
        wanted = 401 if peer.closed else 200
        _demand(peer, answer.status == wanted, f"an unknown key does not get {wanted}", answer)


def _demand(peer: Peer, holds: bool, what: str, answer: load.Answer) -> None:
    if not holds:
        raise BenchError(f"{what}:\n{answer[:1000].decode('latin-1')}")
