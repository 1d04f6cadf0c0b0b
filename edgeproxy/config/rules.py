"""Rules for header fields: what is wrong with them, and how those of `defaults` are inherited."""

from collections.abc import Iterator

from edgeproxy.config.model import FieldRules
from edgeproxy.config.reserved import reserved

Location = tuple[str | int, ...]


def wrong_rules(rules: FieldRules, *, request: bool) -> Iterator[tuple[Location, str]]:
    """(where, what is wrong) of the fields that `rules` may not name or names twice."""
    taken: dict[str, str] = {}
    places: list[tuple[Location, str, str]] = [
        *((("set", name, "[key]"), name, "set") for name in rules.set),
        *((("add", name, "[key]"), name, "add") for name in rules.add),
        *((("remove", index), name, "remove") for index, name in enumerate(rules.remove)),
    ]
    for location, name, action in places:
        why = reserved(name, request=request)
        if why:
            yield location, f"{name} {why}"
        elif name.lower() in taken:
            first = taken[name.lower()]
            yield location, f"{name} is named under `{first}` already; name it once"
        taken.setdefault(name.lower(), action)


def merged(defaults: FieldRules, own: FieldRules) -> FieldRules:
    """The rules of a route: its own, and those of `defaults` for fields that it does not name."""
    if not (defaults.set or defaults.add or defaults.remove):
        return own
    named = {name.lower() for name in (*own.set, *own.add, *own.remove)}
    return FieldRules.model_construct(
        set={k: v for k, v in defaults.set.items() if k.lower() not in named} | own.set,
        add={k: v for k, v in defaults.add.items() if k.lower() not in named} | own.add,
        remove=(*(n for n in defaults.remove if n.lower() not in named), *own.remove),
    )
