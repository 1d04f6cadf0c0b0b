"""What all models of the configuration are."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Unknown keys are errors, values never change, nothing is converted that is not said."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NamedCredential(Frozen):
    """One entry under `auth`, of any kind."""

    def within(self, folder: Path) -> Self:
        """The same with files below `folder`."""
        return self

    @property
    def alone(self) -> bool:
        """Whether it asks about every request, so that no other can stand beside it."""
        return False

    @property
    def reserved(self) -> tuple[str, ...]:
        """Fields that it sets on requests, and that clients may not."""
        return ()
