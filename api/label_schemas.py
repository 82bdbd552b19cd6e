"""The shapes of labels on the wire, as pydantic models. No behaviour."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.schemas import PLAIN, FaultOut, LabelOut, LabelSource, Sent

LINES = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"  # of plain text; tabs too
LabelName = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]


class LabelsIn(Sent):
    """What a person says of a picture, by label group; groups that are not named stay as they are.

    A text or a list of one for an exclusive group. A list for attributes: what it leaves out is not in the picture.
    `null` takes back what was said before."""

    groups: dict[LabelName, LabelName | Annotated[list[LabelName], Field(max_length=1000)] | None] = Field(
        min_length=1, max_length=100
    )
    source: Literal["correction", "labelling"] = Field(
        default="correction", description="Of what a model said, or of a picture labelled from scratch."
    )
    comment: str | None = Field(default=None, min_length=1, max_length=2000, pattern=LINES)
    new: bool = Field(default=False, description="Also take labels and groups that the model does not know.")


class ItemLabelsIn(LabelsIn):
    """The same, of one item among many."""

    item_id: str = Field(max_length=100)


class ManyLabelsIn(Sent):
    """Labels of many items."""

    labels: list[ItemLabelsIn] = Field(min_length=1)


class PastLabelOut(BaseModel):
    """One thing that was once said of a picture; `labels` null: it took back what was said before."""

    group: str
    labels: list[str] | None
    absent: list[str]
    source: LabelSource
    by: str
    at: datetime
    item_id: str | None = Field(description="The item that it was said of.")
    comment: str | None


class ItemLabelsOut(BaseModel):
    """What people say of an item's picture, and what they said before, newest first (at most 100)."""

    item_id: str
    sha256: str = Field(description="The picture: labels are of its bytes, wherever it is seen.")
    model: str | None = Field(description="The model whose labels there are to choose from.")
    labels: list[LabelOut]
    history: list[PastLabelOut]


class LabelledOut(BaseModel):
    """How many rows of a list were taken, how many were not, and the first 100 reasons."""

    labelled: int
    failed: int
    errors: list[FaultOut]
