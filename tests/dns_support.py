"""A small DNS server in a process of its own: twisted.names, answering what stands in a file.

The file holds JSON, and is read for each question: name -> {"A": [...], "AAAA": [...],
"CNAME": name, "ttl": seconds, "fail": "servfail" or "silent"}. A name that is not there does not
exist. What was asked goes to standard output, a line for each question.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running_support import Child, free_port


@dataclass
class DNS:
    """The server as a test sees it."""

    file: Path
    port: int
    child: Child

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def say(self, **names: Any) -> None:
        """Answer so from now on; `__` stands for a dot in a name."""
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps({name.replace("__", "."): v for name, v in names.items()}))
        beside.replace(self.file)

    def asked(self, question: str = "") -> int:
        """How many questions have come, of the form `A app.test`."""
        return sum(question in line for line in self.child.said().splitlines() if "?" in line)


def start_dns(folder: Path) -> DNS:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "zone.json"
    file.write_text("{}")
    port = free_port()
    child = Child.start([sys.executable, __file__, file, port], folder / "dns.out")
    child.wait_until_said("ready")
    return DNS(file, port, child)


def main(file: Path, port: int) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, fail, succeed
    from twisted.names import dns, error, server

    class Zone:
        def query(self, query: dns.Query, timeout: object = None) -> Deferred[Any]:
            name = query.name.name.decode().lower()
            kind = dns.QUERY_TYPES.get(query.type, str(query.type))
            print(f"? {kind} {name}", flush=True)
            found = json.loads(file.read_text()).get(name)
            if found is None:
                return fail(error.DomainError(name))
            how = found.get("fail", found.get(f"fail {kind}"))
            if how == "silent":
                return Deferred()
            if how == "servfail":
                return fail(error.ResolverError())
            return succeed((list(records(name, kind, found)), [], []))

    def records(name: str, kind: str, found: dict[str, Any]) -> Any:
        ttl = found.get("ttl", 60)
        if "CNAME" in found:
            alias = dns.Record_CNAME(found["CNAME"], ttl)
            yield dns.RRHeader(name, dns.CNAME, ttl=ttl, payload=alias, auth=True)
            name = found["CNAME"]
            found = json.loads(file.read_text())[name]
            ttl = found.get("ttl", 60)
        for each in found.get(kind, []):
            record = dns.Record_A if kind == "A" else dns.Record_AAAA
            yield dns.RRHeader(name, record.TYPE, ttl=ttl, payload=record(each, ttl), auth=True)

    factory = server.DNSServerFactory(clients=[Zone()])
    reactor.listenUDP(port, dns.DNSDatagramProtocol(factory), "127.0.0.1")  # type: ignore[attr-defined]
    reactor.listenTCP(port, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
    print("ready", flush=True)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
