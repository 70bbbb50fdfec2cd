"""The nouns: what is sent checks itself, what is received forgives."""

import copy
import json
import pickle
import time
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import on_both_loops
from hypothesis import given, settings
from hypothesis import strategies as st

from prodia_async._attempts import Timing
from prodia_async._errors import InvalidRequestError, ResponseError
from prodia_async._models import (
    Failed,
    Input,
    Job,
    JobRequest,
    JobResponse,
    Raised,
    Succeeded,
    wire_job,
)
from prodia_async._outputs import Output
from prodia_async._results import JobResult, Price, dollars_of, read_job_result, seed_of

LIVE: dict[str, Any] = {
    "id": "5ea5c1a5-7d2a-4b52-a3a4-7b3d5b7a0c11",
    "type": "inference.nano-banana.img2img.v2",
    "created_at": "2026-08-25T10:00:00.11Z",
    "updated_at": "2026-08-25T10:00:08Z",
    "expires_at": "2026-08-25T10:05:00.885Z",
    "state": {"current": "completed", "history": None},
    "config": {"prompt": "a \u003c b", "aspect_ratio": "auto", "output_image_count": 1},
    "metrics": {"elapsed": 7.5},
    "price": {"product": "inference-nano-banana", "dollars": 0.039},
    "new": {"field": [1]},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def read(**changes: Any) -> JobResult:
    """Read the live result with some fields changed."""
    job = read_job_result(json.dumps({**LIVE, **changes}).encode())
    assert job is not None
    return job


def test_a_live_result() -> None:
    """Every documented field has its type, and an unknown one is kept."""
    job = read()
    assert job.created_at == datetime(2026, 8, 25, 10, 0, 0, 110_000, tzinfo=UTC)
    assert job.price == Price(product="inference-nano-banana", dollars=0.039)
    assert job.metrics is not None
    assert (job.metrics.elapsed, job.metrics.ips) == (7.5, None)
    assert job.config == LIVE["config"]
    assert job.model_extra == {"new": {"field": [1]}}
    assert (job.succeeded, job.failed, job.failure) == (True, False, None)


@pytest.mark.parametrize(
    ("state", "succeeded", "failed"),
    [
        ("completed", True, False),
        ("processed", True, False),
        ("failed", False, True),
        ("cancelled", False, True),
        ("Completed", True, False),
        ("FAILED", False, True),
        (" Failed ", False, True),
        ("processing", False, False),
        (None, False, False),
    ],
)
def test_states(state: str | None, succeeded: bool, failed: bool) -> None:
    """Both words of success are success, in any letter case; what is neither is neither."""
    job = read(state={"current": state, "history": None})
    assert (job.succeeded, job.failed) == (succeeded, failed)


def test_what_a_job_cost() -> None:
    """A price that is none, negative or absent is no price; a free job costs nothing."""
    for dollars, cost in [(0.25, 0.25), (0.0, 0.0), (-1000, None), (None, None), ("x", None)]:
        assert dollars_of(read(price={"dollars": dollars})) == cost
    assert dollars_of(None) is dollars_of(read(price=None)) is None


def test_the_seed_that_was_used() -> None:
    """It is in the config as the server filled it in, if it is an integer there."""
    for config, seed in [
        ({"seed": 7}, 7),
        ({"seed": True}, None),
        ({"seed": "7"}, None),
        (None, None),
    ]:
        assert seed_of(read(config=config)) == seed
    assert seed_of(None) is None


def test_a_monstrous_result_does_not_hold_the_loop() -> None:
    """Megabytes of values in an odd shape are not read at all; a long text is."""
    for value in ("[1],", "1,", '{"a":1},'):
        text = b'{"created_at":"x","config":{"a":[' + value.encode() * 1_000_000 + b"1]}}"
        began = time.process_time()
        assert read_job_result(text) is None
        assert time.process_time() - began < 0.1
    assert read_job_result(b'{"config":{"image":"' + b"a" * 7_000_000 + b'"}}') is not None


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"error": "bad steps"}, "bad steps"),
        ({"error": ""}, None),
        ({"error": {"message": "deep", "code": 5}}, "deep"),
        ({"error": {"code": 5}}, "{'code': 5}"),
        ({"error": ["a"]}, "['a']"),
        ({"state": {"current": "failed", "history": [{"message": "a"}, {"message": "b"}]}}, "b"),
        ({"state": {"current": "failed", "history": [{"message": "a"}, {"message": 5}, "s"]}}, "a"),
        ({"state": {"current": "failed", "history": ["started", None, 5]}}, None),
        ({"state": {"current": "failed", "history": []}}, None),
        ({"state": {"current": "failed", "history": {"message": "x"}}}, None),
        ({"state": "failed"}, None),
    ],
)
def test_why_it_failed(changes: dict[str, Any], failure: str | None) -> None:
    """The error first, then the last message in the history, in any shape seen or feared."""
    job = read(**changes)
    assert job.failure == failure
    assert job.failed is ("state" in changes)


ODD = [
    None,
    True,
    5,
    -1,
    1.5,
    1e400,
    float("nan"),
    "",
    "x",
    [],
    ["x"],
    {},
    {"x": {"y": 1}},
    10**400,
]
FIELDS = [(name,) for name in LIVE] + [
    (name, inner) for name, each in LIVE.items() if isinstance(each, dict) for inner in each
]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("place", FIELDS, ids=".".join)
def test_one_odd_field_costs_that_field_only(place: tuple[str, ...], odd: object) -> None:
    """Any value of the wrong type anywhere leaves every other field as it was."""
    values = copy.deepcopy(LIVE)
    inner = values
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = odd
    job = read_job_result(json.dumps(values).encode())
    assert job is not None
    whole = read()
    for name in LIVE:
        if name != place[0]:
            assert getattr(job, name) == getattr(whole, name)
    if place == ("state", "history"):
        assert job.succeeded


@pytest.mark.parametrize(
    "wrapped",
    [b"%b", b"\xef\xbb\xbf%b", b"\r\n %b\r\n", b"%b\n", b"\xef\xbb\xbf\r\n%b\n"],
)
def test_what_may_stand_around_it(wrapped: bytes) -> None:
    """A byte order mark, CRLF and a final newline do not matter."""
    assert read_job_result(wrapped % json.dumps(LIVE).encode()) == read()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (b'{"seed": %b}' % (b"9" * 5000), {"seed": float("inf")}),
        (b'{"seed": 18446744073709551617}', {"seed": 2**64 + 1}),
        (b'{"p": "\\ud800"}', {"p": "\ud800"}),
        (b'{"p": "caf\xe9"}', {"p": "caf\ufffd"}),
        (b'{"p": 1, "p": 2}', {"p": 2}),
        (b'{"p": Infinity}', {"p": float("inf")}),
    ],
)
def test_json_at_its_edges(config: bytes, expected: object) -> None:
    """What strict readers refuse is read, since the pictures that go with it are paid for."""
    job = read_job_result(b'{"id": "x", "state": {"current": "failed"}, "config": %b}' % config)
    assert job is not None
    assert job.config == expected
    assert job.failed
    assert job.id == "x"


def test_deep_nesting() -> None:
    """What is too deep for one reader goes to another; what is too deep for both is no result."""
    deep = b'{"id": "x", "config": {"a": %b}}'
    job = read_job_result(deep % (b"[" * 400 + b"]" * 400))
    assert job is not None
    assert job.id == "x"
    assert read_job_result(deep % (b"[" * 200_000 + b"]" * 200_000)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"5",
        b"{",
        b"{}{}",
        b"<html>",
        b"\x00\xff",
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_no_object_is_no_result(content: bytes) -> None:
    """None, not an error."""
    assert read_job_result(bytearray(content)) is None


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@settings(deadline=None)
def test_reading_never_raises(content: bytes) -> None:
    """A result or None, whatever comes."""
    job = read_job_result(memoryview(content))
    assert job is None or repr(job)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from([*LIVE, "model_config", "__class__", "failed", ""]), JSON))
def test_any_object_is_a_result(values: dict[str, Any]) -> None:
    """An object never loses the whole, and its judgements can always be asked."""
    job = read_job_result(json.dumps(values).encode())
    assert job is not None
    assert (job.failed, job.succeeded) != (True, True)
    assert job.failure is None or isinstance(job.failure, str)


def test_no_price_spoils_a_sum() -> None:
    """NaN and infinite dollars are read as absent."""
    for dollars in (float("nan"), float("inf"), "NaN"):
        job = read(price={"product": "p", "dollars": dollars})
        assert job.price == Price(product="p")


def test_results_are_short_in_print_and_whole_in_a_pickle() -> None:
    """A picture in the config does not flood a log; nothing is lost by pickling."""
    job = read(config={"image": "A" * 10**6})
    assert len(repr(job)) < 1000
    assert "5ea5c1a5" in repr(job)
    assert pickle.loads(pickle.dumps(job)) == copy.deepcopy(job) == job


class TestJob:
    def test_wire_forms(self) -> None:
        """A Job and a mapping of the same are one; a type without config has none."""
        config = {"prompt": "x"}
        assert wire_job(Job("t", config)) == {"type": "t", "config": config}
        assert wire_job(Job("t")) == {"type": "t"}
        workflow = types.MappingProxyType({"type": "workflow.serial.v1", "jobs": [{}]})
        assert wire_job(workflow) is workflow

    @pytest.mark.parametrize(
        ("job", "message"),
        [
            ("inference.x", "must be a Job"),
            (None, "must be a Job"),
            ([], "must be a Job"),
            (b"x" * 1000, "<1000 bytes>"),
            ({}, "needs a 'type'"),
            ({"Type": "x", 5: 1}, "'Type'"),
            ({"type": ""}, "not ''"),
            ({"type": " "}, "not ' '"),
            ({"type": 10**5000}, "not <int"),
            ({"type": None}, "not None"),
        ],
    )
    def test_what_is_no_job(self, job: Any, message: str) -> None:
        """It is refused with the form that is expected, in a short sentence."""
        with pytest.raises(InvalidRequestError) as caught:
            wire_job(job)
        assert message in str(caught.value)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("kind", ["", None, 5, b"t"])
    def test_bad_type(self, kind: Any) -> None:
        """A Job checks its type when it is made."""
        with pytest.raises(InvalidRequestError, match="needs a type such as"):
            Job(kind)

    @pytest.mark.parametrize("config", [[], "x", b"x", 5])
    def test_bad_config(self, config: Any) -> None:
        """And its config."""
        with pytest.raises(InvalidRequestError, match="must be a mapping"):
            Job("t", config)

    def test_print_and_pickle(self) -> None:
        """Short without the contents of bytes; whole after a pickle."""
        job = Job("t", {"a": b"secret", "b": "x" * 10**6, "c": 10**5000})
        assert len(repr(job)) < 300
        assert "secret" not in repr(job)
        assert pickle.loads(pickle.dumps(job)) == copy.deepcopy(job) == job
        assert repr(Job("t", {"a": 1})) == "Job(type='t', config={'a': 1})"


class TestInput:
    @pytest.mark.parametrize("content", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
    def test_bytes(self, content: Any) -> None:
        """Anything with bytes is kept as bytes, so a later change of a buffer does not matter."""
        each = Input(content, size=3)
        if isinstance(content, bytearray):
            content[0] = 0
        assert each.content == b"abc"

    def test_paths(self) -> None:
        """A text is a path, never content."""
        assert Input("a/b.png").content == Path("a/b.png") == Input(Path("a/b.png")).content

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((5,), "not int"),
            ((None,), "not NoneType"),
            (([1],), "not list"),
            ((Input(b""),), "not Input"),
            ((types,), "not module"),
            ((lambda: None,), "needs its size"),
            ((b"abc", None, None, 4), "an input of 3 bytes was said to have size=4"),
            ((b"abc", None, None, -1), "must be a number of bytes, not -1"),
            ((b"abc", None, None, True), "not True"),
            ((b"abc", None, None, 3.0), "not 3.0"),
            ((b"abc", None, None, 10**5000), "said to have size=<int"),
            ((b"abc", ""), "filename must be a string that is not empty, not ''"),
            ((b"abc", b"a"), "filename must be a string that is not empty, not <1 bytes>"),
            ((b"abc", "a", 5), "content_type must be a string that is not empty, not 5"),
        ],
    )
    def test_what_is_no_input(self, arguments: tuple[Any, ...], message: str) -> None:
        """It is refused when it is made, with what came."""
        with pytest.raises(InvalidRequestError) as caught:
            Input(*arguments)
        assert message in str(caught.value)

    def test_print_copy_pickle(self) -> None:
        """The bytes never show; a pickle has them."""
        each = Input(b"secret", "a.png", "image/png")
        assert "secret" not in repr(each)
        assert "a.png" in repr(each)
        assert pickle.loads(pickle.dumps(each)) == copy.copy(each) == each


class TestJobRequest:
    def test_an_iterator_of_inputs_is_kept(self) -> None:
        """A request that is used twice has its inputs both times."""
        request = JobRequest(Job("t"), inputs=iter([b"a", b"b"]))  # type: ignore[arg-type]  # a mistake that costs nothing
        assert list(request.inputs) == list(request.inputs) == [b"a", b"b"]

    def test_its_print_has_no_secrets(self) -> None:
        """Neither the bytes of inputs nor the values of headers show."""
        request = JobRequest(Job("t"), [b"secret"], extra_headers={"x": "secret"})
        assert "secret" not in repr(request)
        assert "Job(type='t'" in repr(request)
        assert "secret" not in repr(Failed(0, request, None, cast("Raised", ValueError())))

    def test_pickle(self) -> None:
        """It goes to another process whole."""
        request = JobRequest(Job("t", {"a": 1}), [Input(b"x", "a")], price=True)
        assert pickle.loads(pickle.dumps(request)) == request


def response(*outputs: Output) -> JobResponse:
    return JobResponse(JobResult(id="j"), outputs, "r", (), Timing(0, 0, 1, 1))


def test_the_first_output() -> None:
    """It is there, or an error tells which job made none."""
    output = Output(b"x", "image/png")
    assert response(output, Output(b"y", "image/png")).output is output
    with pytest.raises(ResponseError, match=r"without an output.*\(job j\)") as caught:
        _ = response().output
    assert caught.value.request_id == "r"
    # A ping makes none, and nothing was lost with it.
    assert "charged" not in str(caught.value)
    with pytest.raises(ResponseError, match=r"response\.job$"):
        _ = JobResponse(None, (), None, (), Timing(0, 0, 1, 1)).content


def test_what_one_types_first() -> None:
    """Bytes, seed, dollars and config without looking whether the server said them."""
    job = read(config={"seed": 7, "steps": 4}, price={"dollars": 0.25})
    full = JobResponse(job, (Output(b"x", "image/png"),), "r", (), Timing(0, 0, 1, 1), {"a": "b"})
    assert (full.content, full.seed, full.dollars) == (b"x", 7, 0.25)
    assert (full.config, full.headers, full.cached) == ({"seed": 7, "steps": 4}, {"a": "b"}, False)
    for job_result in (None, JobResult(id="j")):
        bare = JobResponse(job_result, (), None, (), Timing(0, 0, 1, 1))
        assert (bare.seed, bare.dollars, bare.config, bare.headers) == (None, None, {}, {})


@on_both_loops
async def test_saving_a_response(tmp_path: Path) -> None:
    """The first output goes where it was told, by its own rules."""
    output = Output(b"x", "image/png")
    assert await response(output).save(f"{tmp_path}/out/") == tmp_path / "out" / "output.png"
    assert await response(Output(b"y", "a/b")).save(tmp_path / "out" / "output.png") == (
        tmp_path / "out" / "output-2.png"
    )
    with pytest.raises(ResponseError, match="without an output"):
        await response().save(tmp_path)


def test_unwrap() -> None:
    """An outcome gives its response, or raises its error; either travels whole."""
    request = JobRequest(Job("t"), tag="mine")
    answer = response()
    good = Succeeded(0, request, answer, tag=request.tag)
    assert (good.unwrap(), good.error, good.tag) == (answer, None, "mine")
    bad = Failed(1, request, None, cast("Raised", KeyError("no")), request.tag)
    assert (bad.response, bad.tag) == (None, "mine")
    with pytest.raises(KeyError):
        bad.unwrap()
    assert pickle.loads(pickle.dumps(good)) == good
    assert repr(pickle.loads(pickle.dumps(bad))) == repr(bad)


def test_an_outcome_is_true_if_it_was_answered() -> None:
    """Whatever its response and its error are worth, and of either API."""
    good = Succeeded(0, JobRequest(Job("t")), response())
    bad = Failed(1, JobRequest(Job("t")), None, cast("Raised", KeyError("no")))
    assert [bool(each) for each in (good, bad, Succeeded(0, None, ()))] == [True, False, True]
    assert [each.response for each in (good, bad) if each] == [good.response]


def test_how_a_job_is_run_is_one_of_two_words() -> None:
    """Anything else is refused when the request is made."""
    assert JobRequest(Job("t"), via="async").via == "async"
    wrong: Any
    for wrong in ("a-sync", None, []):
        with pytest.raises(InvalidRequestError, match='via must be "sync" or "async"'):
            JobRequest(Job("t"), via=wrong)


def test_responses_pickle() -> None:
    """A response goes to another process whole."""
    answer = response(Output(b"x", "image/png", "a"))
    assert pickle.loads(pickle.dumps(answer)) == answer


def test_an_input_is_no_url() -> None:
    """Nothing is fetched here, and that is said."""
    with pytest.raises(InvalidRequestError, match=r"cannot be a URL.*download it first"):
        Input("https://example.com/a.png")
