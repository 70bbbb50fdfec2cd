"""``job``: one job, and what it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from .._client import AsyncProdia
from .._errors import ProdiaError
from . import _options as options
from ._app import app, wrong
from ._config import make_job, read_accept, read_inputs
from ._ending import Watch
from ._show import Speaker, result_json, spinner, summary, wrote
from ._target import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._models import JobResponse
    from .._outputs import Output


@app.command("job")
def _job(
    job_type: options.TypeName = None,
    *,
    job_file: options.JobFile = None,
    config: options.Config = None,
    inputs: options.Inputs = None,
    accept: options.Accept = None,
    out: options.Out = ".",
    base_url: options.BaseUrl = None,
    deadline: options.Deadline = None,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
    price: options.PriceFlag = False,
    direct: Annotated[
        bool,
        typer.Option(
            "--direct", help="Receive the output alone, without the job result (seed, price)."
        ),
    ] = False,
    as_json: options.JsonFlag = False,
) -> None:
    """
    Run one job and write what it makes.

    The token is taken from the environment variable PRODIA_TOKEN; there is no
    option for it, since it would show in the list of processes.
    """
    if as_json and direct:
        wrong("--json", "needs the job result, which --direct leaves out")
    if price and direct:
        wrong("--price", "needs the job result, which --direct leaves out")
    job = make_job(job_type, job_file, config or [], has_inputs=bool(inputs))
    target = Target(out, as_json=as_json)
    wanted = read_accept(accept, target.file, job)
    files = read_inputs(inputs or [])
    watch = Watch(job.type)

    async def run_job() -> JobResponse:
        async with AsyncProdia(
            base_url=base_url, timeout=timeout, deadline=deadline, price=price, hook=watch
        ) as client:
            # Found before the job costs anything.
            target.prepare()
            return await client.job(job, inputs=files, accept=wanted, multipart=not direct)

    with watch.listening():
        try:
            with spinner(f"{job.type} is running"):
                response = anyio.run(run_job)
        except ProdiaError as error:
            show_rest(error, target)
            raise
        show_response(response, target)


def show_rest(error: ProdiaError, target: Target) -> None:
    """Write what came whole before an error: it is paid for, and worth having."""
    speaker = Speaker(stderr=target.takes_standard_output)
    for output, path in target.write(error.outputs):
        speaker.say(wrote(output, path))
    speaker.check()


def show_response(response: JobResponse, target: Target) -> None:
    """
    Write what a job made, and tell about it.

    Raises:
        OSError: An output could not be written where it was to go; all else was done.
    """
    show_all(
        target,
        response.outputs,
        summary(response),
        result_json(response.job) if target.as_json and response.job is not None else None,
    )


def show_all(
    target: Target,
    outputs: Sequence[Output],
    lines: Iterable[str],
    as_program: str | None,
) -> None:
    """
    Write outputs, then lines for people and the one text for a program.

    Raises:
        OSError: Something could not be written where it was to go; all else was done.
    """
    speaker = Speaker(stderr=target.takes_standard_output)
    failure: OSError | None = None
    try:
        for output, path in target.write(outputs):
            speaker.say(wrote(output, path))
    except BrokenPipeError:
        raise  # whoever wanted the bytes has left, and wants no more of this
    except OSError as error:
        failure = error
    for line in lines:
        speaker.say(line)
    if as_program is not None:
        to_program = Speaker()
        to_program.say(as_program)
        to_program.check()
    if failure is not None:
        raise failure
    speaker.check()
