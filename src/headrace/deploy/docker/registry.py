"""Serve images in an OCI registry: pushed under `NAME:vN`, named by digest from then on, verified when they come back.

Who may do that is docker's own affair: `docker login`, or a credential helper in its configuration.
"""

import json
import re
from dataclasses import dataclass

from headrace.deploy.docker.engine import Engine, EngineFailed, Image
from headrace.errors import Conflict, InvalidInput, ModelRefused, NotFound
from headrace.types import ServedVersion

TRANSFER_S = 3600.0
LOOPBACK = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?/")
REPOSITORY = re.compile(r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+$")


@dataclass(frozen=True, slots=True)
class Stored:
    """An image in a registry.

    Attributes:
        repository: `registry.example.com/team/digits`.
        tag: for people; only `digest` says what is meant.
        digest: of its manifest, `sha256:…`.
    """

    repository: str
    tag: str
    digest: str

    @property
    def reference(self) -> str:
        """What to deploy: the repository with the digest."""
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Repository:
    """One component's images in one registry."""

    engine: Engine
    name: str

    def __post_init__(self) -> None:
        if not REPOSITORY.match(self.name):
            raise InvalidInput(
                f"`{self.name}` is no repository.",
                "Write for example `registry.example.com/team/digits`, without a tag.",
            )

    def push(self, image: Image, version: int) -> Stored:
        """Push an image as `vN` and return what it is called from now on; a repeat changes nothing.

        Raises:
            Conflict: the registry has other content under that tag; nothing is overwritten.
            Unavailable: the registry does not answer, or refuses.
        """
        tag = f"v{version}"
        before = self.digest(tag)
        if before is not None and f"{self.name}@{before}" not in image.digests:
            raise Conflict(
                f"{self.name}:{tag} is in the registry with the digest {before[7:19]}, which is not the image "
                f"{image.id[7:19]} that was built for version {version}; nothing was pushed.",
                f"See who pushed it; pull it with `docker pull {self.name}@{before}`.",
            )
        self.engine.run("tag", image.id, f"{self.name}:{tag}")
        said = self.engine.run("push", f"{self.name}:{tag}", timeout_s=TRANSFER_S)
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
        digest = found[1] if found else self.digest(tag)
        if digest is None:
            raise NotFound(f"{self.name}:{tag} is not in the registry after it was pushed.", "Push it again.")
        return Stored(self.name, tag, digest)

    def digest(self, tag: str) -> str | None:
        """Return the digest that a tag has in the registry now; None where it has no such tag.

        Raises:
            Unavailable: the registry does not answer, or refuses.
        """
        # The command speaks to the registry itself; like the engine, it takes loopback without TLS.
        insecure = ["--insecure"] if LOOPBACK.match(f"{self.name}/") else []
        try:
            said = self.engine.run("manifest", "inspect", "--verbose", *insecure, f"{self.name}:{tag}", timeout_s=60)
        except EngineFailed as error:
            if re.search(r"(?i)no such manifest|manifest unknown|name unknown|not found", error.fact):
                return None
            raise
        document = json.loads(said)
        if isinstance(document, list):  # Several platforms: the list's own digest is not told.
            raise InvalidInput(f"{self.name}:{tag} is an image for several platforms; headrace pushes one.")
        return str(document["Descriptor"]["digest"])

    def pull(self, stored: Stored, version: ServedVersion) -> Image:
        """Fetch an image by its digest and compare it with the version that it is for.

        Raises:
            ModelRefused: it was built from another baseline or holds another model.
            Conflict: its tag points elsewhere by now.
            Unavailable: the registry does not answer, refuses, or has it no more.
        """
        now = self.digest(stored.tag)
        if now is not None and now != stored.digest:
            raise Conflict(
                f"The tag {self.name}:{stored.tag} was moved: it has the digest {now[7:19]}, version {version.version} "
                f"was pushed as {stored.digest[7:19]}.",
                f"See who moved it; `docker tag {stored.reference} {self.name}:{stored.tag}` and a push put it back.",
            )
        self.engine.run("pull", "--quiet", stored.reference, timeout_s=TRANSFER_S)
        image = self.engine.image(stored.reference)
        check_image(image, version)
        return image


def check_image(image: Image, version: ServedVersion) -> None:
    """Raise ModelRefused where an image's labels name another baseline or model than the version's.

    The model itself is compared with its seal when the image is built, and by each worker when it starts.
    """
    wanted = {"component": version.component, "version": str(version.version)}
    wanted |= {"baseline": version.baseline} if version.baseline else {}
    wanted |= {"seal": version.seal} if version.seal else {}
    for name, value in wanted.items():
        found = image.labels.get(f"org.headrace.{name}", "")
        if found != value:
            raise ModelRefused(
                f"The image {image.id[7:19]} is not that of {version.component} version {version.version}: its {name} "
                f"is {found[:12] or 'not named'}, not {value[:12]}.",
                f"Build it again: `headrace image build {version.component}/{version.version}`.",
            )
