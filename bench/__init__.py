"""The bench: one job, for edgeproxy and for every peer found on the machine, in one run.

What is measured is the CPU that a proxy's whole process tree used for a unit of work, because
that survives a busy machine; it is quoted as a ratio to nginx in the same run. The proxy is
pinned to one CPU, the load and the origin to another.

    make bench                                       every peer and every row
    make bench ARGS=--quick                          nginx and edgeproxy, requests only, 30 s
    make bench ARGS="--only nginx,edgeproxy --row requests --rounds 5"
"""
