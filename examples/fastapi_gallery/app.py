"""A gallery: one picture, an upload, a batch that comes in live, a film that plays as it comes.

PRODIA_TOKEN=... uvicorn --app-dir examples/fastapi_gallery app:app
(without an account: python -m prodia_async emulator, and PRODIA_BASE_URL=its address)
"""

from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Request, Response, UploadFile
from fastapi.params import Form, Query
from fastapi.responses import FileResponse

from prodia_async import AsyncProdia, Job, JobRequest, WebP
from prodia_async.integrations.starlette import install, job_response, map_events, stream_response

Prompt = Annotated[str, Query(max_length=500)]
MOST = 100
client = AsyncProdia(price=True, deadline=120)
app = FastAPI()
install(app, client)


def picture(prompt: str, seed: int | None = None) -> JobRequest:
    config = {"prompt": prompt} if seed is None else {"prompt": prompt, "seed": seed}
    return JobRequest(Job("inference.flux-fast.schnell.txt2img.v2", config), accept=WebP())


@app.get("/")
async def page() -> Response:
    return FileResponse(Path(__file__).with_name("page.html"))


@app.get("/picture")
async def one(request: Request, prompt: Prompt, seed: int | None = None) -> Response:
    return await job_response(request, client, picture(prompt, seed).job, accept=WebP())


@app.post("/edit")
async def edit(
    request: Request, prompt: Annotated[str, Form(max_length=500)], photo: UploadFile
) -> Response:
    job = Job("inference.flux-2.klein.4b.img2img.v1", {"prompt": prompt})
    return await job_response(request, client, job, inputs=[photo], accept=WebP())


@app.get("/batch")
async def batch(request: Request, prompt: Prompt, count: int = 12) -> Response:
    jobs = (picture(prompt, seed) for seed in range(min(count, MOST)))
    return map_events(request, client, jobs)


@app.get("/film")
async def film(request: Request, prompt: Prompt) -> Response:
    job = Job("inference.wan2-2.lightning.txt2vid.v0", {"prompt": prompt})
    return await stream_response(request, client, job, accept="video/mp4")
