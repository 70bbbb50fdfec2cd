"""A service on aiohttp: a picture, a film, a batch as server-sent events.

PRODIA_TOKEN=... python examples/aiohttp_service.py 8080
curl -o cat.jpg 'http://127.0.0.1:8080/picture?prompt=a+cat'
"""

import sys

from aiohttp import web

from prodia_async import AsyncProdia, Job
from prodia_async.integrations.aiohttp import (
    install,
    job_response,
    map_events,
    stream_response,
)

CLIENT: web.AppKey[AsyncProdia] = web.AppKey("client", AsyncProdia)
routes = web.RouteTableDef()


def picture_of(prompt: str, **more: int) -> Job:
    return Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": prompt, **more})


@routes.get("/picture")
async def picture(request: web.Request) -> web.StreamResponse:
    return await job_response(request, request.app[CLIENT], picture_of(request.query["prompt"]))


@routes.get("/film")
async def film(request: web.Request) -> web.StreamResponse:
    job = Job("inference.wan2-2.lightning.txt2vid.v0", {"prompt": request.query["prompt"]})
    return await stream_response(request, request.app[CLIENT], job, accept="video/mp4")


@routes.get("/batch")
async def batch(request: web.Request) -> web.StreamResponse:
    jobs = [picture_of(request.query["prompt"], seed=seed) for seed in range(12)]
    return await map_events(request, request.app[CLIENT], jobs)


def make_app() -> web.Application:
    app = web.Application()
    app[CLIENT] = client = AsyncProdia(price=True, deadline=120)
    app.add_routes(routes)
    install(app, client)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]))
