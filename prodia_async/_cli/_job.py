"""``job``: one job, and what it makes."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (Typer reads it)
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from rich.console import Console

from .._client import AsyncProdia
from .._errors import ProdiaError
from .._models import Job
from ._app import InterruptedJobError, app, wrong
from ._config import read_config
from ._names import complete_type
from ._show import spinner, summary, wrote
from ._target import Target

if TYPE_CHECKING:
    from .._models import JobResponse


@app.command("job")
def _job(
    job_type: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="The job type, for instance inference.flux-fast.schnell.txt2img.v2; "
            "`prodia-async types` lists them.",
            autocompletion=complete_type,
        ),
    ],
    *,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="KEY=VALUE",
            help="A setting of the job's config. The value is read as JSON if it is JSON, else "
            "as text. @FILE.json merges a whole object. May be given again; the last one counts.",
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="A file the job works on; the config may refer to it by its name. May be "
            "given again; the order is kept.",
        ),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="The output's format, for instance image/png or 'image/jpeg;quality=95'.",
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="A file, a folder (ends in / or exists), or - for standard output. By default "
            "the current folder, under the name that the server gives.",
        ),
    ] = ".",
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="By default PRODIA_BASE_URL from the environment, else the live API.",
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            "--deadline-seconds",
            metavar="S",
            help="Give up after so long in all: queue, waits and every attempt.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout-seconds",
            metavar="S",
            help="Give up when nothing comes for so long; must exceed the longest job.",
        ),
    ] = 600.0,
    price: Annotated[bool, typer.Option("--price", help="Ask what the job cost.")] = False,
    direct: Annotated[
        bool,
        typer.Option(
            "--direct", help="Receive the output alone, without the job result (seed, price)."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the job result as JSON on standard output.")
    ] = False,
) -> None:
    """
    Run one job and write what it makes.

    The token is taken from the environment variable PRODIA_TOKEN; there is no
    option for it, since it would show in the list of processes.
    """
    if as_json and direct:
        wrong("--json", "needs the job result, which --direct leaves out")
    if as_json and out == "-":
        wrong("--json", "needs standard output for itself; give -o a file or a folder")
    if price and direct:
        wrong("--price", "needs the job result, which --direct leaves out")
    job = Job(job_type, read_config(config or []))
    target = Target(out)
    say = Console(
        highlight=False, markup=False, soft_wrap=True, stderr=as_json or target.is_standard_output
    )

    async def run_job() -> JobResponse:
        async with AsyncProdia(
            base_url=base_url, timeout=timeout, deadline=deadline, price=price
        ) as client:
            # Found before the job costs anything.
            target.prepare()
            return await client.job(job, inputs=inputs or (), accept=accept, multipart=not direct)

    try:
        with spinner(job_type):
            response = anyio.run(run_job)
    except KeyboardInterrupt:
        raise InterruptedJobError(
            "interrupted; a job that was under way may have run and been charged"
        ) from None
    except ProdiaError as error:
        # What came whole is paid for, and worth having.
        for output, path in target.write(error.outputs):
            say.print(wrote(output, path))
        raise
    for output, path in target.write(response.outputs):
        say.print(wrote(output, path))
    for line in summary(response):
        say.print(line)
    if as_json and response.job is not None:
        typer.echo(response.job.model_dump_json(exclude_unset=True, indent=2))
