"""The canonical entities and what their fields mean. More fields are welcome; a known one of a wrong type is not.

An entity's key starts with its type (`client/acme`), which chooses the schema; a record may name one (`client/v1`).
"""

from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aios_core.errors import TerminalError
from aios_core.values import Plain
from aios_memory.model import Kind, Name

Text = Annotated[str, Field(min_length=1, max_length=400)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Number = Decimal | int
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class _Entity(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Client(_Entity):
    """Who pays: `name` as it stands in a letter, `currency` ISO 4217, `email` where reports go."""

    name: Text
    currency: Currency | None = None
    email: Text | None = None
    language: Text | None = None


class Project(_Entity):
    """Work for a client: `client` is the client's key."""

    name: Text
    client: Text | None = None
    rate: Number | None = None
    currency: Currency | None = None


class Invoice(_Entity):
    """`amount` in `currency`; days as YYYY-MM-DD; `status` paid, open or void."""

    number: Text
    client: Text | None = None
    amount: Number
    currency: Currency
    date: Day
    due_date: Day | None = None
    status: Annotated[str, Field(pattern=r"^(paid|open|void)$")] | None = None


class Product(_Entity):
    """What is sold."""

    name: Text
    price: Number | None = None
    currency: Currency | None = None


class Content(_Entity):
    """What is published: `kind` such as newsletter or article."""

    title: Text
    kind: Text | None = None
    author: Text | None = None


ENTITIES: Final[dict[str, type[_Entity]]] = {
    "client/v1": Client,
    "project/v1": Project,
    "invoice/v1": Invoice,
    "product/v1": Product,
    "content/v1": Content,
}


def check_entity(name: Name, schema: str, data: Plain, field: str) -> None:
    """Refuse an entity whose known fields are missing or of the wrong type: BAD_RESOURCE names the field."""
    if name.kind is not Kind.ENTITY:
        return
    implied = name.key.split("/")[0] + "/v1"
    chosen = schema or implied
    model = ENTITIES.get(chosen)
    if model is None:
        if not schema:
            return
        near = get_close_matches(schema, ENTITIES, 1) or list(ENTITIES)
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"There is no entity schema {schema}; there is {', '.join(near)}.",
            field=field,
        )
    try:
        model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join([field, *(str(part) for part in first["loc"])])
        raise TerminalError(
            "BAD_RESOURCE", f"{path}: {first['msg']} (schema {chosen}).", field=path
        ) from None
