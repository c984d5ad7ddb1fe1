"""The fine-tuned transformer as it is served (models-from-code): nothing is pickled, nothing is fetched."""

from pathlib import Path

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from news.encoder import load_encoder


class TransformerModel(PythonModel):
    """A table with a column `text` in; label and a probability for each class out."""

    def load_context(self, context) -> None:
        self.classifier = load_encoder(Path(context.artifacts["encoder"]))

    def predict(self, context, model_input, params=None) -> pd.DataFrame:
        texts = [text if isinstance(text, str) else "" for text in model_input["text"]]
        probabilities = self.classifier.probabilities(texts)
        classes = self.classifier.classes
        answer = pd.DataFrame({"label": [classes[best] for best in probabilities.argmax(axis=1)]})
        for number, name in enumerate(classes):
            answer[name] = probabilities[:, number].astype("float64")
        return answer


mlflow.models.set_model(TransformerModel())
