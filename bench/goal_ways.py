"""The ways that bench.goals sets side by side: decoding, the forward pass, fetching over a distance, rows."""

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
from PIL import Image
from safetensors.torch import load_file
from sqlalchemy import BigInteger, Engine, Integer, String, create_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.peers import kernel
from bench.stages import fetch_each
from ml import artifact, images
from ml.architectures import build
from ml.predictor import Predictor
from ml.presets import ImagenetPreset
from ml.working_copy import decode
from worker import wiring
from worker.settings import WorkerSettings

SIDE, QUALITY = 384, 90
LIMITS = images.Limits(draft_short_side=SIDE)


def cpu_ms(run: Callable[[], object]) -> float:
    """Milliseconds of CPU, of this process."""
    began = time.process_time()
    run()
    return 1000 * (time.process_time() - began)


# --- decoding ---------------------------------------------------------------------------------------------------------


def pillow_224(data: bytes) -> object:
    """A picture as uint8 224 × 224, by a few lines of Pillow."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


_PRESET = ImagenetPreset()


def worker_224(data: bytes) -> object:
    """As a worker with torch reads a working copy."""
    return _PRESET(decode(data))


def pillow_copy(data: bytes) -> object:
    """A picture with its short side at 384, as a JPEG, by a few lines of Pillow."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = min(1.0, SIDE / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def sandbox_copy(data: bytes) -> object:
    """As the sandbox makes a working copy of a stranger's bytes, under all limits."""
    return images.working_copy(images.read(data, LIMITS), SIDE, QUALITY)


def enlarged(data: bytes) -> bytes:
    """A photo as a camera of six megapixels would have it."""
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((2000, 3000), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


# --- the forward pass -------------------------------------------------------------------------------------------------


def networks(folder: Path) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """(eager torch in fp32, the engine in bf16): uint8 batches of eight to logits, one thread each."""
    eager = build("mobilenet_v3_large", 1000)
    eager.load_state_dict(load_file(folder / "model.safetensors"))
    eager.eval()
    normalise = _PRESET.normaliser()
    request = kernel.Network(folder).request()

    def slow(batch: Any) -> Any:
        with torch.no_grad():
            return eager(normalise(torch.from_numpy(batch))).numpy()

    def fast(batch: Any) -> Any:
        request.batch[:] = batch
        return request.run().copy()

    return slow, fast


def shipped(folder: Path, photos: Sequence[bytes]) -> tuple[str, Callable[[Any], Any], Callable[[Any], Any], Any]:
    """A trained network: (how it runs here, in eager torch, as it runs here, these photos as its preset makes them)."""
    loaded = artifact.load(folder)
    predictors = Predictor([loaded], backend="reference"), Predictor([loaded])
    batch = torch.from_numpy(np.stack([np.asarray(predictors[0].prepare(photo).inputs[0]) for photo in photos]))
    slow, fast = (next(iter(predictor.backends.values())).backend for predictor in predictors)
    return fast.name, slow.forward, fast.forward, batch.split(kernel.BATCH)


# --- fetching ---------------------------------------------------------------------------------------------------------


async def fetched(settings: WorkerSettings, urls: Sequence[str]) -> float:
    """Pictures a second through the guarded client, as many at once as it may."""
    at_once = settings.fetch_concurrency
    async with wiring.fetcher(settings) as fetcher:
        await fetch_each(fetcher, urls[:at_once], at_once)  # connections are made
        began = time.perf_counter()
        await fetch_each(fetcher, urls, at_once)
        return len(urls) / (time.perf_counter() - began)


def one_by_one(urls: Sequence[str]) -> float:
    """Pictures a second by requests.get in a loop."""
    began = time.perf_counter()
    for url in urls:
        assert requests.get(url, timeout=30).ok
    return len(urls) / (time.perf_counter() - began)


# --- rows -------------------------------------------------------------------------------------------------------------


class _Base(DeclarativeBase):
    pass


class Item(_Base):
    """A picture as a first version of such a system has it: one row, indexed by job and state."""

    __tablename__ = "bench_orm_items"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    job: Mapped[int] = mapped_column(Integer, index=True)
    seq: Mapped[int] = mapped_column(Integer)
    url: Mapped[str] = mapped_column(String)
    client_id: Mapped[str] = mapped_column(String)
    state: Mapped[str] = mapped_column(String, index=True, default="pending")
    tags: Mapped[Any] = mapped_column(JSONB, nullable=True)


def orm(url: str) -> Engine:
    """The table, new and empty."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    _Base.metadata.drop_all(engine)
    _Base.metadata.create_all(engine)
    return engine


def orm_add_all(engine: Engine, job: int, count: int) -> float:
    """Seconds to add so many items in one transaction."""
    began = time.perf_counter()
    with Session(engine) as session:
        session.add_all(
            Item(
                job=job,
                seq=n,
                url=f"https://pictures-{n % 50}.invalid/catalog/2026/{n:07d}/front.jpg",
                client_id=f"sku-{n}",
            )
            for n in range(count)
        )
        session.commit()
    return time.perf_counter() - began


def orm_results(engine: Engine, ids: Sequence[int], tags: object) -> float:
    """Seconds to write the tags of these items as ORM objects, each in a transaction."""
    began = time.perf_counter()
    with Session(engine) as session:
        for at in ids:
            item = session.get(Item, at)
            assert item is not None
            item.state, item.tags = "done", tags
            session.commit()
    return time.perf_counter() - began
