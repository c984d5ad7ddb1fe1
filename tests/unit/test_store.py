"""Digests are what sha256sum prints, and nothing but what was checked gets into the store."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.errors import ModelRefused, Unavailable
from headrace.provenance.digest import FolderDigest, digest_folder
from headrace.provenance.store import ModelStore, refuse_broken_seal


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "data" / "model.pt2").write_bytes(os.urandom(3 << 20))
    (folder / "données.txt").write_text("é")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_the_folder_digest_is_what_sha256sum_gives(model: Path) -> None:
    listing = subprocess.run(
        "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum",
        shell=True, cwd=model, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert digest_folder(model).digest == listing.split()[0]


def test_the_order_of_files_does_not_matter(model: Path) -> None:
    found = digest_folder(model)
    assert FolderDigest(dict(reversed(found.files.items()))) == found


def test_a_copy_is_read_only_complete_and_named_by_its_digest(model: Path, store: ModelStore) -> None:
    expected = digest_folder(model)
    copy = store.admit(model, expected)
    assert copy.name == expected.digest
    assert digest_folder(copy) == expected
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [copy, *copy.rglob("*")]}
    assert modes == {0o444, 0o555}
    assert store.admit(model, expected) == copy == store.admit(model)
    assert sorted(path.name for path in store.folder.iterdir()) == [expected.digest, f"{expected.digest}.sha256"]


def flip(folder: Path) -> None:
    with (folder / "data" / "model.pt2").open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


def truncate(folder: Path) -> None:
    os.truncate(folder / "data" / "model.pt2", 100)


def delete(folder: Path) -> None:
    (folder / "data" / "model.pt2").unlink()


def add(folder: Path) -> None:
    (folder / "data" / "extra.py").write_text("boom")


def link(folder: Path) -> None:
    shutil.move(folder / "data" / "model.pt2", folder.parent / "outside")
    (folder / "data" / "model.pt2").symlink_to(folder.parent / "outside")


def link_folder(folder: Path) -> None:
    shutil.move(folder / "data", folder.parent / "outside")
    (folder / "data").symlink_to(folder.parent / "outside")


def pipe(folder: Path) -> None:
    (folder / "data" / "model.pt2").unlink()
    os.mkfifo(folder / "data" / "model.pt2")


CHANGES = {
    flip: r"`data/model.pt2` was changed \(expected sha256 [0-9a-f]{12}…, found [0-9a-f]{12}…\)",
    truncate: r"`data/model.pt2` was changed",
    delete: r"`data/model.pt2` is missing",
    add: r"`data/extra.py` is not part of the baseline",
    link: r"`data/model.pt2` in .* is a link to .*outside",
    link_folder: r"`data` in .* is a link to",
    pipe: r"`data/model.pt2` in .* is no plain file",
}


@pytest.mark.parametrize(("change", "sentence"), CHANGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_source_is_refused_and_leaves_nothing(
    model: Path, store: ModelStore, change: Callable[[Path], None], sentence: str
) -> None:
    expected = digest_folder(model)
    change(model)
    with pytest.raises(ModelRefused, match=sentence):
        store.admit(model, expected)
    assert not store.folder.exists() or list(store.folder.iterdir()) == []


@pytest.mark.parametrize(("change", "sentence"), CHANGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_copy_is_refused_even_though_the_source_is_right(
    model: Path, store: ModelStore, change: Callable[[Path], None], sentence: str
) -> None:
    expected = digest_folder(model)
    copy = store.admit(model, expected)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o777)
    change(copy)
    with pytest.raises(ModelRefused, match=sentence):
        store.admit(model, expected)


def test_byte_code_of_a_working_copy_is_neither_counted_nor_copied(model: Path, store: ModelStore) -> None:
    expected = digest_folder(model)
    (model / "data" / "__pycache__").mkdir()
    (model / "data" / "__pycache__" / "a.pyc").write_bytes(b"x")
    copy = store.admit(model, expected)
    assert not (copy / "data" / "__pycache__").exists()
    copy.joinpath("data").chmod(0o755)
    (copy / "data" / "__pycache__").mkdir()
    (copy / "data" / "__pycache__" / "a.pyc").write_bytes(b"x")
    with pytest.raises(ModelRefused, match=r"`data/__pycache__/a\.pyc` is not part of the baseline"):
        store.admit(model, expected)


def test_many_at_once_admit_one_copy(model: Path, store: ModelStore) -> None:
    with ThreadPoolExecutor(6) as pool:
        copies = set(pool.map(lambda _: store.admit(model), range(6)))
    assert len(copies) == 1
    assert len(list(store.folder.iterdir())) == 2


def test_an_empty_or_absent_folder_is_refused(tmp_path: Path, store: ModelStore) -> None:
    with pytest.raises(ModelRefused, match="There is no folder"):
        store.admit(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelRefused, match="holds no files"):
        store.admit(tmp_path / "empty")


def test_a_full_disk_leaves_nothing_and_says_so(
    model: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headrace.provenance.store.os.fsync", full)
    with pytest.raises(Unavailable, match="No space left on device") as refusal:
        store.admit(model)
    assert "Free some space" in refusal.value.remedy
    assert list(store.folder.iterdir()) == []


def test_the_remedy_for_a_changed_copy_can_be_typed_by_its_owner(tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "code").mkdir(parents=True)
    (source / "code" / "a.py").write_text("x")
    copy = ModelStore(tmp_path / "store").admit(source)
    (copy / "code" / "a.py").chmod(0o600)
    (copy / "code" / "a.py").write_text("y")
    with pytest.raises(ModelRefused) as refusal:
        refuse_broken_seal(copy, copy.name, "headrace restore digits/3")
    assert refusal.value.remedy == "headrace restore digits/3"
    with pytest.raises(ModelRefused) as refusal:
        refuse_broken_seal(copy, copy.name)
    assert refusal.value.remedy.endswith("headrace restore NAME/VERSION"), "nothing is made again before"
