import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from soo_marl.studies.files import PARTIAL_SUFFIX
from soo_marl.studies.run_directory import SCHEMA_VERSION, RunDirectoryError, StudyDirectory

CONFIGURATION: dict[str, Any] = {
    "environment": {"preset": "trackable", "sizes": [1, 2]},
    "stages": [{"updates": 10}, {"updates": 20}],
    "learning_rate": 0.003,
    "gate": True,
}


def changed(*field: str | int, value: Any) -> dict[str, Any]:
    configuration = json.loads(json.dumps(CONFIGURATION))
    target = configuration
    for part in field[:-1]:
        target = target[part]
    target[field[-1]] = value
    return configuration


def test_create_then_resume(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "study"
    first = StudyDirectory.open(path, "classify", CONFIGURATION, [0, 1])
    (path / "honest" / "seed_0").mkdir(parents=True)
    again = StudyDirectory.open(path, "classify", CONFIGURATION, (0, 1))
    assert again == first == StudyDirectory.read(path)
    assert again.manifest.package_versions["torch"]
    assert json.loads((path / "study.json").read_text())["schema_version"] == SCHEMA_VERSION


def test_pydantic_configuration_with_tuples_resumes(tmp_path: Path) -> None:
    class Configuration(BaseModel):
        sizes: tuple[int, ...] = (64, 64)
        rate: float = 1.0

    StudyDirectory.open(tmp_path, "train", Configuration(), [3])
    StudyDirectory.open(tmp_path, "train", Configuration(), [3])
    with pytest.raises(RunDirectoryError, match=r"configuration\.sizes is \[64, 64\] there and \[32\] here"):
        StudyDirectory.open(tmp_path, "train", Configuration(sizes=(32,)), [3])


@pytest.mark.parametrize(
    ("configuration", "sentence"),
    [
        (
            changed("environment", "preset", value="paper"),
            'configuration.environment.preset is "trackable" there and "paper" here',
        ),
        (changed("stages", 1, "updates", value=30), "configuration.stages.1.updates is 20 there and 30 here"),
        (changed("stages", value=[{"updates": 10}]), 'configuration.stages.1 is {"updates": 20} there and absent here'),
        (
            changed("environment", "sizes", value=[1, 3]),
            "configuration.environment.sizes is [1, 2] there and [1, 3] here",
        ),
        (changed("extra", value=None), "configuration.extra is absent there and null here"),
        (changed("gate", value=1), "configuration.gate is true there and 1 here"),
    ],
)
def test_another_configuration_is_refused_by_field(
    tmp_path: Path, configuration: dict[str, Any], sentence: str
) -> None:
    StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(RunDirectoryError) as raised:
        StudyDirectory.open(tmp_path, "classify", configuration, [0])
    assert sentence in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert (tmp_path / "study.json").read_bytes() == before


def test_another_kind_or_other_seeds_are_refused(tmp_path: Path) -> None:
    StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    with pytest.raises(RunDirectoryError, match='kind is "classify" there and "train" here'):
        StudyDirectory.open(tmp_path, "train", CONFIGURATION, [0])
    with pytest.raises(RunDirectoryError, match=r"seeds is \[0\] there and \[0, 1\] here"):
        StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0, 1])


def test_another_schema_is_refused_whatever_else_it_holds(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"schema_version": 99, "unheard_of": 1}))
    for use in (
        lambda: StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0]),
        lambda: StudyDirectory.read(tmp_path),
    ):
        with pytest.raises(RunDirectoryError, match=r"differs in schema_version: it has 99, .* writes 2; name another"):
            use()


def test_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunDirectoryError, match=r"holds files but no study\.json, so no study wrote it"):
        StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ['{"schema_version": 2, "ki', "[]", '{"schema_version": 2}'])
def test_unreadable_manifest_names_the_file_and_the_way_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"study\.json .*delete this one to start anew"):
        StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("")
    with pytest.raises(RunDirectoryError, match="out is a file, not a folder"):
        StudyDirectory.open(path, "classify", CONFIGURATION, [0])
    with pytest.raises(RunDirectoryError, match=r"^cannot write in .*out/below: .*; name another output folder$"):
        StudyDirectory.open(path / "below", "classify", CONFIGURATION, [0])


def test_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)  # permissions themselves do not bind root
    with pytest.raises(RunDirectoryError, match=r"^cannot write in .*: Permission denied; name another output folder$"):
        StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_commands_are_removed(tmp_path: Path) -> None:
    # Killed before study.json was in place: the folder holds nothing but an unfinished file.
    (tmp_path / f".study.json.1-2{PARTIAL_SUFFIX}").write_text("{")
    StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    deep = tmp_path / "honest" / "seed_0" / f".agent.safetensors.1-2{PARTIAL_SUFFIX}"
    deep.parent.mkdir(parents=True)
    deep.write_text("half")
    StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(PARTIAL_SUFFIX)]


def test_configuration_that_is_not_json_is_a_value_error(tmp_path: Path) -> None:
    for bad in ({"a": float("nan")}, {"a": object()}):
        with pytest.raises(ValueError, match="must be JSON data"):
            StudyDirectory.open(tmp_path / "out", "classify", bad, [0])
    assert not (tmp_path / "out").exists()


def test_step_is_done_once_marked_and_while_its_files_stand(tmp_path: Path) -> None:
    study = StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    result = study.results / "summary.json"
    assert not study.done("classify/honest")
    with pytest.raises(RunDirectoryError, match=r"classify/honest is not done: .*summary\.json is missing"):
        study.mark_done("classify/honest", [result])
    assert not study.done("classify/honest")
    result.parent.mkdir()
    result.write_text("[]")
    study.mark_done("classify/honest", [result])
    assert StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0]).done("classify/honest")
    assert not study.done("classify")
    result.unlink()
    assert not study.done("classify/honest")


@pytest.mark.parametrize("name", ["", "../x", "/x", "a//b", "a/../b", "a b"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    study = StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    with pytest.raises(ValueError, match="cannot name a step"):
        study.done(name)
    with pytest.raises(ValueError, match="cannot name a condition"):
        study.agent_directory(name, 0)


def test_agent_directories(tmp_path: Path) -> None:
    study = StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    assert study.agent_directory("honest", 3) == tmp_path / "honest" / "seed_3"
    with pytest.raises(ValueError, match="'results' cannot name a condition"):
        study.agent_directory("results", 3)


@pytest.mark.parametrize("file", ["/etc/passwd", "../../etc/passwd", "honest/../../x", "a\0b"])
def test_marks_never_point_out_of_the_study(tmp_path: Path, file: str) -> None:
    study = StudyDirectory.open(tmp_path / "study", "classify", CONFIGURATION, [0])
    study.mark_done("train")
    mark = study.path / "steps" / "train.json"
    mark.write_text(json.dumps([file]))
    with pytest.raises(
        RunDirectoryError, match=r"steps/train\.json names a file outside .*; delete it to make it anew$"
    ):
        study.done("train")
    with pytest.raises(ValueError):
        study.mark_done("train", [study.path / file])


@pytest.mark.parametrize("seed", [1 << 63, -(1 << 63) - 1, 1 << 1_000])
def test_seeds_that_could_not_name_a_folder_are_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(ValueError, match="seeds must have 64 bits at most"):
        StudyDirectory.open(tmp_path / "study", "classify", CONFIGURATION, [0, seed])
    assert not (tmp_path / "study").exists()


def test_a_configuration_nested_too_deep_is_refused(tmp_path: Path) -> None:
    study = StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    manifest = study.manifest.model_dump(mode="json") | {"configuration": json.loads('{"a":' * 300 + "1" + "}" * 300)}
    (tmp_path / "study.json").write_text(json.dumps(manifest))
    with pytest.raises(RunDirectoryError, match=r"study\.json does not fit: configuration is nested too deep; name an"):
        StudyDirectory.read(tmp_path)


def test_only_files_are_taken_for_leftovers(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    study = StudyDirectory.open(tmp_path / "study", "classify", CONFIGURATION, [0])
    folder, link = study.path / ".tmpabcdef", study.path / f".x{PARTIAL_SUFFIX}"
    folder.mkdir()
    link.symlink_to(tmp_path / "precious")
    (study.path / ".tmpqwerty").touch()
    StudyDirectory.open(study.path, "classify", CONFIGURATION, [0])
    assert folder.is_dir() and not (study.path / ".tmpqwerty").exists()
    assert (tmp_path / "precious").read_text() == "x"
