"""The fetcher against a server that misbehaves in raw bytes: each behaviour ends in its own code, soon and bounded."""

import asyncio
import gc
import hashlib
import re
import socket
import ssl
import tracemalloc
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar, get_args

import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult

from db.codes import CODES
from tests.hostile import CERTIFICATES, FixedResolver, HostileServer
from tests.misbehaviour import PICTURE, png
from worker.byte_budget import ByteBudget
from worker.errors import TRANSIENT, FetchCode, FetchFailure
from worker.fetcher import Fetched, Fetcher, FetchLimits, NotModified, Outcome
from worker.netguard import NetGuard

T = TypeVar("T")
LIMITS = FetchLimits(
    total_s=2.0, dns_s=0.2, connect_s=1.0, sock_read_s=0.7, min_rate=2048, min_rate_after_s=0.3, max_bytes=300_000
)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
PHOTO = png(300, 300)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer(files={"photo.png": PHOTO, "größe/a b.png": PHOTO}) as running:
        yield running


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Runs a coroutine function on each of the event loops."""

    def runner(main: Callable[[], Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as loop:
            return loop.run(main())

    return runner


def guard_for(*servers: HostileServer) -> NetGuard:
    return NetGuard(allow_cidrs=["127.0.0.0/8"], allow_ports=[server.port for server in servers])


def fetch(
    server: HostileServer,
    *paths: str,
    limits: FetchLimits = LIMITS,
    resolver: AbstractResolver | None = None,
    context: ssl.SSLContext | None = None,
    loop: str = "asyncio",
    **conditions: str,
) -> list[Outcome]:
    """The outcomes of several paths (or URLs), one after the other over one session."""

    async def main() -> list[Outcome]:
        async with Fetcher(guard_for(server), limits, resolver=resolver, ssl_context=context) as fetcher:
            urls = [path if path.startswith("http") else server.url(path) for path in paths]
            return [await fetcher.fetch(url, **conditions) for url in urls]

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main())


def failure(outcome: Outcome) -> FetchFailure:
    assert isinstance(outcome, FetchFailure), outcome
    return outcome


def fetched(outcome: Outcome) -> Fetched:
    assert isinstance(outcome, Fetched), outcome
    return outcome


EXPECTED = {
    # lengths that lie
    "short-body": "incomplete_body",
    "long-body": "bad_response",
    "negative-length": "bad_response",
    "word-length": "bad_response",
    "double-length": "bad_response",
    "length-and-chunked": "bad_response",
    "huge-length": "too_large",
    "short-chunks": "incomplete_body",
    "bad-chunk": "bad_response",
    # heads that break the protocol
    "bad-status": "bad_response",
    "not-http": "bad_response",
    "big-header": "bad_response",
    "many-headers": "bad_response",
    "upgrade": "bad_response",
    "partial": "bad_response",
    "status/300": "bad_response",
    "status/304": "bad_response",
    # time
    "drip-body": "too_slow",
    "drip-header": "too_slow",
    "flood-1xx": "too_slow",
    "endless-extension": "timeout",
    "silent": "timeout",
    "stall-body": "timeout",
    # size
    "endless": "too_large",
    "endless-chunked": "too_large",
    # connections
    "reset": "connection_reset",
    "hang-up": "connection_reset",
    "reset-body": "connection_reset",
    # encodings
    "gzip": "unsupported_encoding",
    "gzip-bomb": "unsupported_encoding",
    "br": "unsupported_encoding",
    "twice-encoded": "unsupported_encoding",
    "gzip-transfer": "unsupported_encoding",
    # bodies
    "html": "not_an_image",
    "json": "not_an_image",
    "empty": "empty_body",
    "no-content": "empty_body",
    # statuses
    "status/401": "http_401",
    "status/403": "http_403",
    "status/404": "http_404",
    "status/410": "http_410",
    "status/429": "http_429",
    "status/418": "http_4xx",
    "status/408": "http_4xx",
    "status/451": "http_4xx",
    "status/500": "http_5xx",
    "status/501": "http_5xx",
    "status/503": "http_5xx",
    "status/999": "http_5xx",
    # opting out
    "noai": "opted_out",
    "noimageai": "opted_out",
    "noai-us": "opted_out",
    "noai-several": "opted_out",
    # redirects
    "loop": "too_many_redirects",
    "chain/50": "too_many_redirects",
    "chain/6": "too_many_redirects",
    "nowhere": "bad_redirect",
    "redirect?to=http://[": "bad_redirect",
    "redirect?to=file:///etc/passwd": "blocked_scheme",
    "redirect?to=ftp://127.0.0.1/a.png": "blocked_scheme",
    "redirect?to=data:image/png;base64,iVBORw0KGgo=": "blocked_scheme",
    "redirect?to=javascript:alert(1)": "blocked_scheme",
    "redirect?to=http://u:p@127.0.0.1/": "blocked_userinfo",
    "redirect?to=http://127.0.0.1:6379/": "blocked_port",
    "redirect?to=http://10.0.0.1/": "blocked_address",
    "redirect?to=http://169.254.169.254/latest/": "blocked_address",
    "redirect?to=http://2130706433/": "invalid_url",
}
RETRYABLE_IN_SPITE_OF_CODE = {"status/408"}
LASTING_IN_SPITE_OF_CODE = {"status/501"}


@pytest.mark.parametrize("path", EXPECTED)
def test_each_misbehaviour_has_its_code(server: HostileServer, path: str) -> None:
    """And its details repeat no query, no address and nothing the server sent."""
    mark = "&" if "?" in path else "?"
    outcome = failure(fetch(server, f"{path}{mark}token=hunter2")[0])
    assert outcome.code == EXPECTED[path]
    transient = outcome.code in TRANSIENT
    assert outcome.retryable is (
        (transient or path in RETRYABLE_IN_SPITE_OF_CODE) and path not in LASTING_IN_SPITE_OF_CODE
    )
    assert not re.search(r"hunter2|token|127\.|://|169|sorry", outcome.detail)


def test_all_misbehaviours_at_once_do_not_disturb_the_good_ones(
    server: HostileServer, run: Callable[[Callable[[], Awaitable[Any]]], Any]
) -> None:
    paths = [path for path in EXPECTED for _ in range(2)] + ["photo.png"] * 100
    # So many at once on a busy machine: how long a connection takes is not what is tested.
    patient = replace(LIMITS, total_s=8.0, connect_s=7.0)

    async def main() -> list[Outcome]:
        async with Fetcher(guard_for(server), patient) as fetcher:
            outcomes = await asyncio.gather(*(fetcher.fetch(server.url(path)) for path in paths))
            # A kept-alive connection that a neighbour's misbehaviour broke is a passing failure, as for the crawler.
            return [
                await fetcher.fetch(server.url(path))
                if isinstance(outcome, FetchFailure) and outcome.retryable and outcome.code != EXPECTED.get(path)
                else outcome
                for path, outcome in zip(paths, outcomes, strict=True)
            ]

    outcomes = run(main)
    wrong = [
        (path, outcome)
        for path, outcome in zip(paths, outcomes, strict=True)
        if (outcome.data != PHOTO if isinstance(outcome, Fetched) else outcome.code != EXPECTED.get(path))
    ]
    assert wrong == []


@pytest.mark.parametrize("loop", sorted(LOOPS))
@pytest.mark.parametrize(
    "path",
    ["image", "close", "no-length", "chunked", "wrong-type", "identity", "noai-other", "chain/5", "chunk-extension"],
)
def test_good_answers_in_many_forms(server: HostileServer, path: str, loop: str) -> None:
    outcome = fetched(fetch(server, path, loop=loop)[0])
    assert outcome.data == (b"evil" if path == "chunk-extension" else PICTURE)
    assert outcome.status == 200


def test_what_a_fetch_returns(server: HostileServer) -> None:
    outcome = fetched(fetch(server, "etag?a=1#fragment")[0])
    assert outcome.sha256.hex() == hashlib.sha256(PICTURE).hexdigest()
    assert outcome.etag == '"v1"'
    assert outcome.last_modified == "Tue, 01 Sep 2026 10:00:00 GMT"
    assert outcome.content_type == "image/png"
    assert outcome.final_url == server.url("etag?a=1")
    assert fetched(fetch(server, "chain/3")[0]).final_url == server.url("chain/0")


@pytest.mark.parametrize("conditions", [{"etag": '"v1"'}, {"last_modified": "Tue, 01 Sep 2026 10:00:00 GMT"}])
def test_a_conditional_fetch_of_an_unchanged_picture(server: HostileServer, conditions: dict[str, str]) -> None:
    (outcome,) = fetch(server, "etag", **conditions)
    assert outcome == NotModified(server.url("etag"), 304, '"v1"', "Tue, 01 Sep 2026 10:00:00 GMT")
    assert isinstance(fetch(server, "etag", etag='"v0"')[0], Fetched)


def test_pictures_the_decoder_shall_judge_are_passed_on(server: HostileServer) -> None:
    """SVG and truncated bytes: `unsupported_format` and `truncated_image` are the decoder's to say."""
    svg, truncated = fetch(server, "svg", "truncated")
    assert fetched(svg).data.startswith(b"<?xml")
    assert fetched(truncated).data == PICTURE[:40]


def test_the_body_may_have_exactly_the_limit(server: HostileServer) -> None:
    exact = FetchLimits(max_bytes=len(PHOTO))
    assert isinstance(fetch(server, "photo.png", limits=exact)[0], Fetched)
    assert failure(fetch(server, "photo.png", limits=FetchLimits(max_bytes=len(PHOTO) - 1))[0]).code == "too_large"
    chunked = FetchLimits(max_bytes=len(PICTURE) - 1)
    assert failure(fetch(server, "chunked", limits=chunked)[0]).code == "too_large"


def test_a_steady_stream_that_never_ends_is_a_timeout(server: HostileServer) -> None:
    outcome = failure(fetch(server, "steady", limits=FetchLimits(total_s=0.5, max_bytes=10_000_000))[0])
    assert (outcome.code, outcome.retryable) == ("timeout", True)


def test_an_endless_body_and_a_bomb_cost_little_memory(server: HostileServer) -> None:
    fetch(server, "image")
    tracemalloc.start()
    try:
        fetch(server, "endless", "endless-chunked", "gzip-bomb", limits=FetchLimits(max_bytes=2_000_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The server, in this process too, holds a few buffers of its own.
    assert peak < 12_000_000


@pytest.mark.parametrize(
    ("path", "taken", "left"),
    [
        ("photo.png", len(PHOTO), len(PHOTO)),  # as announced
        ("chunked", LIMITS.max_bytes, len(PICTURE)),  # nothing announced: all it may come to, until it is known
        ("huge-length", 0, 0),
        ("status/404", 0, 0),
    ],
)
def test_room_for_a_body_is_taken_before_it_is_read(server: HostileServer, path: str, taken: int, left: int) -> None:
    async def main() -> None:
        budget = ByteBudget(LIMITS.max_bytes)
        async with Fetcher(guard_for(server), LIMITS) as fetcher:
            share = budget.share()
            sizes: list[int] = []
            take = budget.take

            async def watched(account: int, size: int, *, urgent: bool = False) -> None:
                sizes.append(size)
                await take(account, size, urgent=urgent)

            budget.take = watched  # type: ignore[method-assign]
            await fetcher.fetch(server.url(path), share=share)
        assert (sum(sizes), share.size) == (taken, left)
        share.release()
        assert budget.used == 0

    asyncio.run(main())


def test_a_wait_for_room_is_not_the_servers_time(server: HostileServer) -> None:
    """The picture waits longer than the whole fetch may take."""

    async def main() -> Outcome:
        budget = ByteBudget(len(PHOTO))
        other = budget.share()
        await other.take(len(PHOTO))
        quick = replace(LIMITS, total_s=0.5)
        async with Fetcher(guard_for(server), quick) as fetcher:
            waiting = asyncio.create_task(fetcher.fetch(server.url("photo.png"), share=budget.share()))
            await asyncio.sleep(0.6)
            other.release()
            return await waiting

    assert fetched(asyncio.run(main())).data == PHOTO


def test_opt_out_can_be_switched_off(server: HostileServer) -> None:
    lax = FetchLimits(opt_out=frozenset())
    assert [type(outcome) for outcome in fetch(server, "noai", "noai-us", limits=lax)] == [Fetched, Fetched]


def test_another_crawlers_name_is_not_addressed(server: HostileServer) -> None:
    other = FetchLimits(user_agent="Otherbot/2 (+https://example.org)")
    us, them = fetch(server, "noai-us", "noai-other", limits=other)
    assert isinstance(us, Fetched)
    assert failure(them).code == "opted_out"


def test_connections_are_kept_alive_and_dropped_after_a_broken_answer() -> None:
    with HostileServer(files={"photo.png": PHOTO}) as own:
        fetch(own, *["photo.png"] * 20)
        assert own.connections == 1
    for broken in ("long-body", "length-and-chunked", "html", "truncated", "upgrade", "double-length"):
        with HostileServer(files={"photo.png": PHOTO}) as own:
            _, second = fetch(own, broken, "photo.png")
            assert fetched(second).data == PHOTO, broken


@pytest.mark.parametrize("path", ["gzip-bomb", "noai", "endless", "huge-length", "status/404", "redirect?to=ftp://a"])
def test_an_answer_that_is_not_read_is_closed(server: HostileServer, path: str) -> None:
    """Not left to the garbage collector: in debug mode the client complains about such responses."""

    async def main() -> None:
        async with Fetcher(guard_for(server), LIMITS) as fetcher:
            failure(await fetcher.fetch(server.url(path)))
            gc.collect()

    with warnings.catch_warnings(record=True) as caught, asyncio.Runner(debug=True) as runner:
        warnings.simplefilter("always")
        runner.run(main())
    # The collector may find what other tests left behind, too: only what aiohttp says of itself counts.
    told = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
    assert [message for message in told if message.startswith("Unclosed")] == []


def test_what_is_sent_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cookies, no credentials, no proxy of the environment, no redirect's leftovers, no compressed answers."""
    with HostileServer() as own, HostileServer() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        fetch(own, "etag", "etag", "redirect?to=/image%3Fx%3Da%20b")
        assert proxy.connections == 0
        heads = [asked.raw.split(b"\r\n") for asked in own.log]
    assert heads[0] == heads[1]
    for head in heads:
        names = sorted(line.split(b":")[0].lower() for line in head[1:])
        assert names == [b"accept", b"accept-encoding", b"host", b"user-agent"]
        assert b"Accept-Encoding: identity" in head
        assert any(line.startswith(b"User-Agent: Tagmill/0.1 (+http") for line in head)
    assert heads[-1][0] == b"GET /image?x=a+b HTTP/1.1" or heads[-1][0] == b"GET /image?x=a%20b HTTP/1.1"


def test_urls_cannot_smuggle_headers(server: HostileServer) -> None:
    before = len(server.log)
    for evil in ("image\r\nX-Evil: 1", "image\nX-Evil: 1", "image\x00", "image HTTP/1.1\r\nHost: other"):
        assert failure(fetch(server, evil)[0]).code == "invalid_url"
    assert len(server.log) == before
    assert fetched(fetch(server, "größe/a%20b.png")[0]).data == PHOTO
    encoded = fetch(server, "image%0d%0aX-Evil:%201")
    assert failure(encoded[0]).code == "http_404"
    assert server.log[-1].header("X-Evil") is None


@pytest.mark.parametrize(
    ("after", "low", "high"), [("7", 7, 7), ("%2B60", 50, 61), ("0", 0, 0), ("999999", 3600, 3600), ("-5", None, None)]
)
@pytest.mark.parametrize("status", ["429", "503"])
def test_retry_after_in_seconds_and_as_a_date(
    server: HostileServer, status: str, after: str, low: float | None, high: float | None
) -> None:
    outcome = failure(fetch(server, f"status/{status}?after={after}")[0])
    assert outcome.status == int(status)
    if low is None or high is None:
        assert outcome.retry_after_s is None
    else:
        assert outcome.retry_after_s is not None
        assert low <= outcome.retry_after_s <= high


class Broken(AbstractResolver):
    """A resolver that fails as it is told, or never answers."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(60)
        return []

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "dns_failed", False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "dns_failed", True),
        (None, "connect_timeout", True),
    ],
)
def test_names_that_do_not_resolve(server: HostileServer, error: Exception | None, code: str, retryable: bool) -> None:
    outcome = failure(fetch(server, server.url("image", "some.test"), resolver=Broken(error))[0])
    assert (outcome.code, outcome.retryable) == (code, retryable)


def test_a_closed_port_is_connect_failed(server: HostileServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def main() -> Outcome:
        async with Fetcher(NetGuard(allow_cidrs=["127.0.0.0/8"], allow_ports=[port]), LIMITS) as fetcher:
            return await fetcher.fetch(f"http://127.0.0.1:{port}/")

    outcome = failure(asyncio.run(main()))
    assert (outcome.code, outcome.retryable) == ("connect_failed", True)


def trusting(certificate: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATES / f"{certificate}.pem"))


@pytest.mark.parametrize(
    ("certificate", "host", "trusted", "code"),
    [
        ("valid", "good.test", True, None),
        ("valid", "good.test", False, "tls_failed"),
        ("valid", "other.test", True, "tls_failed"),
        ("expired", "good.test", True, "tls_failed"),
    ],
)
@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_tls_is_verified(certificate: str, host: str, trusted: bool, code: str | None, loop: str) -> None:
    with HostileServer(tls=certificate) as secure:
        (outcome,) = fetch(
            secure,
            secure.url("image", host),
            resolver=FixedResolver({"good.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}),
            context=trusting(certificate) if trusted else None,
            loop=loop,
        )
        assert len(secure.log) == (1 if code is None else 0)
    assert code == (outcome.code if isinstance(outcome, FetchFailure) else None)


def test_no_redirect_from_https_down_to_http(server: HostileServer) -> None:
    resolver = FixedResolver({"good.test": ["127.0.0.1"]})
    with HostileServer(tls="valid") as secure:

        async def main() -> list[Outcome]:
            guard = guard_for(server, secure)
            async with Fetcher(guard, LIMITS, resolver=resolver, ssl_context=trusting("valid")) as fetcher:
                down = secure.url(f"redirect?to={server.url('image')}", "good.test")
                up = server.url(f"redirect?to={secure.url('image', 'good.test')}")
                return [await fetcher.fetch(down), await fetcher.fetch(up)]

        before = server.asked["/image"]
        down, up = asyncio.run(main())
    assert failure(down).code == "bad_redirect"
    assert server.asked["/image"] == before
    assert isinstance(up, Fetched)


def test_a_plain_server_behind_https_is_tls_failed(server: HostileServer) -> None:
    url = server.url("image").replace("http:", "https:")
    assert failure(fetch(server, url)[0]).code == "tls_failed"


def test_cancelling_a_fetch_is_not_a_failure_of_the_url(server: HostileServer) -> None:
    async def main() -> None:
        async with Fetcher(guard_for(server), LIMITS) as fetcher:
            task = asyncio.create_task(fetcher.fetch(server.url("silent")))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert isinstance(await fetcher.fetch(server.url("image")), Fetched)

    asyncio.run(main())


def test_every_code_is_in_the_one_table() -> None:
    codes = set(get_args(FetchCode))
    assert codes <= set(CODES)
    assert set(TRANSIENT) <= codes
    assert all(CODES[code].retryable for code in TRANSIENT)
    assert set(EXPECTED.values()) <= codes
