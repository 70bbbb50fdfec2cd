"""
A received job to a plan, and a plan to its job result: plain functions.

Whatever is refused is refused here, before any work is done.
"""

from __future__ import annotations

import io
import json
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from PIL import Image

from ._accept import Encoding, Wanted
from ._catalogue import CATALOGUE, JobType
from ._refusals import Refused, bad_request
from ._schema import check, report

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ._forms import Form, InputFile

EXPIRES_AFTER = timedelta(seconds=300)
"""How long a result lives. Source: two live results, `expires_at` minus `created_at`."""

_RATIO_PIXELS = 1 << 20
"""Size of a picture for which only an aspect ratio is known (chosen): 1024 by 1024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    A valid job, ready to run.

    Attributes:
        kind: Its type.
        request: The configuration as it came.
        config: Its ``config`` with defaults and computed values filled in.
        inputs: The files it uses, in the order in which it uses them.
        size: Width and height of its picture, in pixels.
        seed: What the picture depends on beside prompt and inputs.
        wanted: The form of the answer.
    """

    kind: JobType
    request: Mapping[str, Any]
    config: Mapping[str, Any]
    inputs: tuple[InputFile, ...]
    size: tuple[int, int]
    seed: int
    wanted: Wanted

    @property
    def prompt(self) -> str:
        """The prompt; empty for types without one."""
        return str(self.config.get("prompt", ""))

    @property
    def outputs(self) -> int:
        """How many outputs it will have."""
        if self.kind.work == "nothing":
            return 0
        return 2 if self.kind.work == "segment" or self.config.get("include_messages") else 1

    @property
    def first(self) -> Encoding:
        """How the first output is encoded."""
        encoding = self.wanted.first or Encoding(self.kind.native)
        if self.config.get("progressive") and encoding.media_type == "image/jpeg":
            # An older way to ask for it; the Accept parameter wins.
            encoding = Encoding(
                "image/jpeg", tuple({"progressive": 1, **dict(encoding.options)}.items())
            )
        return encoding


def read_job(form: Form) -> Mapping[str, Any]:
    """
    Parse the job configuration.

    Raises:
        Refused: 400: not JSON, or not an object.
    """
    try:
        job = json.loads(form.job, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise bad_request(f"job: invalid JSON: {exc}") from exc
    if not isinstance(job, dict):
        raise bad_request("job: want a JSON object")
    return job


def _no_constant(text: str) -> None:
    # Python's parser takes NaN and Infinity, which JSON does not have.
    raise ValueError(f"invalid value {text}")


def route(job: Mapping[str, Any], privileged: Collection[str]) -> JobType:
    """
    Find the type of a job.

    Raises:
        Refused: 400 for a type nobody knows, 403 for one the token may not use.
    """
    name = job.get("type")
    if name is None:
        raise bad_request(
            "jsonschema validation failed with 'job#'\n- at '': missing property 'type'"
        )
    if not isinstance(name, str) or name not in CATALOGUE:
        raise bad_request("unknown job type")
    if name in privileged:
        raise Refused(403, f"token may not run {name}")
    return CATALOGUE[name]


def plan(kind: JobType, job: Mapping[str, Any], form: Form, wanted: Wanted) -> Plan:
    """
    Check a job and fill in what was left out.

    Args:
        kind: What `route` found.
        job: What `read_job` found.
        form: The body, for its inputs.
        wanted: What `read_accept` found.

    Returns:
        The plan.

    Raises:
        Refused: 400: the configuration breaks the schema, names a file that
            was not sent, or uses too many; an input is no picture. 413: the
            inputs have more pixels than the type takes.
    """
    if failures := check(kind.schema, job):
        raise bad_request(report(kind.name, failures))
    given: Mapping[str, Any] = job.get("config") or {}
    inputs = _used_inputs(kind, given, form.inputs)
    sizes = [_picture_size(item) for item in inputs]
    if kind.max_pixels is not None and sum(w * h for w, h in sizes) > kind.max_pixels:
        raise Refused(413, f"{kind.name}: inputs over {kind.max_pixels} pixels")
    config = dict(given)
    for name, schema in kind.config.get("properties", {}).items():
        if name not in config and "default" in schema:
            config[name] = schema["default"]
    config |= kind.computed
    if config.get("include_messages"):
        config["output_message_count"] = 1
    if kind.seeded and "seed" not in config:
        config["seed"] = random.getrandbits(32)
    size = _output_size(kind, config, sizes)
    if "width" in kind.config.get("properties", {}):
        config["width"], config["height"] = size
    return Plan(
        kind=kind,
        request=job,
        config=config,
        inputs=inputs,
        size=size,
        seed=config.get("seed", 0),
        wanted=wanted,
    )


def _used_inputs(
    kind: JobType, config: Mapping[str, Any], sent: tuple[InputFile, ...]
) -> tuple[InputFile, ...]:
    names: list[str] = []
    for name in kind.filename_fields:
        value = config.get(name, [])
        names += value if isinstance(value, list) else [value]
    fewest, most = kind.inputs
    if len(names or sent) > most:
        raise bad_request("config: too many images")
    if names:
        return tuple(_find(name, sent) for name in names)
    if len(sent) < fewest:
        # The documented text, with the name that a single picture usually has.
        raise bad_request("filename 'image' not found in request")
    return sent


def _find(name: str, sent: tuple[InputFile, ...]) -> InputFile:
    found = [item for item in sent if item.filename == name]
    if not found:
        raise bad_request(f"filename '{name}' not found in request")
    if len(found) > 1:
        raise bad_request(f"filename '{name}' is ambiguous: {len(found)} inputs bear it")
    return found[0]


UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for bytes that are no picture it reads."""


def _picture_size(item: InputFile) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(item.content)) as picture:
            return picture.size
    except (*UNREADABLE, Image.DecompressionBombWarning) as exc:
        raise unreadable(item) from exc


def unreadable(item: InputFile) -> Refused:
    """Make the refusal of an input that is no picture."""
    return bad_request(f"input '{item.filename}': not a picture that can be read")


def _output_size(
    kind: JobType, config: Mapping[str, Any], inputs: list[tuple[int, int]]
) -> tuple[int, int]:
    if kind.work in {"cutout", "segment"}:
        return inputs[0]
    if "resolution" in config:
        width, _, height = config["resolution"].partition("x")
        return int(width), int(height)
    ratio = config.get("aspect_ratio", "auto")
    if ratio != "auto":
        across, _, down = ratio.partition(":")
        return _fit(int(across), int(down), _RATIO_PIXELS, 16)
    width, height = config.get("width"), config.get("height")
    if width and height:
        return int(width), int(height)
    if not inputs:
        return int(width or 1024), int(height or 1024)
    input_width, input_height = inputs[0]
    bounds = kind.config.get("properties", {}).get("width", {})
    low, high = bounds.get("minimum", 64), bounds.get("maximum", 4096)
    if width or height:
        fitted = _fit(input_width, input_height, _RATIO_PIXELS, 16)
    else:
        pixels = min(input_width * input_height, 4 * _RATIO_PIXELS)
        fitted = _fit(input_width, input_height, pixels, bounds.get("multipleOf", 8))
    across, down = (min(max(side, low), high // 16 * 16) for side in fitted)
    return int(width or across), int(height or down)


def _fit(across: int, down: int, pixels: int, step: int) -> tuple[int, int]:
    """Make sides of a given ratio and area, in whole steps."""
    scale = (pixels / (across * down)) ** 0.5
    return (
        max(step, round(across * scale / step) * step),
        max(step, round(down * scale / step) * step),
    )


def price(kind: JobType, config: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """
    Make the ``price`` of a result.

    The product of the schnell types encodes a size class and the steps; only
    ``large`` at 1024 by 1024 is documented, the other classes are chosen.
    """
    pixels = size[0] * size[1]
    label = "small" if pixels <= 512 * 512 else "medium" if pixels <= 768 * 768 else "large"
    product = kind.product.format(size=label, steps=config.get("steps", 0))
    return {"product": product, "dollars": kind.dollars}


def completed(plan: Plan, *, created: datetime, elapsed: float, priced: bool) -> dict[str, Any]:
    """
    Make the job result of a job that has run.

    Args:
        plan: The job.
        created: When it was received, UTC.
        elapsed: Seconds it ran.
        priced: Whether ``?price=true`` was asked for.
    """
    result = _result(plan.request, "completed", created, datetime.now(UTC))
    if plan.config or "config" in plan.request:
        result["config"] = plan.config
    result["metrics"] = {"elapsed": round(elapsed, 6)}
    steps = plan.config.get("steps")
    if steps and elapsed > 0:
        result["metrics"]["ips"] = round(steps / elapsed, 6)
    if priced:
        result["price"] = price(plan.kind, plan.config, plan.size)
    return result


def failed(job: Mapping[str, Any] | None, error: str) -> dict[str, Any]:
    """Make the job result that tells why a job was refused."""
    now = datetime.now(UTC)
    result = _result(job or {}, "failed", now, now)
    result["error"] = error
    return result


def _result(
    job: Mapping[str, Any], state: str, created: datetime, updated: datetime
) -> dict[str, Any]:
    identity = {"id": str(uuid.uuid4())}
    # The id comes first, and is ours whatever the request says.
    return {
        **identity,
        **job,
        **identity,
        "created_at": timestamp(created),
        "updated_at": timestamp(updated),
        "expires_at": timestamp(created + EXPIRES_AFTER),
        "state": {"current": state, "history": None},
    }


def timestamp(moment: datetime) -> str:
    """Write a UTC moment as Go does: RFC 3339, no trailing zeros in the fraction."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"
