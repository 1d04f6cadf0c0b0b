"""Certificates: from files in a folder to the context that answers a handshake.

The way of a certificate, module by module:

    folder     T  watches the folder, reads it in slices, keeps what a broken file would take away
    reading    T  the folder's files as bytes, bounded, through links and subfolders
    pem        P  what one file contains: certificates, keys, what is wrong with it
    scan       P  keys paired with certificates, chains put in order: `Chain`
    names      P  which chains answer for a name: `NameMap`, `Entry`
    hostname   P  the one spelling under which names are compared
    contexts   T  one OpenSSL context per entry, and the callback that chooses by SNI: `ServerTLS`
    development P a self-signed certificate for the first minutes

A `NameMap` is immutable. A renewal builds a new one beside it and swaps one reference.
"""
