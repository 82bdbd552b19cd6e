"""The API's fixtures, for the abuses of it."""

from tests.api.conftest import app, client, make_app, other

__all__ = ["app", "client", "make_app", "other"]
