"""The ASGI application: one desk, and the APIs at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from ._desk import Desk
from .fireworks._api import Fireworks
from .prodia._api import Prodia

if TYPE_CHECKING:
    from ._capacity import Capacity
    from ._ledger import Ledger
    from ._script import Plans
    from ._settings import Settings
    from .fireworks._webhooks import Webhook
    from .prodia._store import Store


class App:
    """The application that a server serves, and the desk that the APIs share."""

    def __init__(
        self,
        settings: Settings,
        capacity: Capacity,
        ledger: Ledger,
        plans: Plans,
        store: Store,
        *,
        samples_port: int,
        webhooks: list[Webhook],
    ) -> None:
        self.desk = desk = Desk(settings, capacity, ledger)
        prodia = Prodia(desk, plans, store)
        fireworks = Fireworks(desk, plans.jobs, samples_port=samples_port, webhooks=webhooks)
        self.asgi = Starlette(
            routes=[*prodia.routes(), *fireworks.routes()],
            exception_handlers={HTTPException: prodia.no_route},
        )
        # A wrong path is a 404 with a request id, not a redirect without one.
        self.asgi.router.redirect_slashes = False
