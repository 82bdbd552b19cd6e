"""Which pictures the demo works on: the user's, public photos, photos at hand, or drawings; fetches and shows none."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from worker import drawings, job_files, public_photos
from worker.client import ClientError
from worker.home import Home
from worker.service import LOOPBACK


@dataclass(frozen=True)
class Pictures:
    """Files to serve, or URLs that are served already; ``origin`` says in words where they are from.

    ``labels`` has what a picture shows by its file name, where that is known; ``agreed`` says what a picture is that
    is tagged so.
    """

    origin: str
    paths: list[Path] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    agreed: str = ""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.paths) + len(self.urls)


def choose(
    images: Path | None, count: int, home: Home, shared: Path, *, public: str | None, say: Callable[[str], None]
) -> Pictures:
    """The user's pictures, else public photos if asked for and there, else photos beside the checkout, else drawings.

    ``public`` is where the listed photos lie, None if they are not asked for. ClientError for a folder without any.
    """
    if images is not None:
        return _own(images, count)
    if public is not None:
        photos = _public(public, count, say)
        return photos if photos is not None else _drawn(home, count, say)
    folder = shared / "data" / "clothing"
    if folder.is_dir() and (found := job_files.pictures(folder)):
        return Pictures(f"photos of clothes from {folder} ({len(found)} in all)", _spread(found, count))
    say("no photos here: the demo draws its pictures itself")
    say("for photos: make demo IMAGES=folder, or make demo PHOTOS=public for some from GitHub (CC0)")
    return _drawn(home, count, say)


def _own(images: Path, count: int) -> Pictures:
    if not images.is_dir():
        raise ClientError("no_such_folder", f"{images}: no such folder")
    found = job_files.pictures(images)
    if not found:
        raise ClientError("no_pictures", f"{images}: no pictures in it")
    return Pictures(f"from {images}" + (f" ({len(found)} in all)" if len(found) > count else ""), _spread(found, count))


def _public(base: str, count: int, say: Callable[[str], None]) -> Pictures | None:
    listed = public_photos.listed(count)
    urls = [f"{base.rstrip('/')}/{name}" for name in listed]
    host = urlsplit(base).hostname or base
    reason = public_photos.unreachable(urls[0])
    if reason is not None:
        say(f"no public photos: {host} cannot be reached ({reason}); drawings instead")
        return None
    return Pictures(
        f"public photos from {host} ({public_photos.LICENCE})",
        urls=urls,
        labels=listed,
        agreed="photos tagged as their labels say",
    )


def _drawn(home: Home, count: int, say: Callable[[str], None]) -> Pictures:
    say("drawing: a moment")
    paths = drawings.draw(home.root / "drawings", count)
    labels = {path.name: label for path in paths if (label := drawings.drawn(path.name))}
    return Pictures(
        "drawings, made by the demo itself; no photos", paths, labels=labels, agreed="drawings tagged as what was drawn"
    )


def _spread(found: list[Path], count: int) -> list[Path]:
    """`count` of them, evenly from the whole list."""
    step = max(1.0, len(found) / count)
    return [found[int(n * step)] for n in range(min(count, len(found)))]


def allowance(urls: list[str]) -> dict[str, str]:
    """Settings that let the crawler fetch from this machine's loopback, if that is where the URLs lead; else none."""
    places = [urlsplit(url) for url in urls]
    if not all(place.hostname == LOOPBACK for place in places):
        return {}
    ports = sorted({place.port or 80 for place in places})
    return {"TAGMILL_ALLOW_CIDRS": "127.0.0.0/8", "TAGMILL_ALLOW_PORTS": ",".join(map(str, ports))}
