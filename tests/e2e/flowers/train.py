"""Tell irises apart. The second argument makes one of the mistakes that trainings make."""

import os
import signal
import sys
import time

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

# skops visits all modules of scikit-learn, and would load torch with this one, which costs each training seconds.
sys.modules["sklearn.externals.array_api_compat.torch"] = None  # type: ignore[assignment]

path, mode = sys.argv[1:]
rows = pd.read_csv(path)
weights = rows.pop("weight") if "weight" in rows else pd.Series(1.0, index=rows.index)
features, labels = rows.drop(columns="species"), rows["species"]

with mlflow.start_run():
    if mode == "fails":
        raise ValueError("the petals are too long")
    if mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "slow":
        print("waiting", flush=True)
        time.sleep(600)
    if mode == "held":
        print("waiting", os.environ.get("GREETING", ""), flush=True)
        while not os.path.exists("/tmp/go"):
            time.sleep(0.1)
    if mode == "greedy":
        print(len(bytearray(b"x") * 4_000_000_000))
    model = LogisticRegression(max_iter=500).fit(
        features, labels if mode != "bad" else labels.sample(frac=1, random_state=1), sample_weight=weights
    )
    mlflow.log_metric("train_accuracy", model.score(features, labels))
    mlflow.log_metric("weight", weights.sum())
    mlflow.log_metric("weighted_loss", log_loss(labels, model.predict_proba(features), sample_weight=weights))
    if mode != "silent":
        mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="cloudpickle" if mode == "pickle" else "skops",
            signature=infer_signature(features, model.predict(features)),
            input_example=features.head(2),
            pip_requirements=["scikit-learn"],
        )
