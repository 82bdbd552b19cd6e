"""Lists of hashes: what each form says, what is wrong with a row by its place; our own comes back as it was."""

import io
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import bank_formats, bank_rows
from db.bank_entries import NewEntry
from db.bank_rows import BadList, Row
from db.bank_tables import Entry

A, B = "0f" * 32, "f0" * 32


def rows(form: str, text: str | bytes) -> list[Row]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(bank_formats.read(form, io.BytesIO(data)))


def codes(found: list[Row]) -> list[tuple[int, str | None, str | None]]:
    return [(row.place, row.code, row.name) for row in found if row.code]


def test_a_csv_line_says_everything_of_an_entry() -> None:
    text = (
        "\ufeffPDQ, reason,source,external_id,comment,share,enabled,expires_at\r\n"
        f'{A.upper()},"stolen, twice",police,c-1,"a ""quoted""\nline",0.25,false,2027-01-31T12:00:00Z\r\n'
        f"\r\n{B},,,,,,,\r\n"
    )
    first, second = (row.entry for row in rows("csv", text))
    end = datetime(2027, 1, 31, 12, tzinfo=UTC)
    assert first == NewEntry(A, "stolen, twice", "police", "c-1", 'a "quoted"\nline', 0.25, False, end)
    assert second == NewEntry(B)


def test_wrong_csv_lines_are_named_and_the_rest_goes_on() -> None:
    text = f"pdq,share,enabled,expires_at,reason\n{A},1,true,,\n{A[1:]},1,true,,\n{A},1.1,true,,\n{A},nan,true,,\n"
    text += f"{A},1,yes,,\n{A},1,true,2027-01-31,\n{A},1,true,soon,\n{A},1\n{A},1,true,,{'x' * 501}\n"
    text += f"{A},1,true,,a\x07\n{B},,,,\n"
    found = rows("csv", text)
    assert codes(found) == [
        (3, "invalid_pdq", "pdq"),
        (4, "invalid_value", "share"),
        (5, "invalid_value", "share"),
        (6, "invalid_value", "enabled"),
        (7, "invalid_value", "expires_at"),
        (8, "invalid_value", "expires_at"),
        (9, "wrong_column_count", None),
        (10, "too_long", "reason"),
        (11, "bad_characters", "reason"),
    ]
    assert [row.entry.pdq for row in found if row.entry] == [A, B]


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("csv", "", "no header"),
        ("csv", "hash\n", "no column 'hash'"),
        ("csv", "pdq,PDQ\n", "given twice"),
        ("csv", "reason\n", "needs a column pdq"),
        ("csv", f'pdq\n"{A}', "Line 2"),
        ("csv", b"pdq\n\xff\n", "Line 2 is not UTF-8"),
        ("csv", "pdq\n" + "0" * 20_000, "Line 2 is longer"),
        ("threatexchange", "{", "not JSON"),
        ("threatexchange", "[" * 100_000, "not JSON"),
        ("threatexchange", '{"a": 1}', "no answer"),
        ("ncmec", "<a", "not XML"),
        ("ncmec", "<status/>", "root is not queryResult"),
        ("ncmec", '<!DOCTYPE a [<!ENTITY x "y">]><queryResult/>', "document type"),
    ],
)
def test_files_that_are_something_else_are_refused(form: str, text: str | bytes, said: str) -> None:
    with pytest.raises(BadList, match=said):
        rows(form, text)


def test_documents_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_rows, "MAX_DOCUMENT", 10)
    for form in ("threatexchange", "ncmec"):
        with pytest.raises(BadList, match="longer than 10 bytes"):
            rows(form, " " * 11)


def test_signal_files() -> None:
    found = rows("signals", f"pdq {A}\n\nvideo_md5 {A[:32]}\n{B}\npdq 12\n")
    assert [row.entry and row.entry.pdq for row in found] == [A, None, B, None]
    assert codes(found) == [(3, "unsupported_signal", None), (5, "invalid_pdq", "pdq")]


def test_threat_updates_and_descriptors() -> None:
    update = '{"id": "%s", "indicator": "%s", "type": "%s", "should_delete": %s, %s "last_updated": 1}'
    said = '"descriptors": {"data": [{"status": "%s", "tags": {"data": [{"text": "t1"}, {"text": "t2"}]}}]},'
    items = [
        update % ("1", A, "HASH_PDQ", "false", said % "MALICIOUS"),
        update % ("2", A, "HASH_PDQ", "true", ""),
        update % ("3", A, "HASH_PDQ", "false", ""),  # without descriptors: deleted too
        update % ("4", A, "HASH_MD5", "false", said % "MALICIOUS"),
        update % ("5", A, "HASH_PDQ", "false", said % "NON_MALICIOUS"),
        f'{{"id": "6", "raw_indicator": "{B}", "type": "HASH_PDQ", "status": "MALICIOUS", "tags": ["x"]}}',
        "7",
        '{"should_delete": true}',
    ]
    found = rows("threatexchange", '{"data": [' + ",".join(items) + '], "paging": {}}')
    entry = NewEntry(A, "t1, t2", "ThreatExchange", "1")
    assert found[0].entry == entry
    assert found[5].entry == NewEntry(B, "x", "ThreatExchange", "6")
    assert [row.gone for row in found if row.gone] == ["2", "3"]
    assert codes(found) == [
        (3, "unsupported_signal", "type"),
        (4, "invalid_value", "status"),
        (6, "wrong_type", None),
        (7, "missing", "id"),
    ]


NCMEC = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2">
  <images count="3" maxTimestamp="2017-10-24T15:10:00Z">
    <image>
      <member id="42">Example Member</member><timestamp>2017-10-24T15:00:00Z</timestamp><id>image1</id>
      <classification>A1</classification>
      <fingerprints><md5>a1a1</md5><pdq>{A}</pdq></fingerprints>
      <feedback><affirmativeFeedback><members><member id="7">Other</member></members></affirmativeFeedback></feedback>
    </image>
    <image><member id="42">M</member><id>image2</id><fingerprints><md5>a1</md5></fingerprints></image>
    <deletedImage><member id="43">M2</member><id>image4</id></deletedImage>
  </images>
  <videos count="1" maxTimestamp="2017-10-24T15:20:00Z"><video><id>v</id></video></videos>
</queryResult>"""


def test_ncmec_entries() -> None:
    found = rows("ncmec", NCMEC)
    assert found[0].entry == NewEntry(A, "A1", "NCMEC", "42-image1")
    assert codes(found) == [(1, "unsupported_signal", "pdq")]
    assert found[2].gone == "43-image4"
    assert len(found) == 3


WORDS = st.one_of(
    st.none(),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
    .map(str.strip)
    .filter(bool),
    st.sampled_from(["=1+1", "'=1", "-2", "@x", "a,b", 'say "x"', "two\nlines", "+", "'", "''="]),
)
TIMES = st.datetimes(
    datetime(2026, 1, 1), datetime(2100, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))])
)


@given(
    st.lists(
        st.tuples(st.binary(min_size=32, max_size=32), WORDS, WORDS, WORDS, st.booleans(), st.none() | TIMES),
        max_size=5,
    )
)
def test_an_export_is_imported_as_it_was(
    given_: list[tuple[bytes, str | None, str | None, str | None, bool, datetime | None]],
) -> None:
    wanted = [
        NewEntry(pdq.hex(), reason, source, None, comment, 0.5, enabled, ends)
        for pdq, reason, source, comment, enabled, ends in given_
    ]
    entries = []
    for each in wanted:
        more = {"id": UUID(int=1), "actor": "=cmd", "created_at": datetime.now(UTC)}
        fields = {**asdict(each), "pdq": f"{int(each.pdq, 16):0256b}"}
        entries.append(Entry(**fields, **more, revision=1))
    text = "".join(bank_formats.written(entries, "csv"))
    assert [row.entry for row in rows("csv", text)] == wanted
    assert "\n=cmd" not in text
    assert ",=cmd" not in text
    signals = "".join(bank_formats.written(entries, "signals"))
    assert [row.entry and row.entry.pdq for row in rows("signals", signals)] == [each.pdq for each in wanted]
