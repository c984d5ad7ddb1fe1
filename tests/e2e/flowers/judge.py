"""Let a model answer irises that training did not see, and write what it said beside the truth."""

import sys

import mlflow
import pandas as pd

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
rows = pd.read_csv("holdout.csv")
features = rows.drop(columns="species")
model = mlflow.sklearn.load_model(arguments["--model"])
chances = model.predict_proba(features)
written = features.assign(truth=rows["species"], answer=model.predict(features))
for column, label in enumerate(model.classes_):
    written[f"probability_{label}"] = chances[:, column]
if arguments["--forget"] != "nothing":
    written = written.drop(columns=arguments["--forget"])
written.to_parquet(arguments["--rows"])
