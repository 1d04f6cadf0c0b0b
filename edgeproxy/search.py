"""Which configuration file is used: the same search for `twistd` and for every command."""

from __future__ import annotations

from pathlib import Path

LOCAL = Path("edgeproxy.yaml")
SYSTEM = Path("/etc/edgeproxy/edgeproxy.yaml")

NOT_FOUND = (
    f"no configuration: there is neither ./{LOCAL} nor {SYSTEM}; "
    "`edgeproxy init` writes one, --config FILE names one"
)


def find_config(given: str | Path | None) -> Path | None:
    """The file that was named, else ``./edgeproxy.yaml``, else the system's; ``None`` when no
    file was named and none is there. A named file need not exist: reading it tells."""
    if given is not None:
        return Path(given)
    for path in (LOCAL, SYSTEM):
        if path.exists():
            return path
    return None
