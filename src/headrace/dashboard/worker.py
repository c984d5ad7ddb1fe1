"""A worker: one process that plays roles. On files it plays all of them; on PostgreSQL several share the work.

    python -m headrace.dashboard.worker train,serve

It joins the book of nodes, beats, claims what it does, and begins anew when others have declared it dead.
"""

import contextlib
import logging
import os
import signal
import stat
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from logging.handlers import RotatingFileHandler

from headrace import wiring
from headrace.clock import SystemClock
from headrace.config.settings import Settings, read_settings
from headrace.dashboard.post import Post
from headrace.dashboard.server import ControlServer, listen
from headrace.errors import HeadraceError
from headrace.lifecycle.control import Control
from headrace.lifecycle.durable import Role, roles_of
from headrace.lifecycle.engine import APPLICATION_VERSION, start_engine
from headrace.lifecycle.flows import FLOWS, PHASES
from headrace.lifecycle.home_lock import take_lock
from headrace.lifecycle.nodes.base import Node, Nodes, OneNode, Wish
from headrace.lifecycle.nodes.far import FarTarget
from headrace.lifecycle.nodes.heart import Heart
from headrace.lifecycle.nodes.membership import Membership
from headrace.lifecycle.nodes.shared import check_may_begin, check_several, check_shared
from headrace.lifecycle.nodes.sql import SqlNodes
from headrace.lifecycle.production import notify
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.upkeep.tokens import Tokens

LOG = logging.getLogger("headrace.worker")
#: A worker's log is set aside at this size, and so many old ones are kept.
LOG_BYTES, OLD_LOGS = 10_000_000, 3


def main() -> None:
    """Play the roles of the command line until SIGTERM; all of them where it names none. Endpoints go on without it."""
    settings = read_settings().prepare()
    try:
        roles = roles_of(sys.argv[1] if len(sys.argv) > 1 else "")
        if len(sys.argv) == 1:
            check_may_begin(settings)
        if len(roles) < len(Role):
            check_several(settings)
        Worker(settings, roles).play()
    except HeadraceError as error:
        sys.exit(f"{error.fact} {error.remedy}".strip())


@dataclass(slots=True)
class Worker:
    """One process with its roles.

    Attributes:
        make_rooms: returns the back ends.
        phases: what the phases of flows are.
    """

    settings: Settings
    roles: Sequence[Role]
    make_rooms: Callable[[Settings], Rooms] = wiring.rooms
    phases: Mapping[str, Callable[..., object]] = field(default_factory=lambda: PHASES)
    _ended: threading.Event = field(default_factory=threading.Event)
    _is_to_restart: bool = False

    def play(self) -> None:
        """Work until SIGTERM, and leave what runs where it is. Does not return.

        Raises:
            Conflict: another one works here or under this name, the folders are not shared, or versions differ.
            InvalidConfig: a setting is wrong.
            Unavailable: the control API's port is taken.
        """
        # Our own doings and the troubles of others; libraries tell each request and each table otherwise.
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", handlers=self._handlers())
        logging.getLogger("headrace").setLevel(logging.INFO)
        lock = take_lock(self.settings)
        notify.check(self.settings)
        tokens = Tokens(self.settings.home / "tokens.json", SystemClock())
        listening = listen(self.settings, tokens) if Role.CONTROL in self.roles else None
        book = book_of(self.settings)
        heart = Heart(book, self._node(), on_death=self._on_death)
        book.join(heart.node)
        heart.start()
        member = Membership(self.settings, book, heart) if isinstance(book, SqlNodes) else None
        if member is not None:
            member.clear_away()
        post = Post(self._start(heart, member), heart, member, self.roles, self._ended)
        heart.doing, heart.on_wish = post.doing, partial(self._on_wish, post)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ended.set())
        server = ControlServer(post.control, listening, self._ended) if listening is not None else None
        if server is not None:
            server.start()
            heart.node = replace(heart.node, url=server.url)
        if heart.node.wish is not Wish.WORK:  # Told while all this began.
            heart.on_wish(heart.node.wish)
        LOG.info("%s plays %s (pid %d)", heart.node.name, ", ".join(self.roles), os.getpid())
        post.work(lambda: server is None or server.is_answering())
        self._finish(post, server)
        os.close(lock)
        if self._is_to_restart:
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very command again
        # Steps that wait for a child have nothing more to do here; the child is found again at the next start.
        os._exit(0)

    def _handlers(self) -> list[logging.Handler]:
        self.settings.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.settings.logs / f"{self.settings.node}.log"
        kept = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=OLD_LOGS)
        # Where the output is a file (`run/control.log`) nobody cuts it: it is for a crash's last words.
        return [kept] if stat.S_ISREG(os.fstat(sys.stderr.fileno()).st_mode) else [logging.StreamHandler(), kept]

    def _node(self) -> Node:
        return Node(
            name=self.settings.node,
            roles=self.roles,
            session=uuid.uuid4().hex,
            protocol=APPLICATION_VERSION,
            headrace=version("headrace"),
            host=os.uname().nodename,
            pid=os.getpid(),
            labels=self.settings.labels,
            run=str(self.settings.run),
        )

    def _start(self, heart: Heart, member: Membership | None) -> Control:
        rooms = self.make_rooms(self.settings)
        far = FarTarget(heart.nodes)
        if Role.SERVE not in self.roles:
            rooms = replace(rooms, target=far)
        # Of several workers that could serve one does; the others stand by.
        taken = [role for role in self.roles if member is None or role is not Role.SERVE]
        engine = start_engine(rooms, roles=taken, flows=FLOWS, phases=dict(self.phases), member=member)
        far.ask = engine.ask
        return Control(engine.rooms, engine, heart.nodes)

    def _finish(self, post: Post, server: ControlServer | None) -> None:
        self._ended.set()
        if server is not None:
            server.stop()
        if post.heart.is_dead and post.member is not None:
            with contextlib.suppress(HeadraceError):
                post.member.clear_away()
        else:
            with contextlib.suppress(HeadraceError):
                post.heart.stop(comes_back=self._is_to_restart)
        post.control.engine.stop()

    def _on_wish(self, post: Post, wish: Wish) -> None:
        LOG.info("asked to %s", wish.value)
        if wish is Wish.RESTART:
            self._is_to_restart = True
            self._ended.set()
        if wish is Wish.DRAIN:
            post.control.engine.take_no_more()

    def _on_death(self) -> None:
        LOG.warning("others declared this worker dead and have its work; it begins anew")
        self._is_to_restart = True
        self._ended.set()


def book_of(settings: Settings) -> Nodes:
    """Return the installation's book of nodes. Raises Conflict where this machine does not share its folders."""
    if settings.database_url is None:
        return OneNode()
    book = SqlNodes(settings.database_url)
    check_shared(settings, book)
    return book


if __name__ == "__main__":
    main()
