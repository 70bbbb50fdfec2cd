"""``submit``, ``status``, ``collect``: jobs that are left with the server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
import anyio.to_thread
import typer

from .._async_jobs import POLL_SECONDS
from .._client import AsyncProdia
from .._errors import ProdiaError
from . import _options as options  # noqa: TC001  (Typer reads them)
from ._app import app, describe, in_our_words, note, run_unwrapped, wrong
from ._config import make_job, read_accept, read_inputs
from ._ending import Watch, ending
from ._job import show_response, show_rest
from ._show import spinner
from ._target import Target

if TYPE_CHECKING:
    from .._async_jobs import AsyncJob


@app.command("submit")
def _submit(
    job_type: options.TypeName = None,
    *,
    job_file: options.JobFile = None,
    config: options.Config = None,
    inputs: options.Inputs = None,
    accept: options.Accept = None,
    base_url: options.BaseUrl = None,
    deadline: options.Deadline = None,
    price: options.PriceFlag = False,
) -> None:
    """
    Leave a job with the server, and print its id.

    The id is all that is printed on standard output; `status` asks about it
    and `collect` fetches what it made, from any machine, until it expires
    some five minutes after it was made. Not every type permits it.
    """
    job = make_job(job_type, job_file, config or [], has_inputs=bool(inputs))
    wanted = read_accept(accept, None, job)
    files = read_inputs(inputs or [])
    watch = Watch(job.type, how="`prodia-async collect {}` waits for it")

    async def submit() -> AsyncJob:
        async with AsyncProdia(
            base_url=base_url, deadline=deadline, price=price, hook=watch
        ) as client:
            return await client.submit(job, inputs=files, accept=wanted)

    with watch.listening():
        submitted = anyio.run(submit)
        try:
            typer.echo(submitted.id)
        except OSError:
            # It is paid for, and without its id nobody can have what it makes.
            note(f"the job was submitted as {submitted.id}; standard output took no id")
            raise


@app.command("status")
def _status(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `submit` printed them.")],
    *,
    base_url: options.BaseUrl = None,
    deadline: options.Deadline = None,
) -> None:
    """
    Tell how submitted jobs stand: processing, processed or failed.

    One word for one job; for several a line each, the id and the word between
    a tab. The exit status is 1 if one is unknown or has expired.
    """
    missing: list[ProdiaError] = []

    async def look() -> list[str]:
        words = []
        async with AsyncProdia(base_url=base_url, deadline=deadline) as client:
            jobs = [client.async_job(each) for each in ids]
            for job in jobs:
                try:
                    words.append(await job.state())
                except ProdiaError as error:
                    missing.append(error)
                    words.append("")
        return words

    words = anyio.run(look)
    for each, word in zip(ids, words, strict=True):
        if word:
            typer.echo(word if len(ids) == 1 else f"{each}\t{word}")
    for error in missing[:-1]:
        note(in_our_words(str(error)))
    if missing:
        raise missing[-1]


@app.command("collect")
def _collect(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `submit` printed them.")],
    *,
    out: options.Out = ".",
    base_url: options.BaseUrl = None,
    deadline: options.Deadline = None,
    poll: options.Poll = POLL_SECONDS,
    price: options.PriceFlag = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Wait for submitted jobs, and write what they made. Asking and fetching cost nothing."""
    target = Target(out, as_json=as_json)
    if len(ids) > 1 and (target.file is not None or target.is_standard_output):
        wrong("-o", "must be a folder for several jobs; end it in /")
    failures: list[ProdiaError | OSError] = []
    told = anyio.Lock()

    async def fetch(job: AsyncJob) -> None:
        try:
            response = await job.result(poll=poll)
            show = partial(show_response, response, target)
        except ProdiaError as error:
            failures.append(error)
            show = partial(show_rest, error, target)
        async with told:  # one at a time, so that their lines stay together
            try:
                await anyio.to_thread.run_sync(show)
            except OSError as error:  # what the other jobs made is fetched all the same
                failures.append(error)

    async def collect() -> None:
        # All at once: a result may expire while another job is waited for.
        async with (
            AsyncProdia(base_url=base_url, deadline=deadline, price=price) as client,
            anyio.create_task_group() as tasks,
        ):
            jobs = [client.async_job(each) for each in dict.fromkeys(ids)]
            target.prepare()
            for job in jobs:
                tasks.start_soon(fetch, job)

    def left() -> str:
        return (
            "what is not collected goes on at the server, and `prodia-async collect "
            f"{' '.join(ids)}` waits for it"
        )

    with ending(left), spinner(f"waiting for {' '.join(ids)}"):
        run_unwrapped(collect)
    for failure in failures[:-1]:
        if not isinstance(failure, BrokenPipeError):
            note(in_our_words(describe(failure)))
    if failures:
        raise failures[-1]
