"""Where the data lives: the settings that the API and the workers share. Environment variables start with TAGMILL_."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from db.webhook_secrets import MIN_KEY


class StorageSettings(BaseSettings):
    """Postgres, the blob store and the size of a chunk."""

    # Faults do not repeat values: a URL holds a password.
    model_config = SettingsConfigDict(env_prefix="TAGMILL_", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field(description="Postgres, as postgresql://user:password@host:port/name.", repr=False)
    database_role: str | None = Field(
        default=None,
        description="Role to take on connecting (tagmill_api, tagmill_worker), when the login is another one.",
    )
    database_pool: int = Field(default=10, ge=1, le=200, description="Connections a process keeps at most.")
    statement_timeout_ms: int = Field(
        default=30_000, ge=100, description="Postgres ends a statement of ours after this many milliseconds."
    )
    blob_root: Path = Field(description="Folder of the local blob store (uploads and working copies).")
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
