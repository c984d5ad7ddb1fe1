"""The fine-tuned transformer as it is served (models-from-code): nothing is pickled, nothing is fetched."""

from pathlib import Path

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from news.encoder import load_encoder
from news.report import answer_table


class TransformerModel(PythonModel):
    """A table with a column `text` in; label and a probability for each class out."""

    def load_context(self, context) -> None:
        self.classifier = load_encoder(Path(context.artifacts["classifier"]))

    def predict(self, context, model_input, params=None) -> pd.DataFrame:
        return answer_table(self.classifier, model_input["text"])


mlflow.models.set_model(TransformerModel())
