"""A component's own data files as labelled tables, and as the arrays that its model takes.

read_table(input, folder) -> LabelledTable        # Parquet, CSV, a folder of images by class
arrays(table, signature) -> Arrays                # what goes into the model
describe(path) -> Description                     # digest, rows, schema
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from headrace.config.component import DataInput
from headrace.errors import InvalidConfig, InvalidInput
from headrace.files import sha256_file
from headrace.types import UNNAMED, Arrays, Field, FieldKind, Signature

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
PIXELS = "pixels"
#: The column of a training file that says what each row counts; never a feature.
WEIGHT = "weight"
#: Column types of MLflow signatures as numpy's.
COLUMN_DTYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "datetime": "datetime64[ns]",
}


@dataclass(frozen=True, slots=True)
class LabelledTable:
    """Rows with their truth.

    Attributes:
        ids: shape (rows,), what a row goes by; its number where the file names none.
        labels: shape (rows,), the truth.
        table: all columns but the label and the id.
        path: where it was read from.
    """

    ids: "np.ndarray[Any, Any]"
    labels: "np.ndarray[Any, Any]"
    table: pa.Table
    path: Path

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Description:
    """What a data file is.

    Attributes:
        sha256: of the file; of a folder, over the lines `<sha256>  <path>` of its files.
        schema: column name to type.
    """

    sha256: str
    rows: int
    schema: dict[str, str]


def read_table(given: DataInput, folder: Path) -> LabelledTable:
    """Return a data input's rows.

    Raises:
        InvalidConfig: the file is missing, of an unknown kind, cannot be read, has no rows, or lacks a named column.
    """
    path = folder / given.uri
    if path.is_dir():
        return _images(path)
    table = _read(path)
    if table.num_rows == 0:
        raise InvalidConfig(f"{path} has no rows.", "Name a file with rows under `data:` in headrace.yaml.")
    if not given.label:
        raise InvalidConfig(
            f"headrace.yaml does not say which column of {path.name} is the truth.",
            f"Add `label:` with one of: {', '.join(table.column_names)}.",
        )
    labels = _column(table, given.label, path)
    ids = _column(table, given.id, path) if given.id else np.arange(table.num_rows)
    if len(np.unique(ids)) < len(ids):
        raise InvalidConfig(f"The ids in column `{given.id}` of {path} are not unique.", "Name a column that is.")
    features = table.drop_columns([name for name in (given.label, given.id) if name])
    return LabelledTable(ids, labels, features, path)


def arrays(table: pa.Table, signature: Signature) -> Arrays:
    """Return a table's columns as the arrays that a model takes.

    Columns go by name. One tensor gets the column of that name, or the only list column, or all numeric columns in
    order, reshaped to the tensor's rows.

    Raises:
        InvalidConfig: a column is missing, or the values do not fit.
    """
    if signature.is_tabular:
        return {field.name: _typed(table, field) for field in signature.inputs if _is_wanted(table, field)}
    if len(signature.inputs) == 1:
        return {signature.inputs[0].name: _tensor(table, signature.inputs[0])}
    return {field.name: _reshaped(_stacked(table, field.name), field) for field in signature.inputs}


def describe(path: Path) -> Description:
    """Return a data file's digest, rows and schema. Raises InvalidConfig."""
    if path.is_dir():
        files = _image_files(path)
        lines = "".join(f"{sha256_file(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
        return Description(hashlib.sha256(lines.encode()).hexdigest(), len(files), {PIXELS: "image"})
    if path.suffix == ".parquet" and path.exists():
        head = pq.read_schema(path)
        rows = pq.read_metadata(path).num_rows
        return Description(sha256_file(path), rows, {field.name: str(field.type) for field in head})
    table = _read(path)
    return Description(sha256_file(path), table.num_rows, {field.name: str(field.type) for field in table.schema})


def is_image_folder(path: Path) -> bool:
    """Tell whether a data input is a folder of images by class."""
    return path.is_dir()


def read_columns(path: Path) -> pa.Table:
    """Return a data file's table as it is. Raises InvalidConfig."""
    return _read(path)


def _read(path: Path) -> pa.Table:
    if not path.exists():
        raise InvalidConfig(f"The data file {path} is not there.", "Correct its `uri` in headrace.yaml.")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            return pa_csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise InvalidConfig(f"{path} cannot be read: {str(error).splitlines()[0]}", "Write the file again.") from error
    raise InvalidConfig(
        f"{path.name} is neither Parquet (.parquet), CSV (.csv) nor a folder of images.", "Convert it to one of them."
    )


def _column(table: pa.Table, name: str, path: Path) -> "np.ndarray[Any, Any]":
    if name not in table.column_names:
        raise InvalidConfig(
            f"{path.name} has no column `{name}` (it has: {', '.join(table.column_names)}).",
            "Correct the name under `data:` in headrace.yaml.",
        )
    column = table.column(name)
    if column.null_count:
        raise InvalidConfig(
            f"Column `{name}` of {path.name} is empty in {column.null_count} of {table.num_rows} rows.",
            "Fill these rows in, or leave them out of the file.",
        )
    return _to_numpy(column)


def _to_numpy(column: pa.ChunkedArray) -> "np.ndarray[Any, Any]":
    values: np.ndarray[Any, Any] = column.to_numpy()
    return values.astype(str) if values.dtype == object and _is_text(column.type) else values


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _is_wanted(table: pa.Table, field: Field) -> bool:
    return field.required or field.name in table.column_names


def _typed(table: pa.Table, field: Field) -> "np.ndarray[Any, Any]":
    if field.name not in table.column_names:
        raise InvalidConfig(
            f"The model takes a column `{field.name}`, and the data has: {', '.join(table.column_names)}.",
            "Name a file that has it, or train without it.",
        )
    values: np.ndarray[Any, Any] = table.column(field.name).to_numpy()
    wanted = COLUMN_DTYPES.get(field.dtype)
    if wanted is None:
        return values.astype(object)
    try:
        return values.astype(wanted)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(
            f"Column `{field.name}` holds {table.schema.field(field.name).type}, and the model takes {field.dtype}.",
            "Convert the column in the file.",
        ) from error


def _tensor(table: pa.Table, field: Field) -> "np.ndarray[Any, Any]":
    if field.name != UNNAMED and field.name in table.column_names:
        return _reshaped(_stacked(table, field.name), field)
    lists = [name for name in table.column_names if _is_list(table.schema.field(name).type)]
    if len(lists) == 1:
        return _reshaped(_stacked(table, lists[0]), field)
    numeric = [name for name in table.column_names if _is_number(table.schema.field(name).type) and name != WEIGHT]
    if not numeric:
        raise InvalidConfig("The model takes numbers, and the data has no column of numbers.")
    return _reshaped(np.column_stack([table.column(name).to_numpy() for name in numeric]), field)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _stacked(table: pa.Table, name: str) -> "np.ndarray[Any, Any]":
    if name not in table.column_names:
        raise InvalidConfig(f"The model takes `{name}`, and the data has: {', '.join(table.column_names)}.")
    try:
        return np.asarray(table.column(name).to_pylist())
    except ValueError as error:
        raise InvalidConfig(f"The rows of `{name}` have different lengths.", "Pad them to one length.") from error


def _reshaped(values: "np.ndarray[Any, Any]", field: Field) -> "np.ndarray[Any, Any]":
    shape = (len(values), *field.shape[1:]) if field.kind is FieldKind.TENSOR else values.shape
    try:
        return np.ascontiguousarray(values, dtype=field.dtype).reshape(shape)
    except ValueError as error:
        per_row = int(np.prod(values.shape[1:]))
        raise InvalidConfig(
            f"A row of the data has {per_row} numbers, and the model takes rows of shape {field.shape[1:]}.",
            "Leave out the columns that are no inputs, or name the id column with `id:` in headrace.yaml.",
        ) from error


def _image_files(folder: Path) -> Sequence[Path]:
    found = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InvalidConfig(
            f"{folder} holds no images in folders by class.", "Put them under CLASS/NAME.png, or name a file instead."
        )
    return found


def _images(folder: Path) -> LabelledTable:
    from PIL import Image, UnidentifiedImageError

    files = _image_files(folder)
    pixels = []
    for file in files:
        try:
            with Image.open(file) as image:
                pixels.append(np.asarray(image))
        except (UnidentifiedImageError, OSError) as error:
            raise InvalidConfig(f"{file} is no image that can be read.", "Replace it or leave it out.") from error
    shapes = {image.shape for image in pixels}
    if len(shapes) > 1:
        raise InvalidInput(f"The images in {folder} have different shapes: {sorted(shapes)}.", "Bring them to one.")
    flat = [image.ravel().tolist() for image in pixels]
    names = np.array([file.relative_to(folder).as_posix() for file in files])
    classes = [file.parent.name for file in files]
    labels = np.array(classes)
    if all(name.isdigit() for name in classes):
        labels = labels.astype(np.int64)
    return LabelledTable(names, labels, pa.table({PIXELS: flat}), folder)
