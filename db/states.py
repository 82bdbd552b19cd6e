"""The states of jobs and chunks, and who moves a row from one to the next. Pure: no I/O, no clock.

job     accepted → running   the claim of its first chunk (`chunks.claim`)
        running  → finished  the finaliser, when every item has its outcome (`jobs.finish`); any maintenance
                             process can do it, so its death only delays
        accepted, running → cancelled   the client (`jobs.cancel`); the finaliser then writes the outcome
                             `cancelled` for what was never reached and sets `settled_at`
        finished, cancelled → running   the client's retry of failed items (`jobs.retry`), a new round
chunk   ready  → leased      `chunks.claim`; the attempt and the fence are counted there, so a crash cannot skip it
        leased → done        its owner, by compare-and-set on (owner, fence)
        leased → ready       its owner at a graceful stop (`chunks.release`), or the reaper, when the lease ran out
                             or the owner's heartbeat stopped
        ready  → done        the finaliser, for a cancelled job
rerun   staged → publishing → published, published or publishing → rolling_back → rolled_back, and
        staged → dropping → dropped: each by its command (`publishing`), in batches; `position` says how far it is,
                             so that whoever gives the command again after a crash goes on from there
training run
        queued → running     a trainer's claim (`training`), also of a run whose lease ran out: the trainer died
        running → finished, failed   its owner, by compare-and-set on (owner, fence)
        running → queued     its owner at a graceful stop
        queued, running → cancelled   its operator; the trainer notices at its next heartbeat
policy  draft → active → retired, retired → active: `policies.activate`, which retires the version before it, and
        `policies.retire`; a draft that is dropped is retired too
shadow run
        running → finished   `shadow.settle`: at its limit, or when one of the two models is not what it was; by any
                             maintenance process, or the next claim
        running → stopped    its operator
        running → failed     the candidate did not load, or killed whoever scored with it, three times in a row
delivery
        pending → delivered, failed   its sender, by compare-and-set on (owner, fence) (`delivery_queue`); if that
                             process dies, the lease runs out and the next one sends it again, under the same id
        pending → failed     its endpoint is disabled
        delivered, failed → pending   somebody asks for it again
review task
        open → open, leased  a reviewer's claim (`review_leases`); a lease that runs out needs nobody to end it
        open → decided       its reviewer, in the version that he was given (`review_verdicts`)
        decided → open       the same reviewer takes it back (`review_undo`)
        open → closed        nothing asks for people any more (`review_queue`, `appeals`)
appeal  open → upheld, overturned   the decision of the review that it opened, in its transaction (`appeals.settle`)
        upheld, overturned → open   that decision is taken back (`appeals.reopen`)
        open → withdrawn     the account
"""

from typing import Final

JOB_STATES: Final = ("accepted", "running", "finished", "cancelled")
CHUNK_STATES: Final = ("ready", "leased", "done")
STAGES: Final = ("ingest", "infer")
LANES: Final = ("interactive", "bulk")
OUTCOMES: Final = ("done", "failed", "cancelled")
ANALYSES: Final = ("tags", "moderation")
MODEL_STATES: Final = ("candidate", "active", "retired")
RERUN_STATES: Final = ("staged", "publishing", "published", "rolling_back", "rolled_back", "dropping", "dropped")
TRAINING_STATES: Final = ("queued", "running", "finished", "failed", "cancelled")
POLICY_STATES: Final = ("draft", "active", "retired")
SHADOW_STATES: Final = ("running", "finished", "stopped", "failed")
DELIVERY_STATES: Final = ("pending", "delivered", "failed")
WEBHOOK_STATES: Final = ("enabled", "disabled")
WEBHOOK_REASONS: Final = ("owner", "gone", "failing")
REVIEW_STATES: Final = ("open", "decided", "closed")
APPEAL_STATES: Final = ("open", "upheld", "overturned", "withdrawn")
VERDICTS: Final = ("approve", "review", "reject")

JOB_MOVES: Final = frozenset(
    {
        ("accepted", "running"),
        ("running", "finished"),
        ("accepted", "cancelled"),
        ("running", "cancelled"),
        ("finished", "running"),
        ("cancelled", "running"),
    }
)
CHUNK_MOVES: Final = frozenset({("ready", "leased"), ("leased", "done"), ("leased", "ready"), ("ready", "done")})
OPEN_JOB_STATES: Final = ("accepted", "running")

MAX_ATTEMPTS: Final = 3
"""Claims without an end after which a chunk is bisected; halves start one short of it, so that one poison item
among 512 is alone after 3 + 9 claims."""
