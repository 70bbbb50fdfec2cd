"""An app of somebody who uses the package."""

import contextlib

from prodia_async import AsyncProdia, CapacityError, Job, JobFailedError


def cat(prompt):
    return Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": prompt})


async def make(prompt, *, client):
    response = await client.job(cat(prompt))
    return response.output.content


async def make_with_own_client(prompt):
    async with AsyncProdia() as client:
        return await make(prompt, client=client)


async def tell(prompt, *, client):
    """What a person reads; the right way to handle what goes wrong."""
    try:
        await make(prompt, client=client)
    except JobFailedError as error:
        return f"it failed: {error.job.failure}"
    except CapacityError as error:
        return f"busy, again in {error.retry_after:.0f} s"
    return "done"


async def tell_wrongly(prompt, *, client):
    """Takes a busy server for a picture."""
    with contextlib.suppress(CapacityError):
        await make(prompt, client=client)
    return "done"
