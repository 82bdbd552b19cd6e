"""The API's own settings: limits of what a client may send, and how long streams last."""

from pydantic import Field

from db.settings import StorageSettings

MIB = 1 << 20


class ApiSettings(StorageSettings):
    """What the API process reads from the environment, besides where the data lives."""

    max_items_per_job: int = Field(default=100_000, ge=1, le=10_000_000, description="Items of one job at most.")
    items_per_day: int = Field(
        default=10_000_000,
        ge=0,
        description="Items that an account may submit in a day (UTC), if it has no limit of its own; 0: no limit.",
    )
    requests_per_minute: int = Field(
        default=12_000,
        ge=0,
        le=6_000_000,
        description="Requests that an account's keys may send in a minute, all together, if it has no limit of its own;"
        " 0: no limit.",
    )
    max_json_bytes: int = Field(
        default=256 * MIB, ge=1, description="Body of a job sent as application/json at most, in bytes."
    )
    max_lines_bytes: int = Field(
        default=256 * MIB, ge=1, description="Body of a job sent as NDJSON or CSV at most, in bytes."
    )
    max_multipart_bytes: int = Field(
        default=2048 * MIB, ge=1, description="Body of a job sent as multipart/form-data at most, in bytes."
    )
    max_zip_bytes: int = Field(default=2048 * MIB, ge=1, description="ZIP archive of a job at most, in bytes.")
    max_zip_unpacked_bytes: int = Field(
        default=4096 * MIB, ge=1, description="Bytes that the members of one ZIP may unpack to, all together."
    )
    max_zip_ratio: int = Field(
        default=200, ge=2, description="Unpacked by packed size at which a ZIP member above 1 MiB is refused."
    )
    max_files_per_upload: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Files of one multipart body or ZIP at most."
    )
    max_item_bytes: int = Field(
        default=8192, ge=256, le=65536, description="One line of NDJSON or CSV, or one item of JSON, at most."
    )
    head_total_s: float = Field(
        default=10.0, gt=0, description="Seconds that a request's head may take to arrive; no thread waits for it."
    )
    body_idle_s: float = Field(
        default=30.0, gt=0, description="Seconds without a byte after which a request body is given up."
    )
    body_total_s: float = Field(
        default=900.0, gt=0, description="Seconds that a request body may take to arrive, all together."
    )
    send_idle_s: float = Field(
        default=30.0, gt=0, description="Seconds without reading after which a client's answer is given up."
    )
    export_batch: int = Field(
        default=2000, ge=1, le=50_000, description="Rows that a results export reads in one short transaction."
    )
    events_poll_s: float = Field(default=1.0, gt=0, description="Seconds between two looks at a job's progress.")
    events_heartbeat_s: float = Field(
        default=15.0, gt=0, description="Seconds of silence after which an event stream sends a comment."
    )
    events_max_s: float = Field(
        default=300.0, gt=0, description="Seconds after which an event stream ends and the client reconnects."
    )
    max_streams: int = Field(
        default=8, ge=1, description="Event streams and exports an API process serves at once; each holds a thread."
    )
    max_streams_per_account: int = Field(
        default=4, ge=1, description="Event streams and exports an API process serves at once to one account."
    )
    console_idle_hours: float = Field(
        default=12.0, gt=0, le=720, description="Hours without a request after which somebody must sign in again."
    )
    console_session_hours: float = Field(
        default=168.0, gt=0, le=8760, description="Hours after which somebody must sign in again in any case."
    )
    console_plain_http: bool = Field(
        default=False, description="Let people sign in over plain HTTP from other machines (a closed network only)."
    )
    sign_in_attempts: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Refused sign-ins of one name in 15 minutes; of one address three times that.",
    )
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Proxies in front whose X-Forwarded-For is believed, to count sign-ins by address.",
    )
    max_wait_s: float = Field(
        default=30.0, ge=0, description="Seconds that `Prefer: wait` may hold an answer for at most; 0: never."
    )
    max_waits: int = Field(
        default=6,
        ge=0,
        description="Answers an API process holds back for `Prefer: wait` at once; each holds a thread.",
    )
    max_waits_per_account: int = Field(
        default=4, ge=0, description="Answers an API process holds back for `Prefer: wait` at once for one account."
    )
    review_lease_s: float = Field(
        default=600.0, gt=0, le=86_400, description="Seconds that a claimed review stays its reviewer's."
    )
    review_skip_s: float = Field(
        default=86_400.0, ge=0, description="Seconds for which a skipped review goes to other reviewers only."
    )
    review_undo_s: float = Field(
        default=900.0, ge=0, description="Seconds for which reviewers can take their own decisions back."
    )
    review_second_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of decided reviews that a second reviewer judges too, blind."
    )
    review_gold_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of claimed reviews whose right answer is known; unmarked."
    )
    review_exposure_limit: int = Field(
        default=0, ge=0, description="Pictures that a reviewer may see clear in a day (UTC); 0: no limit."
    )
    metrics_open: bool = Field(
        default=False, description="Serve /metrics without a key (else it needs the scope system:read)."
    )
    public_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s]+[^/\s])?$",
        description="Prefix of the URLs in answers, without a slash at the end; empty: relative ones.",
    )
