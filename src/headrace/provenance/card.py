"""A baseline for people: as rows to show, and as a model card in Markdown.

rows(baseline) -> list[Row]                       # field, value, checked or stated
model_card(baseline, digest, …) -> str            # from the same facts
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.provenance.attest import Attestation
from headrace.provenance.baseline import Baseline
from headrace.types import Json


@dataclass(frozen=True, slots=True)
class Row:
    """One fact; `mark` is `checked` or `stated`."""

    field: str
    value: str
    mark: str


def rows(baseline: Baseline) -> list[Row]:
    """Return what a baseline says, in reading order."""
    code, environment, model = baseline.code, baseline.environment, baseline.model
    found = [
        ("at", baseline.at[:19].replace("T", " ") + " UTC"),
        ("actor", baseline.actor),
        ("reason", baseline.reason),
        ("run_id", baseline.run_id),
        ("code.repository", code.repository),
        ("code.commit", code.commit or "none"),
        ("code.branch", code.branch),
        ("code.subfolder", code.subfolder),
        ("code.is_dirty", _dirt(baseline)),
        ("code.is_shallow", "a shallow clone" if code.is_shallow else ""),
        ("code.is_detached", "a detached HEAD" if code.is_detached else ""),
        *((f"data.{use}.sha256", _data(baseline, use)) for use in baseline.data),
        ("parameters", ", ".join(f"{name}={value}" for name, value in sorted(baseline.parameters.items()))),
        ("environment.python", f"{environment.python} on {environment.platform} ({environment.kind})"),
        ("environment.digest", f"{environment.digest} ({len(environment.packages)} packages)"),
        ("model.digest", f"{model.digest} ({len(model.files)} files)"),
        ("model.formats", ", ".join(model.formats)),
        ("model.pickled", ", ".join(model.pickled)),
        ("model.tensors", model.tensors),
        (
            "golden",
            f"{baseline.golden.rows} rows, tolerance {baseline.golden.tolerance:g}" if baseline.golden else "none",
        ),
    ]
    return [Row(name, value, _mark(baseline, name)) for name, value in found if value]


def _mark(baseline: Baseline, name: str) -> str:
    return baseline.marks.get(name, "")


def _dirt(baseline: Baseline) -> str:
    code = baseline.code
    if not code.has_git:
        return f"not under git; digest of the files {code.diff[:12]}"
    if not code.diff:
        return "clean"
    return f"dirty: {', '.join(code.changed_files[:5])} (diff {code.diff[:12]})"


def _data(baseline: Baseline, use: str) -> str:
    facts = baseline.data[use]
    counted = f", {facts.rows} rows" if facts.rows is not None else ""
    return f"{facts.sha256} ({facts.uri}{counted})"


def model_card(
    baseline: Baseline,
    digest: str,
    *,
    version: int | None = None,
    signer: str = "",
    metrics: Mapping[str, float] | None = None,
    attestations: Sequence[Attestation] = (),
    decisions: Sequence[str] = (),
) -> str:
    """Return a model card in Markdown.

    Args:
        metrics: of the holdout.
        decisions: lines of the ledger about this version, oldest first.
    """
    title = f"{baseline.component}, version {version}" if version is not None else baseline.component
    signed = f", signed by {signer}" if signer else ""
    parts = [
        f"# {title}",
        f"Baseline `{digest}`{signed}, sealed {baseline.at[:19].replace('T', ' ')} UTC.",
        _table("What it is made of", ("fact", "value", "how known"), [_cells(row) for row in rows(baseline)]),
        _signature(baseline.model.signature),
        _table(
            "Measured on the holdout",
            ("metric", "value"),
            [(name, f"{value:.4f}") for name, value in (metrics or {}).items()],
        ),
        _table("Data", ("use", "rows", "columns", "sha256"), _data_rows(baseline)),
        _listing("Attestations", [_attested(item) for item in attestations]),
        _listing("Decisions", decisions),
        _table("Packages", ("package", "version"), list(baseline.environment.packages.items())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    return (row.field, f"`{row.value}`" if row.field.endswith((".digest", ".commit")) else row.value, row.mark)


def _data_rows(baseline: Baseline) -> list[tuple[str, ...]]:
    return [
        (use, str(facts.rows if facts.rows is not None else ""), _some(list(facts.columns), 8), f"`{facts.sha256}`")
        for use, facts in baseline.data.items()
    ]


def _signature(signature: Mapping[str, Json] | None) -> str:
    if not signature:
        return ""
    found: list[tuple[str, ...]] = []
    for side in ("inputs", "outputs"):
        fields = signature.get(side)
        for item in fields if isinstance(fields, list) else []:
            if isinstance(item, dict):
                found.append(
                    (side, str(item["name"] or "(one tensor)"), str(item["dtype"]), str(item["shape"] or "column"))
                )
    return _table("Signature", ("side", "name", "type", "shape"), found)


def _attested(item: Attestation) -> str:
    return (
        f"{item.at:%Y-%m-%d %H:%M} UTC, {item.kind.value} by {item.actor}: {item.in_short()} (signed by {item.signer})"
    )


def _listing(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    drawn = [head, ["---"] * len(head), *lines]
    return f"## {title}\n\n" + "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in drawn)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _some(names: Sequence[str], count: int) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
