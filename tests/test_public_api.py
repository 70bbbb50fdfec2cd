"""The front door: which names there are, what they are called, and that they are explained."""

import concurrent.futures
import inspect
import multiprocessing
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from test_errors import ERRORS, full

import prodia_async
from prodia_async import AsyncProdia, ProdiaError, types

# The public surface, at this stage.
SURFACE = {
    "AsyncProdia", "Job", "JobRequest", "Input",
    "JPEG", "PNG", "WebP",
    "JobResult", "JobResponse", "Output", "Price", "Timing",
    "JobStream", "OutputPart", "JobOutcome", "AsyncJob",
    "RetryPolicy", "Attempt", "AttemptDetails", "AttemptHook", "JobDetails", "SchedulerStatistics",
    "MapProgress",
    "ProdiaError", "InvalidRequestError", "QueueFullError", "DeadlineExceededError",
    "APIConnectionError", "ConnectError", "ConnectionLostError", "APITimeoutError",
    "APIStatusError", "BadRequestError", "AuthenticationError", "PermissionDeniedError",
    "JobNotFoundError", "PayloadTooLargeError", "CapacityError", "RateLimitError",
    "ServerError", "InternalServerError",
    "ResponseError", "MalformedResponseError", "TruncatedResponseError", "ResponseTooLargeError",
    "NoOutputError",
    "JobFailedError", "JobRefusedError",
    "__version__",
}  # fmt: skip
PUBLIC = [getattr(prodia_async, name) for name in sorted(SURFACE - {"__version__"})]
CLASSES = sorted(
    {each for each in PUBLIC if isinstance(each, type)}, key=lambda each: each.__name__
)


def test_all_is_the_surface() -> None:
    """No name more, no name less, and every one of them is there."""
    assert set(prodia_async.__all__) == SURFACE
    assert len(prodia_async.__all__) == len(SURFACE)


def test_all_is_sorted() -> None:
    """As ruff sorts it: constants, then classes, then the rest."""
    names = [name for name in prodia_async.__all__ if not name.isupper() and name[0] != "_"]
    assert names == sorted(names)
    assert prodia_async.__all__[:2] == ["JPEG", "PNG"]
    assert prodia_async.__all__[-1] == "__version__"


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_name_the_front_door(kind: type) -> None:
    """Tracebacks and pickles say prodia_async, under a name that is found there."""
    assert kind.__module__ == "prodia_async"
    assert getattr(prodia_async, kind.__name__) is kind
    assert pickle.loads(pickle.dumps(kind)) is kind


@pytest.mark.parametrize("kind", CLASSES)
def test_everything_public_is_explained(kind: type) -> None:
    """Each class has a docstring of its own, and so has each public method and property."""
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}("), "dataclass wrote it"
    for name, member in vars(kind).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        assert inspect.getdoc(member), f"{kind.__name__}.{name}"


OUTSIDE = {
    "AbstractAsyncContextManager", "Any", "AsyncBaseTransport", "AsyncClient", "AsyncIterable",
    "AsyncIterator", "BaseException", "Callable", "ClassVar", "Exception", "Image", "Iterable",
    "Literal", "Mapping", "None", "PIL", "Path", "PathLike", "Self", "Sequence", "Unpack",
}  # fmt: skip
"""Names in annotations that are Python's, httpx's and Pillow's."""

OF_OURS = {"AsyncJob", "JobStream", "OutputPart", "RetryPolicy.decide"}
"""Built here, never by a caller; and how a policy decides, which none calls."""


def annotations() -> Iterator[tuple[str, object]]:
    """Every annotation that a caller meets: of fields, properties, methods and what is built."""
    for kind in CLASSES:
        for name, annotation in vars(kind).get("__annotations__", {}).items():
            if not name.startswith("_"):
                yield f"{kind.__name__}.{name}", annotation
        for name, member in vars(kind).items():
            where = f"{kind.__name__}.{name}"
            is_built = name == "__init__" and not {kind.__name__} & OF_OURS
            is_error = issubclass(kind, Exception)
            if (name.startswith("_") and (not is_built or is_error)) or where in OF_OURS:
                continue
            function = member.fget if isinstance(member, property) else member
            found = getattr(getattr(function, "__func__", function), "__annotations__", {})
            yield from ((where, each) for each in found.values())


def test_whatever_an_annotation_names_can_be_imported() -> None:
    """At the front door, or from `prodia_async.types`."""
    there = SURFACE | set(types.__all__) | OUTSIDE
    hidden = {
        (where, name)
        for where, annotation in annotations()
        for name in re.findall(r"\b[A-Z]\w+", str(annotation))
        if name not in there
    }
    assert hidden == set()
    assert not SURFACE & set(types.__all__), "each has one address"
    assert types.__all__ == sorted(types.__all__)
    assert all(hasattr(types, name) for name in types.__all__)


def test_what_is_imported_from_types_says_so() -> None:
    """A class that is at this address has it as its own, in tracebacks and pickles."""
    for name in types.__all__:
        value = getattr(types, name)
        if isinstance(value, type):
            assert value.__module__ == "prodia_async.types", name
            assert pickle.loads(pickle.dumps(value)) is value
            assert inspect.getdoc(value)


def test_aliases() -> None:
    """Two classes have a second name, for those who come from other SDKs."""
    assert prodia_async.RateLimitError is prodia_async.CapacityError
    assert prodia_async.InternalServerError is prodia_async.ServerError


def test_all_errors_are_public() -> None:
    """There is no class that a caller could meet and not name."""
    assert {kind.__name__ for kind in ERRORS} <= SURFACE
    found = [ProdiaError]
    for kind in found:
        found += kind.__subclasses__()
    hidden = {
        each.__name__
        for each in found
        if each.__module__.startswith("prodia_async.") and each.__module__.count("._")
    }
    assert hidden == set()


def parameters(method: Any) -> list[tuple[str, bool, Any]]:
    """Name, whether by keyword only, and default of each parameter but self."""
    found = list(inspect.signature(method).parameters.values())[1:]
    return [(each.name, each.kind is each.KEYWORD_ONLY, each.default) for each in found]


NOTHING = inspect.Parameter.empty
JOB_PARAMETERS = [
    ("job", False, NOTHING),
    ("inputs", True, ()),
    ("accept", True, None),
    ("multipart", True, True),
    ("price", True, None),
    ("deadline", True, None),
    ("extra_headers", True, None),
    ("extra_query", True, None),
]


def test_the_clients_signatures() -> None:
    """The promised names, in order; what was added is by keyword and has a default."""
    promised = [
        ("token", False, None),
        ("base_url", True, None),
        ("max_concurrency", True, 64),
        ("adaptive", True, True),
        ("retry", True, None),
        ("timeout", True, 600.0),
        ("connect_timeout", True, 10.0),
        ("deadline", True, None),
        ("price", True, False),
        ("transport", True, None),
        ("http_client", True, None),
        ("allow_http", True, False),
    ]
    found = parameters(AsyncProdia.__init__)
    assert found[: len(promised)] == promised
    added = found[len(promised) :]
    assert all(keyword and default is not NOTHING for _, keyword, default in added)
    assert parameters(AsyncProdia.job) == [*JOB_PARAMETERS, ("via", True, "sync")]
    assert parameters(AsyncProdia.stream) == JOB_PARAMETERS
    assert parameters(AsyncProdia.submit) == JOB_PARAMETERS
    assert parameters(AsyncProdia.async_job) == [("job_id", False, NOTHING)]
    assert parameters(AsyncProdia.stream) == JOB_PARAMETERS
    assert parameters(AsyncProdia.map) == [
        ("jobs", False, NOTHING),
        ("ordered", True, False),
        ("buffer", True, 0),
        ("accept", True, None),
        ("price", True, None),
        ("via", True, "sync"),
        ("progress", True, False),
    ]
    assert inspect.iscoroutinefunction(AsyncProdia.job)
    assert inspect.iscoroutinefunction(AsyncProdia.aclose)
    for plain in (AsyncProdia.stream, AsyncProdia.map, AsyncProdia.with_options):
        assert not inspect.iscoroutinefunction(plain)


def test_a_request_has_the_fields_of_a_call() -> None:
    """JobRequest is the arguments of job(), in their order, and a name for it."""
    fields = list(inspect.signature(prodia_async.JobRequest).parameters)
    assert fields == [*(name for name, _, _ in JOB_PARAMETERS), "via", "tag"]


def test_the_defaults_of_the_retry_policy() -> None:
    """The promised defaults."""
    assert prodia_async.RetryPolicy() == prodia_async.RetryPolicy(
        max_attempts=4,
        backoff_initial=0.5,
        backoff_max=8.0,
        max_retry_after=120.0,
        max_capacity_wait=600.0,
        retry_uncertain=False,
    )
    with pytest.raises(TypeError):
        prodia_async.RetryPolicy(3)  # type: ignore[call-arg]  # by keyword only


def fail(error: ProdiaError) -> None:
    raise error


def test_errors_cross_processes() -> None:
    """A worker's error arrives in the parent as what it was, with all it knows."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        for kind in ERRORS:
            error = full(kind)
            with pytest.raises(kind) as caught:
                pool.submit(fail, error).result(timeout=60)
            assert type(caught.value) is kind
            assert caught.value.__dict__ == error.__dict__
            assert str(caught.value) == str(error)


def test_errors_load_where_nothing_was_imported_yet() -> None:
    """The pickle alone brings the package along."""
    code = "import pickle, sys; print(type(pickle.load(sys.stdin.buffer)).__name__)"
    data = pickle.dumps(full(prodia_async.CapacityError))
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert done.stdout.split() == [b"CapacityError"]


def test_the_version_is_a_version() -> None:
    """A text of numbers and dots, as packaging tools want it."""
    assert isinstance(prodia_async.__version__, str)
    assert prodia_async.__version__[0].isdigit()
