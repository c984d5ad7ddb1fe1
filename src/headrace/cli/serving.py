"""`headrace serve`: only the server, for anybody who has an MLflow model."""

import re
import shutil
import tempfile
from pathlib import Path

from headrace import wiring
from headrace.cli.terminal import console, print_json, text_of
from headrace.config.component import EnvironmentKind
from headrace.config.settings import Settings, read_settings
from headrace.errors import InvalidInput
from headrace.provenance.digest import digest_folder
from headrace.provenance.formats import check_formats
from headrace.serving.control import Limits
from headrace.serving.standalone import serve as serve_standalone
from headrace.types import Json, ServedVersion

REGISTERED = re.compile(r"models:/([^/@]+)/(\d+)")


def serve(
    model: str, *, host: str, port: int, workers: str, python: Path | None, allow_pickle: bool, as_json: bool
) -> None:
    """Serve a model until it is stopped."""
    # Digits that `int` takes: `²` is one for `isdigit`, and thousands of them are too many.
    limits = Limits(workers=int(workers) if re.fullmatch("[0-9]{1,9}", workers) else workers)
    settings = read_settings().prepare()
    out = console(as_json=as_json)
    with tempfile.TemporaryDirectory(prefix="serve-", dir=settings.run) as place:
        folder = Path(place)
        with out.status(f"fetching {text_of(model)} …"):
            found = fetch(settings, model, folder)
        version = version_of(model, found, Path(), allow_pickle=allow_pickle)
        with out.status("building the model's environment …"):
            interpreter = python or environment_of(settings, found, folder)
        version = version_of(model, found, interpreter, allow_pickle=allow_pickle)

        def ready(url: str) -> None:
            if as_json:
                print_json(announcement(version, url))
                return
            out.print(f"[green]✓[/green] {version.component} answers at {url} (Ctrl-C stops it)")
            out.print(f"  what it takes: curl {url}/openapi.json", highlight=False)

        serve_standalone(
            version, settings=settings, folder=folder / "run", host=host, port=port, limits=limits, ready=ready
        )


def announcement(version: ServedVersion, url: str) -> dict[str, Json]:
    return {"component": version.component, "version": version.version, "url": url, "seal": version.seal}


def fetch(settings: Settings, model: str, folder: Path) -> Path:
    """Return a local folder with the model; a path is served from where it lies."""
    if Path(model).is_dir():
        return Path(model).resolve()
    if ":/" not in model:
        raise InvalidInput(f"There is no folder `{model}`.", "Name a folder, models:/NAME/VERSION or runs:/RUN/model.")
    return wiring.registry(settings).download(model, folder / "model")


def version_of(model: str, folder: Path, python: Path, *, allow_pickle: bool) -> ServedVersion:
    """Return what is served, sealed as it was found. Raises ModelRefused where it cannot be loaded."""
    check_formats(folder, allow_pickle=allow_pickle)
    named = REGISTERED.fullmatch(model)
    name = named[1] if named else re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-._") or "model"
    return ServedVersion(
        component=name,
        version=int(named[2]) if named else 0,
        model=folder,
        python=python,
        seal=digest_folder(folder).digest,
        allow_pickle=allow_pickle,
    )


def environment_of(settings: Settings, model: Path, folder: Path) -> Path:
    """Build what the model says that it needs, and return its interpreter."""
    project = folder / "project"
    project.mkdir()
    (project / "MLproject").write_text("name: served\n")
    for name in ("python_env.yaml", "requirements.txt"):
        if (model / name).is_file():
            shutil.copyfile(model / name, project / name)
    environments = wiring.environments_of(settings, EnvironmentKind.UV)
    return environments.build(environments.lock(project), progress=lambda _: None).python
