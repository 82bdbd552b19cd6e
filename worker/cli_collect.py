"""The command that fetches a dataset: a list of URLs with labels, through the crawler of the running system."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker import dataset_options
from worker.dataset_options import Attributes, By, Ignore, Labels, Name, Seed, Shares, SplitColumn, Version
from worker.dataset_register import opened, register_stored

if TYPE_CHECKING:
    from db.session import Database
    from worker.collecting import Pool


def collect(
    source: Annotated[Path, typer.Argument(help="A .csv with a column of URLs and columns of labels.")],
    *,
    name: Name,
    version: Version = "1",
    label: Labels = None,
    attribute: Attributes = None,
    ignore: Ignore = None,
    url_column: Annotated[str, typer.Option(help="The column with the URLs.")] = "url",
    split_column: SplitColumn = "",
    by: By = None,
    shares: Shares = None,
    seed: Seed = 0,
    job: Annotated[str | None, typer.Option(help="Fetch nothing: take what this job fetched of the list.")] = None,
) -> None:
    """Fetch labelled pictures by URL, as a job of the running system, and register what arrives as a dataset.

    The crawler keeps its rules: limits for each host, opt-outs, no internal addresses. What cannot be fetched is listed
    with its code. If this is interrupted, the job goes on; --job takes up what it fetched.
    """
    from worker import collecting
    from worker.home import Home
    from worker.local import client

    columns = dataset_options.columns(label, attribute, ignore)
    pool = collecting.pool(source, columns, url=url_column, split=split_column or None, by=by)
    dataset_options.parsed(shares)
    with client(Home.default()) as api, opened() as (database, blobs, _):
        _require_free(database, name, version)
        job_id = _settled(api, pool, name, job)
        gathered = collecting.gather(database, blobs, api, pool, job_id, name=name, version=version, by=by)
        origin = {"origin": f"URLs of {source.name}, job {job_id}"}
        register_stored(database, blobs, gathered, origin, by, shares, seed)


def _settled(api: Any, pool: "Pool", name: str, job: str | None) -> str:
    """The id of a job that has fetched the list: a new one, waited for, or the one that is named."""
    from uuid import uuid4

    from worker import live
    from worker.cli_jobs import summary
    from worker.client import ClientError
    from worker.job_files import NDJSON
    from worker.screen import console, plain

    screen = console(stderr=True)
    if job is None:
        params = {"analyses": "tags", "lane": "bulk", "name": f"dataset {name}"}
        job = str(api.submit(pool.body, NDJSON, params=params, idempotency_key=str(uuid4()))["id"])
    try:
        ended = live.wait(api, job, screen)
    except KeyboardInterrupt:
        screen.print(f"The job goes on. Take it up with the same command and --job {plain(job)}", soft_wrap=True)
        raise
    screen.print(summary(ended), soft_wrap=True)
    if ended["state"] != "finished":
        raise ClientError("job_cancelled", f"job {job} was cancelled: no dataset was made")
    return job


def _require_free(database: "Database", name: str, version: str) -> None:
    """Refuse a bad or a taken name before pictures are fetched for it."""
    from db import datasets
    from db.errors import Conflict, NotFound
    from ml.manifest import require_identifiers

    require_identifiers(name, version)
    try:
        with database.transaction() as session:
            datasets.by_ref(session, f"{name}@{version}")
    except NotFound:
        return
    raise Conflict(f"{name}@{version} is registered already: choose another --version.")
