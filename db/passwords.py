"""Passwords of people: argon2id hashes, and what a new password must be. Knows no tables."""

from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from db.errors import DbError

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 200
# RFC 9106's second recommendation (64 MiB, 3 passes, 4 lanes), which is also argon2-cffi's default.
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=4)
# Verified when there is nobody of that name, so that the time of the answer does not tell.
_NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=4$C/X1rPEM05szaommjO0Oqg$D+bVvmem8Y+Ewv7zej3tbBPWkEIiXw23HzdiCyu7nPM"


class WeakPassword(DbError):
    """The new password is too short, too long or too easy to guess."""

    code = "weak_password"


def hashed(password: str, *, name: str = "") -> str:
    """The argon2id hash of a new password; WeakPassword.

    Length is what counts (NIST SP 800-63B, 5.1.1.2): no rules about kinds of characters.
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise WeakPassword(f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters.")
    if len(set(password)) < 5 or password.lower().startswith(("password", "123456", "qwerty", "tagmill")):
        raise WeakPassword("The password is too easy to guess.")
    if name and name.lower() in password.lower() and len(password) < len(name) + 8:
        raise WeakPassword("The password is little more than the name.")
    return _HASHER.hash(password)


def verify(stored: str | None, password: str) -> bool:
    """Whether it is the password of this hash; as slow for None, and always False then."""
    try:
        return _HASHER.verify(stored or _NOBODY, password[:MAX_LENGTH]) and stored is not None
    except (VerificationError, InvalidHashError):
        return False
