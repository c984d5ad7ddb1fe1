"""`headrace init`: a commented headrace.yaml beside an existing MLproject."""

from pathlib import Path

from headrace.cli.terminal import console, good, print_json
from headrace.config.component import DataInput
from headrace.config.parse import FILE, parse_component, read_component
from headrace.config.settings import read_settings
from headrace.config.template import Answers, component_name, likely_data_parameter, render
from headrace.data.tables import read_columns, read_table
from headrace.errors import Conflict, InvalidInput
from headrace.evaluation.answers import task_of
from headrace.files import write_atomically
from headrace.training.project import EntryPoint, Project, read_project
from headrace.types import Json, Task

HOLDOUTS = (".parquet", ".csv")


def init(folder: Path, *, holdout: str, label: str, evaluate: str, name: str, force: bool, as_json: bool) -> None:
    """Write headrace.yaml from what the MLproject says and the user tells."""
    folder = folder.absolute()
    target = folder / FILE
    if target.exists() and not force:
        raise Conflict(f"{target} is there already.", "Replace it with `headrace init --force`.")
    project = read_project(folder)
    out = console(as_json=as_json)
    if not holdout and not evaluate and out.is_terminal and not as_json:
        out.print(
            "A gate needs rows that training does not see: a Parquet or CSV file, or a folder of images by class."
        )
        holdout = out.input("holdout (empty to fill it in later): ").strip()
        label = label or (out.input("its column with the truth: ").strip() if holdout else "")
    check_holdout(folder, holdout, label)
    if evaluate:
        project.entry_point(evaluate)
    text = render(answers(project, holdout=holdout, label=label, evaluate=evaluate, name=name))
    component = parse_component(text, target)
    write_atomically(target, text, mode=0o644)
    document: dict[str, Json] = {"file": str(target), "component": component.component, "holdout": holdout or None}
    if as_json:
        print_json(document)
        return
    good(f"{target} (component `{component.component}`)")
    if not holdout and not evaluate:
        out.print("  → name the holdout under `data:` there; without it nothing can be judged")
    out.print("  next: headrace run")


def install_hook(folder: Path, *, as_json: bool) -> None:
    """Let git say when there is a commit to look at."""
    from headrace.cli.hook import install

    component = read_component(folder.absolute())
    paths = install(component.folder, component.component, read_settings())
    if as_json:
        print_json({"component": component.component, "hooks": [str(path) for path in paths]})
        return
    good(f"{paths[0].parent}: {', '.join(path.name for path in paths)}")


def install_compose(folder: Path, *, force: bool, as_json: bool) -> None:
    """Write a compose.yaml with everything that belongs to it."""
    from headrace.deploy.compose.write import write_compose

    written = write_compose(folder.absolute(), force=force)
    if as_json:
        print_json({"files": [str(path) for path in written]})
        return
    names = ", ".join(path.name for path in written if path.parent == folder.absolute())
    console().print(f"[green]✓[/green] {names} in {folder}; passwords and keys were made in {folder}/secrets. "
                    f"Read {folder}/README.md.", soft_wrap=True)  # fmt: skip


def check_holdout(folder: Path, holdout: str, label: str) -> None:
    """Raise InvalidInput where the holdout cannot be one."""
    if not holdout:
        return
    path = folder / holdout
    if not path.exists():
        raise InvalidInput(f"The holdout {path} is not there.", "Give its path relative to the project's folder.")
    if path.is_dir():
        return
    if path.suffix not in HOLDOUTS:
        raise InvalidInput(
            f"The holdout {path.name} is neither Parquet, CSV nor a folder of images.", "Convert it to one of them."
        )
    columns = read_columns(path).column_names
    if label not in columns:
        fact = f"{path.name} has no column `{label}`." if label else f"Which column of {path.name} is the truth?"
        raise InvalidInput(fact, f"Name it with `--label COLUMN`; there are: {', '.join(columns)}.")


def answers(project: Project, *, holdout: str, label: str, evaluate: str, name: str) -> Answers:
    """Return what is known about a project, for the template."""
    entry = main_entry_point(project)
    kinds = {parameter.name: parameter.kind for parameter in entry.parameters.values()}
    data_parameter = likely_data_parameter(kinds)
    default = entry.parameters[data_parameter].default if data_parameter else None
    has_tests = any(project.folder.glob("test_*.py")) or (project.folder / "tests").is_dir()
    return Answers(
        component=component_name(name or project.name),
        entry_point=entry.name,
        parameters={parameter.name: parameter.default for parameter in entry.parameters.values()},
        data_parameter=data_parameter,
        train=default if default and (project.folder / default).exists() else None,
        holdout=holdout or None,
        label=label or None,
        task=task_of_holdout(project.folder, holdout, label),
        evaluate=evaluate or None,
        tests="pytest -q" if has_tests else None,
    )


def task_of_holdout(folder: Path, holdout: str, label: str) -> Task | None:
    """Return what the holdout's truth asks for; None where no holdout is named."""
    if not holdout:
        return None
    return task_of(read_table(DataInput(uri=holdout, label=label or None), folder).labels)


def main_entry_point(project: Project) -> EntryPoint:
    """Return `main`, or the only entry point. Raises InvalidInput where nobody can tell."""
    if "main" in project.entry_points or not project.entry_points:
        return project.entry_point("main")
    if len(project.entry_points) == 1:
        return next(iter(project.entry_points.values()))
    names = ", ".join(project.entry_points)
    raise InvalidInput(
        f"The MLproject has no entry point `main` and several others ({names}).",
        "Name the training one `main`, or write headrace.yaml by hand: see docs/configuration.md.",
    )
