"""Which of three cultivars a wine is made of, from its chemistry: boosted trees in XGBoost."""

import argparse

import mlflow
import pandas as pd
from xgboost import XGBClassifier


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="train.csv")
    parser.add_argument("--depth", type=int, default=3)
    options = parser.parse_args()
    frame = pd.read_csv(options.data)
    features, target = frame.drop(columns="cultivar").astype("float64"), frame["cultivar"]
    with mlflow.start_run():
        mlflow.log_params(vars(options))
        model = XGBClassifier(max_depth=options.depth, n_estimators=60, n_jobs=1).fit(features, target)
        # UBJ is XGBoost's own format: loading it runs no code.
        mlflow.xgboost.log_model(
            model,
            name="model",
            model_format="ubj",
            input_example=features[:2],
            pip_requirements=["xgboost-cpu==3.2.0", "scikit-learn==1.9.1", "pandas==3.1.1"],
        )


if __name__ == "__main__":
    main()
