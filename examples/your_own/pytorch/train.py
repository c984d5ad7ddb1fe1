"""Benign or malign, from ten measurements of a cell's nucleus: a small network in PyTorch."""

import argparse

import mlflow
import numpy as np
import pandas as pd
import torch
from torch import nn


class Tumours(nn.Module):
    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.layers = nn.Sequential(nn.Linear(len(mean), 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers((features - self.mean) / self.scale)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="train.csv")
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    torch.manual_seed(0)
    frame = pd.read_csv(options.data)
    features = frame.drop(columns="benign").to_numpy("float32")
    labels = torch.tensor(frame["benign"].to_numpy("int64"))
    model = Tumours(features.mean(axis=0), features.std(axis=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    with mlflow.start_run():
        mlflow.log_params(vars(options))
        for epoch in range(options.epochs):
            loss = nn.functional.cross_entropy(model(torch.from_numpy(features)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mlflow.log_metric("loss", loss.item(), step=epoch)
        model.eval()
        # An example of two rows: the exported graph then takes any number of them.
        mlflow.pytorch.log_model(
            model, name="model", input_example=features[:2], pip_requirements=["torch==2.13.0", "numpy==2.4.6"]
        )


if __name__ == "__main__":
    main()
