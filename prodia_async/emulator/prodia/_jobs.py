"""
A received job to a plan, and a plan to its job result: plain functions.

Whatever is refused is refused here, before any work is done. A workflow is
planned by `_workflows` out of the same pieces.
"""

from __future__ import annotations

import io
import json
import random
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from PIL import Image

from .._refusals import TEXTS, Refused, bad_request
from ..drawing._encoding import Encoding
from ._catalogue import CATALOGUE, guessed
from ._schema import check, report

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ._accept import Wanted
    from ._behaviour import Behaviour
    from ._forms import Form, InputFile
    from ._kinds import JobType, Medium

_RATIO_PIXELS = 1 << 20
"""Size of a picture for which only an aspect ratio is known (chosen): 1024 by 1024."""


_FILM_SIDE = 720
"""Pixels of a film's shorter side where the type has no resolution (chosen)."""

_MOST_PIXELS = 1 << 25
"""Most pixels of an enlarged picture (chosen): an 8K picture, some 100 MB in memory."""

_FAIL = re.compile(r"\[fail(?::\s*([^\]]+))?\]")
"""In a prompt: the job runs and ends ``failed``, with that text."""

_NO_FACE = ("landscape", "no-face")
"""In the name of a face swap's source: there is no face in it."""

FAILED = "inference failed"
"""Why a job failed, where nothing else was said (chosen)."""


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
        poster: Whether a film's first frame is an output too.
        film_bytes: How large a film is; ``None``: a few kilobytes.
        failure: Why it will fail once it has run; ``None``: it will not.
        chained: Where among the inputs the output of the step before goes,
            for a step of a workflow that takes it.
        steps: The jobs of a workflow, in order.
    """

    kind: JobType
    request: Mapping[str, Any]
    config: Mapping[str, Any]
    inputs: tuple[InputFile, ...] = ()
    size: tuple[int, int] = (0, 0)
    seed: int = 0
    wanted: Wanted
    poster: bool = False
    film_bytes: int | None = None
    failure: str | None = None
    chained: int | None = None
    steps: tuple[Plan, ...] = field(default=())

    @property
    def prompt(self) -> str:
        """The prompt; empty for types without one."""
        return str(self.config.get("prompt", ""))

    @property
    def types(self) -> tuple[str, ...]:
        """Its type, and those of its steps."""
        return (self.kind.name, *(step.kind.name for step in self.steps))

    @property
    def prompts(self) -> str:
        """Its prompt and those of its steps, a line each."""
        return "\n".join(plan.prompt for plan in (self, *self.steps))

    @property
    def makes_nothing(self) -> bool:
        """Whether it has no output."""
        return all(plan.kind.work in {"nothing", "serial"} for plan in (self, *self.steps))

    @property
    def dollars(self) -> float:
        """What it costs, its steps included."""
        return sum(plan.kind.price(plan.config) for plan in (self, *self.steps))

    def without_inputs(self) -> Plan:
        """Make one that tells as much and does not hold the files."""
        steps = tuple(step.without_inputs() for step in self.steps)
        return replace(self, inputs=(), steps=steps)

    @property
    def first(self) -> Encoding:
        """How the first picture among the outputs is encoded."""
        native = self.kind.native
        native = "image/jpeg" if native == "application/json" else native
        encoding = self.wanted.first or Encoding(native)
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


def route(job: Mapping[str, Any], privileged: Collection[str], behaviour: Behaviour) -> JobType:
    """
    Find the type of a job.

    Raises:
        Refused: 400 for a type nobody knows (or 429, as it once was), 403 for
            one the token may not use.
    """
    name = job.get("type")
    if not isinstance(name, str) or name not in CATALOGUE:
        if isinstance(name, str) and behaviour.accept_unknown_types:
            return guessed(name)
        if behaviour.unknown_type_status == 429:
            raise Refused(429, TEXTS[429])
        if name is None:
            raise bad_request(
                "jsonschema validation failed with 'job#'\n- at '': missing property 'type'"
            )
        raise bad_request("unknown job type")
    if name in privileged:
        raise Refused(403, f"token may not run {name}")
    return CATALOGUE[name]


def plan(
    kind: JobType, job: Mapping[str, Any], form: Form, wanted: Wanted, behaviour: Behaviour
) -> Plan:
    """
    Check a job and fill in what was left out.

    Args:
        kind: What `route` found.
        job: What `read_job` found.
        form: The body, for its inputs.
        wanted: What `read_accept` found.
        behaviour: What is allowed.

    Returns:
        The plan.

    Raises:
        Refused: 400: the configuration breaks the schema, names a file that
            was not sent, or uses too many; an input is not what the type
            takes. 413: the inputs have more pixels than the type takes.
    """
    job = filled_before(kind, job, behaviour)
    # In a family checked as one, a wrong name fails the schema like anything else.
    sent = {item.filename for item in form.inputs} if kind.family else None
    if failures := check(kind.schema, job, sent=sent):
        raise bad_request(report(kind.name, failures))
    # A name that was not sent comes first: that is what is documented of a client
    # whose inputs all bear one name while its configuration names others.
    inputs, _ = used_inputs(kind, job.get("config") or {}, form.inputs)
    if behaviour.strict_filenames:
        refuse_equal_names(form.inputs)
    sizes = [picture_size(kind, item) for item in inputs]
    return dress(kind, job, inputs, sizes, wanted=wanted, behaviour=behaviour)


def filled_before(kind: JobType, job: Mapping[str, Any], behaviour: Behaviour) -> Mapping[str, Any]:
    """Fill in what the service is supposed to fill in before it looks at the schema."""
    config = job.get("config")
    if behaviour.strict_schemas or not kind.before or not isinstance(config, dict):
        return job
    return {**job, "config": {**kind.before, **config}}


def refuse_equal_names(inputs: Sequence[InputFile]) -> None:
    """Refuse (400) inputs of which two bear one name."""
    names = [item.filename for item in inputs]
    for name in names:
        if names.count(name) > 1:
            raise bad_request(f"filename '{name}' is not unique: inputs must differ in name")


def dress(
    kind: JobType,
    job: Mapping[str, Any],
    inputs: tuple[InputFile, ...],
    sizes: Sequence[tuple[int, int] | None],
    *,
    wanted: Wanted,
    behaviour: Behaviour,
    chained: int | None = None,
) -> Plan:
    """
    Make the plan of a job whose configuration and inputs are in order.

    Args:
        kind: Its type.
        job: Its configuration, valid.
        inputs: The files it uses.
        sizes: Of all its inputs the width and height, that of the step before
            included; ``None`` for one that is no picture.
        wanted: The form of the answer.
        behaviour: What else it depends on.
        chained: As in `Plan`.
    """
    pictures = [size for size in sizes if size is not None]
    if kind.max_pixels is not None and sum(w * h for w, h in pictures) > kind.max_pixels:
        raise Refused(413, f"{kind.name}: inputs over {kind.max_pixels} pixels")
    properties = kind.config.get("properties", {})
    config = dict(job.get("config") or {})
    forbidden = kind.config.get("not", {}).get("required", ())
    for name, schema in properties.items():
        if name in config or "default" not in schema:
            continue
        # A default is not filled in beside a field that excludes it.
        if name in forbidden and all(each in config for each in forbidden if each != name):
            continue
        config[name] = schema["default"]
    config |= kind.computed
    if config.get("include_messages") and "output_message_count" in kind.computed:
        config["output_message_count"] = 1
    if kind.seeded and "seed" not in config:
        config["seed"] = random.getrandbits(32)
    size = _output_size(kind, config, pictures)
    if "width" in properties and kind.work != "film":
        config["width"], config["height"] = size
    if kind.work == "label":
        config["labels"] = _labels(config["model"], inputs)
    return Plan(
        kind=kind,
        request=job,
        config=config,
        inputs=inputs,
        size=size,
        seed=config["seed"] if isinstance(config.get("seed"), int) else 0,
        wanted=wanted,
        poster=behaviour.poster,
        film_bytes=_film_bytes(config, behaviour),
        failure=_failure(kind, config, inputs),
        chained=chained,
    )


_BYTES = re.compile(r"\[([0-9]{1,4}(?:\.[0-9]{1,3})?) ?([KMG])B\]")
"""In a prompt: how large its film is."""


def _film_bytes(config: Mapping[str, Any], behaviour: Behaviour) -> int | None:
    marker = _BYTES.search(str(config.get("prompt", "")))
    if marker is None:
        return behaviour.film_bytes
    return round(float(marker[1]) * {"K": 10**3, "M": 10**6, "G": 10**9}[marker[2]])


def _failure(kind: JobType, config: Mapping[str, Any], inputs: tuple[InputFile, ...]) -> str | None:
    marker = _FAIL.search(str(config.get("prompt", "")))
    if marker:
        return marker[1] or FAILED
    if kind.work == "swap" and inputs:
        # The documented text. A picture without a face is known by its name.
        source = inputs[0].filename.lower()
        if any(text in source for text in _NO_FACE):
            return "No face detected in the source image."
    return None


def _labels(model: str, inputs: tuple[InputFile, ...]) -> list[dict[str, Any]]:
    """Make labels that depend on the picture; their shape is chosen."""
    names = ("normal", "nsfw") if "nsfw" in model else ("landscape", "animal", "food")
    digest = inputs[0].sha256 if inputs else "0"
    chance = random.Random(digest + model)
    weights = [8.0**-index * chance.uniform(0.5, 1) for index in range(len(names))]
    return [
        {"label": name, "score": round(weight / sum(weights), 6)}
        for name, weight in zip(names, weights, strict=True)
    ]


def used_inputs(
    kind: JobType,
    config: Mapping[str, Any],
    sent: tuple[InputFile, ...],
    *,
    before: bool = False,
) -> tuple[tuple[InputFile, ...], int | None]:
    """
    Find the files a job uses.

    Args:
        kind: Its type.
        config: Its configuration; names in it come first, else all files count
            in the order in which they were sent.
        sent: The files.
        before: Whether the output of a step before it is an input too. It
            stands for the first filename field that is left out, and is
            not used when the names are all that the type takes.

    Returns:
        The files, and the place of that output among them.

    Raises:
        Refused: 400: a name that was not sent, or that two files bear; too
            many or too few files; one that is of another kind.
    """
    found: list[InputFile] = []
    place = None
    named = False
    for name in kind.filename_fields:
        value = config.get(name, [])
        names = value if isinstance(value, list) else [value]
        named = named or bool(names)
        if before and not names and place is None:
            place = len(found)
        found += (_find(text, sent) for text in names)
    if not named:
        found = list(sent)
    fewest, most = kind.inputs
    if before and (not named or (place is None and len(found) < most)):
        place = 0
    count = len(found) + (place is not None)
    if count > most:
        raise bad_request("config: too many images")
    if count < fewest:
        if not sent and not before:
            # Observed for pictures: parts that are not called `input` do not count.
            raise bad_request(f"input {kind.takes[0]} is required")
        # The documented text, with the name that a single picture usually has.
        raise bad_request("filename 'image' not found in request")
    _check_media(kind, found)
    return tuple(found), place


def _check_media(kind: JobType, inputs: Sequence[InputFile]) -> None:
    media = [medium_of(item.content) for item in inputs]
    for item, medium in zip(inputs, media, strict=True):
        if medium not in kind.takes:
            raise bad_request(
                f"input '{item.filename}': got {medium}, want {' or '.join(kind.takes)}"
            )
    for medium, most in kind.most_of.items():
        if media.count(medium) > most:
            raise bad_request(f"config: too many {medium}s: got {media.count(medium)}, want {most}")
    if kind.most_of and media and set(media) == {"audio"}:
        raise bad_request("config: at least one image or video is needed beside audio")


_STILLS = (b"avif", b"avis", b"heic", b"heix", b"mif1")
"""Brands of pictures in the container that films use."""


def medium_of(content: bytes) -> Medium:
    """Tell what a file is by its first bytes: a picture, if neither film nor sound."""
    if content[4:8] == b"ftyp" and content[8:12] not in _STILLS:
        return "video"
    if content.startswith(b"\x1aE\xdf\xa3"):  # Matroska and WebM
        return "video"
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return "audio"
    if content.startswith((b"ID3", b"OggS", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1")):
        return "audio"
    return "image"


def _find(name: str, sent: tuple[InputFile, ...]) -> InputFile:
    found = [item for item in sent if item.filename == name]
    if not found:
        raise bad_request(f"filename '{name}' not found in request")
    if len(found) > 1:
        raise bad_request(f"filename '{name}' is ambiguous: {len(found)} inputs bear it")
    return found[0]


_RATIO = re.compile(r"([1-9][0-9]?):([1-9][0-9]?)")
_LONGEST_SIDE = 4096
_SIDES = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for bytes that are no picture it reads."""


def picture_size(kind: JobType, item: InputFile) -> tuple[int, int] | None:
    """
    Read the size of an input picture; ``None`` for a film or a sound, where those may be.

    Raises:
        Refused: It cannot be read, or is of a format or size that the type does
            not take. That these limits are 400 and that of bytes 413 is chosen.
    """
    if kind.most_bytes is not None and len(item.content) > kind.most_bytes:
        raise Refused(413, f"input '{item.filename}': over {kind.most_bytes} bytes")
    if kind.takes != ("image",) and medium_of(item.content) != "image":
        return None
    try:
        with Image.open(io.BytesIO(item.content)) as picture:
            size, media_type = picture.size, picture.get_format_mimetype()
    except (*UNREADABLE, Image.DecompressionBombWarning) as exc:
        raise unreadable(item) from exc
    if kind.formats and media_type not in kind.formats:
        formats = ", ".join(kind.formats)
        raise bad_request(f"input '{item.filename}': got {media_type}, want one of {formats}")
    if kind.sides is not None and not all(kind.sides[0] <= side <= kind.sides[1] for side in size):
        fewest, most = kind.sides
        raise bad_request(
            f"input '{item.filename}': got {size[0]}x{size[1]} pixels, "
            f"want {fewest} to {most} a side"
        )
    return size


def unreadable(item: InputFile) -> Refused:
    """Make the refusal of an input that is no picture."""
    return bad_request(f"input '{item.filename}': not a picture that can be read")


def _output_size(
    kind: JobType, config: Mapping[str, Any], inputs: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    match kind.work:
        case "cutout" | "segment" | "mask" | "masks" | "label" | "moderate":
            return inputs[0]
        case "swap":
            return inputs[-1]
        case "enlarge" | "restore":
            return _enlarged(kind, inputs[0], int(config["upscale"]))
        case "film":
            return _film_size(config, inputs)
    for name in ("resolution", "size"):
        sides = _SIDES.fullmatch(str(config.get(name)))
        if sides and 0 < int(sides[1]) * int(sides[2]) <= _MOST_PIXELS:
            return int(sides[1]), int(sides[2])
    # "2K" of a picture that is 1K by nature: twice the sides.
    scale = {"2K": 2, "4K": 4}.get(str(config.get("resolution")), 1)
    ratio = _ratio(config)
    if ratio is not None:
        return _fit(*ratio, _RATIO_PIXELS * scale**2, 16)
    width, height = _side(config, "width"), _side(config, "height")
    if width and height:
        return width, height
    if not inputs:
        return width or 1024 * scale, height or 1024 * scale
    input_width, input_height = inputs[0]
    bounds = kind.config.get("properties", {}).get("width", {})
    low, high = bounds.get("minimum", 64), bounds.get("maximum", 4096)
    if width or height:
        fitted = _fit(input_width, input_height, _RATIO_PIXELS, 16)
    else:
        pixels = min(input_width * input_height, 4 * _RATIO_PIXELS)
        fitted = _fit(input_width, input_height, pixels, bounds.get("multipleOf", 8))
    across, down = (min(max(side, low), high // 16 * 16) for side in fitted)
    return width or across, height or down


def _side(config: Mapping[str, Any], name: str) -> int | None:
    # Types that take unknown fields may be given anything.
    value = config.get(name)
    return int(value) if isinstance(value, (int, float)) and 0 < value <= _LONGEST_SIDE else None


def _ratio(config: Mapping[str, Any]) -> tuple[int, int] | None:
    for name in ("aspect_ratio", "ratio"):
        sides = _RATIO.fullmatch(str(config.get(name)))
        if sides:
            return int(sides[1]), int(sides[2])
    return None


def _enlarged(kind: JobType, size: tuple[int, int], factor: int) -> tuple[int, int]:
    width, height = size[0] * factor, size[1] * factor
    if width * height > _MOST_PIXELS:
        raise Refused(413, f"{kind.name}: output over {_MOST_PIXELS} pixels")
    return width, height


def _film_size(config: Mapping[str, Any], inputs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    exact = re.fullmatch(r"([0-9]{3,4}):([0-9]{3,4})", str(config.get("aspect_ratio")))
    if exact:
        return int(exact[1]), int(exact[2])
    digits = re.fullmatch(r"([0-9]{3,4})[pP]", str(config.get("resolution")))
    side = int(digits[1]) if digits else _FILM_SIDE
    across, down = 16, 9
    ratio = _ratio(config)
    if ratio is not None:
        across, down = ratio
    elif inputs:
        across, down = inputs[0]
    scale = side / min(across, down)
    # Even sides, no more than four times as long as short.
    width, height = (min(round(part * scale / 2) * 2, 4 * side) for part in (across, down))
    return width, height


def _fit(across: int, down: int, pixels: int, step: int) -> tuple[int, int]:
    """Make sides of a given ratio and area, in whole steps."""
    scale = (pixels / (across * down)) ** 0.5
    return (
        max(step, round(across * scale / step) * step),
        max(step, round(down * scale / step) * step),
    )


def price(plan: Plan, *, null: bool = False) -> dict[str, Any] | None:
    """
    Make the ``price`` of a result; ``None`` where none is known.

    The product of the schnell types encodes a size class and the steps; only
    ``large`` at 1024 by 1024 is documented, the other classes are chosen.
    """
    if null:
        return None
    pixels = plan.size[0] * plan.size[1]
    label = "small" if pixels <= 512 * 512 else "medium" if pixels <= 768 * 768 else "large"
    product = plan.kind.product.format(size=label, steps=plan.config.get("steps", 0))
    # Sums of thousandths of a dollar, without the dust of binary fractions.
    return {"product": product, "dollars": round(plan.dollars, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """A job's id and times: when it was created and changed last (UTC), and how long it lives."""

    id: str
    created: datetime
    updated: datetime
    expires_after: float


def completed(
    plan: Plan, life: Life, *, elapsed: float, state: str = "completed"
) -> dict[str, Any]:
    """Make the job result of a job that has run for so many seconds."""
    result = _result(plan.request, life, state)
    result |= _filled(plan)
    result["metrics"] = {"elapsed": round(elapsed, 6)}
    steps = plan.config.get("steps")
    if steps and elapsed > 0:
        result["metrics"]["ips"] = round(steps / elapsed, 6)
    return result


def under_way(plan: Plan, life: Life, *, state: str) -> dict[str, Any]:
    """Make the job result of a job that has not run yet."""
    return _result(plan.request, life, state)


def failed(
    job: Mapping[str, Any] | None,
    error: str,
    life: Life,
    *,
    state: str = "failed",
    in_history: bool = False,
) -> dict[str, Any]:
    """Make the job result that tells why a job failed; perhaps in ``state.history`` alone."""
    result = _result(job or {}, life, state)
    if in_history:
        result["state"]["history"] = [{"current": state, "message": error}]
    else:
        result["error"] = error
    return result


def _filled(plan: Plan) -> dict[str, Any]:
    """Make the members in which a result differs from its request."""
    if plan.steps:
        jobs = [{**step.request, **_filled(step)} for step in plan.steps]
        # Where the request had them: at the top as documented, or in its config.
        if "jobs" in plan.request:
            return {"jobs": jobs}
        return {"config": {**plan.request["config"], "jobs": jobs}}
    return {"config": plan.config} if plan.config or "config" in plan.request else {}


def _result(job: Mapping[str, Any], life: Life, state: str) -> dict[str, Any]:
    identity = {"id": life.id}
    # The id comes first, and is ours whatever the request says.
    return {
        **identity,
        **job,
        **identity,
        "created_at": timestamp(life.created),
        "updated_at": timestamp(life.updated),
        "expires_at": timestamp(life.created + timedelta(seconds=life.expires_after)),
        "state": {"current": state, "history": None},
    }


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Write a UTC moment as Go does: RFC 3339, no trailing zeros in the fraction."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"
