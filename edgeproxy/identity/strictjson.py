"""JSON from others, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
from typing import Any


def strict_object(data: bytes) -> dict[str, Any]:
    """The object that `data` is (RFC 8259): UTF-8, each member once, numbers that JSON knows.

    A parser takes the last of two members of a name, another the first (RFC 8725 2.5, 3.9).
    Raises `ValueError` with the reason in a few words.
    """
    try:
        found = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands in it twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_number)
