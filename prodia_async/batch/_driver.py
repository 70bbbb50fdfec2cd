"""The driver's side of a run on many machines: its settings, its sign of life."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING

from ._cluster import check_settings
from ._lease import RENEWALS
from ._objects import LEASE, ObjectRecord
from ._values import BatchError

if TYPE_CHECKING:
    from ._cluster import WorkerOptions


class Lease:
    """
    Renews a run's lease from a thread of its own until it is released, or the process ends.

    A process that is killed renews nothing, and that is the point.

    Args:
        record: Where the lease lies.
        seconds: How long it holds without being renewed.
    """

    def __init__(self, record: ObjectRecord, seconds: float) -> None:
        self._record = record
        self.seconds = seconds
        self._run = uuid.uuid4().hex
        self._beat = 0
        self.over = threading.Event()
        self.put()  # now, so that a store that cannot be written is found at once
        self._thread = threading.Thread(
            target=self._renew, name="prodia-lease", args=(weakref.ref(self),), daemon=True
        )
        self._thread.start()
        atexit.register(_release, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<Lease on {self._record.url!r}, renewed {self._beat} times>"

    def put(self, *, released: bool = False) -> None:
        """Write it anew."""
        self._beat += 1
        said = {
            "beat": f"{self._run}-{self._beat}",
            "released": released,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "at": time.time(),
        }
        self._record.put(LEASE, json.dumps(said).encode())

    @staticmethod
    def _renew(ref: weakref.ref[Lease]) -> None:
        while (lease := ref()) is not None:
            over, seconds = lease.over, lease.seconds / RENEWALS
            del lease  # or it would never be collected
            if over.wait(seconds):
                return
            lease = ref()
            if lease is not None:
                # The workers stop when they see no change, and go on when they do.
                with contextlib.suppress(BatchError):
                    lease.put()

    def release(self) -> None:
        """Say that nobody is to start anything more."""
        if not self.over.is_set():
            self.over.set()
            self.put(released=True)


def _release(ref: weakref.ref[Lease]) -> None:
    lease = ref()
    if lease is not None:
        with contextlib.suppress(BatchError):  # it runs out by itself
            lease.release()


def begin(options: WorkerOptions, *, also: bool) -> Lease | None:
    """
    Begin a run, or go on with one: compare settings, and take the lease.

    Nothing is listed: a worker asks for each key before it sends a job, which
    takes 20 ms of waiting and no place in line, while ten million objects take
    half an hour to list (documented: S3 lists 1,000 a request).

    Returns:
        The lease; keep it while the run goes on.

    Raises:
        BatchChangedError: The store holds a run with other settings.
        BatchError: The store cannot be read or written.
    """
    record = ObjectRecord(options.to)
    check_settings(record, options, also=also)
    return Lease(record, options.lease_seconds) if options.lease_seconds else None
