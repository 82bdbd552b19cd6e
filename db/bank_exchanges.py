"""What exchanges of hashes give out, read as lists of entries. Fetches nothing.

    ThreatExchange  JSON of /threat_updates and /threat_descriptors (type HASH_PDQ), as its clients read it
                    (exchanges/clients/fb_threatexchange/threat_updates.py)
    NCMEC           XML of the hash sharing API v2 (/v2/entries), as its client reads it (exchanges/clients/ncmec/
                    hash_api.py; exchanges/impl/ncmec_api.py: an image's fingerprint `pdq`)

The files named are those of github.com/facebook/ThreatExchange, python-threatexchange/threatexchange. In both,
deletions name the id under which an entry came.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any
from xml.parsers import expat

from db.bank_rows import LENGTHS, BadList, Row, Wrong, row, whole


def threatexchange(file: IO[bytes]) -> Iterator[Row]:
    """The items of one answer."""
    try:
        document = json.loads(whole(file))
    except (ValueError, RecursionError):
        raise BadList("The document is not JSON.") from None
    rows = document.get("data") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise BadList('The document is no answer of ThreatExchange: {"data": [...]}.')
    for place, item in enumerate(rows):
        if not isinstance(item, dict):
            yield Row(place, code="wrong_type", detail="An item is an object.")
            continue
        try:
            yield _threat(place, item)
        except Wrong as wrong:
            yield Row(place, code=wrong.code, detail=wrong.detail, name=wrong.name)


def _threat(place: int, item: Mapping[str, Any]) -> Row:
    name = "raw_indicator" if "raw_indicator" in item else "indicator"
    external_id = str(item.get("id") or "") or None
    descriptors = item.get("descriptors")
    # An update without descriptors is a deletion too (ThreatExchange, issue 834).
    if item.get("should_delete") or (name == "indicator" and not isinstance(descriptors, dict)):
        if external_id is None:
            raise Wrong("missing", "A deletion names an id.", "id")
        return Row(place, gone=external_id)
    if item.get("type") != "HASH_PDQ":
        raise Wrong("unsupported_signal", "The type is not HASH_PDQ.", "type")
    said = descriptors.get("data", []) if isinstance(descriptors, dict) else [item]
    said = [each for each in said if isinstance(each, dict)]
    if said and all(each.get("status") == "NON_MALICIOUS" for each in said):
        raise Wrong("invalid_value", "Its status is NON_MALICIOUS.", "status")
    tags = dict.fromkeys(str(tag) for each in said for tag in _tags(each.get("tags")))
    found = {"pdq": str(item.get(name)), "source": "ThreatExchange", "reason": ", ".join(tags)[: LENGTHS["reason"]]}
    return row(place, found | ({"external_id": external_id} if external_id else {}))


def _tags(value: object) -> Iterator[object]:
    """Tags are texts, or objects with a text, in a list or in a page."""
    rows = value.get("data") if isinstance(value, dict) else value
    for tag in rows if isinstance(rows, list) else ():
        yield tag.get("text") if isinstance(tag, dict) else tag


@dataclass
class _Ncmec:
    """Reads /v2/entries element by element. Document types, and with them entities, are refused."""

    rows: list[Row] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)
    read: str = ""
    images: int = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.path.append(tag.rpartition("}")[2])
        if len(self.path) == 1 and self.path[0] != "queryResult":
            raise BadList("The document is no answer of NCMEC's hash sharing API: its root is not queryResult.")
        if self.path[1:2] == ["images"] and len(self.path) == 3:
            self.found = {}
        if len(self.path) == 4 and self.path[3] == "member":
            self.found["member"] = attributes.get("id", "")
        self.read = ""

    def text(self, data: str) -> None:
        self.read += data

    def end(self, _: str) -> None:
        match self.path[1:]:
            case ["images", "image" | "deletedImage", ("id" | "classification") as name]:
                self.found[name] = self.read.strip()
            case ["images", "image", "fingerprints", "pdq"]:
                self.found["pdq"] = self.read.strip()
            case ["images", ("image" | "deletedImage") as kind]:
                self.rows.append(self._row(kind))
                self.images += 1
        self.path.pop()

    def _row(self, kind: str) -> Row:
        # Ids are the member's own (as python-threatexchange keys them).
        id_ = f"{self.found.get('member', '')}-{self.found.get('id', '')}"
        if kind == "deletedImage":
            return Row(self.images, gone=id_)
        if "pdq" not in self.found:
            return Row(
                self.images, code="unsupported_signal", detail=f"{id_[:100]} has no PDQ fingerprint.", name="pdq"
            )
        found = {"pdq": self.found["pdq"], "source": "NCMEC", "external_id": id_}
        return row(self.images, found | {"reason": self.found.get("classification", "")})


def ncmec(file: IO[bytes]) -> Iterator[Row]:
    """The images of one answer."""
    reader = _Ncmec()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise BadList("The document has a document type; NCMEC's have none.")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = reader.start
    parser.CharacterDataHandler = reader.text
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(whole(file), True)
    except expat.ExpatError as error:
        raise BadList(f"The document is not XML: {expat.ErrorString(error.code)}.", error.lineno) from None
    yield from reader.rows
