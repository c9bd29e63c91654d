"""A mapping of podwired.yaml whose keys are known."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, PydanticKnownError, PydanticUseDefault

WHOLE = "whole_section"
"""The type of errors that are of a mapping's members together."""


class Section(BaseModel):
    """A mapping of known keys; one without value counts as left out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", alias_generator=to_camel)

    @field_validator("*", mode="before")
    @classmethod
    def leave_out(cls, value: object, info: ValidationInfo) -> object:
        """A key's value as it stands. Raises where it has none."""
        if value is not None:
            return value
        missing = info.field_name in cls._required()
        raise PydanticKnownError("missing") if missing else PydanticUseDefault()

    @classmethod
    def _required(cls) -> set[str]:
        return {name for name, field in cls.model_fields.items() if field.is_required()}

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The keys as the file spells them."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    def given(self) -> dict[str, Any]:
        """What the file says, by attribute."""
        return {name: value for name, value in self if value is not None}


def misfit(why: str) -> PydanticCustomError:
    """What a section raises whose members are right each, and wrong together."""
    return PydanticCustomError(WHOLE, "{why}", {"why": why})
