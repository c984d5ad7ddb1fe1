"""`headrace image`: a version's serve image, built from its baseline, pushed and pulled by digest."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headrace.deploy.docker.engine import Engine, Image
    from headrace.lifecycle.rooms import Rooms
    from headrace.lifecycle.versions import VersionRecord
    from headrace.types import Json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Images that serve one version each.")

Version = Annotated[str, typer.Argument(help="A version: digits/3; digits alone is its champion.")]
Repository = Annotated[str, typer.Argument(help="Where to, without a tag: registry.example.com/team/digits")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.command()
def build(version: Version, as_json: AsJson = False) -> None:
    """Build the image that serves a version, NAME:vN. The version is checked against its baseline before.

    Example: headrace image build digits/3
    """
    from headrace.cli.terminal import console, good, print_json

    out = console(as_json=as_json)
    rooms, record, engine = _opened(version)
    with _progress(out, f"building {record.component}:v{record.version}"):
        image = _built(rooms, record, engine)
    _state(rooms, record, {"image": image.id})
    tag = f"{record.component}:v{record.version}"
    if as_json:
        print_json({"tag": tag, "image": image.id, "layers": [*image.layers], "baseline": record.baseline})
        return
    good(f"{tag} is {image.id}")
    out.print(f"  {engine.program} run --read-only --tmpfs /tmp --cap-drop ALL -p 8080:8080 {tag}", markup=False)


@app.command()
def push(version: Version, repository: Repository, as_json: AsJson = False) -> None:
    """Push a version's image as REPOSITORY:vN; sign its digest. Nothing in the registry is overwritten.

    Example: headrace image push digits/3 registry.example.com/team/digits
    """
    from headrace.cli.terminal import console, good, print_json
    from headrace.deploy.docker import registry

    out = console(as_json=as_json)
    rooms, record, engine = _opened(version)
    place = registry.Repository(engine, repository)
    with _progress(out, f"building {record.component}:v{record.version}"):
        image = _built(rooms, record, engine)
    with _progress(out, f"pushing to {repository}"):
        stored = place.push(image, record.version)
    _state(rooms, record, {"image": image.id, "reference": stored.reference})
    if as_json:
        print_json({"reference": stored.reference, "tag": stored.tag, "image": image.id})
        return
    good(stored.reference)


@app.command()
def pull(
    version: Version,
    repository: Repository,
    digest: Annotated[
        str, typer.Option(help="sha256:… as `push` told it; by default the one that was signed here.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Fetch a version's image by its digest, and check it. It is compared with the baseline; a tag that was moved is
    refused.

    Example: headrace image pull digits/3 registry.example.com/team/digits
    """
    from headrace.cli.terminal import console, good, print_json
    from headrace.deploy.docker import registry
    from headrace.lifecycle.versions import served_version
    from headrace.types import Stage

    out = console(as_json=as_json)
    rooms, record, engine = _opened(version)
    stored = registry.Stored(repository, f"v{record.version}", digest or _pushed(rooms, record, repository))
    served = served_version(rooms, record.component, record.version, Stage.PRODUCTION)
    with _progress(out, f"pulling {stored.reference}"):
        image = registry.Repository(engine, repository).pull(stored, served)
    if as_json:
        print_json({"reference": stored.reference, "image": image.id})
        return
    good(f"{stored.reference} is the image of {record.component} v{record.version}")


@app.command()
def templates(
    folder: Annotated[Path, typer.Argument(help="Where to put them; files that are there are left alone.")],
    as_json: AsJson = False,
) -> None:
    """Copy headrace's Dockerfiles, to change them. HEADRACE_IMAGE_TEMPLATES names their folder from then on.

    Example: headrace image templates docker/
    """
    from headrace.cli.terminal import console, good, print_json
    from headrace.deploy.images.build import write_templates

    written = [str(path) for path in write_templates(folder)]
    if as_json:
        print_json({"written": [*written]})
        return
    out = console()
    for path in written:
        good(path)
    out.print(f"Use them: export HEADRACE_IMAGE_TEMPLATES={folder.absolute()}", markup=False, soft_wrap=True)


def _opened(version: str) -> "tuple[Rooms, VersionRecord, Engine]":
    from headrace.cli.baseline import find, open_rooms
    from headrace.deploy.docker.engine import find_engine

    rooms = open_rooms()
    record = find(rooms, version)
    return rooms, record, find_engine(rooms.settings)


def _built(rooms: "Rooms", record: "VersionRecord", engine: "Engine") -> "Image":
    from headrace.deploy.images.of_version import ServeImages
    from headrace.lifecycle.evidence.doors import verify_version
    from headrace.lifecycle.versions import served_version
    from headrace.types import Stage

    verify_version(rooms, record.component, record.version)
    served = served_version(rooms, record.component, record.version, Stage.PRODUCTION)
    return ServeImages(engine, rooms.settings).build(served)


def _state(rooms: "Rooms", record: "VersionRecord", facts: "dict[str, Json]") -> None:
    from headrace.lifecycle.evidence.statements import state
    from headrace.provenance.attest import Kind

    known: dict[str, Json] = {"version": record.version, **facts}
    state(rooms, record, Kind.IMAGE, known, at=datetime.now(UTC), actor=rooms.settings.actor)


def _pushed(rooms: "Rooms", record: "VersionRecord", repository: str) -> str:
    """Return the digest under which the version was pushed to a repository last. Raises NotFound."""
    from headrace.errors import NotFound
    from headrace.lifecycle.evidence.statements import read

    found = [str(one.facts.get("reference", "")).rpartition("@") for one in read(rooms, record).good]
    digests = [digest for name, _, digest in found if name == repository]
    if not digests:
        raise NotFound(
            f"No push of {record.component} v{record.version} to {repository} is signed here.",
            "Give the digest that `headrace image push` told: --digest sha256:…",
        )
    return digests[-1]


@contextmanager
def _progress(out: Any, text: str) -> Iterator[None]:
    from headrace.cli.terminal import text_of

    with out.status(f"{text_of(text)} …"):
        yield
