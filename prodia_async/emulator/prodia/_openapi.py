"""The API's own description; that it exists and needs a token is all that is known of it."""

from __future__ import annotations

import functools
from typing import Any

from ._catalogue import CATALOGUE

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}


@functools.cache
def describe() -> dict[str, Any]:
    """Make an OpenAPI document of the endpoints and the job types (its form is chosen)."""
    jobs = [kind.schema for kind in CATALOGUE.values()]
    body = {
        "content": {
            "application/json": {"schema": {"anyOf": jobs}},
            "multipart/form-data": {"schema": {"type": "object", "required": ["job"]}},
        }
    }
    reads = {
        "job.state.current": "the state as plain text",
        "job.json": "the job result",
        "output": "the names of the outputs",
        "output/{filename}": "one output",
    }
    name = {**_ID, "name": "filename"}
    paths: dict[str, Any] = {
        "/v2/job": {
            "post": {"requestBody": body, "responses": {"200": {"description": "completed"}}}
        },
        "/v2/job/async": {
            "post": {"requestBody": body, "responses": {"201": {"description": "created"}}}
        },
    }
    for path, text in reads.items():
        paths[f"/v2/job/async/{{id}}/{path}"] = {
            "get": {
                "parameters": [_ID, name] if "{filename}" in path else [_ID],
                "responses": {"200": {"description": text}},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Prodia inference API, emulated", "version": "2"},
        "paths": paths,
    }
