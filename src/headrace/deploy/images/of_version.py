"""From a version to its serve image: the one that the engine has, or one that is built now."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.config.settings import Settings
from headrace.deploy.docker.engine import Engine, Image
from headrace.deploy.images.build import DEFAULT_BASE, LABEL, Images
from headrace.environment.base import Environment, Lock
from headrace.errors import InvalidConfig
from headrace.types import ServedVersion


@dataclass(frozen=True, slots=True)
class ServeImages:
    """Gives the serve image of any version whose locked environment is on this machine."""

    engine: Engine
    settings: Settings

    def __call__(self, version: ServedVersion) -> str:
        """Return the image's id. Raises ModelRefused, EnvironmentFailed or Unavailable where it cannot be built."""
        tag = f"{version.component}:v{version.version}"
        image = self.engine.find(tag)
        if image is not None:
            known = (image.labels.get(f"{LABEL}.seal"), image.labels.get(f"{LABEL}.baseline"))
            if known == (version.seal, version.baseline) and version.seal:
                return image.id
        return self.build(version).id

    def build(self, version: ServedVersion) -> Image:
        """Build the image, with what the engine's cache has; raises as above."""
        return images(self.engine, self.settings).serve(version, environment_of(version))


def images(engine: Engine, settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Images:
    """Return what builds images as the settings say. Raises InvalidConfig."""
    base = settings.variables.get("HEADRACE_BASE_IMAGE") or DEFAULT_BASE
    own = settings.variables.get("HEADRACE_IMAGE_TEMPLATES")
    if own and not Path(own).is_dir():
        raise InvalidConfig(
            f"HEADRACE_IMAGE_TEMPLATES is `{own}`, which is no folder.",
            f"Make it with `headrace image templates {own}`, or unset it.",
        )
    return Images(engine, settings, base_image=base, templates=Path(own) if own else None, progress=tell)


def environment_of(version: ServedVersion) -> Environment:
    """Return the locked environment that a version's interpreter belongs to.

    Raises:
        InvalidConfig: it is an inherited one, which cannot be put into an image.
    """
    folder = version.python.parent.parent
    try:
        text = (folder / "requirements.lock").read_text()
        python = str(json.loads((folder / ".ready").read_text())["python"])
    except (OSError, ValueError, KeyError) as cause:
        raise InvalidConfig(
            f"{version.component} version {version.version} has no locked environment: {folder} is not headrace's.",
            "Set `environment: uv` and train again.",
        ) from cause
    return Environment(folder.name, Path(version.python), Lock(folder.name, text, python))
