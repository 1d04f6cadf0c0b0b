"""Limits: how many requests a caller may make in a span of time, and the fields that tell it.

`window` counts one caller's admissions and holds the bound; `table` keeps the windows of one named
limit and is bounded itself; `fields` writes what the caller is told. All three are pure: time comes
in as `now`, in seconds of a clock that never goes back (`time.monotonic`, not the wall clock).

One request goes: `window = table.window(caller, rate, now)` for every limit of the route, then
`full(now)` of each, and only when none is full `record(now)` of each. A window must not be kept
beyond that one synchronous step: an empty one may be dropped from its table at any later call.
"""

from edgeproxy.limits.table import LimitTable, Usage
from edgeproxy.limits.window import ExactWindow, SlidingWindow, Window

__all__ = ["ExactWindow", "LimitTable", "SlidingWindow", "Usage", "Window"]
