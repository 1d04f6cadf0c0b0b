"""Certificates: from files in a folder to the context that answers a handshake.

The way of a certificate, module by module:

    folder     T  watches the folder, reads it in slices, keeps what a broken file would take away
    reading    T  the folder's files as bytes, bounded, through links and subfolders
    keeping    T  what stays in use although its files are broken or just gone
    watching   T  inotify, where there is one
    telling    T  what is wrong, told once and counted
    pem        P  what one file contains: certificates, keys, what is wrong with it
    foreign    P  what is not PEM, and how to make PEM of it
    certificate P what can be told from one certificate alone
    scan       P  keys paired with certificates, chains put in order: `Chain`
    names      P  which chains answer for a name: `NameMap`, `Entry`
    advice     P  what is not wrong yet: age, overlaps, keys that all can read
    hostname   P  the one spelling under which names are compared
    posture    T  what all OpenSSL contexts are made with: versions, ciphers, groups, ALPN
    contexts   T  what serves an entry, and the callback that chooses by SNI: `ServerTLS`
    loading    T  a chain and its key into an OpenSSL context
    development P a self-signed certificate for the first minutes

A `NameMap` is immutable. A renewal builds a new one beside it and swaps one reference.
"""
