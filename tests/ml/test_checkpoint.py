"""Checkpoints: whole or the old one, and never a pickle."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ml.checkpoint import FILE, Checkpoint, load, save
from ml.errors import TrainingError


def _checkpoint(value: float, numbers: int = 4) -> Checkpoint:
    return Checkpoint({"network/a": torch.full((numbers,), value), "average/a": torch.zeros(2)}, {"step": value})


@contextmanager
def _full_disk(limit: int) -> Iterator[None]:
    """No file of this process may grow past `limit` bytes: write() fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "new", _checkpoint(3.5))
    loaded = load(tmp_path / "new")
    assert loaded.state == {"step": 3.5}
    assert loaded.part("network")["a"].tolist() == [3.5] * 4
    assert set(loaded.part("average")) == {"a"}


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    save(tmp_path, _checkpoint(1))
    with _full_disk(64 << 10), pytest.raises(OSError):
        save(tmp_path, _checkpoint(2, numbers=1 << 20))
    assert load(tmp_path).state == {"step": 1}
    assert os.listdir(tmp_path) == [FILE]


def test_a_missing_or_broken_checkpoint_has_its_code(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="checkpoint_missing"):
        load(tmp_path)
    path = save(tmp_path, _checkpoint(1))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TrainingError, match="checkpoint_invalid"):
        load(tmp_path)
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(TrainingError, match="checkpoint_invalid"):
        load(tmp_path)
