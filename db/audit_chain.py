"""The chain over the audit log: gives entries their place in it, and finds what was edited, removed or inserted since.

    entry → JSON → SHA-256(hash of the seal before ‖ SHA-256 of the JSON) = its seal's hash

The JSON is the text of a jsonb array (id, account, actor, action, subject, detail, time), which Postgres prints in one
way only. Entries get their place when they are seen to have committed, not by their ids. A chain can be cut at its
end, or made anew by the owner of the tables, without a trace: that is what a head kept elsewhere is for.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import evidence, locks

GENESIS: Final = bytes(32)
BATCH: Final = 1000
MAX_FINDINGS: Final = 100
_HEAD_TEXT: Final = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Head:
    """A place in the chain. Written `seq:hash`."""

    seq: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"

    @classmethod
    def parse(cls, written: str) -> "Head":
        """ValueError for what is not `seq:hash`."""
        found = _HEAD_TEXT.fullmatch(written.strip())
        if found is None:
            raise ValueError("A head is SEQ:HASH, a number from 1 on and 64 hexadecimal digits.")
        return cls(int(found[1]), bytes.fromhex(found[2]))


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. `what`: edited, removed, inserted or unsealed; `seq` and `entry` say where, if anywhere."""

    what: str
    detail: str
    seq: int | None = None
    entry: int | None = None


@dataclass(frozen=True, slots=True)
class Loose:
    """Entries outside the chain: how many wait for their seal and since how many seconds, one that vanished while it
    waited (`lost`), and one that has no seal and waits for none (`stray`)."""

    waiting: int
    oldest_s: float
    lost: int | None
    stray: int | None


def seal(session: Session, limit: int = BATCH) -> int:
    """Give the entries that wait their places, in the order of their ids; how many. Nobody else does at this time."""
    if not session.scalar(_ANY_WAITS) or not locks.try_lock(session, "audit_chain"):
        return 0
    row = session.execute(_HEAD).first()
    head = Head(0, GENESIS) if row is None else Head(row.seq, bytes(row.hash))
    before, after = [], []
    rows = session.execute(_WAITING, {"limit": limit}).all()
    for waiting in rows:
        before.append(head.hash)
        head = Head(head.seq + 1, _hash(head.hash, _digest(waiting.entry)))
        after.append(head)
    if rows:
        parameters = {
            "entries": [waiting.entry_id for waiting in rows],
            "seqs": [each.seq for each in after],
            "before": before,
            "hashes": [each.hash for each in after],
        }
        session.execute(_SEAL, parameters)
        session.execute(_SEALED, parameters)
    return len(rows)


@dataclass
class Verifier:
    """Recomputes the chain in steps, each in a transaction of its caller's, so that none is open for long.

    `account_id`: as an account sees it, whose transaction shows no other one's rows: the chain is recomputed from
    digests that the database makes, and only decisions and verdicts of this account are looked at. Without it all is
    read and hashed here. `expected`: a head from earlier; the chain must still go through it.
    """

    account_id: int | None = None
    with_evidence: bool = True
    expected: Head | None = None
    head: Head = field(default=Head(0, GENESIS), init=False)
    entries: int = field(default=0, init=False)
    evidence: int = field(default=0, init=False)
    findings: list[Finding] = field(default_factory=list, init=False)
    loose: Loose | None = field(default=None, init=False)

    def begin(self, session: Session, seq: int) -> None:
        """Start at this seal; the hash of the one before it is taken as it stands. Where the oldest part was dropped
        (`db.retention`), at the first seal after it."""
        dropped = session.execute(_DROPPED).first()
        if dropped is not None and dropped.seq >= seq - 1:
            self.head = Head(dropped.seq, bytes(dropped.hash))
            if self.expected is not None and self.expected.seq <= dropped.seq and self.expected != self.head:
                self._find("removed", f"the expected head {self.expected}: dropped for its age, up to {self.head}")
        elif seq > 1:
            row = session.execute(_SEAL_AT, {"seq": seq - 1}).first()
            self.head = Head(seq - 1, GENESIS if row is None else bytes(row.hash))
            if row is None:
                self._find("removed", f"seal {seq - 1}", seq - 1)

    def step(self, session: Session, size: int = BATCH) -> bool:
        """The next seals; False at the end of the chain."""
        query = _LINKS if self.account_id is None else _LINKS_OF_ALL
        links = session.execute(query, {"after": self.head.seq, "count": size}).all()
        sound = [link.entry_id for link in links if self._follow(link)]
        if self.with_evidence and sound:
            self._check_evidence(session, sound)
        return len(links) == size

    def end(self, session: Session, unsealed_s: float = 60.0) -> None:
        """What is outside the chain: entries unsealed for longer than this, a head that is gone, loose decisions."""
        query = _LOOSE if self.account_id is None else _LOOSE_OF_ALL
        row = session.execute(query).one()
        self.loose = loose = Loose(row.waiting, max(0.0, row.oldest or 0.0), row.lost, row.stray)
        if self.expected is not None and self.expected.seq > self.head.seq:
            self._find("removed", f"the chain ends at seal {self.head.seq}, before the expected head {self.expected}")
        if loose.lost is not None:
            self._find("removed", f"entry {loose.lost}, before it was sealed", entry=loose.lost)
        if loose.stray is not None:
            self._find("inserted", f"entry {loose.stray} has no seal and waits for none", entry=loose.stray)
        if loose.oldest_s > unsealed_s:
            waits = f"{loose.waiting} entries wait for their seal, the oldest for {loose.oldest_s:.0f} s"
            self._find("unsealed", waits)
        if self.with_evidence and (flaw := evidence.uncovered(session, self.account_id)) is not None:
            self._find(flaw.what, flaw.detail)

    def _follow(self, link: Any) -> bool:
        """Take the next seal; whether its entry is what was sealed. After a fault the chain goes on from the seal as it
        stands, so that each one is named once."""
        before, self.head = self.head, Head(link.seq, bytes(link.hash))
        self.entries += 1
        where = {"seq": link.seq, "entry": link.entry_id}
        if link.seq != before.seq + 1:
            gap = f"seals {before.seq + 1} to {link.seq - 1}" if link.seq > before.seq + 2 else f"seal {before.seq + 1}"
            self._find("removed", gap, before.seq + 1)
        elif bytes(link.prev_hash) != before.hash:
            self._find("edited", f"seal {link.seq} does not follow seal {before.seq}", **where)
        digest = self._digest(link)
        if self.expected is not None and self.expected.seq == link.seq and self.expected.hash != self.head.hash:
            self._find("edited", f"seal {link.seq} is not the expected head: the chain was made anew", **where)
        if digest is None:
            self._find("removed", f"entry {link.entry_id}, sealed as {link.seq}", **where)
            return False
        if _hash(bytes(link.prev_hash), digest) != self.head.hash:
            now = "" if self.account_id is not None else f"; it says now: {_says(link.entry)}"
            self._find("edited", f"entry {link.entry_id} is not what was sealed as {link.seq}{now}", **where)
            return False
        return True

    def _digest(self, link: Any) -> bytes | None:
        """None for an entry that is gone."""
        if self.account_id is None:
            return None if link.entry is None else _digest(link.entry)
        return None if link.digest is None else bytes(link.digest)

    def _check_evidence(self, session: Session, entries: Sequence[int]) -> None:
        parameters = {"entries": list(entries), "actions": list(evidence.ACTIONS), "account_id": self.account_id}
        for row in session.execute(_EVIDENCE, parameters):
            self.evidence += 1
            flaw = evidence.check(session, row.account_id, row.action, row.subject, row.detail)
            if flaw is not None:
                self._find(flaw.what, f"{flaw.detail} (entry {row.id} has their digest)", row.seq, row.id)

    def _find(self, what: str, detail: str, seq: int | None = None, entry: int | None = None) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(what, detail, seq, entry))


def _says(entry: str) -> str:
    _, _, actor, action, subject, _, at = json.loads(entry)
    return f"{action} of {subject} by {actor} at {at}"


def _digest(entry: str) -> bytes:
    return hashlib.sha256(entry.encode()).digest()


def _hash(before: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(before + digest).digest()


_ENTRY = """jsonb_build_array(a.id, a.account_id, a.actor, a.action, a.subject, a.detail,
      to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text"""
_ANY_WAITS = text("SELECT EXISTS (SELECT FROM audit_unsealed)")
_HEAD = text(
    """
    (SELECT seq, hash FROM audit_seals ORDER BY seq DESC LIMIT 1)
    UNION ALL (SELECT seq, hash FROM audit_pruned ORDER BY seq DESC LIMIT 1) ORDER BY seq DESC LIMIT 1
    """
)
_DROPPED = text("SELECT seq, hash FROM audit_pruned ORDER BY seq DESC LIMIT 1")
_SEAL_AT = text("SELECT hash FROM audit_seals WHERE seq = :seq")
# An entry that was removed while it waited stays here, for the verifier to find.
_WAITING = text(
    f"""
    SELECT u.entry_id, {_ENTRY} AS entry FROM audit_unsealed u JOIN audit_log a ON a.id = u.entry_id
    WHERE NOT EXISTS (SELECT FROM audit_seals s WHERE s.entry_id = u.entry_id) ORDER BY u.entry_id LIMIT :limit
    """
)
_SEAL = text(
    """
    INSERT INTO audit_seals (seq, entry_id, prev_hash, hash)
    SELECT * FROM unnest(CAST(:seqs AS bigint[]), CAST(:entries AS bigint[]), CAST(:before AS bytea[]),
      CAST(:hashes AS bytea[]))
    """
)
_SEALED = text("DELETE FROM audit_unsealed WHERE entry_id = ANY(:entries)")
_LINKS = text(
    f"""
    SELECT s.seq, s.entry_id, s.prev_hash, s.hash, CASE WHEN a.id IS NOT NULL THEN {_ENTRY} END AS entry
    FROM audit_seals s LEFT JOIN audit_log a ON a.id = s.entry_id
    WHERE s.seq > :after ORDER BY s.seq LIMIT :count
    """
)
_LINKS_OF_ALL = text("SELECT * FROM tagmill_audit_links(:after, :count)")
_LOOSE = text(
    """
    SELECT count(*) AS waiting, max(extract(epoch FROM now() - a.created_at))::float8 AS oldest,
      min(u.entry_id) FILTER (WHERE a.id IS NULL) AS lost,
      (SELECT min(l.id) FROM audit_log l
       WHERE NOT EXISTS (SELECT FROM audit_seals s WHERE s.entry_id = l.id)
         AND NOT EXISTS (SELECT FROM audit_unsealed w WHERE w.entry_id = l.id)) AS stray
    FROM audit_unsealed u LEFT JOIN audit_log a ON a.id = u.entry_id
    """
)
_LOOSE_OF_ALL = text("SELECT * FROM tagmill_audit_loose()")
_EVIDENCE = text(
    f"""
    SELECT a.id, a.account_id, a.action, a.subject, a.detail, s.seq
    FROM audit_log a JOIN audit_seals s ON s.entry_id = a.id
    WHERE a.id = ANY(:entries) AND a.action = ANY(:actions) AND {evidence.CURRENT}
      AND (CAST(:account_id AS bigint) IS NULL OR a.account_id = :account_id) ORDER BY s.seq
    """
)
