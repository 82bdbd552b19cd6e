"""A torchvision .pth file as safetensors; run only as a child process: `python -m ml.pth SOURCE TARGET`.

A .pth file is a pickle. The caller has checked its SHA-256 against torchvision's published prefix; torch's
restricted unpickler is a second fence, not the boundary (it has been broken before: CVE-2025-32434), so
nothing that matters runs in this process.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def main(source: Path, target: Path) -> None:
    """Raises whatever torch does for a file that is no plain state dict; the parent sees the exit status."""
    state = torch.load(source, map_location="cpu", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
