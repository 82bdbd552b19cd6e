"""The doctor's look at webhooks: the key of their secrets, disabled endpoints, deliveries that wait; sends none.

Every role reads the key from an environment of its own. Maintenance tells with its heartbeat which keys it has (ids,
never keys), and each secret is stored with the id of the key that the API made it with: the two can be compared.
"""

import os
from collections.abc import Iterator, Sequence

from db import webhook_state, workers
from db.webhook_secrets import MIN_KEY, key_id
from db.webhook_state import Endpoint, State
from worker.alive import SILENT_S
from worker.findings import Finding
from worker.live import span
from worker.local import Place
from worker.screen import counted

Sender = tuple[str, Sequence[str]]
"""A process that sends, in words, and the ids of its keys."""
DUE_S = 300.0
"""A delivery that could have been sent for so long: nobody sends."""
FAILING_S = 3600.0
"""A receiver may be away for a restart; after so long its owner wants to know."""
KEY = "TAGMILL_WEBHOOK_KEYS"
NAMED = 3
_NEW = "python -c 'import secrets; print(secrets.token_hex(32))'"
_SAME = f"give the API and maintenance the same {KEY}, older keys behind the newest, and restart them"
_LOST = "if a key is lost: tagmill webhooks rotate WEBHOOK"
_SENDERS = "tagmill maintenance must run, and reach the internet: its log says more"


def webhooks(where: Place) -> Iterator[Finding]:
    """One finding of the keys, and one for each kind of trouble; none where there are no webhooks and no bad key."""
    own = [part.strip() for part in os.environ.get(KEY, "").split(",") if part.strip()]
    if any(len(key) < MIN_KEY for key in own):
        found = f"{KEY} has a key of less than {MIN_KEY} characters: no role starts with it"
        yield Finding("webhook key", "broken", found, f"make a longer one: {_NEW}")
        own = []
    with where.database() as at, at.transaction() as session:
        state = webhook_state.state(session)
        alive = workers.alive(session, SILENT_S)
    senders = [
        (f"maintenance on {one['host']}, process {one['pid']},", list(one["stats"]["webhook_keys"]))
        for one in alive
        if one["role"] == "maintenance" and "webhook_keys" in one["stats"]
    ]
    if (key := _key(state, [key_id(each) for each in own], senders)) is not None:
        yield key
    troubles = list(_troubles(state, idle=where.runs is False))
    yield from troubles
    if state.enabled and not troubles:
        yield Finding("webhooks", "good", f"{counted(state.enabled, 'endpoint')}, {_deliveries(state.pending)} waiting")


def _key(state: State, own: Sequence[str], senders: Sequence[Sender]) -> Finding | None:
    """`own`: ids of the keys of this environment, which may be the API's; `senders`: of each process that sends."""
    name = "webhook key"
    everybody = senders or ([("this environment", own)] if own else [])
    for who, keys in everybody:
        lacking = sum(count for key, count in state.keys.items() if key not in keys)
        if not lacking:
            continue
        has = f"lacks the key of {lacking} of {counted(state.enabled, 'endpoint')}" if keys else "has no key"
        waiting = f"; {_deliveries(state.unsigned)} could not be signed" if state.unsigned else ""
        # Without a process that sends, this environment may be none that has to have the key.
        return Finding(name, "broken" if senders else "warning", f"{who} {has}{waiting}", f"{_SAME}; {_LOST}")
    for who, keys in senders:
        if own and own[0] not in keys:
            return Finding(name, "warning", f"{who} does not have the first key of {KEY} here", _SAME)
    if len({tuple(sorted(keys)) for _, keys in senders}) > 1:
        return Finding(name, "warning", "processes of maintenance have different keys", _SAME)
    if senders and state.enabled:
        return Finding(name, "good", f"maintenance has it for every one of {counted(state.enabled, 'endpoint')}")
    return None


def _troubles(state: State, *, idle: bool) -> Iterator[Finding]:
    """`idle`: the system is not running, so that nothing can have been sent."""
    name = "webhooks"
    if state.disabled:
        found = f"{counted(len(state.disabled), 'endpoint')} disabled by us: {_named(state.disabled)}"
        remedy = (
            "mend the receiver; tagmill webhooks enable WEBHOOK; and, for what it missed, redeliver WEBHOOK --since …"
        )
        yield Finding(name, "warning", found, remedy)
    if idle:
        return
    long = [each for each in state.failing if each.since_s > FAILING_S]
    if long:
        remedy = "tagmill webhooks deliveries WEBHOOK says why; its owner must mend the receiver before it is disabled"
        yield Finding(name, "warning", f"{counted(len(long), 'endpoint')} only failing: {_named(long)}", remedy)
    if state.due_s > DUE_S:
        found = f"{_deliveries(state.pending)} waiting, the longest {span(state.due_s)} beyond its time"
        yield Finding(name, "warning", found, _SENDERS)


def _named(endpoints: Sequence[Endpoint]) -> str:
    """The first few, with the accounts whose API keys the commands take."""
    named = [
        f"{each.id} of {each.account} ({each.reason or 'failing'}, {span(each.since_s)})" for each in endpoints[:NAMED]
    ]
    return ", ".join(named) + (f" and {len(endpoints) - NAMED} more" if len(endpoints) > NAMED else "")


def _deliveries(number: int) -> str:
    return f"{number} {'delivery' if number == 1 else 'deliveries'}"
