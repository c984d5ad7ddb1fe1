"""Where this installation keeps its things, and what the environment says. The only reader of `os.environ`."""

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.config.s3 import S3Access, checked_url, read_s3
from headrace.errors import InvalidConfig
from headrace.files import write_atomically

#: Variables that every child process may see; anything else is passed on purpose or not at all.
CHILD_VARIABLES = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE",
)  # fmt: skip
RESERVE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Settings:
    """One installation.

    Attributes:
        state: keys, environments and caches, shared by all homes (mode 0700). `HEADRACE_STATE`.
        home: runs, ledger, flows, predictions, deployments of one workspace. `HEADRACE_HOME`; by default `state/home`.
        tracking_uri: the MLflow server to use; None where headrace keeps its own store in `home`.
        variables: the environment as it was at the start, for children.
    """

    state: Path
    home: Path
    tracking_uri: str | None = None
    actor: str = "person:unknown"
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def environments(self) -> Path:
        return self.state / "environments"

    @property
    def uv_cache(self) -> Path:
        return Path(self.variables.get("UV_CACHE_DIR") or self.state / "cache" / "uv")

    @property
    def target(self) -> str:
        """Where versions serve: `process`, `docker`, `torchserve` or `torchserve-docker`. `HEADRACE_TARGET`."""
        return self.variables.get("HEADRACE_TARGET") or "process"

    @property
    def control_address(self) -> str:
        """Where the control process listens, as HOST:PORT; empty for loopback and a free port. `HEADRACE_CONTROL`."""
        return self.variables.get("HEADRACE_CONTROL", "")

    @property
    def webhook_url(self) -> str:
        """Where every decision is sent. `HEADRACE_WEBHOOK_URL`, signed with `HEADRACE_WEBHOOK_SECRET`."""
        return self.variables.get("HEADRACE_WEBHOOK_URL", "")

    @property
    def control_url(self) -> str:
        """A control process elsewhere, which commands then talk to. `HEADRACE_URL`, with `HEADRACE_TOKEN`."""
        return self.variables.get("HEADRACE_URL", "").rstrip("/")

    @property
    def database_url(self) -> str | None:
        """The PostgreSQL of ledger and flows; None where they are files. `HEADRACE_DATABASE_URL`, or `…_FILE`.

        Raises:
            InvalidConfig: the named file cannot be read, or is empty: a ledger of its own would begin.
        """
        return self._database("HEADRACE_DATABASE_URL")

    def _database(self, variable: str) -> str | None:
        named, file = self.variables.get(variable), self.variables.get(f"{variable}_FILE")
        url = named or (_secret(f"{variable}_FILE", file) if file else "")
        # SQLAlchemy would take the plain name for a driver that is not installed.
        return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url) or None

    @property
    def predictions_url(self) -> str:
        """Where prediction logs are kept, `s3://BUCKET/PREFIX`; empty for `predictions`. `HEADRACE_PREDICTIONS_URL`."""
        url = self.variables.get("HEADRACE_PREDICTIONS_URL", "")
        return checked_url(url, "HEADRACE_PREDICTIONS_URL") if url else ""

    @property
    def artifacts_url(self) -> str:
        """Where `headrace mlflow` keeps artifacts, `s3://BUCKET/PREFIX`. `HEADRACE_ARTIFACTS_URL`."""
        url = self.variables.get("HEADRACE_ARTIFACTS_URL", "")
        return checked_url(url, "HEADRACE_ARTIFACTS_URL") if url else ""

    @property
    def s3(self) -> S3Access:
        """How object stores are reached; see `config.s3`. Raises InvalidConfig."""
        return read_s3(self.variables)

    @property
    def mlflow_database_url(self) -> str | None:
        """The PostgreSQL that `headrace mlflow` keeps its tables in. `HEADRACE_MLFLOW_DATABASE_URL`, or `…_FILE`."""
        return self._database("HEADRACE_MLFLOW_DATABASE_URL")

    @property
    def ledger_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'ledger.db'}"

    @property
    def kept_data(self) -> Path:
        """Copies of data inputs, each in a folder that is named by its digest."""
        return self.home / "data" / "kept"

    @property
    def flows_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'flows.db'}"

    @property
    def mlflow_uri(self) -> str:
        """The tracking and registry URI that runs are written to."""
        return self.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Where runs keep their files when headrace keeps the store."""
        return self.home / "artifacts"

    @property
    def byte_code(self) -> Path:
        """Where all children keep the byte code of what they import."""
        return self.state / "cache" / "pyc"

    @property
    def predictions(self) -> Path:
        return self.home / "predictions"

    @property
    def models(self) -> Path:
        """Verified, read-only, content-addressed copies of model folders."""
        return self.home / "models"

    @property
    def run(self) -> Path:
        """Pid files, sockets and logs of what runs on this machine. `HEADRACE_RUN`; by default `home/run`."""
        return Path(self.variables.get("HEADRACE_RUN") or self.home / "run").absolute()

    @property
    def node(self) -> str:
        """What this machine's worker is called among others. `HEADRACE_NODE`; by default the host's name."""
        return self.variables.get("HEADRACE_NODE") or socket.gethostname().partition(".")[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """What else is to be known about this machine, such as `gpu`. `HEADRACE_LABELS`, separated by commas."""
        return tuple(filter(None, map(str.strip, self.variables.get("HEADRACE_LABELS", "").split(","))))

    @property
    def locks(self) -> Path:
        """Files that are locked for what one worker at a time may do, of all machines."""
        return self.home / "locks"

    @property
    def logs(self) -> Path:
        """What the workers of all machines write, a file for each."""
        return self.home / "logs"

    @property
    def reserve(self) -> Path:
        """A file that is given up when the disk is full, so that a flow can still write how it ended."""
        return self.home / "reserve"

    @property
    def flows(self) -> Path:
        """A folder for each flow: checkout, logs, events."""
        return self.home / "flows"

    def child_environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables for a child process: an allow-list, never headrace's own keys or tokens."""
        passed = {name: self.variables[name] for name in CHILD_VARIABLES if name in self.variables}
        # Byte code goes into the cache rather than into anybody's checkout; without any, torch and mlflow take 20 s to
        # import instead of 5.
        own = {"PYTHONPYCACHEPREFIX": str(self.byte_code), "PYTHONUNBUFFERED": "1"}
        return passed | own | dict(extra or {})

    def prepare(self) -> "Settings":
        """Make the folders, the state folder unreadable to others, and return self."""
        for folder in (self.state, self.home, self.run, self.flows):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.state.chmod(0o700)
        if not self.reserve.exists():
            self.reserve.write_bytes(bytes(RESERVE_BYTES))
        self._remember_home()
        return self

    def homes(self) -> list[Path]:
        """Return the homes that share this state folder and are still there."""
        named = [Path(mark.read_text()) for mark in (self.state / "homes").glob("*.path")]
        known = {self.home, self.state / "home", *named}
        return sorted(home for home in known if home.is_dir())

    def _remember_home(self) -> None:
        """Note the home, so that nobody who cleans up the state folder takes away what it needs."""
        mark = self.state / "homes" / f"{hashlib.sha256(bytes(self.home)).hexdigest()[:16]}.path"
        if not mark.exists():
            write_atomically(mark, str(self.home))


def read_settings(variables: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that the environment asks for."""
    env = dict(os.environ if variables is None else variables)
    xdg = Path(env.get("XDG_STATE_HOME") or Path(env.get("HOME") or Path.home()) / ".local" / "state")
    state = Path(env.get("HEADRACE_STATE") or xdg / "headrace").absolute()
    return Settings(
        state=state,
        home=Path(env.get("HEADRACE_HOME") or state / "home").absolute(),
        tracking_uri=_absolute(env.get("MLFLOW_TRACKING_URI", "")) or None,
        actor=env.get("HEADRACE_ACTOR") or f"person:{_user(env)}",
        variables=env,
    )


def _secret(variable: str, file: str) -> str:
    """Return what a file holds that a variable names. Raises InvalidConfig where that is nothing."""
    try:
        found = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidConfig(
            f"{file} ({variable}) cannot be read: {why}.", f"Make it readable, or unset {variable}."
        ) from error
    if not found:
        raise InvalidConfig(f"{file} ({variable}) is empty.", f"Write the address into it, or unset {variable}.")
    return found


def _absolute(uri: str) -> str:
    """Return a tracking URI that means the same in every working directory; a checkout is one of its own."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    is_path = "/" in uri and ":" not in uri
    return str(Path(uri).absolute()) if is_path else uri


def _user(env: Mapping[str, str]) -> str:
    name = env.get("USER") or env.get("LOGNAME")
    if name:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A user id without a name, as in many containers.
        return str(os.getuid())
