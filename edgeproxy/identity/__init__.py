"""Identity: who is calling.

`apikey` is the form of a key, `principal` what the rest of the gateway and the upstreams learn of
its holder, `keyrecord` what is known of one key, `keyfile` the lines that it is kept in, `keyindex`
the look-up by digest, `keystore` the file watched and reloaded, `keyadmin` the file changed by
`edgeproxy keys`. Key times are wall-clock, in seconds since 1970 (`time.time`).

One request goes: `record = index.find(credential, now)`, and the caller is `record.principal` if
`record.state(now)` is `KeyState.OK`. All other ways end in the same 401.
"""
