"""`mlflow run` in the component's own environment, with the entry point's true exit code written down.

Runs as a script with the component's interpreter: `python mlflow_run.py STATUS ARGUMENTS`, ARGUMENTS being those of
`mlflow.projects.run` in JSON. MLflow turns every failure into exit code 1, so that a killed training could not be told
from a wrong one. Its command line is not imported: it brings the tracking server and the gateway, which cost as much
again as the rest.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    status, arguments = Path(sys.argv[1]), json.loads(sys.argv[2])
    local = importlib.import_module("mlflow.projects.submitted_run").LocalSubmittedRun
    original = local.wait

    def wait(self: Any) -> Any:
        answer = original(self)
        status.write_text(str(self.command_proc.returncode))
        return answer

    local.wait = wait
    projects = importlib.import_module("mlflow.projects")
    try:
        projects.run(**arguments)
    except projects.ExecutionException as error:
        sys.exit(f"mlflow.projects: === {error} ===")


if __name__ == "__main__":
    # The script's own folder is headrace's; the component must not find headrace's modules there.
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]
    main()
