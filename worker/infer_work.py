"""One infer chunk in hand: which pictures still need scores, and the rows it ends with. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from db.chunks import Chunk, ChunkImage
from db.policy import Policy
from db.recording import InferOutcome
from db.states import MAX_ATTEMPTS
from worker import verdicts

Analyses = Mapping[str, dict[str, Any]]  # model ref → stored form of its scores


@dataclass
class Work:
    """A chunk between its claim and its end.

    `models` maps each task asked for to the model its job pinned; `scored` holds what is known of each picture by
    model, from earlier jobs at first; `fresh` what was scored here and is to be stored.
    """

    chunk: Chunk
    images: list[ChunkImage]
    policy: Policy
    models: dict[str, str]
    scored: dict[bytes, dict[str, dict[str, Any]]]
    fresh: dict[str, dict[bytes, dict[str, Any]]] = field(default_factory=dict)
    failures: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    waiting: dict[bytes, ChunkImage] = field(init=False)

    def __post_init__(self) -> None:
        needed = set(self.models.values())
        self.waiting = {i.sha256: i for i in self.images if needed - self.scored.get(i.sha256, {}).keys()}

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
        found = {image.seq: image.sha256 for image in self.images}
        return [self._outcome(seq, found.get(seq), top_k, min_score) for seq in self.chunk.members]

    def _outcome(self, seq: int, sha256: bytes | None, top_k: int, min_score: float) -> InferOutcome:
        if sha256 is None:
            return InferOutcome(seq, code="blob_missing", detail="the working copy is not known")
        if sha256 in self.failures:
            code, detail = self.failures[sha256]
            return InferOutcome(seq, sha256=sha256, code=code, detail=detail)
        scored = self.scored.get(sha256, {})
        tags: list[dict[str, Any]] | None = None
        moderation: dict[str, Any] | None = None
        if "tags" in self.chunk.analyses:
            ref = self.models.get("tags")
            tags = [] if ref is None else verdicts.tags(scored[ref], ref, top_k=top_k, min_score=min_score)
        if "moderation" in self.chunk.analyses:
            ref = self.models.get("moderation")
            moderation = verdicts.moderation(scored[ref] if ref else None, ref, self.policy)
        return InferOutcome(seq, sha256=sha256, tags=tags, moderation=moderation)
