"""Long work done between other events: a generator, driven a few milliseconds at a time."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")

SLICE = 0.005
"""Seconds of work in one turn of the reactor."""


def in_slices(reactor: Any, work: Generator[None, None, T]) -> Deferred[T]:
    """Drive ``work`` to its end; fires with what it returns, or fails with what it raises.

    The first slice is done in a later turn. Cancelling the deferred closes the generator.
    ``reactor`` has callLater.
    """
    call: Any = None

    def cancelled(_: Deferred[T]) -> None:
        if call.active():
            call.cancel()
        work.close()

    done: Deferred[T] = Deferred(cancelled)

    def step() -> None:
        nonlocal call
        end = time.monotonic() + SLICE
        try:
            next(work)
            while time.monotonic() < end:
                next(work)
        except StopIteration as stopped:
            done.callback(stopped.value)
        except Exception:
            done.errback()
        else:
            call = reactor.callLater(0, step)

    call = reactor.callLater(0, step)
    return done
