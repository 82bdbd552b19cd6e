"""torchvision's own ImageNet weights to start a training from: pulled once and kept as safetensors; trains nothing.

The published file is a pickle: `model_sources` converts it in a process of its own.
"""

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from worker.model_sources import Torchvision

IMAGENET = "imagenet"  # what stands for them where start weights are named


def imagenet(model_root: Path, architecture: str) -> Path:
    """The weights of `architecture` as a safetensors file below `model_root`.

    Raises SourceFailed, and ArtifactError('unknown_architecture') for one without published weights.
    """
    from ml import architectures

    url = architectures.weights_url(architecture)
    path = model_root / ".start" / f"{Path(urlsplit(url).path).stem}.safetensors"
    if path.is_file():
        return path
    (data,) = Torchvision(url, "torchvision").fetch().values()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=".incoming-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path
