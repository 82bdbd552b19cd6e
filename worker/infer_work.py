"""One infer chunk in hand: which pictures still need scores, and the rows it ends with. Pure: no I/O, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.chunks import Chunk, ChunkImage
from db.policy import Evidence, Hit, Policy, settled_by
from db.recording import InferOutcome
from db.states import MAX_ATTEMPTS
from worker import verdicts

Analyses = Mapping[str, dict[str, Any]]  # model ref → stored form of its scores


@dataclass
class Work:
    """A chunk between its claim and its end.

    `pinned` maps each task needed to the model its job pinned, `models` those of them that are to be asked; `scored`
    holds what is known of each picture by model, from earlier jobs at first; `fresh` what was scored here and is to be
    stored; `known` how many pictures needed no score at first; `hits` what hash banks know of the pictures. A rerun's
    items may be of several contexts: `contexts` by item, `policies` by context, where they are not the chunk's. A
    picture whose verdict no score can change does not wait for the moderation model, and neither does a chunk that
    waited longer than its policy allows.
    """

    chunk: Chunk
    images: list[ChunkImage]
    policy: Policy
    pinned: dict[str, str]
    scored: dict[bytes, dict[str, dict[str, Any]]]
    hits: Mapping[bytes, Sequence[Hit]] = field(default_factory=dict)
    contexts: Mapping[int, str] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    models: dict[str, str] = field(init=False)
    fresh: dict[str, dict[bytes, dict[str, Any]]] = field(default_factory=dict)
    failures: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    waiting: dict[bytes, ChunkImage] = field(init=False)
    known: int = field(init=False)

    def __post_init__(self) -> None:
        asked = [task for task in self.chunk.analyses if not (self.late and task == "moderation")]
        self.models = {
            task: ref
            for task, ref in self.pinned.items()
            if task in asked or (task not in self.chunk.analyses and not self.late)
        }
        self.waiting = {i.sha256: i for i in self.images if self._missing(i)}
        asked_of = set(self.models.values())
        self.known = sum(bool(asked_of) and asked_of <= self.scored.get(i.sha256, {}).keys() for i in self.images)

    @property
    def late(self) -> bool:
        """Its pictures waited longer than the policy allows; a rerun's have a verdict meanwhile, and are never late."""
        after = self.policy.late_after_s
        return after is not None and self.chunk.waited_s >= after and "rerun" not in self.chunk.options

    @property
    def last_chance(self) -> bool:
        """If this claim ends in a crash the chunk is split or its one item is given up."""
        return self.chunk.attempts >= MAX_ATTEMPTS

    @property
    def complete(self) -> bool:
        """Every picture has its scores or its failure."""
        return not self.waiting

    def receive(self, sha256: bytes, analyses: Analyses) -> None:
        """Scores of one picture arrived; those that were known already stay."""
        if self.waiting.pop(sha256, None) is None:
            return
        known = self.scored.setdefault(sha256, {})
        for ref, analysis in analyses.items():
            if ref not in known:
                known[ref] = analysis
                self.fresh.setdefault(ref, {})[sha256] = analysis

    def fail(self, sha256: bytes, code: str, detail: str) -> None:
        """One picture could not be scored."""
        if self.waiting.pop(sha256, None) is not None:
            self.failures[sha256] = (code, detail)

    def outcomes(self, *, top_k: int, min_score: float) -> list[InferOutcome]:
        """One outcome for every member of the chunk, also for one whose picture is nowhere."""
        found = {image.seq: image for image in self.images}
        return [self._outcome(seq, found.get(seq), top_k, min_score) for seq in self.chunk.members]

    def _outcome(self, seq: int, image: ChunkImage | None, top_k: int, min_score: float) -> InferOutcome:
        if image is None:
            return InferOutcome(seq, code="blob_missing", detail="the working copy is not known")
        sha256 = image.sha256
        if sha256 in self.failures:
            code, detail = self.failures[sha256]
            return InferOutcome(seq, sha256=sha256, code=code, detail=detail)
        scored = self.scored.get(sha256, {})
        tags: list[dict[str, Any]] | None = None
        moderation: dict[str, Any] | None = None
        if "tags" in self.chunk.analyses:
            ref = self.pinned.get("tags")
            tags = [] if ref is None else verdicts.tags(scored[ref], ref, top_k=top_k, min_score=min_score)
        if "moderation" in self.chunk.analyses:
            evidence = self._evidence(image)
            model = None if evidence.scores is None else self.pinned["moderation"]
            moderation = verdicts.moderation(self._policy_of(evidence), evidence, model)
        return InferOutcome(seq, sha256=sha256, tags=tags, moderation=moderation)

    def _missing(self, image: ChunkImage) -> bool:
        """Whether a model has yet to be asked about this picture."""
        scored = self.scored.get(image.sha256, {})
        missing = {task for task, ref in self.models.items() if ref not in scored}
        asked_tags = "tags" in missing and "tags" in self.chunk.analyses
        evidence = self._evidence(image)
        return asked_tags or (bool(missing) and settled_by(self._policy_of(evidence), evidence) is None)

    def _policy_of(self, evidence: Evidence) -> Policy:
        return self.policies.get(evidence.context, self.policy)

    def _evidence(self, image: ChunkImage) -> Evidence:
        scored = self.scored.get(image.sha256, {})
        moderation, tags = (scored.get(self.pinned.get(task, "")) for task in ("moderation", "tags"))
        return Evidence(
            scores=None if moderation is None else moderation["scores"],
            tags=None if tags is None else tags["tags"],
            facts=image.facts,
            hits=self.hits.get(image.sha256, ()),
            context=self.contexts.get(image.seq, self.chunk.context),
            account=self.chunk.account,
            category=image.category,
            late=self.late,
        )
