"""News as texts and labels, from a file, an address or a `datasets` name; what is wrong is told before training."""

import csv
import hashlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

CLASSES = ("world", "sports", "business", "science")
#: The files of the original corpus (Zhang, Zhao, LeCun 2015): no header; class 1 to 4, title, description.
OFFICIAL = {"train.csv": "md5:b1a00f826fdfbd249f79597b59e1dc12", "test.csv": "md5:d52ea96a97a2d943681189a97654912d"}


class BadData(Exception):
    """The data cannot be used; the message says what is wrong and what would be right."""


@dataclass(frozen=True)
class News:
    """Texts with their labels, one of `CLASSES` each."""

    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def load_news(source: str, *, digest: str = "", rows: int = 0) -> News:
    """Return the news in a Parquet or CSV file.

    Args:
        source: a path, an http(s) address, or `datasets:NAME[/SPLIT]` for the `datasets` package.
        digest: `md5:…` or `sha256:…` of the file. The two files of the original corpus are known by name.
        rows: only so many, from the beginning; 0 for all.

    Raises:
        BadData: the file is missing, truncated, not the one that the digest names, or has other columns or labels.
    """
    news = _load(source, digest)
    return News(news.texts[:rows], news.labels[:rows]) if rows else news


def _load(source: str, digest: str) -> News:
    if source.startswith("datasets:"):
        return _news(_from_datasets(source), source)
    if source.startswith(("http://", "https://")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / (source.split("?")[0].rstrip("/").rpartition("/")[2] or "news.csv")
            _download(source, path)
            return _read(path, source, digest)
    return _read(Path(source), source, digest)


def _read(path: Path, source: str, digest: str) -> News:
    if not path.is_file():
        raise BadData(f"There is no file {source}. Give a Parquet or CSV file with labels and texts.")
    if path.stat().st_size == 0:
        raise BadData(f"{source} is empty.")
    _check_digest(path, source, digest)
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _read_csv(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as cause:
        first = str(cause).splitlines()[0]
        raise BadData(f"{source} cannot be read ({first}). It may be truncated: fetch it again.") from cause
    return _news(table, source)


def _check_digest(path: Path, source: str, digest: str) -> None:
    has_header = path.suffix == ".csv" and path.open("rb").read(40).lower().startswith((b"label", b"text", b"id"))
    expected = digest or ("" if has_header else OFFICIAL.get(path.name, ""))
    if not expected:
        return
    kind, _, value = expected.partition(":")
    if kind not in {"md5", "sha256"} or not value:
        raise BadData(f"`{digest}` is no digest; write md5:… or sha256:…")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != value.lower():
        raise BadData(
            f"{source} has the {kind} digest {found}, not {value}: it is truncated or another file. Fetch it again, or "
            "give the digest that you expect with `digest`."
        )


def _read_csv(path: Path) -> pa.Table:
    with path.open(newline="", encoding="utf-8") as file:
        first = next(csv.reader(file), [])
    has_header = not (len(first) == 3 and first[0].isdigit())
    names = None if has_header else ["class", "title", "description"]
    return pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(column_names=names),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in ("title", "description", "text", "label")},
            strings_can_be_null=False,
        ),
    )


def _download(source: str, to: Path) -> None:
    try:
        with urllib.request.urlopen(source, timeout=60) as response, to.open("wb") as file:
            while piece := response.read(1 << 20):
                file.write(piece)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as cause:
        raise BadData(f"{source} cannot be fetched: {getattr(cause, 'reason', cause)}.") from cause


def _from_datasets(source: str) -> pa.Table:
    try:
        import datasets
    except ImportError as cause:
        raise BadData("The package `datasets` is not in this environment. Add it to python_env.yaml.") from cause
    name, _, part = source.removeprefix("datasets:").rpartition("/")
    name, part = (name, part) if part in {"train", "test", "validation"} else (source.removeprefix("datasets:"), "train")
    return datasets.load_dataset(name, split=part).data.table


def _news(table: pa.Table, source: str) -> News:
    names = set(table.column_names)
    label = next((name for name in ("label", "class") if name in names), None)
    text = "text" if "text" in names else None
    if label is None or (text is None and "description" not in names):
        raise BadData(
            f"{source} has the columns {', '.join(table.column_names)}. It needs `label`, and `text` or `title` and "
            "`description`."
        )
    if table.num_rows == 0:
        raise BadData(f"{source} has no rows.")
    labels = _labels(table.column(label).to_pylist(), source, first=1 if label == "class" else 0)
    if text:
        return News([value or "" for value in table.column(text).to_pylist()], labels)
    titles = table.column("title").to_pylist() if "title" in names else [""] * table.num_rows
    # A third of the titles are empty in common copies of the corpus, the title being the description's beginning.
    joined = zip(titles, table.column("description").to_pylist(), strict=True)
    return News([" ".join(part for part in (title, body) if part) for title, body in joined], labels)


def _labels(values: Sequence[object], source: str, *, first: int) -> list[str]:
    known: dict[object, str] = {number + first: name for number, name in enumerate(CLASSES)}
    known |= {str(number): name for number, name in list(known.items())}
    known |= {name: name for name in CLASSES}
    for row, value in enumerate(values):
        if value not in known:
            raise BadData(
                f"{source}, row {row}: there is no class `{value}`. The classes are {', '.join(CLASSES)}, or their "
                f"numbers {first} to {first + len(CLASSES) - 1}."
            )
    return [known[value] for value in values]
