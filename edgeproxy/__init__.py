"""edgeproxy: a TLS-terminating edge proxy and API gateway on Twisted."""
