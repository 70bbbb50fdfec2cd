"""What mypy knows and other type checkers do not; checked, never run."""

from typing import assert_type

from prodia_async import AsyncProdia, Job, JobResponse


async def after_the_question_alone(client: AsyncProdia) -> None:
    """An exception is always true, so what is left after ``if outcome.error`` has a response."""
    async with client.map([Job("t")]) as outcomes:
        async for outcome in outcomes:
            if outcome.error:
                print(outcome.error)
            else:
                assert_type(outcome.response, JobResponse)
