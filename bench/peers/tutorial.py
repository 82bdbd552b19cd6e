"""The way tutorials do it: a Celery task per image, requests, Pillow, batch 1 in eager torch, one INSERT per image.

python -m bench.peers.tutorial MODEL DATABASE BROKER [--threads 1]    two prefork children; torch's default threads
"""

import argparse
import json
import os
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
import requests
from celery import Celery
from celery.signals import worker_process_init

from bench.peers import protocol

CHILDREN = 2
TABLE = "CREATE TABLE IF NOT EXISTS {name} (url text PRIMARY KEY, tags jsonb)"
app = Celery("tutorial", broker=os.environ.get("TUTORIAL_BROKER"))
app.conf.update(worker_hijack_root_logger=False, task_ignore_result=True, broker_connection_retry_on_startup=True)
_of_child: dict[str, Any] = {}


@worker_process_init.connect
def load(**_: Any) -> None:
    """The model and the connection of one child."""
    import torch
    import torchvision
    from safetensors.torch import load_file
    from torchvision import transforms as T

    if threads := os.environ.get("TUTORIAL_THREADS"):
        torch.set_num_threads(int(threads))
    folder = Path(os.environ["TUTORIAL_MODEL"])
    model = torchvision.models.mobilenet_v3_large()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    normalise = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    _of_child.update(
        model=model.eval(),
        transform=T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), normalise]),
        labels=json.loads((folder / "labels.json").read_text()),
        connection=psycopg.connect(os.environ["TUTORIAL_DATABASE"], autocommit=True),
    )


@app.task(name="tag")
def tag(url: str) -> None:
    """One picture."""
    import torch
    from PIL import Image

    image = Image.open(BytesIO(requests.get(url, timeout=30).content)).convert("RGB")
    with torch.no_grad():
        scores = _of_child["model"](_of_child["transform"](image).unsqueeze(0)).softmax(1)[0]
    best, at = scores.topk(5)
    tags = [
        {"label": _of_child["labels"][n], "score": score} for n, score in zip(at.tolist(), best.tolist(), strict=True)
    ]
    statement = f"INSERT INTO {os.environ['TUTORIAL_TABLE']} (url, tags) VALUES (%s, %s)"
    _of_child["connection"].execute(statement, [url, json.dumps(tags)])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("database")
    arguments.add_argument("broker")
    arguments.add_argument("--threads", type=int)
    options = arguments.parse_args()
    table = f"tutorial_{options.threads or 'default'}"
    environment = {
        **os.environ,
        "TUTORIAL_MODEL": str(options.model),
        "TUTORIAL_DATABASE": options.database,
        "TUTORIAL_BROKER": options.broker,
        "TUTORIAL_THREADS": str(options.threads or ""),
        "TUTORIAL_TABLE": table,
    }
    app.conf.broker_url = options.broker
    command = [sys.executable, "-m", "celery", "-A", "bench.peers.tutorial", "worker"]
    command += [f"--concurrency={CHILDREN}", "--loglevel=WARNING"]
    with psycopg.connect(options.database, autocommit=True) as connection:
        connection.execute(TABLE.format(name=table))

        def work(asked: protocol.Round) -> protocol.Result:
            connection.execute(f"TRUNCATE {table}")
            for url in asked.urls:
                tag.delay(url)
            while (done := _count(connection, table)) < asked.count:
                if worker.poll() is not None:
                    raise RuntimeError(f"the worker ended with {worker.returncode}")
                time.sleep(0.1)
            return protocol.Result(done)

        with subprocess.Popen(command, env=environment, stdout=sys.stderr, start_new_session=True) as worker:
            try:
                protocol.serve(work)
            finally:
                worker.terminate()
                worker.wait(30)


def _count(connection: "psycopg.Connection[Any]", table: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert found is not None
    return int(found[0])


if __name__ == "__main__":
    main()
