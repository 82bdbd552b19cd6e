"""The process in which a foreign Keras file is opened and turned into ONNX. It has no network and starts no program.

    lock in → check the description → load by Keras → export → answer

Started by worker.keras_trial, which gives it a folder of its own with the file in it.
"""

import json
import os
import sys
from pathlib import Path

from ml.errors import ModelError
from worker.confinement import lock_in_reading


def main() -> None:
    """Lock in, convert, answer with a line of JSON; the arrays lie in the folder."""
    request = json.loads(sys.argv[1])
    folder = Path(request["folder"])
    answers = os.dup(1)
    os.dup2(2, 1)  # what Keras prints is no answer
    walls = lock_in_reading(**request["walls"], folder=folder)
    from ml import keras_convert

    answer: dict[str, object] = {"walls": walls.as_dict()}
    try:
        made = keras_convert.convert(folder / request["source"], folder / "model.onnx", request["size"])
        (folder / "inputs.f32").write_bytes(made.inputs.tobytes())
        (folder / "outputs.f32").write_bytes(made.outputs.tobytes())
        answer |= {"inputs": made.inputs.shape, "outputs": made.outputs.shape}
    except ModelError as error:
        answer |= {"code": error.code, "detail": error.detail}
    except MemoryError:
        answer |= {"code": "model_too_large", "detail": "the model needs more memory than an import may take"}
    os.write(answers, json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
