"""Data files become labelled tables and model inputs, or an error that names the file and the column."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headrace.config.component import DataInput
from headrace.data.profile import profile
from headrace.data.tables import arrays, describe, read_table
from headrace.errors import InvalidConfig
from headrace.types import UNNAMED, Field, FieldKind, Signature

TENSOR = Signature((Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 2, 1)),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = pa.table({"id": [7, 8, 9], "a": [1.0, 2.0, 3.0], "b": [4, 5, 6], "label": ["x", "y", "x"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("id,a,b,label\n7,1.0,4,x\n8,2.0,5,y\n9,3.0,6,x\n")
    return tmp_path


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_a_file_gives_ids_labels_and_features(folder: Path, name: str) -> None:
    found = read_table(DataInput(uri=name, label="label", id="id"), folder)
    assert found.ids.tolist() == [7, 8, 9]
    assert found.labels.tolist() == ["x", "y", "x"]
    assert found.table.column_names == ["a", "b"]


def test_a_tensor_takes_the_numeric_columns_in_order(folder: Path) -> None:
    table = read_table(DataInput(uri="rows.parquet", label="label", id="id"), folder).table
    given = arrays(table, TENSOR)[UNNAMED]
    assert given.shape == (3, 2, 1)
    assert given.dtype == np.float32
    assert given[1].ravel().tolist() == [2.0, 5.0]


def test_columns_go_by_name_and_dtype(folder: Path) -> None:
    signature = Signature(
        (Field("b", FieldKind.COLUMN, "double"), Field("gone", FieldKind.COLUMN, "long", required=False))
    )
    given = arrays(read_table(DataInput(uri="rows.csv", label="label"), folder).table, signature)
    assert given["b"].dtype == np.float64
    assert set(given) == {"b"}


def test_an_id_that_is_taken_for_a_feature_is_explained(folder: Path) -> None:
    table = read_table(DataInput(uri="rows.parquet", label="label"), folder).table
    with pytest.raises(InvalidConfig, match=r"3 numbers.*shape \(2, 1\)") as refused:
        arrays(table, TENSOR)
    assert "`id:`" in refused.value.remedy


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        (DataInput(uri="none.csv", label="label"), "is not there"),
        (DataInput(uri="rows.csv"), "which column of rows.csv is the truth"),
        (DataInput(uri="rows.csv", label="lable"), "no column `lable`"),
        (DataInput(uri="bad.parquet", label="label"), "cannot be read"),
        (DataInput(uri="rows.txt", label="label"), "neither Parquet"),
        (DataInput(uri="empty.csv", label="label"), "no rows"),
        (DataInput(uri="twice.csv", label="label", id="id"), "not unique"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, given: DataInput, fact: str) -> None:
    (folder / "bad.parquet").write_bytes(b"nothing")
    (folder / "rows.txt").write_text("a")
    (folder / "empty.csv").write_text("a,label\n")
    (folder / "twice.csv").write_text("id,label\n1,a\n1,b\n")
    with pytest.raises(InvalidConfig, match=fact):
        read_table(given, folder)


def test_a_folder_of_images_gives_a_label_for_each(tmp_path: Path) -> None:
    for digit in ("0", "1"):
        (tmp_path / digit).mkdir()
        Image.new("L", (2, 2), color=int(digit) * 9).save(tmp_path / digit / "a.png")
    found = read_table(DataInput(uri="."), tmp_path)
    assert found.labels.tolist() == [0, 1]
    signature = Signature((Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 2, 2)),))
    assert arrays(found.table, signature)[UNNAMED][1].tolist() == [[9, 9], [9, 9]]


def test_the_description_changes_with_the_content(folder: Path) -> None:
    before = describe(folder / "rows.csv")
    assert before.rows == 3
    assert before.schema["label"] == "string"
    (folder / "rows.csv").write_text("id,a,b,label\n7,1.0,4,x\n")
    assert describe(folder / "rows.csv").sha256 != before.sha256


def test_a_profile_has_numbers_and_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("size,town,odd,empty\n1,Bern,nan,\n3,Ulm,2.5,\n5,Bern,nan,\n")
    found = profile(path)
    assert found["size"] == {"nulls": 0, "min": 1, "max": 5, "mean": 3}
    assert found["town"] == {"nulls": 0, "distinct": 2}
    assert found["odd"]["nulls"] in (0, 2)
    assert found["empty"]["nulls"] == 3
    assert all(isinstance(value, int | float) for numbers in found.values() for value in numbers.values())
