"""Golden predictions over HTTP: sent as any client would, and compared with what was recorded at training time."""

from collections.abc import Mapping

from headrace.client import Scorer
from headrace.errors import InvalidInput, ModelRefused
from headrace.provenance.golden import difference, load
from headrace.registry.mlmodel import read_mlmodel
from headrace.types import Arrays, ServedVersion


def check_golden(
    version: ServedVersion, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> int:
    """Ask `url` for the version's golden predictions and return the number of rows that agree; 0 where it has none.

    Args:
        url: whole, with the path that scores.

    Raises:
        ModelRefused: the inputs are refused, or an answer is not what was recorded.
        Unavailable: there is no answer.
    """
    if version.golden is None:
        return 0
    golden = load(version.golden)
    signature = read_mlmodel(version.model).signature
    subject = f"{version.component} version {version.version}"
    with Scorer(url, timeout_s=timeout_s, headers=headers) as scorer:

        def ask(inputs: Arrays) -> Arrays:
            return scorer.score(signature, inputs, path="", like=golden.outputs).outputs

        try:
            found = difference(golden, ask)
        except InvalidInput as error:
            raise ModelRefused(f"{subject} cannot answer its golden inputs: {error.fact}", error.remedy) from error
    if found:
        raise ModelRefused(
            f"{subject} does not give its golden answers at {url}: {found}.",
            "Compare the environments of training and serving; they must be the same lock.",
        )
    return len(next(iter(golden.inputs.values())))
