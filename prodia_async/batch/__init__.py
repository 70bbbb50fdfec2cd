"""
Many jobs into a folder, overnight, and the truth about them in the morning.

::

    async with AsyncProdia() as client:
        async with Batch("strawberries/", client, max_cost=25.0) as batch:
            summary = await batch.run(read_jobs("prompts.csv", job_type="..."))
    print(summary)

The record of a run is one SQLite file in its folder; `BatchRecord` reads it at any time, while
the run goes on too. What was finished is never paid for again by the same folder. It needs the
extra ``batch``.
"""

# What is behind this door:
#
# `_values`             what goes in and comes out, as frozen values
# `_decide`             every decision: plain functions, no waiting
# `_rows`, `_grid`      jobs from files, and every combination of some values
# `_trade`              one face for both APIs
# `_folder`, `_opening` who holds a folder, what a dead run left in it
# `_record`, `_admit`   the SQLite file and its one writer; rows held against it
# `_outputs`            files, shards, stores: made safe before the record says so
# `_going`              what a run is made of: options, counts, rows
# `_run`, `_batch`      the run itself, and its public face
# `_standing`           where a run stands; `_ends`, `_watch` and `_submissions` look at it
# `_planning`           what a run would do
# `_progress`           the live line
# `_reader`             a record read: rows, sums, verification; `_snapshot`, at one moment
# `_batch_record`       its public face; behind it `_export`, manifests, and:
# `_report`, `_sheet`   the page and the pictures for people (`_figures`, `_pictures`: what
#                       is counted, plotted and made small for them)
# `_objects`, `_carry`  a store as the record, and a run carried there and back
# `_cluster`, `_lease`  one of many workers, and whether its driver lives (`_driver`)

from ._batch import Batch
from ._batch_record import BatchRecord
from ._carry import to_folder, to_store
from ._grid import grid
from ._rows import read_jobs
from ._values import (
    BadRow,
    BatchChangedError,
    BatchError,
    BatchJob,
    BatchPlan,
    BatchProgress,
    BatchSummary,
    Figure,
    FolderInUseError,
    PriceUnknownError,
    RecordDamagedError,
    Row,
)

__all__ = [
    "BadRow",
    "Batch",
    "BatchChangedError",
    "BatchError",
    "BatchJob",
    "BatchPlan",
    "BatchProgress",
    "BatchRecord",
    "BatchSummary",
    "Figure",
    "FolderInUseError",
    "PriceUnknownError",
    "RecordDamagedError",
    "Row",
    "grid",
    "read_jobs",
    "to_folder",
    "to_store",
]

for _name in __all__:
    _value = globals()[_name]
    if isinstance(_value, type):
        _value.__module__ = __name__  # tracebacks and pickles name the door
