import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from soo_marl.storage.files import PARTIAL_SUFFIX, write_json
from soo_marl.storage.study_directory import SCHEMA_VERSION, RunDirectoryError, StudyDirectory, package_versions
from soo_marl.storage.tensor_files import write_tensors

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
    with pytest.raises(
        RunDirectoryError, match=r"holds files \(thesis\.tex\) but no study\.json, so no study wrote it"
    ):
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
    with pytest.raises(RunDirectoryError, match=r"^cannot write .*out/below: .*; or name another output folder$"):
        StudyDirectory.open(path / "below", "classify", CONFIGURATION, [0])


def test_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # permissions themselves do not bind root
    with pytest.raises(RunDirectoryError, match=r"^cannot write .*: Permission denied; .*copy the whole study to a"):
        StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_commands_are_removed(tmp_path: Path) -> None:
    # Killed before study.json was in place: the folder holds nothing but an unfinished file.
    (tmp_path / f".study.json.1-2{PARTIAL_SUFFIX}").write_text("{")
    StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    deep = tmp_path / "honest" / "seed_0" / f".agent.safetensors.0123456789abcdef{PARTIAL_SUFFIX}"
    deep.parent.mkdir(parents=True)
    deep.write_text("half")
    adapter = tmp_path / "honest" / "seed_0" / f".adapter-abcdefgh{PARTIAL_SUFFIX}-old"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    assert not [path for path in tmp_path.rglob("*") if PARTIAL_SUFFIX in path.name]


def test_what_others_left_in_a_study_stays(tmp_path: Path) -> None:
    study = StudyDirectory.open(tmp_path / "study", "classify", CONFIGURATION, [0]).path
    (study / "notes" / "seed_0").mkdir(parents=True)
    (study / "honest" / "seed_0").mkdir(parents=True)
    names = (
        ".tmpABCDEF",
        "notes/.tmp123456",
        f"notes/.x{PARTIAL_SUFFIX}",
        f".x{PARTIAL_SUFFIX}",
        ".git",
        "honest/.tmp",
    )
    names += (f"notes/.draft.0123456789abcdef{PARTIAL_SUFFIX}",)
    for name in names:
        (study / name).write_text("mine")
    StudyDirectory.open(study, "classify", CONFIGURATION, [0])
    assert all((study / name).read_text() == "mine" for name in names)


@pytest.mark.parametrize("name", [".DS_Store", "lost+found/", ".nfs00000001", ".gitkeep", "slurm-123.out", "job.o42"])
def test_what_systems_put_into_a_folder_is_no_reason_to_refuse_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("place", ["figures", "tensorboard/honest/seed_0", "honest", "finetune"])
def test_a_link_that_leads_out_of_a_study_is_refused(tmp_path: Path, place: str) -> None:
    study = StudyDirectory.open(tmp_path / "study", "classify", CONFIGURATION, [0])
    outside = tmp_path / "outside"
    outside.mkdir()
    link = study.path / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    for use in (lambda: StudyDirectory.open(study.path, "classify", CONFIGURATION, [0]), study.locked().__enter__):
        with pytest.raises(RunDirectoryError, match=rf"{place} is a link that leads out of the study; put a folder"):
            use()
    link.unlink()
    (tmp_path / "behind").symlink_to(study.path)
    (study.path / "results").mkdir()
    (study.path / "inside").symlink_to(study.path / "results")
    StudyDirectory.open(tmp_path / "behind", "classify", CONFIGURATION, [0])


def test_dots_are_resolved_before_a_folder_is_checked(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with pytest.raises(RunDirectoryError, match="holds files"):
        StudyDirectory.open(tmp_path / "missing" / ".." / "foreign", "classify", CONFIGURATION, [0])
    assert not (tmp_path / "missing").exists()


def test_names_too_long_are_told_in_a_sentence(tmp_path: Path) -> None:
    for use in (
        lambda path: StudyDirectory.open(path, "classify", CONFIGURATION, [0]),
        StudyDirectory.read,
    ):
        with pytest.raises(RunDirectoryError, match="File name too long; choose a shorter name") as raised:
            use(tmp_path / ("a" * 300))
        with pytest.raises(RunDirectoryError, match="choose a shorter name") as raised:
            use(tmp_path / ("a/" * 2100))
        assert len(str(raised.value)) < 700


def test_a_study_that_goes_on_under_other_versions_says_so(tmp_path: Path) -> None:
    study = StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    content = json.loads((tmp_path / "study.json").read_text())
    assert "sessions" not in content
    content["package_versions"] |= {"torch": "1.0.0", "gone": "1"}
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"goes on under other versions \(torch 1\.0\.0 before and"), study.locked():
        pass
    manifest = StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0]).manifest
    now = package_versions()["torch"]
    assert [session.package_versions for session in manifest.sessions] == [{"torch": now}]
    assert manifest.changed_versions == [f"torch 1.0.0 until {manifest.sessions[0].started[:10]}, then {now}"]


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
    result.write_text("[1]")
    with pytest.raises(RunDirectoryError, match=r"summary\.json is not what this study wrote: edited since, or"):
        study.done("classify/honest")
    result.unlink()
    assert not study.done("classify/honest")


def test_what_was_made_from_other_agents_is_not_done(tmp_path: Path) -> None:
    study = StudyDirectory.open(tmp_path, "classify", CONFIGURATION, [0])
    agent, result = study.agent_directory("honest", 0) / "agent.safetensors", study.results / "summary.json"
    write_json(result, [])
    write_tensors(agent, {"a": torch.zeros(2)})
    study.mark_done("evaluate", [result], [agent])
    assert study.done("evaluate")
    write_tensors(agent, {"a": torch.ones(2)})
    assert not study.done("evaluate")


def test_the_marks_of_another_study_are_refused_and_earlier_ones_taken(tmp_path: Path) -> None:
    study = StudyDirectory.open(tmp_path / "one", "classify", CONFIGURATION, [0])
    other = StudyDirectory.open(tmp_path / "other", "classify", CONFIGURATION | {"more": 1}, [0])
    more_seeds = StudyDirectory.open(tmp_path / "seeds", "classify", CONFIGURATION, [0, 1])
    assert study.owner == more_seeds.owner != other.owner
    other.mark_done("train")
    shutil.copytree(other.path / "steps", study.path / "steps")
    with pytest.raises(RunDirectoryError, match=r"train\.json belongs to another study; delete it"):
        study.done("train")
    write_json(study.path / "steps" / "train.json", ["study.json"])
    assert study.done("train")


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
    link = study.path / f".x.0123456789abcdef{PARTIAL_SUFFIX}"
    link.symlink_to(tmp_path / "precious")
    StudyDirectory.open(study.path, "classify", CONFIGURATION, [0])
    assert link.is_symlink()
    assert (tmp_path / "precious").read_text() == "x"


def test_names_that_are_not_utf_8_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"\\udcff is no UTF-8 name; name another output folder"):
        StudyDirectory.open(tmp_path / "a\udcff", "classify", CONFIGURATION, [0])
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study"
    StudyDirectory.open(path, "baselines", {"game": {"dt": 0.1}}, [0])
    content = json.loads((path / "study.json").read_text())
    content["configuration"]["game"]["\ud800"] = 1
    (path / "study.json").write_text(json.dumps(content))
    for use in (lambda: StudyDirectory.read(path), lambda: StudyDirectory.open(path, "baselines", {}, [0])):
        with pytest.raises(RunDirectoryError, match=r"study\.json does not fit: it holds a name that is no Unicode"):
            use()
