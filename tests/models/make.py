"""Save one small model of the kind that is asked for; run by the tests in a component's environment."""

import sys
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import infer_signature

TEXT_MODEL = """\
import mlflow
import pandas as pd

class Length(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        texts = model_input["text"].tolist()
        return pd.DataFrame({"label": ["long" if len(text) > 20 else "short" for text in texts],
                             "length": [len(text) for text in texts]})

mlflow.models.set_model(Length())
"""


def mlp(path: Path) -> None:
    """A small network over 64 numbers, saved as pt2."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)).eval()
    example = np.random.default_rng(0).random((4, 64), dtype="float32")
    signature = infer_signature(example, model(torch.from_numpy(example)).detach().numpy())
    mlflow.pytorch.save_model(
        model, path, signature=signature, input_example=example, pip_requirements=["torch==2.13.0"]
    )


def table(path: Path) -> None:
    """A scikit-learn pipeline over a table with numbers and a text column, as models-from-code would not need it."""
    code = path.parent / "table_model.py"
    code.write_text(
        "import mlflow\n\n"
        "class Rule(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        bonus = model_input['town'].map({'Bern': 10.0}).fillna(0.0)\n"
        "        return (model_input['age'] * 2 + model_input['rooms'] + bonus).to_numpy()\n\n"
        "mlflow.models.set_model(Rule())\n"
    )
    import pandas as pd

    example = pd.DataFrame({"age": [1.5, 2.0], "rooms": [3, 4], "town": ["Bern", "Ulm"]})
    signature = infer_signature(example, np.array([16.0, 8.0]))
    mlflow.pyfunc.save_model(path, python_model=str(code), signature=signature, pip_requirements=["mlflow==3.17.2"])


def text(path: Path) -> None:
    """A model from code that takes texts and answers with a table of a text and a number."""
    import pandas as pd

    code = path.parent / "text_model.py"
    code.write_text(TEXT_MODEL)
    example = pd.DataFrame({"text": ["short", "a text of more than twenty letters"]})
    answer = pd.DataFrame({"label": ["short", "long"], "length": [5, 34]})
    mlflow.pyfunc.save_model(
        path, python_model=str(code), signature=infer_signature(example, answer), pip_requirements=["mlflow==3.17.2"]
    )


def topics(path: Path) -> None:
    """A model from code whose answer holds an embedding of the text; how sure it is has nothing to do with that."""
    import pandas as pd

    code = path.parent / "topics_model.py"
    code.write_text(
        "import mlflow\nimport numpy as np\n\n"
        "class Topics(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        meaning = np.array([[text.count(one) for one in 'abcdefgh'] for text in model_input['text']], float)\n"
        "        sure = 0.5 + 0.4 * np.sin(meaning @ np.arange(1, 9) ** 3)\n"
        "        chances = np.stack([sure, 1 - sure], axis=1)\n"
        "        return {'probabilities': chances, 'meaning': meaning.astype(np.float32)}\n\n"
        "mlflow.models.set_model(Topics())\n"
    )
    answer = {"probabilities": np.array([[0.5, 0.5]]), "meaning": np.zeros((1, 8), np.float32)}
    signature = infer_signature(pd.DataFrame({"text": ["abba"]}), answer)
    mlflow.pyfunc.save_model(path, python_model=str(code), signature=signature, pip_requirements=["mlflow==3.17.2"])


def sleepy(path: Path) -> None:
    """A model that takes 20 ms for each row, whatever the machine does besides; on a row below zero it hangs."""
    import pandas as pd

    code = path.parent / "sleepy_model.py"
    code.write_text(
        "import time\nimport mlflow\n\n"
        "class Sleepy(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        if (model_input['x'] < 0).any():\n"
        "            time.sleep(1e6)\n"
        "        time.sleep(0.02 * len(model_input))\n"
        "        return model_input['x'].to_numpy()\n\n"
        "mlflow.models.set_model(Sleepy())\n"
    )
    signature = infer_signature(pd.DataFrame({"x": [0.0, 1.0]}), np.array([0.0, 1.0]))
    mlflow.pyfunc.save_model(path, python_model=str(code), signature=signature, pip_requirements=["mlflow==3.17.2"])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for kind in (mlp, table, text, topics, sleepy):
        if not (target / kind.__name__).exists():
            kind(target / kind.__name__)
