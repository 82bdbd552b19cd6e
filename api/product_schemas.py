"""The shapes of a product on the wire: its pictures, their tags combined, the verdict that counts. No behaviour."""

from pydantic import BaseModel, Field

from api.schemas import DecisionOut, LabelOut, Outcome, TagOut, Verdict


class SourceOut(BaseModel):
    """Which picture shows a product's tag."""

    item_id: str
    score: float
    model: str | None = Field(description="null: a person said so.")


class ProductTagOut(BaseModel):
    """A tag of a product: its highest score, and the pictures it comes from."""

    label: str
    group: str
    score: float
    pictures: int
    sources: list[SourceOut]


class PictureOut(BaseModel):
    """A picture of a product, the newest result of its bytes."""

    item_id: str
    id: str
    url: str | None
    filename: str | None
    outcome: Outcome | None
    code: str | None
    sha256: str | None
    verdict: Verdict | None
    automatic: Verdict | None
    decision: DecisionOut | None
    tags: list[TagOut]
    labels: list[LabelOut]


class ProductOut(BaseModel):
    """The catalog's view of one product: its newest 200 pictures, their tags combined, the most severe verdict.

    A picture without a verdict counts as `review` beside one that has one; `null` where none has."""

    product_id: str
    verdict: Verdict | None
    tags: list[ProductTagOut]
    pictures: list[PictureOut]
