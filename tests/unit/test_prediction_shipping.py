"""Prediction segments on their way into an object store: crashes, several writers, copies, merging, retention."""

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.bucket import Bucket
from headrace.clock import ManualClock
from headrace.errors import Unavailable
from headrace.predictions import remote as remotes
from headrace.predictions.actuals import roll_actuals
from headrace.predictions.base import Counts
from headrace.predictions.batch import batch_of, encode
from headrace.predictions.ids import Ids
from headrace.predictions.journal import Journal
from headrace.predictions.manifest import read_manifest
from headrace.predictions.remote import Remote, Shipped
from headrace.predictions.segments import SegmentLog
from headrace.predictions.shipping import Shipper, merge_small, ship
from headrace.types import Actual, Prediction

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def rows(count: int, *, at: datetime = START) -> list[Prediction]:
    clock = ManualClock(at)
    ids = Ids(clock)
    made = []
    for number in range(count):
        clock.advance(1)
        made.append(Prediction(ids.new(), "churn", 1, clock.now(), {"n": number}, "yes", 1.5))
    return made


@dataclass(frozen=True)
class Breaking(Bucket):
    """A store that breaks once after so many writes: `lost` before the write, otherwise after it."""

    calls: list[str] = field(default_factory=list, compare=False)
    breaks_at: int = -1
    is_lost: bool = True

    def _put(self, name: str, pieces: Iterator[bytes]) -> None:
        self.calls.append(name)
        is_now = len(self.calls) - 1 == self.breaks_at
        if is_now and self.is_lost:
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation: cut off")
        super()._put(name, pieces)
        if is_now:
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation: the answer was lost")


@pytest.fixture
def store(tmp_path: Path) -> Bucket:
    return Bucket(f"file://{tmp_path / 'store'}")


def out_of_reach(*_: object) -> dict[str, int]:
    raise Unavailable("the store is out of reach")


def remote_of(log: SegmentLog) -> Remote:
    found = log.remote("churn")
    assert found is not None
    return found


def ids_of(log: SegmentLog) -> list[str]:
    return [one.prediction.id for one in log.joined("churn")]


@pytest.mark.parametrize("is_lost", [True, False])
@pytest.mark.parametrize("breaks_at", range(3))
def test_a_round_that_breaks_anywhere_is_repeated_and_each_row_is_there_once(
    tmp_path: Path, breaks_at: int, is_lost: bool
) -> None:
    url = f"file://{tmp_path / 'store'}"
    made = rows(20)
    breaking = Breaking(url, breaks_at=breaks_at, is_lost=is_lost)
    node = SegmentLog(tmp_path / "node", store=breaking)
    other = SegmentLog(tmp_path / "other", store=Bucket(url))
    node.append(made)
    node.append_actuals("churn", [Actual(made[0].id, "no", made[-1].at)])
    with pytest.raises(Unavailable, match=r"cut off|was lost"):  # Two segments and the manifest.
        ship(remote_of(node))
    assert ids_of(node) == [one.id for one in made]
    assert ids_of(other) in ([], [one.id for one in made])
    assert node.counts("churn").labelled == 1
    # More arrives before the store is back.
    later = rows(5, at=START + timedelta(hours=1))
    node.append(later)
    assert ship(remote_of(node)).left == 0
    assert ids_of(node) == ids_of(other) == [one.id for one in [*made, *later]]
    assert other.counts("churn").labelled == 1
    assert not read_manifest(tmp_path / "node" / "churn").shipping


def test_a_writer_whose_answers_are_lost_again_and_again_keeps_its_name(tmp_path: Path, store: Bucket) -> None:
    log = SegmentLog(tmp_path / "node", store=store)
    made = rows(3)
    log.append(made[:1])
    ship(remote_of(log))
    for one in made[1:]:
        log.append([one])
    for _ in range(3):  # Two segments and the manifest.
        breaking = SegmentLog(tmp_path / "node", store=Breaking(store.url, breaks_at=2, is_lost=False))
        with pytest.raises(Unavailable, match="was lost"):
            remote_of(breaking).ship()
    ship(remote_of(log))
    assert len(store.below("churn").sizes("writers")) == 1
    assert merge_small(remote_of(log), many=2) == 3
    assert ids_of(SegmentLog(tmp_path / "reader", store=store)) == [one.id for one in made]


def test_a_crash_before_the_local_manifest_lets_go_tells_no_row_twice(
    tmp_path: Path, store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SegmentLog(tmp_path / "node", store=store)
    made = rows(4)
    for one in made:
        log.append([one])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "_let_go", killed)
        with pytest.raises(KeyboardInterrupt):
            remote_of(log).ship()
    assert len(read_manifest(tmp_path / "node" / "churn").shipping) == 4
    # What is named in both places is left alone by whatever merges.
    assert merge_small(remote_of(log), many=2) == 0
    assert ids_of(log) == [one.id for one in made]
    ship(remote_of(log))
    assert ids_of(log) == [one.id for one in made]
    assert merge_small(remote_of(log), many=2) == 4
    assert ids_of(log) == [one.id for one in made]


def test_a_dead_nodes_journal_is_shipped_by_whoever_has_its_folder(tmp_path: Path, store: Bucket) -> None:
    made = rows(10)
    alive, dead = SegmentLog(tmp_path / "alive", store=store), SegmentLog(tmp_path / "dead", store=store)
    alive.append(made[:4])
    # The process is gone, its last frame torn; what was whole before counts.
    path = tmp_path / "dead" / "churn" / "journals" / "0-1-a.journal"
    journal = Journal(path)
    journal.append(encode([batch_of(one) for one in made[4:]]))
    journal.close()
    with path.open("ab") as file:
        file.write(b"\xf1HR\x01torn")
    ship(remote_of(alive))
    ship(remote_of(dead))
    reader = SegmentLog(tmp_path / "reader", store=store)
    assert ids_of(reader) == [one.id for one in made]
    assert reader.snapshot("churn").damaged_bytes == 8
    assert alive.snapshot("churn").damaged_bytes == 8


def test_a_writer_still_at_work_keeps_its_journal(tmp_path: Path, store: Bucket) -> None:
    log = SegmentLog(tmp_path / "node", store=store)
    made = rows(3)
    journal = Journal(tmp_path / "node" / "churn" / "journals" / "0-1-a.journal")
    journal.append(encode([batch_of(one) for one in made]))
    assert ship(remote_of(log)).rows == 0
    assert ids_of(log) == [one.id for one in made]
    journal.close()
    assert ship(remote_of(log)).rows == 3


def test_a_manifest_made_anew_leaves_out_what_the_store_has(
    tmp_path: Path, store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, folder = SegmentLog(tmp_path / "node", store=store), tmp_path / "node" / "churn"
    made = rows(5)
    for one in made[:4]:
        log.append([one])
        log.append_actuals("churn", [Actual(one.id, "no", one.at)])
        roll_actuals(folder)
        remote_of(log).ship()
    assert merge_small(remote_of(log), many=4) == 8
    log.append(made[4:])
    (folder / "manifest.json").write_text("{")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "sizes", out_of_reach)
        with pytest.raises(Unavailable, match="out of reach"):
            remote_of(log).rebuild()
    assert (folder / "manifest.json").read_text() == "{"
    found = remote_of(log).rebuild()
    assert ([one.rows for one in found.predictions], found.actuals, len(found.retired)) == ([1], (), 8)
    ship(remote_of(log))
    for each in (log, SegmentLog(tmp_path / "reader", store=store)):
        assert ids_of(each) == [one.id for one in made]
        assert each.counts("churn") == Counts(5, 4)


def test_a_copy_of_a_folder_takes_a_name_of_its_own(tmp_path: Path, store: Bucket) -> None:
    first = SegmentLog(tmp_path / "first", store=store)
    made = rows(6)
    first.append(made[:2])
    ship(remote_of(first))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = SegmentLog(tmp_path / "second", store=store)
    for log, part in ((first, made[2:3]), (first, made[3:4]), (second, made[4:])):
        log.append(part)
        ship(remote_of(log))
    assert len(store.below("churn").sizes("writers")) == 2
    assert ids_of(SegmentLog(tmp_path / "reader", store=store)) == [one.id for one in made]


def test_small_segments_are_merged_and_the_old_ones_stay_for_readers(tmp_path: Path, store: Bucket) -> None:
    clock = ManualClock(START)
    log = SegmentLog(tmp_path / "node", store=store, clock=clock)
    reader = SegmentLog(tmp_path / "reader", store=store, clock=clock)
    made = rows(3)
    for one in made:
        log.append([one])
        remote_of(log).ship()
    before = reader.snapshot("churn")
    assert merge_small(remote_of(log), many=3) == 3
    (merged,) = reader.snapshot("churn").manifest.predictions
    assert merged.rows == 3
    # Whoever looked before the merge still finds the files it was told of.
    assert all(before.file(one).exists() for one in before.manifest.predictions)
    clock.advance(remotes.GRACE_S + 1)
    assert remote_of(log).sweep() == 3
    assert [name for name in store.below("churn").sizes("segments")] == [merged.path]
    assert ids_of(reader) == [one.id for one in made]


def test_small_files_of_actuals_are_merged_and_the_first_still_counts(tmp_path: Path, store: Bucket) -> None:
    clock = ManualClock(START + timedelta(days=10))
    log = SegmentLog(tmp_path / "node", store=store, clock=clock)
    old, new = rows(4), rows(3, at=START + timedelta(days=9))
    log.append([*old, *new])
    labels = [(one.id, "first") for one in (*old, *new)] + [(old[0].id, "second"), ("no id", "lost"), ("none", "lost")]
    for identity, value in labels:
        clock.advance(1)
        log.append_actuals("churn", [Actual(identity, value, clock.now())])
        roll_actuals(tmp_path / "node" / "churn")
        remote_of(log).ship()
    reader = SegmentLog(tmp_path / "reader", store=store, clock=clock)
    before = reader.counts("churn")
    assert (before.labelled, before.orphans, before.conflicts) == (7, 2, 1)
    assert merge_small(remote_of(log), many=2) == len(labels)
    assert [one.rows for one in reader.snapshot("churn").manifest.actuals] == [5, 3, 2]
    assert reader.counts("churn") == before
    assert {row.actual for row in reader.joined("churn")} == {"first"}
    # Old actuals lie in files of their own, so that retention takes them.
    assert remote_of(log).put_floor(START + timedelta(days=5)) == 4 + 5


def test_what_is_below_a_floor_counts_no_more_and_is_removed_later(tmp_path: Path, store: Bucket) -> None:
    clock = ManualClock(START + timedelta(days=10))
    log = SegmentLog(tmp_path / "node", store=store, clock=clock)
    old, new = rows(5), rows(5, at=START + timedelta(days=5))
    for part in (old, new):
        log.append(part)
        ship(remote_of(log))
    elsewhere = SegmentLog(tmp_path / "elsewhere", store=store, clock=clock)
    assert remote_of(elsewhere).put_floor(START + timedelta(days=4)) == 5
    assert ids_of(log) == ids_of(elsewhere) == [one.id for one in new]
    remote_of(log).sweep()
    clock.advance(remotes.GRACE_S + 1)
    assert remote_of(log).sweep() == 1
    assert len(store.below("churn").sizes("segments")) == 1


def test_a_missing_object_is_named(tmp_path: Path, store: Bucket) -> None:
    log = SegmentLog(tmp_path / "node", store=store)
    log.append(rows(5))
    ship(remote_of(log))
    assert remote_of(log).check() == []
    (path,) = store.below("churn").sizes("segments")
    store.below("churn").remove(path)
    (problem,) = remote_of(log).check()
    assert problem.sentence.endswith(f"{path} is missing; it held 5 rows.")
    with pytest.raises(Unavailable, match="with 5 rows"):
        SegmentLog(tmp_path / "reader", store=store).joined("churn")


def test_a_torn_copy_is_fetched_again(tmp_path: Path, store: Bucket) -> None:
    log, reader = SegmentLog(tmp_path / "node", store=store), SegmentLog(tmp_path / "reader", store=store)
    made = rows(5)
    log.append(made)
    ship(remote_of(log))
    ids_of(reader)
    (copy,) = (tmp_path / "reader" / "churn" / "remote").rglob("*.parquet")
    for torn in (b"", copy.read_bytes()[:100]):
        copy.write_bytes(torn)
        assert ids_of(reader) == [one.id for one in made]


def test_one_components_trouble_holds_up_no_other(tmp_path: Path) -> None:
    # The first of two components meets the break.
    log = SegmentLog(tmp_path / "node", store=Bucket(f"file://{tmp_path / 'store'}"))
    made = rows(2)
    log.append([made[0], Prediction(made[1].id, "zebra", 1, made[1].at, {"n": 1}, "yes", 1.0)])
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "churn").write_text("in the way")
    shipper = Shipper(log)
    assert list(shipper.round()) == ["zebra"]
    assert "churn" in shipper.problems
    (tmp_path / "store" / "churn").unlink()
    assert sorted(shipper.round()) == ["churn", "zebra"]
    assert not shipper.problems


def test_a_store_that_cannot_be_listed_and_an_unforeseen_error_end_no_shipping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path / 'store'}"
    log, ended = SegmentLog(tmp_path / "node", store=Bucket(url)), threading.Event()
    log.append(rows(2))

    def unlisted(_: Bucket) -> list[str]:
        raise Unavailable(f"{url} fails at listing objects")

    def broken(_: SegmentLog) -> list[str]:
        monkeypatch.setattr(SegmentLog, "local", local)
        ended.set()
        raise PermissionError("not now")

    def strange(_: Remote) -> Shipped:
        raise ValueError("strange")

    with monkeypatch.context() as patch:
        patch.setattr("headrace.predictions.shipping.ship", strange)
        shipper = Shipper(log)
        shipper.round()
        assert shipper.problems == {"churn": "ValueError: strange"}
    local = SegmentLog.local
    monkeypatch.setattr(Bucket, "folders", unlisted)
    monkeypatch.setattr(SegmentLog, "local", broken)
    Shipper(log).work(ended, every_s=0)
    assert len(ids_of(SegmentLog(tmp_path / "reader", store=Bucket(url)))) == 2


def test_the_cache_gives_up_what_was_not_used_for_longest(
    tmp_path: Path, store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, reader = SegmentLog(tmp_path / "node", store=store), SegmentLog(tmp_path / "reader", store=store)
    made = [rows(5, at=START + timedelta(hours=number)) for number in range(4)]
    for some in made[:3]:
        log.append(some)
        remote_of(log).ship()
    assert len(ids_of(reader)) == 15
    copies = list((tmp_path / "reader" / "churn" / "remote").rglob("*.parquet"))
    assert len(copies) == 3
    for path in copies[:2]:
        os.utime(path, (1, 1))
    monkeypatch.setattr(remotes, "CACHE_BYTES", 0)
    log.append(made[3])
    remote_of(log).ship()
    assert len(reader.joined("churn", after=made[2][-1].id)) == 5
    assert not any(path.exists() for path in copies[:2])
    assert copies[2].exists()  # Used a moment ago.
    assert len(ids_of(reader)) == 20
