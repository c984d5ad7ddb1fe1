"""What a project says about its environment is read as MLflow reads it, and refused by name where it cannot be had."""

from pathlib import Path

import pytest

from headrace.environment.sources import read_sources
from headrace.errors import InvalidConfig


def project(folder: Path, **files: str) -> Path:
    """Write a project; `__` in a name stands for a dot."""
    files.setdefault("MLproject", "name: p\n")
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_python_env_with_included_requirements(tmp_path: Path) -> None:
    project(
        tmp_path,
        MLproject="python_env: env.yaml\n",
        env__yaml='python: "3.11"\ndependencies:\n  - -r requirements.txt\n  - torch==2.13.0\n',
        requirements__txt="numpy==2.4.6  # fast\n\n# a comment\nmlflow \\\n  ==3.17.2\n",
    )
    found = read_sources(tmp_path)
    assert found.python == "3.11"
    assert found.requirements == ("numpy==2.4.6", "mlflow ==3.17.2", "torch==2.13.0")
    assert sorted(found.files) == ["env.yaml", "requirements.txt"]


def test_a_file_that_mlproject_names_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"python_env: other\.yaml"):
        read_sources(project(tmp_path, MLproject="python_env: other.yaml\n", requirements__txt="mlflow\n"))


def test_the_defaults_are_found_without_being_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert read_sources(project(tmp_path / "a", python_env__yaml="dependencies: [mlflow]\n")).requirements == (
        "mlflow",
    )
    assert read_sources(project(tmp_path / "b", requirements__txt="mlflow\n")).requirements == ("mlflow",)


def test_conda_gives_its_pip_part_and_what_pypi_has_too(tmp_path: Path) -> None:
    conda = """
    channels: [conda-forge]
    dependencies:
      - python=3.11.5
      - pip<=23
      - conda-forge::scikit-learn=1.9
      - numpy==2.4.6
      - pandas>=2
      - pytorch=2.13.0=py311_cpu
      - pip: [mlflow==3.17.2, skops]
    """
    found = read_sources(project(tmp_path, MLproject="conda_env: conda.yaml\n", conda__yaml=conda))
    assert found.python == "3.11.5"
    assert found.requirements == (
        "scikit-learn==1.9.*", "numpy==2.4.6", "pandas>=2", "torch==2.13.0", "mlflow==3.17.2", "skops",
    )  # fmt: skip


def test_conda_packages_that_pip_cannot_give_are_refused_by_name(tmp_path: Path) -> None:
    conda = "dependencies: [python=3.11, cudatoolkit=11.8, r-base, numpy, {pip: [mlflow]}]\n"
    with pytest.raises(InvalidConfig, match="`cudatoolkit`, `r-base`") as refused:
        read_sources(project(tmp_path, conda__yaml=conda))
    assert "pip" in refused.value.remedy


def test_a_uv_lock_comes_before_requirements(tmp_path: Path) -> None:
    project(tmp_path, uv__lock="version = 1\n", pyproject__toml="[project]\nname='p'\n", requirements__txt="x\n")
    assert read_sources(tmp_path).uv_lock


@pytest.mark.parametrize(
    ("files", "fact"),
    [
        ({}, "says nowhere what it needs"),
        ({"MLproject": "docker_env: {image: x}\n"}, "names a Docker image to train in"),
        ({"python_env__yaml": "dependencies: [a\n"}, r"python_env\.yaml, line 2"),
        ({"python_env__yaml": "dependencies: mlflow\n"}, "`dependencies` is a str, not a list"),
        ({"python_env__yaml": "dependencies: []\n"}, "lists no dependencies"),
        ({"python_env__yaml": "python: newest\ndependencies: [a]\n"}, "asks for Python `newest`"),
        ({"python_env__yaml": "dependencies: [-r gone.txt]\n"}, r"gone\.txt cannot be read"),
        ({"MLproject": "- a\n"}, "holds a list"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(tmp_path: Path, files: dict[str, str], fact: str) -> None:
    with pytest.raises(InvalidConfig, match=fact):
        read_sources(project(tmp_path, **files))


def test_no_mlproject_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="No MLproject file"):
        read_sources(tmp_path)


def test_a_saved_model_says_itself_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    (tmp_path / "python_env.yaml").write_text("python: 3.11.7\ndependencies: [-r requirements.txt]\n")
    (tmp_path / "requirements.txt").write_text("mlflow==3.17.2\nscikit-learn\n")
    found = read_sources(tmp_path)
    assert found.python == "3.11.7"
    assert found.requirements == ("mlflow==3.17.2", "scikit-learn")
