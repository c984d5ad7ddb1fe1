"""How a disease progresses in a year, from ten measurements: an elastic net in scikit-learn."""

import argparse

import mlflow
import pandas as pd
from sklearn.linear_model import ElasticNet
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="train.csv")
    parser.add_argument("--alpha", type=float, default=0.1)
    options = parser.parse_args()
    frame = pd.read_csv(options.data)
    features, target = frame.drop(columns="progression"), frame["progression"]
    with mlflow.start_run():
        mlflow.log_params(vars(options))
        model = make_pipeline(StandardScaler(), ElasticNet(alpha=options.alpha)).fit(features, target)
        mlflow.log_metric("train_r2", model.score(features, target))
        # skops instead of pickle: loading it runs no code.
        mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="skops",
            input_example=features[:2],
            pip_requirements=["scikit-learn==1.9.1", "skops==0.16.0", "pandas==3.1.1"],
        )


if __name__ == "__main__":
    main()
