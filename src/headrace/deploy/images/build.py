"""Images of a component: a base with its locked environment, and from that base those that train and serve."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

from headrace.config.settings import Settings
from headrace.deploy.docker.engine import Engine, EngineFailed, Image
from headrace.deploy.images.context import Contexts, minor
from headrace.environment.base import Environment
from headrace.errors import Unavailable
from headrace.files import sha256_file, sha256_json
from headrace.types import ServedVersion

TEMPLATES = Path(__file__).parent / "templates"
DEFAULT_BASE = "python:3.11-slim"
LABEL = "org.headrace"


@dataclass(frozen=True, slots=True)
class TaggedImage:
    """An image, and the name that it was given when it was built."""

    image: Image
    tag: str


@dataclass(frozen=True, slots=True)
class Images:
    """Builds images on one engine.

    Attributes:
        base_image: what the base image begins with; its Python must be the environment's.
        templates: a user's own Dockerfiles, used in place of headrace's where they exist.
    """

    engine: Engine
    settings: Settings
    base_image: str = DEFAULT_BASE
    templates: Path | None = None
    progress: Callable[[str], None] = lambda _: None

    def base(self, environment: Environment) -> Image:
        """Build, or find among the engine's images, the base image of an environment.

        It is built again where the engine knows `base_image` as another image now than it was built on.
        """
        tag, recipe = _base_tag(environment), self._recipe("base")
        found, under = self.engine.find(tag), self.engine.find(self.base_image)
        # One that the engine has under no name, fetched by a build or removed since, moved nowhere.
        known = found.labels.get(f"{LABEL}.base", "") if found else ""
        below = under.id if under else known
        if found is not None and found.labels.get(f"{LABEL}.recipe") == recipe:
            if below == known:
                return found
            if known:
                self.progress(f"{self.base_image} was {known[:19]} and is {below[:19]} now: images are built on that")
        context = self._contexts.environment(environment)
        arguments = {"BASE_IMAGE": self.base_image, "PYTHON": minor(environment.lock.python)}
        labels = {f"{LABEL}.environment": environment.digest, f"{LABEL}.recipe": recipe, f"{LABEL}.base": below}
        return self._build("base", context, tag, arguments, labels)

    def train(
        self, component: str, environment: Environment, project: Path, *, commit: str = "", brought: str = ""
    ) -> TaggedImage:
        """Build the image that trains: the project's code on the base image, or on one that it brings along."""
        if not brought:
            self.base(environment)
        labels = {f"{LABEL}.component": component, f"{LABEL}.environment": environment.digest}
        labels |= {"org.opencontainers.image.revision": commit} if commit else {}
        tag = f"{component}-train:{(commit or environment.digest)[:12]}"
        with self._contexts.train(component, project) as context:
            image = self._build("train", context, tag, {"BASE": brought or _base_tag(environment)}, labels)
        return TaggedImage(image, tag)

    def serve(self, version: ServedVersion, environment: Environment, *, commit: str = "", run: str = "") -> Image:
        """Build the image that serves one sealed version, `COMPONENT:vN`. Raises ModelRefused on a broken seal."""
        self.base(environment)
        labels = {
            f"{LABEL}.component": version.component,
            f"{LABEL}.version": str(version.version),
            f"{LABEL}.baseline": version.baseline,
            f"{LABEL}.seal": version.seal,
            f"{LABEL}.environment": environment.digest,
            f"{LABEL}.server": installed_version("headrace"),
            "org.opencontainers.image.title": version.component,
            "org.opencontainers.image.version": str(version.version),
        }
        labels |= {"org.opencontainers.image.revision": commit} if commit else {}
        labels |= {f"{LABEL}.run": run} if run else {}
        tag = f"{version.component}:v{version.version}"
        with self._contexts.serve(version) as context:
            return self._build("serve", context, tag, {"BASE": _base_tag(environment)}, labels)

    def torchserve(self, environment: Environment, home: Path, launch: Path) -> Image:
        """Build, or find among the engine's images, the image of TorchServe for the versions of one environment.

        Args:
            home: the folder of an installed TorchServe.
            launch: the file that starts its workers.

        Raises:
            Unavailable: there is no Java in it.
        """
        base = self.base(environment)
        context = self._contexts.torchserve(environment.python, home, launch)
        tag, recipe = f"headrace-torchserve:{environment.digest[:16]}", self._recipe("torchserve")
        labels = {
            f"{LABEL}.environment": environment.digest,
            f"{LABEL}.recipe": f"{recipe}-{context.parent.name}",
            f"{LABEL}.base": base.id,
        }
        found = self.engine.find(tag)
        if found is not None and labels.items() <= found.labels.items():
            return found
        try:
            return self._build("torchserve", context, tag, {"BASE": _base_tag(environment)}, labels)
        except EngineFailed as error:
            if "has no Java" not in error.fact:
                raise
            raise Unavailable(
                f"TorchServe needs Java 17, and the base image {self.base_image} has none.",
                "Name one that has it in HEADRACE_BASE_IMAGE (add `openjdk-17-jre-headless` to it), or take it from "
                "another image in a torchserve.Dockerfile of your own: `headrace image templates docker/`.",
            ) from error

    def _build(
        self, kind: str, context: Path, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]
    ) -> Image:
        self.progress(f"building the {kind} image {tag}")
        return self.engine.build(context, self._template(kind), tag=tag, arguments=arguments, labels=labels)

    def _template(self, kind: str) -> Path:
        own = self.templates / f"{kind}.Dockerfile" if self.templates else None
        return own if own is not None and own.is_file() else TEMPLATES / f"{kind}.Dockerfile"

    def _recipe(self, kind: str) -> str:
        """Return what tells whether an image of the same content was built in the same way."""
        return sha256_json({"dockerfile": sha256_file(self._template(kind)), "base": self.base_image})[:16]

    @property
    def _contexts(self) -> Contexts:
        return Contexts(self.settings, self.progress)


def write_templates(folder: Path) -> list[Path]:
    """Copy headrace's Dockerfiles to a folder of the user's, who owns them from then on; none is overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for template in sorted(TEMPLATES.glob("*.Dockerfile")):
        target = folder / template.name
        if not target.exists():
            shutil.copy(template, target)
            written.append(target)
    return written


def _base_tag(environment: Environment) -> str:
    return f"headrace-base:{environment.digest[:16]}"
