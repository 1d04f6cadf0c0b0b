"""Nodes against pydantic models: every error translated into our words, at its own place.

The models say what may be written; pydantic finds what does not fit, and its error types are
turned here into sentences about YAML. No word of pydantic's reaches the user: what has no
sentence of its own gets the general one.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from edgeproxy.config.nodes import Node
from edgeproxy.config.problems import Problem, Suggestions
from edgeproxy.config.secrets import expand
from edgeproxy.config.units import shown

M = TypeVar("M", bound=BaseModel)

Location = tuple[int | str, ...]
_ROUNDS = 30  # how often what is wrong is left out to look at the rest: more than any model has
_SECRET = {"set", "secret", "client_secret", "pepper"}  # where references are put in
_REFERENCE_HINT = " (`${…}` is put in only under an upstream's `set`)"


def _expected(what: str) -> Callable[[ErrorDetails], str]:
    return lambda error: f"{shown(error['input'])} stands here; {what} would be right"


def _text(error: ErrorDetails) -> str:
    found = error["input"]
    if isinstance(found, bool | int | float):
        bare = shown(found).strip("'")
        return f'{bare} is not text; put it in quotes: "{bare}"'
    return f"{shown(found)} stands here; text would be right"


_SENTENCES: dict[str, Callable[[ErrorDetails], str]] = {
    "string_type": _text,
    "int_type": _expected("a whole number"),
    "int_from_float": _expected("a whole number"),
    "int_parsing_size": _expected("a smaller number"),
    # Models of filters' options are not strict.
    "int_parsing": _expected("a whole number"),
    "float_parsing": _expected("a number"),
    "float_type": _expected("a number"),
    "bool_parsing": _expected("true or false"),
    "time_parsing": _expected("a time such as 17:30"),
    "list_type": _expected("a list"),
    "enum": lambda e: (
        f"{shown(e['input'])} is not a choice here; {e['ctx']['expected']} would be right"
    ),
    "bool_type": _expected("true or false"),
    "dict_type": _expected("settings in the form `key: value`"),
    "model_type": _expected("settings in the form `key: value`"),
    "tuple_type": _expected("a list, or one value"),
    "greater_than_equal": lambda e: (
        f"{shown(e['input'])} is too small; at least {e['ctx']['ge']} would be right"
    ),
    "less_than_equal": lambda e: (
        f"{shown(e['input'])} is too large; at most {e['ctx']['le']} would be right"
    ),
    "literal_error": lambda e: (
        f"{shown(e['input'])} is not a choice here; {e['ctx']['expected']} would be right"
    ),
    "value_error": lambda e: str(e["ctx"]["error"]),
}


class Reader:
    """Reads the values of one file; collects its problems.

    `context` reaches the validators: it is the lookup for secrets. Relative paths in the file
    start at `folder`.
    """

    def __init__(
        self,
        file: str,
        suggestions: Suggestions,
        context: object = None,
        folder: Path = Path("."),
    ) -> None:
        self.file = file
        self.folder = folder
        self.problems: list[Problem] = []
        self.suggestions = suggestions
        self._context = context

    def add(self, node: Node, message: str) -> None:
        """One problem at the place of `node`."""
        self.problems.append(Problem(self.file, node.line, node.column, message))

    def at(self, node: Node, location: Location, message: str) -> None:
        """One problem at the place that `location` has within `node`."""
        self.add(locate(node, location), message)

    def model(
        self,
        model: type[M],
        node: Node,
        short: TypeAdapter[Any],
        known: type[BaseModel] | None = None,
    ) -> M | None:
        """`node` as an instance of `model`, read by `short` where it is not the long form.

        What is wrong is reported and left out, so that the rest is looked at too; `None` when
        nothing can be made of the rest. `known` has the names that suggestions come from.
        """
        data: Any = node.plain()
        empty = list(_empty(node, ()))
        for _, place in empty:
            self.add(place, "nothing stands here; give it a value, or remove the line")
        if empty and not _leave_out(data, [location for location, _ in empty]):
            return None
        for _ in range(_ROUNDS):
            try:
                found: M = short.validate_python(data, context=self._context)
                return found
            except ValidationError as error:
                errors = error.errors(include_url=False)
                self._report(errors, node, known or model)
            if not _leave_out(data, [each["loc"] for each in errors]):
                return None
        return None

    def checked(self, node: Node, check: Callable[[str], Any], text: str) -> Any:
        """What `check` makes of `text`, or `None` when it is wrong (and reported at `node`)."""
        try:
            return check(text)
        except ValueError as error:
            self.add(node, str(error))
            return None

    def secret(self, node: Node, text: str) -> SecretStr:
        """`text` with its references to secrets put in, wrapped."""
        lookup: Any = self._context
        if not callable(lookup):
            return SecretStr(text)
        return SecretStr(self.checked(node, lambda each: expand(each, lookup), text) or "")

    def mapping(self, node: Node | None) -> Node | None:
        """`node` when it is a mapping; anything but nothing is reported."""
        if node is None or (node.pairs is None and node.items is None and node.scalar is None):
            return None
        if node.pairs is None:
            self.add(
                node,
                f"{shown(node.plain())} stands here; "
                "settings in the form `key: value` would be right",
            )
            return None
        return node

    def _report(self, errors: list[ErrorDetails], node: Node, model: type[BaseModel]) -> None:
        for each in errors:
            location, unknown = each["loc"], each["type"] == "extra_forbidden"
            if each["type"] == "missing" and _stands(node, location):
                continue  # it was left out because it is wrong, and that has been told
            # Unknown keys are pointed at themselves, not at their values.
            place = (*location, "[key]") if unknown else location
            self.at(node, place, self._message(each, node, model))

    def _message(self, error: ErrorDetails, node: Node, model: type[BaseModel]) -> str:
        kind, location = error["type"], error["loc"]
        if kind == "extra_forbidden":
            name = str(location[-1])
            known = known_keys(model, location[:-1])
            unknown = f"{shown(name)} is not a setting here"
            return unknown + self.suggestions.unknown(name, known)
        if kind == "missing":
            return f"'{location[-1]}' is missing here; add it"
        if isinstance(error["input"], SecretStr) and kind == "string_type":
            return "a secret stands here; the option has to be a pydantic.SecretStr"
        message = _SENTENCES.get(kind, _expected("another kind of value"))(error)
        written = locate(node, location).scalar
        borrowed = isinstance(written, str) and "${" in written and "`set`" not in message
        return message + (_REFERENCE_HINT if borrowed and not _SECRET & set(location) else "")


def _empty(node: Node, location: Location) -> Iterator[tuple[Location, Node]]:
    """Every place without a value. None means anything: defaults are had by saying nothing."""
    if node.pairs is not None:
        for key, _, value in node.entries():
            yield from _empty(value, (*location, key))
    elif node.items is not None:
        for index, item in enumerate(node.items):
            yield from _empty(item, (*location, index))
    elif node.scalar is None:
        yield location, node


def _leave_out(data: Any, locations: Sequence[Location]) -> bool:
    """Takes the innermost setting on the way to each location out of `data`.

    Whether that could be done: it cannot for an error of `data` as a whole.
    """
    settings: list[tuple[dict[str, Any], str]] = []
    for location in locations:
        place, found = data, None
        for step in location:
            if isinstance(place, dict) and step in place:
                found = (place, str(step))
                place = place[step]
        if found is None:
            return False
        settings.append(found)
    for holder, key in settings:
        holder.pop(key, None)
    return True


def _stands(node: Node, location: Location) -> bool:
    """Whether the key at the end of `location` was written."""
    key = location[-1]
    return str(key) in (locate(node, location[:-1]).pairs or {})


def locate(node: Node, location: Location) -> Node:
    """The node nearest to a location of pydantic's.

    Short forms have fewer levels than the models, so steps that lead nowhere are passed over. A
    last step of `[key]` is pydantic's way to point at a key instead of its value.
    """
    place = node
    key = None
    for step in location:
        if step == "[key]":
            return key or place
        if isinstance(step, int) and place.items is not None and step < len(place.items):
            key, place = None, place.items[step]
        elif isinstance(step, str) and place.pairs is not None and step in place.pairs:
            key, place = place.pairs[step]
    return place


def known_keys(model: type[BaseModel] | None, location: Location) -> Collection[str]:
    """The settings that may stand at `location` within `model`, as far as they can be known."""
    current: type[BaseModel] | None = model
    for step in location:
        info = current.model_fields.get(str(step)) if current else None
        current = _model_in(info.annotation) if info else current
    return list(current.model_fields) if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model within `X`, `X | None`, `tuple[X, …]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(each) for each in getattr(annotation, "__args__", ()))
    return next((each for each in inner if each is not None), None)
