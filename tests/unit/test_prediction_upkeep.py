"""Files are merged, dropped, checked and repaired without a row being seen twice or lost."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.clock import ManualClock
from headrace.errors import Unavailable
from headrace.predictions import snapshot
from headrace.predictions.actuals import roll_actuals
from headrace.predictions.base import Counts
from headrace.predictions.ids import Ids
from headrace.predictions.labels import coverage, is_mature
from headrace.predictions.manifest import read_manifest
from headrace.predictions.query import connect
from headrace.predictions.segments import SegmentLog
from headrace.predictions.tend import tend
from headrace.predictions.upkeep import check, compact, prune, rebuild, repair
from headrace.types import Actual, Prediction

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three days with three small segments each; every second row has its actual."""
    log, clock = SegmentLog(tmp_path), ManualClock(START)
    ids = Ids(clock)
    for _ in range(3):
        for _ in range(3):
            made = [Prediction(ids.new(), "churn", 1, clock.now(), {"n": 1}, "yes", 1.0) for _ in range(4)]
            log.append(made)
            log.append_actuals("churn", [Actual(one.id, "yes", clock.now()) for one in made[::2]])
        clock.advance(86400)
    return tmp_path / "churn"


def known(folder: Path) -> list[str]:
    return [row.prediction.id for row in SegmentLog(folder.parent).joined(folder.name)]


def test_compaction_keeps_every_row_and_old_files_for_their_readers(folder: Path) -> None:
    before, clock = known(folder), ManualClock(START + timedelta(days=9))
    seen = snapshot.take(folder)
    assert (compact(folder, clock=clock).merged, len(read_manifest(folder).predictions)) == (9, 3)
    assert known(folder) == before
    with connect(seen) as connection:  # A reader that started before still finds its files.
        assert connection.execute("SELECT count(*) FROM predictions").fetchall() == [(36,)]
    clock.advance(3600)
    assert compact(folder, clock=clock).removed == 9
    assert len(list((folder / "segments").rglob("*.parquet"))) == 3
    assert known(folder) == before
    assert compact(folder, clock=clock).merged == 0


def test_many_small_files_are_merged_while_a_component_serves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.predictions.tend.MANY", 4)
    before, clock = known(folder), ManualClock(START + timedelta(days=9))
    tend(folder, clock=clock)
    assert len(read_manifest(folder).predictions) == 9  # Three a day are few.
    log, ids = SegmentLog(folder.parent), Ids(ManualClock(START))
    log.append([Prediction(ids.new(), "churn", 1, START, {"n": 1}, "yes", 1.0)])
    tend(folder, clock=clock)
    assert len(read_manifest(folder).predictions) == 3
    assert len(known(folder)) == len(before) + 1
    clock.advance(3600)
    tend(folder, clock=clock)
    assert len(list((folder / "segments").rglob("*.parquet"))) == 3
    assert len(known(folder)) == len(before) + 1


def test_files_are_merged_up_to_so_many_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, clock = known(folder), ManualClock(START + timedelta(days=9))
    size = max(one.bytes for one in read_manifest(folder).predictions)
    monkeypatch.setattr("headrace.predictions.upkeep.FULL_BYTES", 2 * size + size // 2)
    monkeypatch.setattr("headrace.predictions.tend.MANY", 2)
    assert compact(folder, clock=clock).into == 3  # Two of the three of each day.
    assert (len(read_manifest(folder).predictions), known(folder)) == (6, before)
    monkeypatch.setattr("headrace.predictions.upkeep.FULL_BYTES", 1)
    monkeypatch.setattr("headrace.predictions.tend.compact", pytest.fail)
    tend(folder, clock=clock)


def test_actuals_are_rolled_in_order_of_arrival(folder: Path) -> None:
    before = SegmentLog(folder.parent).counts("churn")
    assert before == Counts(36, 18)
    assert roll_actuals(folder) == 18
    assert SegmentLog(folder.parent).counts("churn") == before
    first = known(folder)[0]
    SegmentLog(folder.parent).append_actuals("churn", [Actual(first, "no", START)])
    assert SegmentLog(folder.parent).counts("churn").conflicts == 1
    assert roll_actuals(folder) == 1
    found = SegmentLog(folder.parent).joined("churn", limit=1)[0]
    assert (found.actual, SegmentLog(folder.parent).counts("churn").conflicts) == ("yes", 1)


def test_retention_drops_whole_files_and_counts_them(folder: Path) -> None:
    before = known(folder)
    assert prune(folder, START + timedelta(days=1, hours=-1)) == 12
    assert known(folder) == before[12:]
    assert read_manifest(folder).expired_rows == 12


def test_a_damaged_segment_is_named_and_can_be_set_aside(folder: Path) -> None:
    path = folder / read_manifest(folder).predictions[0].path
    path.write_bytes(path.read_bytes()[:100])
    (problem,) = check(folder)
    assert "cannot be read" in problem.sentence
    with pytest.raises(Unavailable, match=re.escape(str(path))):
        known(folder)
    assert repair(folder) == [problem]
    assert len(known(folder)) == 32
    assert (folder / "damaged" / path.name).exists()
    assert check(folder) == []


def test_a_lost_manifest_is_made_anew(folder: Path) -> None:
    roll_actuals(folder)
    before = known(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(Unavailable, match="damaged"):
        known(folder)
    rebuild(folder)
    assert known(folder) == before
    assert SegmentLog(folder.parent).counts("churn") == Counts(36, 18)


def test_a_manifest_made_anew_tells_rows_of_a_compaction_once(folder: Path) -> None:
    before, clock = known(folder), ManualClock(START + timedelta(days=9))
    ids = Ids(ManualClock(START))
    compact(folder, clock=clock)
    log = SegmentLog(folder.parent)
    log.append([Prediction(ids.new(), "churn", 2, START, {"n": 1}, "yes", 1.0)])  # Of another version, between these.
    (folder / "manifest.json").unlink()
    assert sorted(one.rows for one in rebuild(folder, clock=clock).predictions) == [1, 12, 12, 12]
    assert len(known(folder)) == len(before) + 1
    assert set(before) < set(known(folder))
    with connect(snapshot.take(folder)) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM joined").fetchall() == [(37, 37)]
    clock.advance(3600)
    assert compact(folder, clock=clock).removed == 9


def test_a_manifest_made_anew_keeps_what_overlaps(tmp_path: Path) -> None:
    log, ids = SegmentLog(tmp_path), Ids(ManualClock(START))
    made = [Prediction(ids.new(), "churn", 1, START, {"n": number}, "yes", 1.0) for number in range(9)]
    for part in (made[0::2], made[1::2]):
        log.append(part)
    (tmp_path / "churn" / "manifest.json").unlink()
    assert len(rebuild(tmp_path / "churn").predictions) == 2
    assert known(tmp_path / "churn") == [one.id for one in made]


def test_after_a_manifest_was_made_anew_the_first_actual_still_counts(folder: Path) -> None:
    log, first = SegmentLog(folder.parent), known(folder)[1]
    roll_actuals(folder)
    log.append_actuals("churn", [Actual(first, "first", START)])
    roll_actuals(folder)
    # The oldest actuals are gone, as retention takes them: fewer rows are left than there were numbers.
    oldest = max(read_manifest(folder).actuals, key=lambda one: one.rows)
    (folder / oldest.path).unlink()
    (folder / "manifest.json").unlink()
    rebuild(folder)
    log.append_actuals("churn", [Actual(first, "second", START)])
    for _ in range(2):
        assert [row.actual for row in log.joined("churn") if row.is_labelled] == ["first"]
        roll_actuals(folder)


def test_sql_sees_predictions_with_their_actuals(folder: Path) -> None:
    with connect(snapshot.take(folder)) as connection:
        found = connection.execute(
            "SELECT in_n, out_, actual, count(*) FROM joined WHERE labelled GROUP BY ALL"
        ).fetchall()
    assert found == [(1, "yes", "yes", 18)]


def test_coverage_leaves_out_what_is_too_young(folder: Path) -> None:
    found = coverage(snapshot.take(folder), now=START + timedelta(days=2, hours=1), maturity_s=7200)
    assert (found.predictions, found.labelled, found.share) == (24, 12, 0.5)
    assert found.watermark == START + timedelta(days=2, hours=-1)
    newest = known(folder)[-1]
    assert not is_mature(newest, now=START + timedelta(days=2, hours=1), maturity_s=7200)
    assert is_mature(newest, now=START + timedelta(days=3), maturity_s=7200)


def test_pages_of_overlapping_files_are_the_whole_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.predictions.tables.GROUP_ROWS", 3)
    log, clock = SegmentLog(tmp_path), ManualClock(START)
    ids = Ids(clock)
    made = [Prediction(ids.new(), "churn", 1, clock.now(), {"n": number}, "yes", 1.0) for number in range(60)]
    for part in (made[0::4], made[1::4], made[2::4], made[3::4]):
        log.append(part)
    compact(tmp_path / "churn", clock=clock)
    log.append([Prediction(ids.new(), "churn", 1, clock.now(), {"n": 60}, "yes", 1.0)])
    for size in (1, 7, 60, 100):
        pages, after = [], ""
        while page := log.joined("churn", after=after, limit=size):
            pages += [row.prediction.inputs["n"] for row in page]
            after = page[-1].prediction.id
        assert pages == list(range(61))
    assert log.joined("churn", limit=0) == []


@pytest.mark.parametrize("where", [0, -1], ids=["in its rows", "in its footer"])
def test_a_damaged_segment_keeps_no_other_from_being_merged(folder: Path, where: int) -> None:
    damaged = folder / read_manifest(folder).predictions[0].path
    content = bytearray(damaged.read_bytes())
    content[4:40] = bytes(36)
    damaged.write_bytes(content if where == 0 else content[:-9])
    assert compact(folder, clock=ManualClock(START + timedelta(days=9))).merged == 8
    assert [problem.path for problem in check(folder)] == [damaged.relative_to(folder).as_posix()]
