"""What a key of a blob looks like, in every store. Keys are made in `db.blobs`."""

import re
from typing import Final

from db.errors import BadBlobKey

_KEY: Final = re.compile(
    r"(raw|work)/[0-9]{1,19}/[0-9a-f]{2}/[0-9a-f]{64}(\.jpg)?|manifests/[0-9a-f]{2}/[0-9a-f]{64}\.json"
    r"|erasures/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json"
)


def is_key(key: str) -> bool:
    """Whether it is one."""
    return _KEY.fullmatch(key) is not None


def checked(key: str) -> str:
    """The key; BadBlobKey for what is none."""
    if not is_key(key):
        raise BadBlobKey("not a blob key")
    return key


def place_of(folder: str) -> tuple[str, int, str]:
    """Where a folder of blobs is in the order of all of them; of an empty name, before the first."""
    kind, _, rest = folder.partition("/")
    account, _, shard = rest.partition("/")
    return kind, int(account or -1), shard
