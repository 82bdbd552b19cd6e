"""What no text that we keep or look for may hold. Postgres has no NUL in a text: one that came so far would be a fault
of ours, so every model of what strangers send refuses it, whatever else a field allows."""

from pydantic import BaseModel, field_validator


class Storable(BaseModel):
    """Base of what is read from addresses, forms and bodies."""

    @field_validator("*")
    @classmethod
    def _storable(cls, value: object) -> object:
        if _holds_nul(value):
            raise ValueError("a text holds no NUL")
        return value


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(name) or _holds_nul(each) for name, each in value.items())
    return isinstance(value, list | tuple | set | frozenset) and any(map(_holds_nul, value))
