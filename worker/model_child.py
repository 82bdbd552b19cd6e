"""The process in which a foreign ONNX network is parsed and run for the first time. It opens no file and no connection.

    request on stdin → lock in → run by two runtimes → answer

Started by worker.model_trial with its walls as its only argument.
"""

import json
import os
import sys
from typing import Any, Final

import numpy as np

from ml.errors import ModelError
from ml.onnx_run import Runtimes, said
from worker.confinement import ANSWERS, lock_in

LENGTH: Final = 8  # bytes, little endian, in front of a header


def main() -> None:
    """Import and warm up, lock in, then answer one request."""
    walls = json.loads(sys.argv[1])
    runtimes = Runtimes()
    stands = lock_in(**walls)
    header, body = _answer(runtimes)
    text = json.dumps(header | {"walls": stands.as_dict()}).encode()
    rest = memoryview(len(text).to_bytes(LENGTH, "little") + text + body)
    while rest:
        rest = rest[os.write(ANSWERS, rest) :]
    os._exit(0)


def _answer(runtimes: Runtimes) -> tuple[dict[str, Any], bytes]:
    """The top of the stage: whatever is raised becomes an answer."""
    try:
        with os.fdopen(0, "rb", closefd=False) as stdin:
            request = json.loads(stdin.read(int.from_bytes(stdin.read(LENGTH), "little")))
            data = stdin.read(request["onnx"])
            batches = [
                np.frombuffer(stdin.read(4 * int(np.prod(shape))), np.float32).reshape(shape)
                for shape in request["batches"]
            ]
        ran = [runtimes.run(data, batch, request["fixed"]) for batch in batches]
    except ModelError as error:
        return {"code": error.code, "detail": error.detail}, b""
    except MemoryError:
        return {"code": "onnx_too_large", "detail": "the network needs more memory than an import may take"}, b""
    except Exception as error:  # noqa: BLE001
        return {"code": "onnx_not_runnable", "detail": said(error)}, b""
    found = [array for one in ran for array in (one.reference, one.serving)]
    header = {"shapes": [array.shape for array in found], "batches": [one.batch for one in ran]}
    return header, b"".join(array.tobytes() for array in found)


if __name__ == "__main__":
    main()
