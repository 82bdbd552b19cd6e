"""SSRF end to end, in a network namespace whose loopback carries private, metadata and odd IPv6 addresses, a canary
behind each: neither the crawler's client nor the webhook sender's ever connects to one. Then the guard is taken away.
"""

from typing import Any

import pytest

from tests.abuse import namespace
from tests.abuse.ssrf_probe import INTERNAL, INTERNAL_SIX, STATUSES, groups

CLIENTS = ("fetch", "post")
WALLS = ("guarded", "text check gone")
KINDS = [*groups(), "rebinding"]


@pytest.fixture(scope="module")
def probe() -> dict[str, Any]:
    found = namespace.run("tests.abuse.ssrf_probe", timeout=300)
    assert isinstance(found, dict)
    return found


def test_the_canaries_stand_where_they_should(probe: dict[str, Any]) -> None:
    assert set(INTERNAL) <= set(probe["internal"])
    assert len(set(INTERNAL_SIX) & set(probe["internal"])) >= len(INTERNAL_SIX) - 2


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_connection_ever_reaches_a_canary(probe: dict[str, Any], kind: str, client: str) -> None:
    assert probe["guarded"][client][kind]["hits"] == 0, probe["guarded"][client][kind]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "redirects"])
def test_what_sees_the_connections_holds_alone(probe: dict[str, Any], kind: str, client: str) -> None:
    assert probe["text check gone"][client][kind]["hits"] == 0, probe["text check gone"][client][kind]


def test_redirects_are_looked_at_by_the_socket_too(probe: dict[str, Any]) -> None:
    assert probe["text check gone"]["fetch"]["redirects"]["hits"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_guard_every_kind_gets_there(probe: dict[str, Any], kind: str) -> None:
    """The mutation: else the tests above would prove nothing."""
    assert probe["guard gone"]["fetch"][kind]["hits"] > 0
    if kind != "redirects":  # the sender follows none, guarded or not
        assert probe["guard gone"]["post"][kind]["hits"] > 0


def test_without_the_guard_most_payloads_get_there(probe: dict[str, Any]) -> None:
    """Each address of ours by itself, every redirect, and at least the hexadecimal and Unicode spellings."""
    gone = probe["guard gone"]["fetch"]
    v4 = gone["addresses"]
    assert v4["hits"] == len(v4["outcomes"])
    assert gone["redirects"]["hits"] >= len(STATUSES) * 5
    assert gone["spellings"]["hits"] >= 8
    assert gone["names"]["hits"] >= 8


@pytest.mark.parametrize("wall", WALLS)
def test_every_refusal_is_final_and_has_its_code(probe: dict[str, Any], wall: str) -> None:
    allowed = {"blocked_address", "blocked_port", "blocked_userinfo", "blocked_scheme", "invalid_url", "bad_redirect"}
    for client in CLIENTS:
        for kind in set(KINDS) - {"mixed answers", "rebinding", "redirects"}:
            outcomes = probe[wall][client][kind]["outcomes"]
            if wall == "guarded":
                assert set(outcomes.values()) <= allowed | {"dns_failed"}, (client, kind, outcomes)
            assert "fetched" not in outcomes.values()
            assert "sent" not in outcomes.values()
    assert set(probe["guarded"]["fetch"]["redirects"]["outcomes"].values()) <= allowed
    assert set(probe["guarded"]["post"]["redirects"]["outcomes"].values()) == {"redirect"}


def test_of_mixed_answers_only_the_public_address_is_used(probe: dict[str, Any]) -> None:
    for client, well in (("fetch", "fetched"), ("post", "sent")):
        outcomes = list(probe["guarded"][client]["mixed answers"]["outcomes"].values())
        assert outcomes[3] == "blocked_address"
        # What the public server says of "/": there is nothing; but it was asked.
        assert set(outcomes[:3]) <= {"http_404", "http_4xx", well}, outcomes


def test_a_name_that_rebinds_is_refused_from_then_on(probe: dict[str, Any]) -> None:
    for client, well in (("fetch", "fetched"), ("post", "sent")):
        assert probe["guarded"][client]["rebinding"]["outcomes"] == [well, "blocked_address", "blocked_address"]
        assert probe["guarded"][client]["asked"]["rebind.test"] >= 3, "each try asked the name server"


def test_public_servers_are_served_and_see_no_smuggled_line(probe: dict[str, Any]) -> None:
    first, six, page, path, query = probe["public"].values()
    assert (first, six, page) == ("fetched", "fetched", "not_an_image"), "a meta refresh leads nowhere"
    assert probe["public hits"] == 0
    assert {path, query} <= {"fetched", "http_404", "invalid_url"}
    assert not [line for line in probe["lines"] if line.lower().startswith("x-evil")]
