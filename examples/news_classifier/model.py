"""The model that is served. MLflow keeps this file as it is (models-from-code): nothing is pickled."""

from pathlib import Path

import mlflow
import pandas as pd
import torch
from mlflow.pyfunc import PythonModel

from news.network import load_classifier


class NewsModel(PythonModel):
    """A table with a column `text` in; label and a probability for each class out."""

    def load_context(self, context) -> None:
        torch.set_num_threads(1)  # a request is too small to share between threads
        artifacts = context.artifacts
        self.classifier = load_classifier(Path(artifacts["weights"]), Path(artifacts["facts"]))

    def predict(self, context, model_input, params=None) -> pd.DataFrame:
        texts = [text if isinstance(text, str) else "" for text in model_input["text"]]
        probabilities = self.classifier.probabilities(texts)
        classes = self.classifier.facts.classes
        answer = pd.DataFrame({"label": [classes[best] for best in probabilities.argmax(axis=1)]})
        for number, name in enumerate(classes):
            answer[name] = probabilities[:, number].astype("float64")
        return answer


mlflow.models.set_model(NewsModel())
