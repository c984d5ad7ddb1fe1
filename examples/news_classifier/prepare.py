"""Split news into what training sees, what candidates are judged by, and what readers will send (see readers.py):
data/train.parquet, data/holdout.parquet, data/stream.parquet. No story stands in two of them.

    python prepare.py                                        the headlines that come with this project
    python prepare.py --source ag_news_train.parquet         a copy of AG News
"""

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from news.dataset import BadData, load_news
from news.splitting import split

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=str(HERE / "headlines.csv"), help="path, address or datasets:NAME")
    parser.add_argument("--digest", default="", help="md5:… or sha256:… of the source")
    parser.add_argument("--holdout", type=float, default=0.0, help="share; by default a tenth, a third of small files")
    parser.add_argument("--rows", type=int, default=0, help="use only so many rows")
    parser.add_argument("--output", type=Path, default=HERE / "data")
    options = parser.parse_args()
    news = load_news(options.source, digest=options.digest, rows=options.rows)
    texts, labels = news.texts, news.labels
    share = options.holdout or (0.1 if len(texts) > 1000 else 1 / 3)
    parts = split(texts, {"holdout": share, "stream": 0.1, "train": 0.9 - share})
    options.output.mkdir(parents=True, exist_ok=True)
    for part in ("train", "holdout", "stream"):
        rows = [row for row, name in enumerate(parts) if name == part]
        write([texts[row] for row in rows], [labels[row] for row in rows], options.output / f"{part}.parquet")


def write(texts: list[str], labels: list[str], path: Path) -> None:
    """Write rows with ids that are made of their text, and say how many of each class there are."""
    ids = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16] for text in texts]
    copies: Counter[str] = Counter()
    for row, name in enumerate(ids):
        copies[name] += 1
        ids[row] = name if copies[name] == 1 else f"{name}-{copies[name]}"
    pq.write_table(pa.table({"id": ids, "text": texts, "label": labels}), path)
    counts = ", ".join(f"{name} {number}" for name, number in sorted(Counter(labels).items()))
    print(f"{path}: {len(texts)} rows ({counts})")


if __name__ == "__main__":
    try:
        main()
    except BadData as problem:
        sys.exit(str(problem))
