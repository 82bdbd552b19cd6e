"""Where the data lives: the settings that the API and the workers share. Environment variables start with TAGMILL_."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from db.webhook_secrets import MIN_KEY

_STORE: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_.-]*[A-Za-z0-9_-])*)/?")


class BlobSettings(BaseSettings):
    """The blob store. Credentials of an object store are not among them: its client reads the usual AWS_ variables."""

    # Faults do not repeat values: a URL holds a password.
    model_config = SettingsConfigDict(env_prefix="TAGMILL_", extra="ignore", frozen=True, hide_input_in_errors=True)

    blob_root: Path = Field(
        description="Folder of the local blob store (uploads and working copies); with `TAGMILL_BLOB_STORE`, of "
        "temporary files only."
    )
    blob_store: str = Field(
        default="", description="Object store for the blobs instead of the folder, as s3://bucket/prefix."
    )
    s3_endpoint: str = Field(default="", description="URL of an object store that is not AWS.")
    s3_region: str = Field(default="us-east-1", min_length=1, description="Region of the bucket; of R2, auto.")
    s3_http: bool = Field(default=False, description="Let the endpoint be http:// on other machines too.")
    s3_timeout_s: float = Field(
        default=30,
        gt=0,
        le=300,
        description="A request to the object store may take so long, and is repeated for as long.",
    )

    @field_validator("blob_store")
    @classmethod
    def _bucket(cls, value: str) -> str:
        if value and _STORE.fullmatch(value) is None:
            raise ValueError("not an object store: s3://bucket or s3://bucket/prefix")
        return value

    @model_validator(mode="after")
    def _endpoint(self) -> Self:
        if not self.s3_endpoint:
            return self
        parts = urlsplit(self.s3_endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("TAGMILL_S3_ENDPOINT is https://host or https://host:port, without credentials")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("TAGMILL_S3_ENDPOINT has no path: bucket and prefix are in TAGMILL_BLOB_STORE")
        if parts.scheme == "http" and not (self.s3_http or _is_loopback(parts.hostname)):
            raise ValueError(
                "TAGMILL_S3_ENDPOINT is http://: pictures would go unencrypted; TAGMILL_S3_HTTP=1 allows it"
            )
        return self

    def bucket(self) -> tuple[str, str]:
        """The bucket, and what every key in it begins with."""
        found = _STORE.fullmatch(self.blob_store)
        assert found is not None
        prefix = found[2].strip("/")
        return found[1], f"{prefix}/" if prefix else ""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class StorageSettings(BlobSettings):
    """Postgres, the blob store and the size of a chunk."""

    database_url: str = Field(description="Postgres, as postgresql://user:password@host:port/name.", repr=False)
    database_role: str | None = Field(
        default=None,
        description="Role to take on connecting (tagmill_api, tagmill_worker), when the login is another one.",
    )
    database_pool: int = Field(default=10, ge=1, le=200, description="Connections a process keeps at most.")
    statement_timeout_ms: int = Field(
        default=30_000, ge=100, description="Postgres ends a statement of ours after this many milliseconds."
    )
    model_root: Path = Field(description="Folder of installed model artifacts.")
    max_picture_bytes: int = Field(
        default=25_000_000, ge=1, description="Largest picture, uploaded or fetched, in bytes."
    )
    chunk_size: int = Field(
        default=512, ge=1, le=4096, description="Items of one chunk, the unit of lease and commit, at most."
    )

    webhook_keys: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Keys that webhook secrets are derived from, comma-separated, at least 32 characters each; "
        "the first makes new secrets. Without one there are no webhooks.",
        repr=False,
    )
    webhook_http: bool = Field(
        default=False, description="Let webhooks go to http:// too: for own networks and trying out."
    )
    webhook_ports: Annotated[list[int], NoDecode] = Field(
        default_factory=list, description="Ports besides 443 that webhooks may go to, comma-separated."
    )
    webhook_cidrs: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="Private networks that webhooks may go to, comma-separated CIDRs."
    )

    @field_validator("webhook_keys", "webhook_ports", "webhook_cidrs", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        """Take `a,b` as well as a list: JSON in an environment variable is easy to get wrong."""
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("webhook_keys")
    @classmethod
    def _long(cls, value: list[str]) -> list[str]:
        if any(len(key) < MIN_KEY for key in value):
            raise ValueError(
                f"a key has at least {MIN_KEY} characters: python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        return value

    @field_validator("webhook_cidrs")
    @classmethod
    def _private_networks(cls, value: list[str]) -> list[str]:
        for cidr in value:
            ip_network(cidr)
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("postgres", "postgresql"):
            raise ValueError("not the URL of a Postgres: postgresql://user:password@host:port/name")
        return value
