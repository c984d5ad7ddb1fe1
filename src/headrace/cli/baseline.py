"""Commands about what a version is made of: show, verify, compare, export, check, restore, reproduce, adopt; and the
ledger's chain."""

import re
import secrets
from pathlib import Path

from headrace import wiring
from headrace.cli import client as control
from headrace.cli.terminal import console, good, print_json, table, text_of
from headrace.config.settings import read_settings
from headrace.errors import Conflict, InvalidInput, ModelRefused, NotFound
from headrace.files import write_atomically
from headrace.lifecycle.evidence import statements
from headrace.lifecycle.evidence.doors import baseline_of
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, recall, version_folder
from headrace.provenance import card, compare, verify
from headrace.provenance.attest import Kind
from headrace.provenance.baseline import read_baseline
from headrace.provenance.code import commits_between
from headrace.provenance.sign import trusted_signers
from headrace.types import Json, Stage


def open_rooms() -> Rooms:
    """Return this installation's back ends."""
    return wiring.rooms(control.here().prepare())


def find(rooms: Rooms, name: str) -> VersionRecord:
    """Return the version that `digits/3`, `digits/v3`, `models:/digits/3` or `digits` (its champion) means."""
    found = re.fullmatch(r"(?:models:/)?([^/@]+)(?:/v?(\d+))?(?:@champion)?", name)
    if found is None:
        raise InvalidInput(f"`{name}` names no version.", "Write for example digits/3, or digits for its champion.")
    if found[2]:
        return recall(rooms, found[1], int(found[2]))
    serving = rooms.ledger.serving(found[1], Stage.PRODUCTION)
    if serving is None or serving.version is None:
        known = ", ".join(rooms.ledger.components()) or "none yet"
        raise NotFound(f"`{found[1]}` has no champion (components: {known}).", f"Name a version: {found[1]}/1")
    return recall(rooms, found[1], serving.version)


def folder_of(rooms: Rooms, record: VersionRecord) -> Path:
    return version_folder(rooms, record.component, record.version) / "baseline"


def show(name: str, *, as_json: bool) -> None:
    """Show what a version is made of, and how each fact is known."""
    rooms = open_rooms()
    record = find(rooms, name)
    baseline = read_baseline(folder_of(rooms, record))
    stated = statements.read(rooms, record)
    if as_json:
        print_json(
            {"version": record.version, "digest": record.baseline, "baseline": baseline.as_json(),
             "attestations": [one.as_json() for one in stated.good], "problems": [*stated.problems]}
        )  # fmt: skip
        return
    rows = [[row.field, row.value, row.mark] for row in card.rows(baseline)]
    console().print(f"[bold]{record.component} v{record.version}[/bold], baseline {record.baseline}")
    console().print(table("", ["fact", "value", ""], rows))
    said = [[f"{one.at:%Y-%m-%d %H:%M}", one.kind.value, one.actor, one.in_short(), one.signer] for one in stated.good]
    if said:
        console().print(table("", ["attested (UTC)", "what", "by", "", "signed by"], said))
    for problem in stated.problems:
        console().print(f"[red]✗[/red] {text_of(problem)}")


def check_all(name: str, *, model: Path | None, as_json: bool) -> None:
    """Recompute every digest of a version, and name every file that differs."""
    rooms = open_rooms()
    record = find(rooms, name)
    trusted = trusted_signers(rooms.settings.keys)
    place = model or Path(record.model)
    found = verify.findings(folder_of(rooms, record), place, trusted, expected=record.baseline)
    # The baseline itself cannot be brought back from the registry's model; a copy of the model can.
    is_copy = all(sentence.endswith(f" in {place}") for sentence in found)
    stated = statements.read(rooms, record)
    is_copy = is_copy and bool(found)
    found += [f"attestations: {problem}" for problem in stated.problems]
    if as_json:
        print_json({"component": record.component, "version": record.version, "findings": [*found]})
    if found and as_json:
        raise SystemExit(ModelRefused.exit_code)
    if found:
        remedy = f"Fetch them again from run {record.run_id}, or look at `headrace history {record.component}`"
        if is_copy:
            remedy = (
                "" if model else f"Put a good copy in its place: headrace restore {record.component}/{record.version}"
            )
        raise ModelRefused("\n  ".join(found), remedy)
    if not as_json:
        signer = verify.verify(folder_of(rooms, record), None, trusted).signer
        files = len(read_baseline(folder_of(rooms, record)).model.files)
        good(
            f"{record.component} v{record.version}: {files} model files, golden answers, lock and "
            f"signature are as {signer} signed them (baseline {record.baseline[:12]}); {len(stated.good)} attestations"
        )


def diff(one: str, other: str, *, as_json: bool) -> None:
    """Say in words what changed between two versions."""
    rooms = open_rooms()
    records = find(rooms, one), find(rooms, other)
    before, after = (baseline_of(rooms, record) for record in records)
    metrics = tuple(dict(rooms.registry.run(record.run_id).metrics) for record in records)
    commits = commits_between(Path(records[1].folder), before.code.commit, after.code.commit)
    changes = compare.compare(before, after, metrics=(metrics[0], metrics[1]), commits=commits)
    if as_json:
        print_json(changes.as_json())
        return
    rows = [[section, sentence] for section, found in changes.sections.items() for sentence in found]
    title = f"{records[0].component} v{records[0].version} → v{records[1].version}"
    console().print(table(title, ["", "what changed"], rows) if rows else f"{title}: nothing differs")


def export(name: str, *, to: Path | None, as_json: bool) -> None:
    """Write a model card in Markdown."""
    rooms = open_rooms()
    record = find(rooms, name)
    verified = verify.verify(
        folder_of(rooms, record), None, trusted_signers(rooms.settings.keys), expected=record.baseline
    )
    decisions = [
        f"{entry.at:%Y-%m-%d %H:%M} UTC: {entry.action.value} by {entry.actor}: {entry.reason}"
        for entry in reversed(rooms.ledger.history(record.component, limit=1000))
        if entry.version == record.version
    ]
    metrics = rooms.registry.run(record.run_id).metrics
    holdout = {name.removeprefix("holdout_"): value for name, value in metrics.items() if name.startswith("holdout_")}
    text = card.model_card(
        verified.baseline, verified.digest, version=record.version, signer=verified.signer, metrics=holdout,
        attestations=statements.read(rooms, record).good, decisions=decisions,
    )  # fmt: skip
    if to is not None:
        write_atomically(to, text, mode=0o644)
    if as_json:
        print_json({"card": text, "path": str(to) if to else None})
    elif to is None:
        console().print(text, markup=False)
    else:
        good(str(to))


def preflight(name: str, *, as_json: bool) -> None:
    """Try a version in the interpreter that will serve it, and list every finding."""
    from headrace.lifecycle.evidence.readiness import examine

    rooms = open_rooms()
    record = find(rooms, name)
    baseline_of(rooms, record)
    result = examine(rooms, record.component, record.version, Stage.DEV)
    if as_json:
        found: list[Json] = [
            {"check": item.check, "fact": item.fact, "remedy": item.remedy} for item in result.findings
        ]
        print_json({"is_ready": result.is_ready, "findings": found, "numbers": result.numbers})
        if not result.is_ready:
            raise SystemExit(ModelRefused.exit_code)
        return
    for item in result.findings:
        console().print(f"{item.check}: {item.fact}\n  → {item.remedy}", markup=False)
    result.refuse()
    good(f"{record.component} v{record.version} is ready to serve: {result.sentence()}")


def restore(name: str, *, as_json: bool) -> None:
    """Bring back what serving a version needs."""
    from headrace.lifecycle.upkeep import environments

    rooms = open_rooms()
    record = find(rooms, name)
    out = console(as_json=as_json)
    found = environments.restore(
        rooms, record, baseline_of(rooms, record), tell=lambda text: out.print(f"  {text}", markup=False)
    )
    if as_json:
        print_json({"model": found.model or None, "environment": found.environment or None})
        return
    back = [place for place in (found.model, found.environment) if place]
    what = f"back: {', '.join(back)}" if back else "nothing was missing"
    good(f"{record.component} v{record.version}: {what}")


def reproduce(name: str, *, here: bool, as_json: bool) -> None:
    """Train a version again from its baseline, and say how alike the result is."""
    from headrace.lifecycle.candidates.reproduce import Likeness, Original, Workshop
    from headrace.lifecycle.candidates.reproduce import reproduce as train_again

    rooms = open_rooms()
    record = find(rooms, name)
    out = console(as_json=as_json)
    original = Original(
        record.version, baseline_of(rooms, record), folder_of(rooms, record), Path(record.folder),
        rooms.registry.run(record.run_id).metrics,
    )  # fmt: skip
    folder = rooms.settings.flows / f"reproduce-{record.component}-v{record.version}-{secrets.token_hex(3)}"
    workshop = Workshop(
        rooms.settings, rooms.environments(record.settings.environment), rooms.registry, folder,
        lambda text: out.print(f"  {text}", markup=False),
    )  # fmt: skip
    found = train_again(original, workshop, here=here)
    statements.state(
        rooms, record, Kind.REPRODUCED,
        {"likeness": found.likeness.value, "sentences": [*found.sentences], "run": found.run_id},
        at=rooms.clock.now(), actor=rooms.settings.actor,
    )  # fmt: skip
    if as_json:
        print_json(
            {"likeness": found.likeness.value, "sentences": [*found.sentences], "run": found.run_id,
             "numbers": dict(found.numbers)}
        )  # fmt: skip
    else:
        out.print(f"[bold]{found.likeness.value}[/bold]")
        for sentence in found.sentences:
            out.print(f"  {sentence}", markup=False)
    if found.likeness is Likeness.DIFFERENT:
        raise SystemExit(1)


def adopt(uri: str, *, folder: Path | None, reason: str, as_json: bool) -> None:
    """Seal a registered version that headrace did not train."""
    from headrace.config.component import Component
    from headrace.config.parse import read_component
    from headrace.lifecycle.candidates.adopt import adopt as take_in
    from headrace.types import Actor

    rooms = open_rooms()
    name = uri.removeprefix("models:/").partition("/")[0]
    component = read_component(folder.absolute()) if folder else Component(component=name)
    actor = Actor(rooms.settings.actor)
    record = take_in(rooms, uri, component, actor=actor, reason=reason or "adopted by hand")
    if as_json:
        print_json({"component": record.component, "version": record.version, "baseline": record.baseline})
        return
    good(f"{record.component} v{record.version}: baseline {record.baseline[:12]} sealed")
    console().print(f"  try it: headrace check {name}/{record.version}", markup=False)
    judge = f"headrace run {folder or 'FOLDER'} --version {record.version}"
    console().print(f"  judge it, and bring it to production: {judge}", markup=False)


def verify_ledger(component: str, *, as_json: bool) -> None:
    """Recompute the hash chains of the ledger, and compare them with what release tags anchor."""
    from headrace.lifecycle.evidence.chains import verify_chains

    client = control.elsewhere(read_settings())
    if client is not None:
        asked: dict[str, Json] = {"component": component} if component else {}
        results = client.ask("GET", "/api/ledger/verify", timeout_s=120, **asked)["chains"]
    else:
        results = [chain.as_json() for chain in verify_chains(open_rooms(), component)]
    if as_json:
        print_json({"chains": [*results]})
    broken = [result for result in results if result["problem"]]
    if broken and as_json:
        raise SystemExit(Conflict.exit_code)
    if broken:
        fact = "; ".join(f"{result['component']}: {result['problem']}" for result in broken)
        raise Conflict(fact, "Restore the ledger from a backup, and find out who wrote to it")
    if not as_json:
        for result in results:
            out = f"{result['component']}: {result['entries']} entries, head {str(result['head'])[:12]}"
            good(out)
