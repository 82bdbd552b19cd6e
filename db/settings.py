"""Where the data lives: the settings that the API and the workers share. Environment variables start with TAGMILL_."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


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

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("postgres", "postgresql"):
            raise ValueError("not the URL of a Postgres: postgresql://user:password@host:port/name")
        return value
