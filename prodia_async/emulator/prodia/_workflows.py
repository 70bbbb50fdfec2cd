"""
Workflows: several jobs in one, the output of each an input of the next.

The documents show the request and name three uses (generate and check, generate
and change, picture first and film then). Chosen, where they are silent: the
first output of a step goes to the next, in the place of the first file its
configuration does not name; uploaded files that a later step names are kept for
it; the last step's outputs are the workflow's, in the format that was asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .._refusals import bad_request
from ._accept import Wanted
from ._catalogue import CATALOGUE
from ._jobs import (
    Plan,
    dress,
    filled_before,
    picture_size,
    plan,
    refuse_equal_names,
    route,
    used_inputs,
)
from ._kinds import PICTURES
from ._schema import check, report

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ._behaviour import Behaviour
    from ._forms import Form
    from ._kinds import JobType, Medium

_NSFW = re.compile(r"\bnsfw\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Output:
    """What a step hands on: the medium, and the size if it is a picture."""

    medium: Medium | None
    size: tuple[int, int] | None


def offers(kind: JobType, job: Mapping[str, Any]) -> tuple[str, ...]:
    """List the media types a job's first output can be asked for in."""
    if kind.work != "serial":
        return kind.offers
    names = [step.get("type") for step in _members(job)]
    kinds = [CATALOGUE[name] for name in names if isinstance(name, str) and name in CATALOGUE]
    making = [kind for kind in kinds if kind.work != "moderate"]
    return making[-1].offers if making else PICTURES


def members(job: Mapping[str, Any]) -> Any:
    """Find the list of a workflow: at the top as documented, or in ``config``, as was seen live."""
    config = job.get("config")
    if "jobs" in job or not isinstance(config, dict):
        return job.get("jobs")
    return config.get("jobs")


def _members(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    jobs = members(job)
    return [step for step in jobs if isinstance(step, dict)] if isinstance(jobs, list) else []


def make_plan(
    kind: JobType,
    job: Mapping[str, Any],
    form: Form,
    wanted: Wanted,
    *,
    behaviour: Behaviour,
    privileged: Collection[str],
) -> Plan:
    """
    Plan any job, a workflow or not.

    Args:
        kind: What `route` found.
        job: The configuration.
        form: The body, for its inputs.
        wanted: The form of the answer.
        behaviour: What is allowed.
        privileged: Types the token may not run, in workflows either.

    Raises:
        Refused: As `plan` does, for any of the steps.
    """
    if kind.work == "serial":
        return _serial(kind, job, form, wanted, behaviour=behaviour, privileged=privileged)
    made = plan(kind, job, form, wanted, behaviour)
    if kind.work == "moderate":
        return replace(made, failure=_moderation(made, "", behaviour))
    return made


def _serial(
    kind: JobType,
    job: Mapping[str, Any],
    form: Form,
    wanted: Wanted,
    *,
    behaviour: Behaviour,
    privileged: Collection[str],
) -> Plan:
    given = job
    if "jobs" not in job and (found := members(job)) is not None:
        job = {"type": job["type"], "jobs": found}
    failures = check(kind.schema, job)
    kinds: list[JobType] = []
    if not failures:
        for index, member in enumerate(job["jobs"]):
            kinds.append(route(member, privileged, behaviour))
            filled = filled_before(kinds[-1], member, behaviour)
            failures += check(kinds[-1].schema, filled, f"/jobs/{index}")
    if failures:
        raise bad_request(report(kind.name, failures))
    if any(inner.work == "serial" for inner in kinds):
        raise bad_request(f"{kind.name}: a workflow cannot be a step of another")
    if behaviour.strict_filenames:
        refuse_equal_names(form.inputs)
    last = max((i for i, inner in enumerate(kinds) if inner.work != "moderate"), default=-1)
    # Files that a later step names are not for the first one.
    later = {
        name
        for inner, member in zip(kinds[1:], job["jobs"][1:], strict=True)
        for name in _names(inner, member.get("config") or {})
    }
    steps: list[Plan] = []
    before: _Output | None = None
    for index, (inner, member) in enumerate(zip(kinds, job["jobs"], strict=True)):
        config = member.get("config") or {}
        takes_before = before is not None and inner.inputs[1] > 0
        if takes_before and before is not None and before.medium not in inner.takes:
            raise bad_request(
                f"at '/jobs/{index}': {inner.name} cannot take what the step before it makes"
            )
        if index == 0:
            sent = tuple(item for item in form.inputs if item.filename not in later)
        else:
            sent = form.inputs if _names(inner, config) else ()
        inputs, place = used_inputs(inner, config, sent, before=takes_before)
        sizes = [picture_size(inner, item) for item in inputs]
        if place is not None and before is not None:
            sizes.insert(place, before.size)
        step = dress(
            inner,
            member,
            inputs,
            sizes,
            wanted=wanted if index == last else Wanted(),
            behaviour=replace(behaviour, poster=behaviour.poster and index == last),
            chained=place,
        )
        if inner.work == "moderate":
            prompt = next((done.prompt for done in reversed(steps) if done.prompt), "")
            step = replace(step, failure=_moderation(step, prompt, behaviour))
        steps.append(step)
        before = _handed_on(step, before)
    return Plan(
        kind=kind,
        request=given,
        config={},
        wanted=wanted,
        failure=next((step.failure for step in steps if step.failure), None),
        steps=tuple(steps),
    )


def _names(kind: JobType, config: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for field in kind.filename_fields:
        value = config.get(field, [])
        names += value if isinstance(value, list) else [value]
    return names


def _handed_on(step: Plan, before: _Output | None) -> _Output | None:
    match step.kind.work:
        case "nothing":
            return None
        case "film":
            return _Output("video", None)
        case "vector":
            return _Output(None, None)
        case "moderate":
            return before or _Output("image", step.size)
        case _:
            return _Output("image", step.size)


def _moderation(step: Plan, prompt: str, behaviour: Behaviour) -> str | None:
    score = behaviour.moderation
    if score is None:
        score = 0.99 if _NSFW.search(prompt) else 0.01
    threshold = step.config["threshold"]
    if score < threshold:
        return None
    return f"{step.kind.name}: moderation rejected the image: score {score}, threshold {threshold}"
