"""Filters as routes and `defaults` name them: a class with its options, at a place in a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, WithJsonSchema

from edgeproxy.config import grammar
from edgeproxy.config.fields import Duration, one_or_more, seconds
from edgeproxy.config.frozen import Frozen
from edgeproxy.config.nodes import Node
from edgeproxy.config.reading import Location, Reader, locate


def _use(value: str) -> str:
    return grammar.dotted_path(value) if "." in value else grammar.name(value)


FilterName = Annotated[
    str,
    AfterValidator(_use),
    WithJsonSchema({"type": "string", "examples": ["shop.policy.Hours"]}),
]


class FilterForm(Frozen):
    """One filter of a route."""

    use: FilterName = Field(
        description="Dotted path of the filter's class, or the name of a drop-in."
    )
    options: dict[str, Any] = Field(default={}, description="What its class is made with.")
    # AWS Lambda@Edge, viewer requests and answers
    timeout: Duration = seconds("5s", "How long one of its hooks may take to answer.")
    shadow: bool = Field(
        default=False, description="Only log what it would have done; it changes nothing."
    )


def _lengthen(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {"use": value}


FilterValue = Annotated[
    FilterForm, BeforeValidator(_lengthen, json_schema_input_type=FilterName | FilterForm)
]
Filters = Annotated[tuple[FilterValue, ...], one_or_more(FilterValue)]


@dataclass(frozen=True)
class Place:
    """Where something is written; that makes no difference to what is written."""

    file: str = field(compare=False)
    node: Node = field(compare=False)
    options: Node = field(compare=False)


class FilterUse(Frozen):
    """A filter of a route, to be found and made. ``options`` may hold secrets, wrapped."""

    use: str
    options: dict[str, Any] = {}
    timeout: float = 5.0
    shadow: bool = False
    place: Any = None


def take_filters(
    reader: Reader, node: Node, forms: Sequence[FilterForm] | None
) -> tuple[FilterUse, ...] | None:
    """The filters of a route, or of `defaults`; `None` where nothing is said of them."""
    if forms is None:
        return None
    if any(form.use == "none" for form in forms):
        if len(forms) > 1:
            reader.at(node, ("filters",), "'none' stands alone; remove it, or the others")
        return ()
    several = (node.get("filters") or node).items is not None
    return tuple(
        _one(reader, node, ("filters", index) if several else ("filters",), form)
        for index, form in enumerate(forms)
    )


def _one(reader: Reader, node: Node, location: Location, form: FilterForm) -> FilterUse:
    written = locate(node, location)
    place = written.get("use") or written
    options = written.get("options") or Node(place.line, place.column, pairs={})
    options = _with_secrets(reader, options)
    plain: Any = options.plain()
    return FilterUse.model_construct(
        use=form.use,
        options=plain,
        timeout=form.timeout,
        shadow=form.shadow,
        place=Place(reader.file, place, options),
    )


def _with_secrets(reader: Reader, node: Node) -> Node:
    """The same with each text that refers to a secret replaced by that, wrapped."""
    if node.pairs is not None:
        pairs = {key: (at, _with_secrets(reader, value)) for key, (at, value) in node.pairs.items()}
        return Node(node.line, node.column, pairs=pairs)
    if node.items is not None:
        items = [_with_secrets(reader, item) for item in node.items]
        return Node(node.line, node.column, items=items)
    if isinstance(node.scalar, str) and "${" in node.scalar:
        secret: Any = reader.secret(node, node.scalar)
        return Node(node.line, node.column, scalar=secret)
    return node


def hashable(value: Any) -> Any:
    """Options as a key that tells different ones apart, their secrets too."""
    if isinstance(value, dict):
        return tuple((name, hashable(each)) for name, each in sorted(value.items()))
    if isinstance(value, list):
        return ("list", *map(hashable, value))
    if isinstance(value, SecretStr):
        return ("secret", value.get_secret_value())
    return (type(value), value)
