"""The process that exports a network: it loads torch, and ends. What it answers on stdout is why it could not.

Started by worker.exporting with the artifact's folder, the SHA-256 of its weights and the folder to write into.
"""

import os
import sys
from pathlib import Path

from ml.errors import ModelError


def main() -> None:
    """Load, check, export."""
    folder, sha256, into = sys.argv[1:]
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    from ml import artifact, exported

    try:
        exported.write(artifact.load(Path(folder), sha256), Path(into))
    except (ModelError, OSError) as error:
        os.write(answers, str(error).encode()[:1000])


if __name__ == "__main__":
    main()
