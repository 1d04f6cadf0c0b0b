"""Header fields that a configuration may not touch, and why."""

#: RFC 9110 7.6.1 and RFC 9112 6: the message's framing and the connection are the gateway's.
FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "http2-settings",
    }
)
#: Identity that upstreams rely on; only the gateway writes it.
IDENTITY = frozenset(
    {
        "x-consumer-id",
        "x-consumer-name",
        "x-consumer-groups",
        "x-edge-token",
        "client-cert",
        "client-cert-chain",
    }
)
#: What the gateway says about the request's way.
FORWARDING = frozenset(
    {
        "via",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-request-id",
        "traceparent",
    }
)
#: What the gateway says in its answers.
ANSWERS = frozenset({"x-request-id", "ratelimit", "ratelimit-policy"})


def reserved(name: str, *, request: bool) -> str | None:
    """Why the field `name` may not be changed, or `None` when it may.

    Underscores count as hyphens: many services read both as the same (CGI, RFC 3875 4.1.18).
    """
    folded = name.lower().replace("_", "-")
    if folded in FRAMING:
        return "belongs to the connection, which the gateway keeps; remove it"
    if not request:
        return "is written by the gateway; remove it" if folded in ANSWERS else None
    if folded == "host":
        return "has a setting of its own; write `host: NAME` on the route or upstream"
    if folded == "expect":
        return "is answered by the gateway; remove it"
    if folded in IDENTITY or folded.startswith("x-consumer-"):
        return "tells upstreams who the caller is, so only the gateway writes it; remove it"
    if folded in FORWARDING:
        return "is written by the gateway; remove it"
    return None
