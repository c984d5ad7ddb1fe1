"""Play the readers: send texts to the endpoint, then tell it what they were about.

    python readers.py http://127.0.0.1:PORT --texts data/stream.parquet
    python readers.py http://127.0.0.1:PORT --texts data/stream.parquet --skip 300 --number 600 --feed hyphens

`--feed hyphens` is a change upstream that happens: the new feed puts soft hyphens into words. People do not see
them, and no test of types or columns does either.
"""

import argparse
import json
import urllib.request

import pyarrow.parquet as pq

SOFT_HYPHEN = "\u00ad"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--texts", required=True, help="Parquet with text and label")
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--skip", type=int, default=0, help="texts that were sent before")
    parser.add_argument("--feed", choices=("plain", "hyphens"), default="plain")
    parser.add_argument("--batch", type=int, default=20)
    options = parser.parse_args()
    table = pq.read_table(options.texts).to_pydict()
    order = [(options.skip + row) % len(table["text"]) for row in range(options.number)]
    right = 0
    for start in range(0, len(order), options.batch):
        rows = order[start : start + options.batch]
        texts = [table["text"][row] for row in rows]
        labels = [table["label"][row] for row in rows]
        if options.feed == "hyphens":
            texts = [hyphenate(text) for text in texts]
        answer = post(options.url + "/invocations", {"inputs": {"text": texts}})
        right += sum(given["label"] == label for given, label in zip(answer["predictions"], labels, strict=True))
        actuals = zip(answer["prediction_ids"], labels, strict=True)
        post(options.url + "/feedback", {"actuals": [{"prediction_id": one, "actual": label} for one, label in actuals]})
    print(json.dumps({"sent": options.number, "accuracy": round(right / options.number, 4)}))


def hyphenate(text: str) -> str:
    """Return a text with a soft hyphen after the second letter of each longer word."""
    return " ".join(word[:2] + SOFT_HYPHEN + word[2:] if len(word) > 3 else word for word in text.split(" "))


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


if __name__ == "__main__":
    main()
