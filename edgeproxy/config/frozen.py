"""What all models of the configuration are."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Unknown keys are errors, values never change, nothing is converted that is not said."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
