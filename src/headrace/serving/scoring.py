"""MLflow's scoring documents: `instances`, `inputs`, `dataframe_split`, `dataframe_records`, and the answer."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from headrace.predictions.depth import DEEPEST, is_too_deep
from headrace.serving.layout import Block, Layout, Rows
from headrace.serving.rejection import BAD_REQUEST, UNFIT, Rejected, too_many_rows
from headrace.serving.schema import NULLABLE, Table, Tensors, column_type, number_type, tensor_row_type
from headrace.types import UNNAMED, Field, Json, Signature

FORMS = ("instances", "inputs", "dataframe_split", "dataframe_records")
NUMBERS = frozenset({int, float, bool})
#: numpy has no more dimensions in any release.
MOST_NESTED = 32
UNSET = msgspec.UNSET
SKIP: Any = msgspec.Raw | msgspec.UnsetType
#: Types that are made at run time are values to the type checker.
LIST: Any = list
TUPLE: Any = tuple


class Asked(msgspec.Struct, gc=False):
    """What a request asks for: rows, and parameters for the model."""

    rows: Rows
    params: Mapping[str, Json] | None = None

    @property
    def length(self) -> int:
        """The longest text, or the largest free dimension: what rows are padded to when they are joined."""
        longest = 0
        for place in self.rows.layout.texts:
            longest = max(longest, max((len(one) for one in self.rows.parts[place] if isinstance(one, str)), default=0))
        return longest


def decode_json(decode: Callable[[bytes], Any], body: bytes) -> Any:
    """Run a compiled decoder.

    Raises:
        Rejected: 400 for what is no JSON, 422 for what does not fit; the sentence names the place.
    """
    try:
        return decode(body)
    except msgspec.ValidationError as cause:
        raise Rejected(UNFIT, _sentence(f"{cause}")) from cause
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        what = "it is not UTF-8" if "utf" in str(cause).lower() else str(cause)[:120]
        raise Rejected(BAD_REQUEST, f"The body is no valid JSON: {what}.") from cause
    except RecursionError as cause:
        raise Rejected(BAD_REQUEST, "The body is nested too deeply.") from cause


def _sentence(message: str) -> str:
    """Return msgspec's message without anything that the client sent: unknown keys are data too."""
    what, _, place = message.partition(" - at ")
    if what.startswith("Object contains unknown field"):
        what = "Object contains an unknown field"
    place = place.strip("`")
    known = place if len(place) <= 120 else f"{place[:117]}…"
    return f"{what[:200]}, at `{known}`." if known else f"{what[:200]}."


class Scoring:
    """What reads the documents of one version.

    Attributes:
        most_rows: as many as the queue ever holds; with more, a document is refused before work is put into it.
    """

    def __init__(self) -> None:
        self.most_rows = sys.maxsize

    def _check_count(self, count: int) -> None:
        if not count:
            raise Rejected(UNFIT, "The request holds no rows.")
        if count > self.most_rows:
            raise too_many_rows(count, self.most_rows)


class TableScoring(Scoring):
    """Documents for a model that takes columns."""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.table = Table(signature)
        fields = signature.inputs
        self._record = record = _struct("Record", fields, column_type)
        self._columns = columns = _struct("Columns", fields, lambda field: LIST[column_type(field)])
        self._attributes = tuple(f"f{place}" for place in range(len(fields)))
        body = msgspec.defstruct(
            "Body",
            [
                ("instances", LIST[record] | msgspec.UnsetType, UNSET),
                ("dataframe_records", LIST[record] | msgspec.UnsetType, UNSET),
                ("dataframe_split", Split | msgspec.UnsetType, UNSET),
                ("inputs", SKIP, UNSET),
                ("params", SKIP, UNSET),
                ("signature_name", Any, UNSET),
            ],
            forbid_unknown_fields=True,
        )
        self._decode = msgspec.json.Decoder(body).decode
        self._decode_columns = msgspec.json.Decoder(columns).decode
        self._decode_records = msgspec.json.Decoder(LIST[record]).decode
        self._decode_split: dict[tuple[str, ...], Callable[[bytes], Any]] = {}
        self._params = _params_decoder(signature)

    def read(self, body: bytes) -> Asked:
        """Return what a document asks for. Raises Rejected."""
        document = decode_json(self._decode, body)
        _exactly_one(document)
        params = None if document.params is UNSET else self._params(document.params)
        if document.dataframe_split is not UNSET:
            return Asked(self._split(document.dataframe_split), params)
        if document.inputs is not UNSET:
            return Asked(self._inputs(document.inputs), params)
        records = document.instances if document.instances is not UNSET else document.dataframe_records
        return Asked(self._records(records), params)

    def _records(self, records: Sequence[Any]) -> Rows:
        self._check_count(len(records))
        names, attributes = self._present(records)
        return self.table.rows(names, [[getattr(record, name) for name in attributes] for record in records])

    def _present(self, records: Sequence[Any]) -> tuple[Sequence[str], Sequence[str]]:
        """Return the columns that the records have; those that lack an optional one get a null."""
        if all(field.required for field in self.table.fields.values()):
            return self.table.names, self._attributes
        names, attributes = [], []
        for field, attribute in zip(self.table.fields.values(), self._attributes, strict=True):
            lacking = [record for record in records if getattr(record, attribute) is UNSET]
            if len(lacking) == len(records):
                continue
            if lacking and field.dtype not in NULLABLE:
                raise Rejected(
                    UNFIT, f"Some rows lack the column `{field.name}`; as {field.dtype} it is in all rows or in none."
                )
            for record in lacking:
                setattr(record, attribute, None)
            names.append(field.name)
            attributes.append(attribute)
        return names, attributes

    def _inputs(self, raw: bytes) -> Rows:
        if bytes(memoryview(raw)[:1]) == b"[":
            return self._records(decode_json(self._decode_records, raw))
        columns = decode_json(self._decode_columns, raw)
        present = [
            (name, getattr(columns, attribute))
            for name, attribute in zip(self.table.names, self._attributes, strict=True)
            if getattr(columns, attribute) is not UNSET
        ]
        lengths = {len(values) for _, values in present}
        if len(lengths) != 1:
            raise Rejected(UNFIT, f"The columns in `$.inputs` have {sorted(lengths)} rows; they need the same number.")
        self._check_count(lengths.pop())
        return self.table.rows(
            [name for name, _ in present], list(zip(*(values for _, values in present), strict=True))
        )

    def _split(self, split: "Split") -> Rows:
        names = split.columns
        self.table.check_names(names, "$.dataframe_split.columns")
        decode = self._decode_split.get(names)
        if decode is None:
            row = TUPLE[tuple(column_type(self.table.fields[name]) for name in names)]
            decode = msgspec.json.Decoder(LIST[row]).decode
            if len(self._decode_split) < 64:
                self._decode_split[names] = decode
        rows = decode_json(decode, split.data)
        self._check_count(len(rows))
        return self.table.rows(names, rows)


class Split(msgspec.Struct, forbid_unknown_fields=True):
    """pandas' `split` orientation."""

    columns: tuple[str, ...]
    data: msgspec.Raw
    index: msgspec.Raw | msgspec.UnsetType = UNSET


class TensorScoring(Scoring):
    """Documents for a model that takes tensors."""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.tensors = Tensors(signature)
        fields = signature.inputs
        self._is_single = len(fields) == 1 and fields[0].name == UNNAMED
        self._attributes = tuple(f"f{place}" for place in range(len(fields)))
        if self._is_single:
            rows: Any = LIST[tensor_row_type(fields[0])]
            instances, inputs = rows, rows
        else:
            instances = LIST[_struct("Row", fields, tensor_row_type)]
            inputs = _struct("Named", fields, lambda field: LIST[tensor_row_type(field)])
        body = msgspec.defstruct(
            "Body",
            [
                ("instances", instances | msgspec.UnsetType, UNSET),
                ("inputs", inputs | msgspec.UnsetType, UNSET),
                ("dataframe_split", FrameRows | msgspec.UnsetType, UNSET),
                ("dataframe_records", list[dict[str, float]] | msgspec.UnsetType, UNSET),
                ("params", SKIP, UNSET),
                ("signature_name", Any, UNSET),
            ],
            forbid_unknown_fields=True,
        )
        self._decode = msgspec.json.Decoder(body).decode
        self._rows = msgspec.json.Decoder(instances).decode
        self._params = _params_decoder(signature)
        self._decode_plain: Callable[[bytes], Any] | None = None
        if self._is_single and self.tensors.is_flat:
            # Numbers beyond `float32` are found when they are packed.
            number = number_type("float64" if fields[0].dtype == "float32" else fields[0].dtype)
            plain_rows = LIST[TUPLE[(number,) * fields[0].shape[1]]]
            forms = [(name, plain_rows | msgspec.UnsetType, UNSET) for name in ("inputs", "instances")]
            plain = msgspec.defstruct("Plain", forms, forbid_unknown_fields=True, gc=False)
            self._decode_plain = msgspec.json.Decoder(plain).decode

    def read(self, body: bytes) -> Asked:
        """Return what a document asks for. Raises Rejected."""
        if self._decode_plain is not None:
            # Most documents hold rows of numbers and nothing else.
            try:
                plain = self._decode_plain(body)
                rows = plain.inputs or plain.instances
                if rows and (plain.inputs is UNSET or plain.instances is UNSET):
                    return Asked(self.tensors.flat_rows(rows))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
                pass  # It is something else, or wrong, which is told below.
        document = decode_json(self._decode, body)
        _exactly_one(document)
        params = None if document.params is UNSET else self._params(document.params)
        return Asked(self._tensors(document), params)

    def _tensors(self, document: Any) -> Rows:
        if document.instances is not UNSET:
            found = document.instances
        elif document.inputs is not UNSET:
            found = document.inputs
        else:
            found = self._from_frame(document)
        if self._is_single:
            self._check_count(len(found))
            return self.tensors.rows([found])
        if isinstance(found, list):
            self._check_count(len(found))
            return self.tensors.rows([[getattr(row, name) for row in found] for name in self._attributes])
        self._check_count(len(getattr(found, self._attributes[0])))
        return self.tensors.rows([getattr(found, name) for name in self._attributes])

    def _from_frame(self, document: Any) -> Any:
        if not self._is_single or len(self.tensors.fields[0].shape) != 2:
            raise Rejected(UNFIT, "The model takes tensors, not a table.", "Send `instances` or `inputs`.")
        if document.dataframe_split is not UNSET:
            return decode_json(self._rows, document.dataframe_split.data)
        self._check_count(len(document.dataframe_records))
        _, rows = _aligned(document.dataframe_records, "dataframe_records")
        return decode_json(self._rows, msgspec.json.encode(rows))


class FrameRows(msgspec.Struct):
    """A table for a model that takes its values as one tensor."""

    data: msgspec.Raw


class AnyScoring(Scoring):
    """Documents for a model that was logged without a signature: whatever they hold."""

    def __init__(self) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode

    def read(self, body: bytes) -> Asked:
        """Return what a document asks for. Raises Rejected."""
        document = decode_json(self._decode, body)
        given = [name for name in FORMS if name in document]
        if len(given) != 1:
            raise Rejected(UNFIT, _forms(len(given)))
        params = document.get("params")
        if not isinstance(params, dict | None):
            raise Rejected(UNFIT, "`$.params` is no object.")
        if params and is_too_deep(params):  # A worker's Python may read fewer levels than this one.
            raise Rejected(UNFIT, f"`$.params` is nested deeper than {DEEPEST} levels.")
        try:
            return Asked(self._rows(given[0], document[given[0]]), params)
        except (KeyError, TypeError, ValueError, IndexError) as cause:
            raise Rejected(UNFIT, f"The rows in `$.{given[0]}` have no common shape.") from cause

    def _rows(self, form: str, found: Any) -> Rows:
        rows = found["data"] if form == "dataframe_split" else found
        if not isinstance(rows, list):
            raise TypeError("no list of rows")
        self._check_count(len(rows))
        if form == "dataframe_split":
            return _frame(found["columns"], rows)
        if isinstance(rows[0], dict):
            return _frame(*_aligned(rows, form))
        return _array(rows)


def _aligned(records: Sequence[Any], form: str) -> tuple[list[str], list[list[Any]]]:
    """Return the first record's keys, and all records' values in that order. Raises Rejected."""
    names = list(records[0])
    for place, record in enumerate(records):
        if not isinstance(record, dict) or record.keys() != records[0].keys():
            raise Rejected(UNFIT, f"`$.{form}[{place}]` does not have the same keys as the first row.")
    return names, [[record[name] for name in names] for record in records]


def _frame(names: list[Any], rows: list[Any]) -> Rows:
    # Tables without names have numbers for them.
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise TypeError("columns have no names")
    if not names or len(set(names)) != len(names):
        raise ValueError("no columns, or one twice")
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise ValueError("rows and columns differ")
    block = Block("", tuple(names), "json", (len(names),))
    return Rows(
        len(rows), Layout("frame", (block,), tuple(names)), [[v for row in rows for v in row]], ((len(names),),)
    )


def _array(rows: list[Any]) -> Rows:
    kinds = _kinds(rows)
    if str in kinds:
        return _texts(rows)
    if not kinds <= NUMBERS:
        raise ValueError("values that are no numbers")
    values = np.array(rows)
    if values.dtype.kind not in "biuf":
        raise ValueError("numbers beyond 64 bits")
    shape = values.shape[1:]
    block = Block("", (), str(values.dtype), shape)
    return Rows(len(values), Layout("array", (block,)), [values.tobytes()], (shape,))


def _texts(rows: list[Any]) -> Rows:
    # Not numpy's type for texts, which takes the longest one's room for each.
    values = np.array(rows, object)
    flat = values.ravel().tolist()
    if not set(map(type, flat)) <= NUMBERS | {str}:
        raise ValueError("no rows of one shape")
    shape = values.shape[1:]
    return Rows(len(values), Layout("array", (Block("", (), "json", shape),)), [flat], (shape,))


def _kinds(rows: list[Any]) -> set[type]:
    """Return the types of what lies as deep in the rows as the first value does."""
    values: Iterable[Any] = rows
    first = rows[0]
    for _ in range(MOST_NESTED):
        if not isinstance(first, list):
            return set(map(type, values))
        values = chain.from_iterable(values)
        first = first[0] if first else None
    raise ValueError("nested too deeply")


def scoring_of(signature: Signature | None) -> TableScoring | TensorScoring | AnyScoring:
    """Compile the decoder of a model's documents."""
    if signature is None:
        return AnyScoring()
    return TableScoring(signature) if signature.is_tabular else TensorScoring(signature)


def _struct(name: str, fields: Sequence[Field], type_of: Callable[[Field], Any]) -> Any:
    """Return a struct type with the fields' names in JSON and `f0`, `f1`, … in Python."""
    ordered = sorted(enumerate(fields), key=lambda pair: not pair[1].required)
    members: list[Any] = [
        (f"f{place}", type_of(field)) if field.required else (f"f{place}", type_of(field) | msgspec.UnsetType, UNSET)
        for place, field in ordered
    ]
    rename = {f"f{place}": field.name for place, field in enumerate(fields)}
    return msgspec.defstruct(name, members, rename=rename, forbid_unknown_fields=True)


def _params_decoder(signature: Signature) -> Callable[[bytes], Mapping[str, Json]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode

    def read(raw: bytes) -> Mapping[str, Json]:
        params: dict[str, Json] = decode_json(decode, raw)
        if any(name not in signature.params for name in params):
            known = ", ".join(signature.params) or "none"
            raise Rejected(UNFIT, f"`$.params` holds a parameter that the model does not have (it has: {known}).")
        return params

    return read


def _exactly_one(document: Any) -> None:
    given = (
        (document.instances is not UNSET)
        + (document.inputs is not UNSET)
        + (document.dataframe_split is not UNSET)
        + (document.dataframe_records is not UNSET)
    )
    if given != 1:
        raise Rejected(UNFIT, _forms(given))


def _forms(given: int) -> str:
    return f"The body has {given} of `{'`, `'.join(FORMS)}`; it needs exactly one."
