"""What `twistd` finds: the `edgeproxy` command, and the reactor that it installs by default."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

edgeproxy = ServiceMaker(
    "edgeproxy",
    "edgeproxy.tap",
    "A TLS-terminating edge proxy and API gateway.",
    "edgeproxy",
)

direct_epoll = Reactor(
    "edgeproxy",
    "edgeproxy.transport.reactor",
    "edgeproxy's epoll reactor: fewer steps for each event.",
)
