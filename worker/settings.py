"""Settings of crawlers, workers and maintenance, read from TAGMILL_* variables; they connect to nothing."""

import os
from ipaddress import ip_network
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from db.settings import StorageSettings


class WorkerSettings(StorageSettings):
    """What a worker role needs to run. Every duration is in seconds unless its name says otherwise."""

    broker_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis or Valkey that carries the hints. Must run with `maxmemory-policy noeviction`.",
        repr=False,
    )
    log_format: Literal["json", "console"] = Field("console", description="Form of the log lines.")

    # leases and loops
    lease_s: float = Field(60, gt=0, description="How long a claimed chunk stays its owner's without progress.")
    heartbeat_s: float = Field(5, gt=0, description="How often a process reports that it is alive.")
    reap_every_s: float = Field(5, gt=0, description="How often lost leases are looked for.")
    dispatch_every_s: float = Field(0.5, gt=0, description="How often ready chunks are hinted to the workers.")
    finalise_every_s: float = Field(1, gt=0, description="How often finished jobs are looked for.")
    tidy_every_s: float = Field(
        600, gt=0, description="How often old rows are dropped and, when needed, new partitions opened."
    )
    validator_keep_days: float = Field(
        90,
        gt=0,
        description="Days for which it is kept what a server called the bytes of a URL (its ETag); each time anew.",
    )
    retain_uploads_days: float | None = Field(
        None,
        ge=1,
        description="Days for which uploads are kept as they were sent, after their job ended; unset: for good.",
    )
    retain_copies_days: float | None = Field(
        None, ge=1, description="Days for which working copies are kept that nothing needs any more; unset: for good."
    )
    retain_results_days: float | None = Field(
        None,
        ge=30,
        description="Days for which jobs are kept with items and results, after they ended; unset: for good.",
    )
    retain_evidence_days: float | None = Field(
        None,
        ge=30,
        description="Days for which decisions, appeals and reviews are kept of pictures that no result shows any more; "
        "unset: for good.",
    )
    retain_audit_days: float | None = Field(
        None, ge=180, description="Days for which entries of the audit log are kept; unset: for good."
    )
    orphan_hours: float = Field(
        24,
        ge=0,
        description="Hours after which a blob that nothing names is removed, 2 at least: whoever stored it died before "
        "it said so. 0: never.",
    )
    bank_surge: int = Field(
        200,
        ge=1,
        description="Pictures that an entry of a hash bank may hit in an hour, beyond its average, before it goes into "
        "quarantine.",
    )
    canary_every_s: float = Field(30, gt=0, description="How often a canary message is sent through the broker.")
    hint_window: int = Field(64, ge=1, description="Most hints waiting in the broker at a time.")
    resend_s: float = Field(30, gt=0, description="Age after which a hint that woke nobody is sent again.")
    stale_s: float = Field(20, gt=0, description="An owner of leases that has been silent for so long is dead.")
    stop_grace_s: float = Field(30, ge=0, description="Time to end the work in hand after SIGTERM.")

    # crawler
    ingest_chunks: int = Field(8, ge=1, description="Most ingest chunks one crawler leases at once.")
    ingest_items: int = Field(
        2048, ge=1, description="A crawler claims no further chunk while it holds this many open items."
    )
    ingest_poll_s: float = Field(0.5, gt=0, description="Pause of a crawler that found nothing to do.")
    urgent_poll_s: float = Field(
        0.1,
        gt=0,
        description="How often crawlers, and workers amid other work, look for chunks of the interactive lane.",
    )
    urgent_quiet_s: float = Field(
        30,
        ge=0,
        description="After so long without work they look for it as seldom as for other work, to cost nothing.",
    )
    urgent_chunks: int = Field(
        8, ge=1, description="Chunks of the interactive lane that one crawler leases besides all others."
    )
    max_deferrals: int = Field(20, ge=0, description="How often a busy host may put an item off before it fails.")
    host_wait_s: float = Field(15, gt=0, description="Longest wait for a busy host before an item is put off.")
    ingest_in_hand: int = Field(
        128, ge=1, description="Most fetched pictures a crawler holds in memory for the normaliser."
    )
    ingest_in_hand_mb: int = Field(
        384,
        ge=1,
        description="Most megabytes (2^20 bytes) of fetched pictures a crawler holds in memory. One is always let in.",
    )
    blob_threads: int = Field(8, ge=1, description="Threads of a crawler that write to the blob store.")
    fetch_concurrency: int = Field(64, ge=1, description="Most requests in flight per crawler.")
    fetch_per_host: int = Field(4, ge=1, description="Most requests in flight per host and crawler.")
    fetch_interval_s: float = Field(0, ge=0, description="Least time between two requests to one host.")
    fetch_timeout_s: float = Field(20, gt=0, description="Longest time one request may take in all.")
    fetch_dns_s: float = Field(4, gt=0, description="Longest time to look up a name.")
    fetch_connect_s: float = Field(5, gt=0, description="Longest time to connect.")
    fetch_min_rate: int = Field(2048, ge=0, description="Bytes per second below which a download is given up.")
    fetch_attempts: int = Field(3, ge=1, description="Tries of a URL that fails in a passing way.")
    fetch_redirects: int = Field(5, ge=0, description="Most redirects followed.")
    user_agent: str = Field("Tagmill/0.1 (+https://example.org/tagmill)", description="How the crawler names itself.")
    honour_opt_out: bool = Field(True, description="Drop pictures served with X-Robots-Tag noai or noimageai.")
    allow_cidrs: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Private networks the crawler may fetch from, comma-separated CIDRs.",
    )
    deny_cidrs: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="Networks the crawler never fetches from, comma-separated CIDRs."
    )
    allow_ports: Annotated[list[int], NoDecode] = Field(
        default_factory=list,
        description="Ports besides 80 and 443 the crawler may fetch from, comma-separated.",
    )

    # sandboxed normaliser
    sandbox_processes: int = Field(2, ge=1, description="Normaliser processes per crawler.")
    sandbox_wall_s: float = Field(15, gt=0, description="Longest time to decode one picture.")
    sandbox_memory_mb: int = Field(1024, ge=128, description="Address space of a normaliser process.")
    sandbox_recycle: int = Field(2000, ge=1, description="Pictures after which a normaliser process is replaced.")
    max_pixels: int = Field(40_000_000, ge=1, description="Largest picture, in pixels.")
    max_side: int = Field(16_384, ge=1, description="Longest side of a picture, in pixels.")
    work_short_side: int = Field(
        384,
        ge=32,
        description="Short side of the working copy, in pixels; what is at most a quarter larger keeps its size.",
    )
    work_quality: int = Field(
        90, ge=1, le=100, description="JPEG quality of the working copy; a coarser original keeps its own."
    )

    # inference
    devices: Annotated[list[str], NoDecode] = Field(
        default_factory=lambda: ["cpu"],
        description="One worker process per entry, comma-separated: cpu, cuda:0, cuda:1 and so on.",
    )
    backend: str = Field(
        "auto", description="How the networks are run: auto, fused (torch), openvino, cuda or reference."
    )
    spare_torch: bool = Field(
        True,
        description="CPU workers load no torch where OpenVINO runs all models: a fifth of the memory; preparing a "
        "picture takes 0.8 ms more CPU time.",
    )
    batch_size: int | None = Field(
        None, ge=1, description="Pictures per forward pass; unset: 8 on a CPU, the best of 16 to 512 on a GPU."
    )
    threads: int = Field(1, ge=1, description="Threads of one forward pass on a CPU.")
    decode_threads: int | None = Field(
        None,
        ge=1,
        description="Threads that decode working copies ahead; unset: 2 on a CPU; on GPUs all cores but two, in equal "
        "parts for the worker processes.",
    )
    gpu_decode: Literal["cpu", "nvjpeg", "auto"] = Field(
        "cpu",
        description="Who decodes working copies for a GPU: CPU threads, the GPU where its scores agree (nvjpeg), or "
        "whichever is faster when a model is loaded (auto).",
    )
    infer_ahead: int = Field(64, ge=1, description="Decoded pictures kept ahead of the device.")
    infer_budget_s: float = Field(300, gt=0, description="Time after which an inference task hands back.")
    warm_models: bool = Field(
        True,
        description="Load what single uploads need before the first one comes, so that its sender waits no longer.",
    )
    model_load_s: float = Field(300, gt=0, description="Longest time a model may take to load.")
    model_retry_s: float = Field(
        30,
        gt=0,
        description="Pause before a model that did not load is tried again; it doubles, up to four times this value.",
    )
    tags_top_k: int = Field(5, ge=1, description="Most tags per picture.")
    tags_min_score: float = Field(
        0.05, ge=0, le=1, description="Least score of a tag; a model's card may ask for more."
    )
    audit_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of automatic approvals and rejections that people look at too, where the policy names none.",
    )
    deaf_after_s: float = Field(
        90, gt=0, description="An idle worker that hears none of the waiting hints for so long ends itself."
    )

    child_memory_mb: int = Field(
        8192, ge=1, description="A worker's process that holds more memory after a task is replaced by a new one."
    )
    hung_after_s: float = Field(
        180, gt=0, description="A worker's process that moves nothing of what it has in hand for so long ends itself."
    )

    # training
    trainer_poll_s: float = Field(2, gt=0, description="How often an idle trainer looks for a run that waits.")
    trainer_nice: int = Field(
        10, ge=0, le=19, description="How far a training steps back for other processes (the `nice` value)."
    )
    trainer_threads: int | None = Field(
        None, ge=1, description="Most threads of a training that compute on a CPU; unset: half of the cores."
    )

    # webhooks
    webhook_poll_s: float = Field(1, gt=0, description="How often events and deliveries that are due are looked for.")
    webhook_timeout_s: float = Field(15, gt=0, le=60, description="Longest time of one try of a webhook.")
    webhook_concurrency: int = Field(64, ge=1, le=1000, description="Most webhooks that a process sends at a time.")
    webhook_per_endpoint: int = Field(4, ge=1, description="Most deliveries to one endpoint at a time.")
    webhook_per_account: int = Field(16, ge=1, description="Most deliveries of one account at a time.")
    webhook_disable_days: float = Field(
        5, gt=0, description="An endpoint that has only failed for so many days is disabled."
    )
    webhook_keep_days: float = Field(
        30, ge=4, description="Days after which events are forgotten with their deliveries and log."
    )

    # test builds
    test_build: bool = Field(False, description="Marks a test build; never set it in production.")
    failpoints: str = Field("", description="Crash points of a test build; refused without TAGMILL_TEST_BUILD.")

    sleep_ms: float = Field(
        0,
        ge=0,
        description="A test build's models sleep so long for a picture and compute nothing; refused without it.",
    )

    def decoders(self, *, gpu: bool) -> int:
        """How many threads of one worker process decode."""
        if self.decode_threads is not None:
            return self.decode_threads
        return max(2, ((os.cpu_count() or 1) - 2) // len(self.devices)) if gpu else 2

    @field_validator("retain_uploads_days", "retain_copies_days", "retain_results_days", "retain_evidence_days",
                     "retain_audit_days", mode="before")  # fmt: skip
    @classmethod
    def _unset(cls, value: object) -> object:
        """An empty variable, which is what docker compose makes of an unset one, is none."""
        return None if value == "" else value

    @field_validator("allow_cidrs", "deny_cidrs", "allow_ports", "devices", mode="before")
    @classmethod
    def _commas(cls, value: object) -> object:
        """Take `a,b` as well as a list: JSON in an environment variable is easy to get wrong."""
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("allow_cidrs", "deny_cidrs")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for cidr in value:
            ip_network(cidr)
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, value: str) -> str:
        """The text of a fault is ours: the value may hold a password."""
        if urlsplit(value).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("not the URL of a broker: redis://:password@host:port/0")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.failpoints and not self.test_build:
            raise ValueError("TAGMILL_FAILPOINTS is set, but this is no test build: unset it")
        if self.sleep_ms and not self.test_build:
            raise ValueError("TAGMILL_SLEEP_MS is set, but this is no test build: unset it")
        if not self.devices:
            raise ValueError("TAGMILL_DEVICES names no device")
        if 0 < self.orphan_hours < 2:
            raise ValueError("TAGMILL_ORPHAN_HOURS: 0, or 2 at least, for an upload may take an hour to arrive")
        return self
