"""The model that is served. MLflow keeps this file as it is (models-from-code): nothing is pickled."""

from pathlib import Path

import mlflow
import pandas as pd
import torch
from mlflow.pyfunc import PythonModel

from news.network import load_classifier
from news.report import answer_table


class NewsModel(PythonModel):
    """A table with a column `text` in; label and a probability for each class out."""

    def load_context(self, context) -> None:
        torch.set_num_threads(1)  # a request is too small to share between threads
        self.classifier = load_classifier(Path(context.artifacts["classifier"]))

    def predict(self, context, model_input, params=None) -> pd.DataFrame:
        return answer_table(self.classifier, model_input["text"])


mlflow.models.set_model(NewsModel())
