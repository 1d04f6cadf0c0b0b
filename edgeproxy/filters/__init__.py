"""Policy in plain Python: the filters of routes.

A filter is a class with any of four hooks, each plain, ``async def``, or returning a Deferred:

- ``on_request(request)``: after identity and limits, before anything of it goes anywhere;
- ``on_upstream_request(request)``: the head for the service has been made, with the path and the
  fields that it will get;
- ``on_response(request, response)``: the head of the answer has come, whoever gives it;
- ``on_log(request, entry)``: it has ended, and its line is about to be written.

The first three return ``None``, and it goes on; or an :class:`Answer`, or raise :class:`Refuse`,
and that is the answer. Whatever else they raise is a 500 and a traceback in the log, and never an
open door. What a filter is made with is its ``Options``, a pydantic model.

The whole contract, with examples, is in ``docs/filters.md``; ``edgeproxy.testing.FilterHarness``
tests a filter in the gateway itself.
"""

from edgeproxy.filters.contract import Answer, FieldError, Filter, Refuse
from edgeproxy.filters.entry import LogEntry
from edgeproxy.filters.headers import Headers
from edgeproxy.filters.request import Caller, Request, Response

__all__ = [
    "Answer",
    "Caller",
    "FieldError",
    "Filter",
    "Headers",
    "LogEntry",
    "Refuse",
    "Request",
    "Response",
]
