"""
The API's nouns: what is sent (`Job`, `Input`) and what comes back (`Output`, `JobResponse`).

What users build is checked when it is built and forbids what it does not
know. What the server says of a job is in `_results`.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeAlias, TypeVar

from . import _notebook
from ._checks import string
from ._errors import InvalidRequestError, ResponseError
from ._outputs import Output
from ._results import dollars_of, seed_of
from ._show import MAX_SHOWN, Told, one_line, shown
from ._sources import AsyncBinaryFile, BinaryFile, Drawn, Source, source_of

if TYPE_CHECKING:
    from ._attempts import Attempt, Timing
    from ._formats import Format
    from ._results import JobResult

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

InputFactory: TypeAlias = Callable[[], AsyncIterator[bytes]]
"""Returns a fresh iterator over the same bytes each time it is called."""


@dataclass(frozen=True, slots=True)
class Job:
    """
    What the server shall do.

    Args:
        type: The job type, for instance ``"inference.flux-fast.schnell.txt2img.v2"``.
        config: Its configuration, as the type's documentation page says.
            Leave it out for types that have none.
        jobs: The steps of a workflow; `serial` writes it.

    Raises:
        InvalidRequestError: `type` is no text or empty, `config` is no
            mapping, or `jobs` is no list of jobs.
    """

    type: str
    config: Mapping[str, Any] | None = None
    jobs: Sequence[Job | Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        _check_job_type(self.type)
        if self.config is not None and not isinstance(self.config, Mapping):
            raise InvalidRequestError(f"a job's config must be a mapping, not {shown(self.config)}")
        if self.jobs is not None:
            if isinstance(self.jobs, str | bytes | Mapping) or not isinstance(self.jobs, Iterable):
                raise InvalidRequestError(
                    f"a workflow's jobs must be a list of jobs, not {shown(self.jobs)}"
                )
            steps = tuple(self.jobs)
            for step in steps:
                wire_job(step)
            object.__setattr__(self, "jobs", steps)

    def __repr__(self) -> str:
        jobs = f", jobs={shown(list(self.jobs))}" if self.jobs is not None else ""
        return f"Job(type={shown(self.type)}, config={shown(self.config)}{jobs})"

    @classmethod
    def serial(cls, *steps: Job | Mapping[str, Any]) -> Job:
        """
        Return one job whose steps run one after the other, each on what the last one made.

        ::

            Job.serial(
                Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a cat"}),
                Job.moderate(threshold=0.95),
                Job("inference.upscale.v1", {"upscale": 2}),
            )

        Source: guide "Introduction to Workflows".

        Args:
            steps: Jobs, or the same as mappings, in their order; at least one.

        Raises:
            InvalidRequestError: There are no steps, or one is no job.
        """
        if not steps:
            raise InvalidRequestError("a workflow needs at least one job; Job.serial() has none")
        return cls("workflow.serial.v1", jobs=steps)

    @classmethod
    def moderate(cls, *, threshold: float | None = None) -> Job:
        """
        Return a step that checks the image made before it, and fails the workflow if it trips.

        A tripped check is a `BadRequestError` or a `JobFailedError` (which of
        the two, no document says), with the server's reason.

        Args:
            threshold: How sure the check must be, 0 to 1; the guide uses 0.95.

        Raises:
            InvalidRequestError: `threshold` is out of its range.
        """
        if threshold is None:
            return cls("workflow.moderate.v1")
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if not is_number or not 0 <= threshold <= 1:
            raise InvalidRequestError(
                f"a moderation threshold must be a number 0 to 1, not {shown(threshold)}"
            )
        return cls("workflow.moderate.v1", {"threshold": threshold})

    def to_wire(self) -> dict[str, Any]:
        """Return the form that the API takes."""
        wire: dict[str, Any] = {"type": self.type}
        if self.config is not None:
            wire["config"] = self.config
        if self.jobs is not None:
            wire["jobs"] = [wire_job(step) for step in self.jobs]
        return wire


def _check_job_type(value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequestError(
            "a job needs a type such as 'inference.flux-fast.schnell.txt2img.v2', "
            f"not {shown(value)}"
        )


def wire_job(job: Job | Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Return the wire form of a job, whichever way it was given.

    Raises:
        InvalidRequestError: It is neither a `Job` nor a mapping with a ``type``.
    """
    if isinstance(job, Job):
        return job.to_wire()
    if not isinstance(job, Mapping):
        raise InvalidRequestError(
            f"a job must be a Job(type=..., config=...) or a mapping of that form, not {shown(job)}"
        )
    if "type" not in job:
        raise InvalidRequestError(f"a job needs a 'type'; this one has {shown(list(job))}")
    _check_job_type(job["type"])
    return job


@dataclass(frozen=True, slots=True)
class Input:
    """
    One file that a job works on.

    All that it may be made of can be read again, so that every attempt sends
    the same bytes, and is read off the event loop, never held whole.

    Args:
        content: What it is made of:

            - bytes, or the path of a file;
            - an `Output` of another job;
            - a file that is open for reading bytes, or an upload of a web
              framework: anything with `read` and `seek`, awaited or not. The
              whole of it is sent, and it must stay open until then;
            - a picture of Pillow's, sent as PNG;
            - a function without arguments that returns a fresh async
              iterator of bytes.
        filename: The name that `config` may refer to. By default the path's
            base name, or the upload's, else ``input-1.jpg`` and so on.
        content_type: The media type. By default what the output or the upload
            says, else what the first bytes say, else the extension.
        size: Bytes in all; required with a function, else found out.

    Raises:
        InvalidRequestError: The content is none of these, or cannot be read
            twice; a function comes without its size.
    """

    content: bytes | Path | InputFactory = field(repr=False)
    filename: str | None = None
    content_type: str | None = None
    size: int | None = None

    def __init__(
        self,
        content: Content,
        filename: str | None = None,
        content_type: str | None = None,
        size: int | None = None,
    ) -> None:
        if isinstance(content, Output):
            content_type = content_type or content.content_type
            content = content.content
        kept = _content_of(content)
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            raise InvalidRequestError(
                f"an input's size must be a number of bytes, not {shown(size)}"
            )
        if callable(kept) and size is None and not isinstance(kept, Source):
            raise InvalidRequestError(
                "an input made by a function needs its size: Input(function, size=...)"
            )
        if isinstance(kept, bytes) and size is not None and size != len(kept):
            raise InvalidRequestError(
                f"an input of {len(kept)} bytes was said to have size={shown(size)}"
            )
        for name, value in (("filename", filename), ("content_type", content_type)):
            if value is not None:
                string(f"an input's {name}", value)
        object.__setattr__(self, "content", kept)
        object.__setattr__(self, "filename", filename)
        object.__setattr__(self, "content_type", content_type)
        object.__setattr__(self, "size", size)


def _content_of(content: object) -> bytes | Path | InputFactory:
    """Return what an input keeps of what it is made of."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, bytearray | memoryview):
        return bytes(content)
    if (source := source_of(content)) is not None:
        return source
    if callable(content):
        return content  # what it returns is looked at when it is sent
    if isinstance(content, str) and re.match(r"https?://", content):
        raise InvalidRequestError(
            f"an input cannot be a URL, as nothing is fetched from {shown(content)}; "
            "download it first"
        )
    try:
        return Path(content)  # type: ignore[arg-type]  # checked by trying
    except TypeError:
        raise InvalidRequestError(
            "an input must be bytes, a path, an Output, an open file, a picture, or a function "
            f"that returns an async iterator of bytes, not {type(content).__name__}"
        ) from None


Content: TypeAlias = (
    bytes | bytearray | memoryview | str | os.PathLike[str] | Output | BinaryFile | AsyncBinaryFile
    | Drawn | InputFactory
)  # fmt: skip
"""What an `Input` may be made of."""

InputLike: TypeAlias = (
    Input | bytes | bytearray | memoryview | str | os.PathLike[str] | Output | BinaryFile
    | AsyncBinaryFile | Drawn | tuple[str | None, Content] | tuple[str | None, Content, str]
)  # fmt: skip
"""
An `Input`, or what may stand for one: bytes, a path, an output, an open file, a
picture, or a tuple ``(filename, content)`` or ``(filename, content, content_type)``.
"""


def as_input(value: InputLike) -> Input:
    """
    Return an `Input` for what may stand for one.

    Raises:
        InvalidRequestError: It can't.
    """
    if isinstance(value, Input):
        return value
    if not isinstance(value, tuple):
        return Input(value)
    match value:
        case (name, content):
            return Input(content, name)
        case (name, content, content_type):
            return Input(content, name, content_type)
        case _:
            raise InvalidRequestError(
                "an input given as a tuple must be (filename, content) or (filename, content, "
                f"content_type), not of {len(value)}"
            )


@dataclass(frozen=True, slots=True)
class JobRequest:
    """
    A job with all that belongs to it, for `AsyncProdia.map`.

    The fields are the arguments of `AsyncProdia.job`; ``None`` means the client's default.

    Args:
        job: ``Job(type=..., config=...)`` or the same as a mapping.
        inputs: Files it works on, in order: `Input`, bytes, paths, or what else may be one.
        accept: The format of the first output: ``WebP(...)``, or a media type.
        multipart: Have the job result come along.
        price: Ask what it cost; the answer is in ``response.dollars``.
        deadline: Seconds in all: queue, waits, every attempt, upload and download.
        extra_headers: Further headers; they win over the client's.
        extra_query: Further parameters of the address.
        via: ``"sync"``: the answer comes on the connection that asked. ``"async"``:
            the job is left with the server, and asked about.
        tag: A name of your own for it, whatever it is: it comes back as
            ``outcome.tag`` and goes to the hook. It is not sent.
    """

    job: Job | Mapping[str, Any]
    inputs: Sequence[InputLike] = ()
    accept: Format | str | None = None
    multipart: bool = True
    price: bool | None = None
    deadline: float | None = None
    extra_headers: Mapping[str, str] | None = None
    extra_query: Mapping[str, str] | None = None
    via: Literal["sync", "async"] = "sync"
    tag: Any = None

    def __post_init__(self) -> None:
        if self.via not in ("sync", "async"):
            raise InvalidRequestError(f'via must be "sync" or "async", not {shown(self.via)}')
        # An iterator would be empty when the request is used again, and the
        # job would run, and cost, without its inputs.
        if isinstance(self.inputs, Iterator) and not hasattr(self.inputs, "read"):
            object.__setattr__(self, "inputs", tuple(self.inputs))

    def __repr__(self) -> str:
        # Inputs may be pictures, and the values of headers secrets.
        return f"<JobRequest {shown(self.job)} {shown(self.accept)} inputs={shown(self.inputs)}>"


class NoOutputError(ResponseError):
    """The job has completed and made nothing; what it cost and said is in its response."""

    _advice = ""

    def __str__(self) -> str:
        # Nothing went wrong with the answer: what may have been charged is not in question.
        ids = f" (job {one_line(self.job_id, longest=MAX_SHOWN)})" if self.job_id else ""
        return f"{self.message}{ids}"


@dataclass(frozen=True, slots=True)
class JobResponse:
    """The answer to one job."""

    job: JobResult | None
    """The job result; ``None`` with ``multipart=False``."""
    outputs: tuple[Output, ...]
    """Every output, in wire order; empty for types that make none."""
    request_id: str | None
    """The ``x-request-id`` header, for support requests."""
    attempts: tuple[Attempt, ...]
    """What was tried, oldest first; the last one succeeded."""
    timing: Timing
    """Where the time went."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The headers of the final answer; names in lower case."""
    cached: bool = False
    """Whether it came from a folder of earlier answers, and nothing was sent or charged."""

    @property
    def output(self) -> Output:
        """
        The first output.

        Raises:
            ResponseError: The job made none.
        """
        if not self.outputs:
            raise NoOutputError(
                "the job completed without an output; what it said is in response.job",
                job=self.job,
                attempts=self.attempts,
                request_id=self.request_id,
            )
        return self.outputs[0]

    @property
    def content(self) -> bytes:
        """
        The bytes of the first output.

        Raises:
            ResponseError: The job made none.
        """
        return self.output.content

    @property
    def config(self) -> dict[str, Any]:
        """The job's config as the server filled it in; empty where it did not say."""
        return (self.job.config or {}) if self.job is not None else {}

    @property
    def seed(self) -> int | None:
        """The seed that was used, or ``None`` where the server did not say."""
        return seed_of(self.job)

    @property
    def dollars(self) -> float | None:
        """What it cost; ``None`` where that was not asked (``price=True``) or not said."""
        return dollars_of(self.job)

    async def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """
        Write the first output to a file, as `Output.save` does.

        Args:
            path: A file; or a folder, which is one that is there or a path that ends in a slash.
            overwrite: Replace a file that is there rather than number past it.

        Returns:
            Where it was written.

        Raises:
            ResponseError: The job made no output.
            OSError: It cannot be written there; the error names the path as given.
        """
        return await self.output.save(path, overwrite=overwrite)

    def _repr_mimebundle_(self, **_: object) -> dict[str, bytes | str]:
        """Show every output in a notebook, with seed, dollars and seconds below."""
        return _notebook.bundle(self, _notebook.response_html(self))


@dataclass(frozen=True, slots=True, repr=False)
class Succeeded(Told, Generic[Asked, Answered]):
    """One request of many that was answered."""

    index: int
    """Its place in the input, from 0."""
    request: Asked
    """What was asked."""
    response: Answered
    """The answer."""
    error: None = None
    """``None``."""
    tag: Any = None
    """The caller's own name for it."""

    def __bool__(self) -> Literal[True]:
        """Return true: it was answered."""
        return True

    def _repr_mimebundle_(self, **_: object) -> dict[str, bytes | str]:
        """Show the response in a notebook."""
        return _notebook.bundle(self, _notebook.outcome_html(self))

    def unwrap(self) -> Answered:
        """Return the response."""
        return self.response


if TYPE_CHECKING:

    class Raised(Exception):  # noqa: N818  (it stands for any)
        """Any exception. All are true, which a type checker does not know of `Exception`."""

        def __bool__(self) -> Literal[True]: ...
else:
    Raised = Exception


@dataclass(frozen=True, slots=True, repr=False)
class Failed(Told, Generic[Asked]):
    """One request of many that failed."""

    index: int
    """Its place in the input, from 0."""
    request: Asked
    """What was asked."""
    response: None
    """``None``."""
    error: Raised
    """Why. A `ProdiaError`, or whatever a function of the caller's (an input's iterator) raised."""
    tag: Any = None
    """The caller's own name for it."""

    def __bool__(self) -> Literal[False]:
        """Return false: it was not answered."""
        return False

    def _repr_mimebundle_(self, **_: object) -> dict[str, bytes | str]:
        """Show the error in a notebook, and whether it may have been paid for."""
        return _notebook.bundle(self, _notebook.outcome_html(self))

    def unwrap(self) -> NoReturn:
        """Raise the error."""
        raise self.error


JobOutcome: TypeAlias = Succeeded[JobRequest, JobResponse] | Failed[JobRequest]
"""
What became of one job of a `AsyncProdia.map`: one of two, told apart by `error`.

An outcome is true if it was answered. After ``if outcome:``, as after ``if
outcome.error is None:``, the response is known to be there, to every type
checker too (to mypy alone after ``if outcome.error: ...``);
``outcome.unwrap()`` returns it or raises the error.
"""
