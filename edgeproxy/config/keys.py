"""`keys`: the file of API keys, and the pepper that its digests are made with."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationInfo, WithJsonSchema

from edgeproxy.config.fields import WrittenPath
from edgeproxy.config.frozen import Frozen
from edgeproxy.config.secrets import expand
from edgeproxy.identity.pepper import LEAST_BITS, Pepper, bits

_REFERENCE = r"\$\{(env|file|credential):[^}]+\}"


def pepper(text: str, lookup: Any) -> SecretStr:
    """The pepper that a reference leads to; ValueError says what is wrong with it."""
    if not re.fullmatch(_REFERENCE, text):
        raise ValueError(
            "a pepper stands outside; write ${file:PATH}, ${env:NAME} or ${credential:NAME}"
        )
    if not callable(lookup):
        return SecretStr(text)
    found = expand(text, lookup)
    if bits(found) < LEAST_BITS:
        raise ValueError(
            f"this pepper could be guessed; {LEAST_BITS} random bits or more are right, "
            "as `openssl rand -hex 32` makes them"
        )
    return SecretStr(found)


def _pepper(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, SecretStr):
        return value
    return pepper(value if isinstance(value, str) else "", info.context)


class Keys(Frozen):
    """Where API keys are kept, and how."""

    file: WrittenPath = Field(default=Path("keys.jsonl"), description="File of API keys, hashed.")
    # Kong, nginx: none
    pepper: (
        Annotated[
            SecretStr,
            BeforeValidator(_pepper),
            WithJsonSchema(
                {
                    "type": "string",
                    "pattern": f"^{_REFERENCE}$",
                    "examples": ["${file:/etc/edgeproxy/pepper}", "${credential:pepper}"],
                }
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Secret that digests are made with (HMAC); absent: SHA-256 alone.",
    )

    def within(self, folder: Path) -> "Keys":
        """With the file's path made absolute."""
        return self.model_copy(update={"file": folder / self.file})

    @property
    def hashing(self) -> Pepper | None:
        """The pepper, ready to be used."""
        if self.pepper is None:
            return None
        return Pepper(self.pepper.get_secret_value().encode("utf-8", "surrogatepass"))


def _lengthen(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {"file": value}


KeysValue = Annotated[Keys, BeforeValidator(_lengthen, json_schema_input_type=str | Keys)]
