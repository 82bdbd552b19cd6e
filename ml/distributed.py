"""Several processes that train one network: which pictures of a step are whose, and what they must agree on.

torch's process groups carry it: gloo between CPUs, NCCL between GPUs. Gradients are averaged here and not by
DistributedDataParallel, whose reducer has sent half of them when a process runs out of memory in the middle of its
backward pass, and cannot begin again in smaller pieces. It starts no process; `ml.train_ranks` does.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

WAIT_S = 1800.0  # for the others, in one exchange: the first one validates meanwhile
_BUCKET_BYTES = 32 << 20
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `world` ones; alone by default, and then every exchange is nothing at all."""

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        """Whether it is this process that validates, writes and speaks."""
        return self.rank == 0

    def share(self, rows: list[int]) -> list[int]:
        """This process' part of a step's pictures; the parts differ by one picture at most."""
        return rows[len(rows) * self.rank // self.world : len(rows) * (self.rank + 1) // self.world]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place; every process gives the same shapes."""
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            flat /= self.world
            for tensor, mean in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The numbers of every process, by rank."""
        if self.world == 1:
            return [list(values)]
        own = torch.tensor(values, dtype=torch.float64, device=self.device)
        found = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(found, own)
        return [tensor.tolist() for tensor in found]

    def of_first(self, value: Any) -> Any:
        """The first process' JSON value, for all; what the others give does not count."""
        if self.world == 1:
            return value
        text = json.dumps(value).encode() if self.first else b""
        length = torch.tensor([len(text)], device=self.device)
        dist.broadcast(length, 0)
        data = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.first:
            data.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(data, 0)
        return json.loads(bytes(data.tolist()))


def join(kind: str, wait_s: float = WAIT_S) -> Ranks:
    """Meet the processes that torch's launcher has started. `kind`: cpu or cuda, one GPU each.

    An exchange for which another process lets this one wait longer than `wait_s` raises RuntimeError.
    """
    cuda = kind == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=wait_s))
    rank = dist.get_rank()
    if cuda:
        torch.cuda.set_device(rank)
    return Ranks(rank, dist.get_world_size(), torch.device(f"cuda:{rank}" if cuda else "cpu"))


def leave() -> None:
    """Part from the others, at a good end."""
    dist.destroy_process_group()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type together, up to a size: few exchanges, and little memory beside the tensors."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        if bucket and (held + tensor.nbytes > _BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.nbytes
    if bucket:
        yield bucket
