"""MLflow's aliases, as projections of the ledger: written from its outbox, and put back where somebody moved one."""

from headrace.ledger.base import Outbox
from headrace.lifecycle.rooms import Rooms
from headrace.types import Stage

CHAMPION = "champion"


def project(rooms: Rooms) -> None:
    """Write every alias that the ledger's moves ask for; a repeat writes nothing."""
    outbox = rooms.ledger
    assert isinstance(outbox, Outbox)
    for wanted in outbox.unwritten():
        if wanted.stage is Stage.PRODUCTION:
            rooms.registry.set_alias(wanted.component, CHAMPION, wanted.version)
        outbox.mark_written(wanted)
