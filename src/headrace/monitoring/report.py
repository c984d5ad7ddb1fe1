"""One self-contained HTML page about a replay: charts drawn as SVG, no script, nothing fetched."""

from collections.abc import Sequence
from html import escape

from headrace.monitoring.base import Consequence
from headrace.monitoring.replay import Replay, Seen
from headrace.monitoring.signals import estimated, inputs, output, quality

_WIDTH, _HEIGHT, _LEFT = 860, 150, 46
_COLOURS = {
    Consequence.NONE: "#8a94a6", Consequence.WARN: "#d98e04", Consequence.RETRAIN: "#c2410c",
    Consequence.ROLL_BACK: "#b91c1c", Consequence.REBUILD: "#7c3aed",
}  # fmt: skip
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem;color:#1f2937;background:#fff}
h1{font-size:1.5rem} h2{font-size:1.1rem;margin:1.6rem 0 .4rem} table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #e5e7eb;padding:.35rem .5rem;text-align:left;vertical-align:top}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em} svg{width:100%;height:auto}
summary{cursor:pointer} .dim{color:#6b7280}
"""


def html(replay: Replay) -> str:
    """Return the page."""
    counts, labels = replay.counts(), f" {escape(replay.labels)}" if replay.labels else ""
    shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no full window yet"
    monthly = f", which is {replay.per_month:.2g} a month at this traffic" if replay.per_month else ""
    charts = [
        ("Accuracy or mean error of labelled rows", _details(replay.windows, quality.NAME, "now")),
        ("Expected loss of all rows, estimated without labels", _details(replay.windows, estimated.NAME, "now")),
        ("Evidence of output drift, in powers of ten", _powers(replay.windows, output.NAME)),
        ("Evidence of input drift, in powers of ten", _powers(replay.windows, inputs.NAME)),
    ]
    drawn = "".join(
        f"<h2>{escape(title)}</h2>{_chart(values, replay.windows)}" for title, values in charts if any_value(values)
    )
    rows = "".join(_row(number, seen) for number, seen in enumerate(replay.windows, 1))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Watch of {escape(replay.component)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>Watch of {escape(replay.component)}</h1><p>{len(replay.windows)} windows: {escape(shown)}. The budget is "
        f"{replay.budget:g} false alarms per window{monthly}.{labels}</p>{drawn}<h2>Windows</h2>"
        f"<table><tr><th>#</th><th>until</th><th>version</th><th>rows (labelled)</th><th>verdict</th></tr>{rows}"
        "</table></body></html>"
    )


def any_value(values: Sequence[float | None]) -> bool:
    """Tell whether there is anything to draw."""
    return any(value is not None for value in values)


def _details(windows: Sequence[Seen], name: str, key: str) -> list[float | None]:
    found: list[float | None] = []
    for seen in windows:
        value = next((one.details.get(key) for one in seen.alarm.signals if one.name == name), None)
        found.append(float(value) if isinstance(value, int | float) else None)
    return found


def _powers(windows: Sequence[Seen], name: str) -> list[float | None]:
    from math import log10

    found: list[float | None] = []
    for seen in windows:
        p_value = next((one.p_value for one in seen.alarm.signals if one.name == name), None)
        found.append(None if p_value is None else -log10(max(p_value, 1e-30)))
    return found


def _chart(values: Sequence[float | None], windows: Sequence[Seen]) -> str:
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    reach = (high - low) or abs(high) or 1.0
    step = (_WIDTH - _LEFT - 10) / max(len(values) - 1, 1)
    points, dots = [], []
    for at, (value, seen) in enumerate(zip(values, windows, strict=True)):
        if value is None:
            continue
        x, y = _LEFT + at * step, 12 + (_HEIGHT - 30) * (1 - (value - low) / reach)
        points.append(f"{x:.1f},{y:.1f}")
        label = escape(f"window {at + 1}: {value:.4g}, {seen.alarm.consequence.value}")
        colour = _COLOURS[seen.alarm.consequence]
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{label}</title></circle>')
    axis = "".join(
        f'<text x="4" y="{y}" font-size="11" fill="#6b7280">{value:.3g}</text>'
        for value, y in ((high, 16), (low, _HEIGHT - 14))
    )
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke="#94a3b8" stroke-width="1.5"/>'
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{axis}{line}{"".join(dots)}</svg>'


def _row(number: int, seen: Seen) -> str:
    alarm = seen.alarm
    colour = _COLOURS[alarm.consequence]
    fired = "".join(f"<li>{escape(one.name)}: {escape(one.sentence)}</li>" for one in alarm.signals if one.fired)
    quiet = "".join(
        f'<li class="dim">{escape(one.name)}: {escape(one.sentence)}</li>' for one in alarm.signals if not one.fired
    )
    again = " (as before)" if alarm.repeats else ""
    return (
        f"<tr><td>{number}</td><td>{escape(seen.at)}</td><td>v{seen.version}</td><td>{seen.rows} ({seen.labelled})</td>"
        f'<td><details><summary><span class="dot" style="background:{colour}"></span>'
        f"<b>{escape(alarm.consequence.value)}</b>{again}: {escape(alarm.sentence)}</summary><ul>{fired}{quiet}</ul>"
        "</details></td></tr>"
    )
