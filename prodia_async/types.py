"""
The types that signatures and attributes have, for annotations of one's own.

::

    from prodia_async.types import InputLike, JobLike

    async def make(job: JobLike, pictures: Sequence[InputLike]) -> bytes: ...

What is built, caught or returned by itself is at the front door, `prodia_async`.
"""

from ._attempts import Fate
from ._base import TokenSource
from ._errors import Stage
from ._formats import Format, Subsampling
from ._grid import Grid
from ._map import Outcomes
from ._models import Content, InputFactory, InputLike
from ._options import JobLike, JobOptions, Options, Validate
from ._results import JobMetrics, JobState
from ._retry import Stop, Wait
from ._sessions import Unfinished

__all__ = [
    "Content",
    "Fate",
    "Format",
    "Grid",
    "InputFactory",
    "InputLike",
    "JobLike",
    "JobMetrics",
    "JobOptions",
    "JobState",
    "Options",
    "Outcomes",
    "Stage",
    "Stop",
    "Subsampling",
    "TokenSource",
    "Unfinished",
    "Validate",
    "Wait",
]
