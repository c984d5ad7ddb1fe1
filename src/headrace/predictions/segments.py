"""The prediction log on disk: Parquet segments and journals, one folder per component."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.bucket import Bucket
from headrace.clock import Clock, SystemClock
from headrace.errors import InvalidInput, Unavailable
from headrace.predictions import actuals as truths
from headrace.predictions import snapshot
from headrace.predictions.base import Counts, Delays, Joined
from headrace.predictions.batch import Batch, batch_of, deep_column, encode
from headrace.predictions.depth import DEEPEST, flat_json
from headrace.predictions.ids import Ids, lowest
from headrace.predictions.journal import SUFFIX, Journal
from headrace.predictions.labels import delays_in
from headrace.predictions.query import COUNTS, connect
from headrace.predictions.remote import Remote
from headrace.predictions.roll import roll
from headrace.predictions.snapshot import Snapshot
from headrace.predictions.tables import predictions, raw_id, storage
from headrace.types import Actual, Json, Prediction

log = logging.getLogger(__name__)
_END = "~"
_ROLL_ACTUALS_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows, sorted by id, that need not be loaded yet."""

    first: str
    last: str
    version: int
    place: Callable[[], Path] | None
    table: pa.Table | None

    def tables(self, after: str) -> Iterator[pa.Table]:
        """Yield the rows in order of their ids, a part at a time; parts without an id above `after` are not read."""
        if self.table is not None:
            yield self.table
            return
        assert self.place is not None
        floor, path = raw_id(after) if after else b"", self.place()
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    ids = file.metadata.row_group(group).column(0).statistics
                    if ids is None or not ids.has_min_max or ids.max > floor:
                        yield file.read_row_group(group)
        except (OSError, pa.ArrowInvalid) as cause:
            remedy = f"headrace predictions check {_component(path)} --repair"
            raise Unavailable(
                f"The prediction segment {path} cannot be read ({cause}).",
                f"Restore it from a backup, or set it aside: {remedy}.",
            ) from cause


class SegmentLog:
    """`PredictionLog` over `folder`, as `PredictionWriter` fills it.

    With a store, segments go there (`ship`), and what all nodes have there is read together with what is here still.
    """

    def __init__(self, folder: Path, *, store: Bucket | None = None, clock: Clock | None = None) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock or SystemClock()
        self._ids = Ids(self._clock)

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Keep answered rows; durable when it returns. A front uses `PredictionWriter` instead."""
        for component in {one.component for one in predictions}:
            batches = [batch_of(one) for one in predictions if one.component == component]
            for batch in batches:
                _refuse_strange_id(batch.ids[0])
                _refuse_deep(batch)
            path = self._folder / component / "journals" / f"{self._ids.new()}-append{SUFFIX}"
            try:
                journal = Journal(path)
                try:
                    journal.append(encode(batches), sync=True)
                finally:
                    journal.close()
            except OSError as cause:
                raise Unavailable(f"{path.parent} cannot be written: {cause.strerror or cause}.") from cause
            try:
                roll(self._folder / component)
            except OSError as cause:  # They are kept and can be read; whoever comes next rolls them.
                log.warning("The predictions in %s are not rolled: %s", path.parent, cause)

    def append_actuals(self, component: str, actuals: Sequence[Actual]) -> None:
        truths.append(self._folder / component, actuals, clock=self._clock)

    def joined(
        self, component: str, *, after: str = "", limit: int | None = None, version: int | None = None
    ) -> Sequence[Joined]:
        seen = self.snapshot(component)
        parts: list[pa.Table] = []
        for piece, horizon in _with_horizon(_pieces(seen, after, version)):
            parts += _first_rows(piece, after, version, limit)
            # Rows below the next piece's first are final; later pieces cannot come in between.
            if limit is not None and sum(_rows_below(part, horizon) for part in parts) >= limit:
                break
        found = [one for part in _oldest(parts, limit) for one in predictions(part, component)]
        found.sort(key=lambda one: one.id)
        found = found[:limit]
        known = _truths_of(seen, found)
        return [Joined(one, known.get(one.id), one.id in known) for one in found]

    def counts(self, component: str, *, since: datetime | None = None) -> Counts:
        seen = self.snapshot(component)
        with connect(seen, since=lowest(since) if since else "") as connection:
            row = connection.execute(COUNTS).fetchone() or (0,) * 8
        return Counts(*(int(value or 0) for value in row))

    def delays(self, component: str, *, since: datetime, now: datetime) -> Delays:
        return delays_in(self.snapshot(component), since=since, now=now)

    def snapshot(self, component: str) -> Snapshot:
        """Return what is there now. Raises Unavailable."""
        return snapshot.take(self._folder / component, self.remote(component))

    def components(self) -> list[str]:
        """Return the names of all components that have predictions, here or in the store."""
        return sorted({*self.local(), *(self._store.folders() if self._store else ())})

    def local(self) -> list[str]:
        """Return the names of the components that have a folder here."""
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir()) if self._folder.is_dir() else []

    def folder(self, component: str) -> Path:
        """Return a component's local folder."""
        return self._folder / component

    def remote(self, component: str) -> Remote | None:
        """Return the component's part of the store; None where segments stay here."""
        folder = self.folder(component)
        return Remote(folder, self._store.below(component), self._clock) if self._store else None

    def roll(self, component: str) -> int:
        """Turn what dead writers left, and the actuals' journal when it is large, into Parquet; return the rows."""
        folder = self._folder / component
        rows = roll(folder)
        if sum(path.stat().st_size for path in (folder / truths.FOLDER).glob(f"*{SUFFIX}")) > _ROLL_ACTUALS_BYTES:
            rows += truths.roll_actuals(folder)
        return rows


def _component(path: Path | None) -> str:
    # …/<component>/segments/version=1/day=2026-03-01/<file>
    return path.parents[3].name if path is not None and len(path.parents) > 3 else "NAME"


def _refuse_strange_id(text: str) -> None:
    try:
        raw_id(text)
    except ValueError as cause:
        raise InvalidInput(
            f"`{text[:64]}` is no prediction id.", "Make ids with `headrace.predictions.ids`."
        ) from cause


def _refuse_deep(batch: Batch) -> None:
    name = deep_column(batch)
    if name is not None:
        raise InvalidInput(
            f"`{name}` of prediction {batch.ids[0]} is nested deeper than {DEEPEST} levels.", "Keep a flatter value."
        )


def _pieces(seen: Snapshot, after: str, version: int | None) -> list[_Piece]:
    found = [
        _Piece(segment.first, segment.last, segment.version, partial(seen.file, segment), None)
        for segment in seen.manifest.predictions
    ]
    for part in seen.parts:
        ends = part.table["id"].take(pa.array([0, part.table.num_rows - 1])).to_pylist()
        found.append(_Piece(str(ends[0]), str(ends[1]), part.version, None, part.table))
    wanted = [piece for piece in found if piece.last > after and version in (None, piece.version)]
    return sorted(wanted, key=lambda piece: piece.first)


def _with_horizon(pieces: list[_Piece]) -> Iterator[tuple[_Piece, str]]:
    for position, piece in enumerate(pieces):
        yield piece, pieces[position + 1].first if position + 1 < len(pieces) else _END


def _first_rows(piece: _Piece, after: str, version: int | None, limit: int | None) -> list[pa.Table]:
    """Return a piece's first rows above an id. Only what is returned stays in memory."""
    found: list[pa.Table] = []
    rows = 0
    for table in piece.tables(after):
        part = _selected(table, after, version)
        found.append(part if limit is None else part.slice(0, limit - rows))
        rows += found[-1].num_rows
        if limit is not None and rows >= limit:
            break
    return found


def _rows_below(table: pa.Table, horizon: str) -> int:
    if horizon == _END:
        return int(table.num_rows)
    return int(pc.sum(pc.less(storage(table["id"]), pa.scalar(raw_id(horizon), pa.binary(16)))).as_py() or 0)


def _oldest(parts: list[pa.Table], limit: int | None) -> list[pa.Table]:
    """Return the rows with the lowest ids of all parts together."""
    if limit is None or sum(part.num_rows for part in parts) <= limit:
        return parts
    ids = sorted(identity for part in parts for identity in storage(part["id"]).to_pylist())
    bound = pa.scalar(ids[limit - 1], pa.binary(16)) if limit else None
    return [part.filter(pc.less_equal(storage(part["id"]), bound)) for part in parts] if limit else []


def _selected(table: pa.Table, after: str, version: int | None) -> pa.Table:
    mask = pc.invert(table["shadow"])
    if after:
        mask = pc.and_(mask, pc.greater(storage(table["id"]), pa.scalar(raw_id(after), pa.binary(16))))
    if version is not None:
        mask = pc.and_(mask, pc.equal(table["version"], version))
    return table.filter(mask)


def _truths_of(seen: Snapshot, found: list[Prediction]) -> dict[str, Json]:
    if not found:
        return {}
    first, last = found[0].id, found[-1].id
    with connect(seen, since=first, until=last) as connection:
        rows = connection.execute("SELECT id::VARCHAR, value FROM first_actuals").fetchall()
    return {identity: flat_json(value) for identity, value in rows}
