"""Images that are recorded again: what was just made counts, what was not made this time stays."""

from dataclasses import replace

from db import images
from db.images import ImageRecord
from db.session import Database
from tests.conftest import TestAccount

SHA = bytes(range(32))
FIRST = ImageRecord(SHA, "1/a", 100, 40, 30, "JPEG", SHA, b"\x01" * 32, 90, [{"name": "red"}], 1.5, made_by=1)


def recorded(db: Database, account: TestAccount, *records: ImageRecord) -> ImageRecord:
    for record in records:
        with db.transaction() as session:
            images.record_images(session, account.id, [record])
    with db.transaction() as session:
        return images.known(session, account.id, [SHA])[SHA]


def test_another_normaliser_corrects_what_an_earlier_one_found(db: Database, account: TestAccount) -> None:
    again = replace(FIRST, work_key="1/b", pdq=b"\x02" * 32, pdq_quality=80, colours=[], sharpness=2.5, made_by=2)
    assert recorded(db, account, FIRST, again) == again


def test_facts_that_were_not_asked_for_stay(db: Database, account: TestAccount) -> None:
    bare = replace(FIRST, work_key="1/b", pdq=None, pdq_quality=None, colours=None, sharpness=None, made_by=2)
    assert recorded(db, account, FIRST, bare) == replace(FIRST, work_key="1/b", made_by=2)


def test_facts_that_are_missing_are_added(db: Database, account: TestAccount) -> None:
    bare = replace(FIRST, pdq=None, pdq_quality=None, colours=None, sharpness=None)
    assert recorded(db, account, bare, FIRST) == FIRST
