"""The JSON Schema for editors, made from what `written` says.

`python -m edgeproxy.config.schema` prints it; `schema.json` beside this file is a copy of that.
"""

import json
from typing import Any

from edgeproxy.config.written import Written

#: What editors look for at the top of a schema.
_HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "edgeproxy.yaml",
    "description": "Configuration of edgeproxy.",
}
_ROUTE_KEY = r"^([A-Z][A-Z0-9_|-]* +)?(/|exact:/|regex:.)"


def schema() -> dict[str, Any]:
    """The schema of a whole configuration file, short and long forms."""
    written = Written.model_json_schema(mode="validation")
    tidy: dict[str, Any] = _tidy(written)
    for name in ("limits", "upstreams", "routes"):
        # A section may be there without anything in it yet.
        tidy["properties"][name]["type"] = ["object", "null"]
    tidy["properties"]["routes"]["additionalProperties"]["propertyNames"] = {"pattern": _ROUTE_KEY}
    return {**_HEAD, **{key: value for key, value in tidy.items() if key not in _HEAD}}


def _tidy(part: Any) -> Any:
    """Without the titles that repeat the key, and without `null`, which is never written."""
    if isinstance(part, list):
        return [_tidy(each) for each in part]
    if not isinstance(part, dict):
        return part
    tidy = {
        key: {name: _tidy(each) for name, each in value.items()}
        if key in ("properties", "$defs")
        else _tidy(value)
        for key, value in part.items()
        if not _noise(key, value)
    }
    if "patternProperties" in tidy:
        tidy["additionalProperties"] = False
    choices = [each for each in tidy.get("anyOf", []) if each != {"type": "null"}]
    if len(choices) == 1:
        del tidy["anyOf"]
        return choices[0] | tidy
    return tidy | {"anyOf": choices} if choices else tidy


def _noise(key: str, value: Any) -> bool:
    """Whether `key` of a schema tells an editor nothing. Defaults of whole sections are left out
    too: they repeat those of their settings, in seconds and bytes."""
    return key == "title" or (
        key == "default" and (value is None or isinstance(value, list | dict))
    )


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
