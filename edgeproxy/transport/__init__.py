"""Bytes in and out: sockets that write at once, TLS on the socket itself, listening, connecting.

The contract between a stream and the protocol above it stands in :mod:`edgeproxy.transport.stream`.
"""
