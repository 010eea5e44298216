"""Broken and hostile input in thousands: it is taken, or refused with one sentence; there is never a traceback.

The cases are the same in every run.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from safetensors.torch import load, save

from soo_marl import cli
from soo_marl.agents import MADDPG, AgentNetworks, MADDPGConfig, TrainingConfig
from soo_marl.commands.tables.terminal import one_sentence
from soo_marl.engines import Interrupted
from soo_marl.envs.observations import BLUE_AGENT
from soo_marl.report.page.page import write_report
from soo_marl.statistics import RocPoints
from soo_marl.storage import files
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import FigureRecord, Interval, Record, read_list, read_one
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines import training
from soo_marl.studies.baselines.study import open_study, read_study
from soo_marl.studies.finetuning import evaluation
from soo_marl.studies.finetuning.configuration import FinetuneConfig, treatment
from soo_marl.studies.finetuning.evaluation import conditions
from soo_marl.studies.finetuning.measures import measure_agents
from soo_marl.studies.learning import phases
from soo_marl.studies.learning.agents_on_disk import agent_file, agent_spaces, load_agents, save_agents
from soo_marl.studies.learning.checkpoints import ShardCheckpoint
from soo_marl.studies.learning.recipes import BaselineConfig, Stage, baseline_config, with_changes
from soo_marl.studies.learning.records import (
    AgentRecord,
    Classification,
    ClassificationRow,
    LearningCurve,
    OverlapValue,
    ProtocolCurve,
)

torch.set_num_threads(1)

CASES = {
    "study.json": 500,
    "checkpoint": 400,
    "agent": 300,
    "command line": 400,
    "--set": 400,
    "records": 400,
    "marks": 300,
    "measures": 200,
    "links": 300,
}
"""How many cases there are of each kind of input: 3,200."""

Ran = Counter[str]


def cases(name: str) -> Callable[[Any], Any]:
    """So many cases, the same every time."""
    return settings(
        max_examples=CASES[name],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def ran() -> Iterator[Ran]:
    """Counts the cases, and sees to it in the end that none of a test that ran was left out."""
    counted: Ran = Counter()
    yield counted
    assert all(counted[name] >= CASES[name] for name in counted), counted


def refused(error: Exception) -> None:
    """One sentence, and not a long one."""
    text = one_sentence(error)
    assert text and "Traceback" not in text and len(text) < 2_000


SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(
        (
            -1,
            0,
            1 << 31,
            1 << 63,
            1 << 64,
            10**400,
            1e308,
            5e-324,
            "",
            "../../etc/passwd",
            "/etc/passwd",
            "a" * 5_000,
            "\0",
            "\x1b[31m",
            "NaN",
            "honest",
            "\ud800",
            "\u202e",
        )
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(("replace", "delete", "add", "rename")), VALUES), max_size=3
)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container of a tree with every key in it."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [place for key in keys for place in ((tree, key), *places(tree[key]))]


def changed(tree: Any, changes: list[tuple[int, str, Any]]) -> Any:
    """JSON data with some of its parts replaced, left out, added or renamed."""
    tree = {"": copy.deepcopy(tree)}
    for number, how, value in changes:
        found = places(tree)
        container, key = found[number % len(found)]
        if how == "replace" or container is tree:
            container[key] = value
        elif how == "delete":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, value)
        elif how == "add":
            container[str(value)[:50]] = value
        else:
            container[str(value)[:50]] = container.pop(key)
    return tree[""]


BYTES = st.lists(
    st.tuples(st.sampled_from(("flip", "cut", "insert", "overwrite", "drop")), st.floats(0, 1), st.binary(max_size=20)),
    min_size=1,
    max_size=3,
)


def broken(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """Bytes with some of them flipped, cut off, inserted, overwritten or left out."""
    for how, share, new in changes:
        at = int(share * max(len(content) - 1, 0))
        after = {
            "flip": content[at : at + 1].translate(bytes(byte ^ 1 << at % 8 for byte in range(256)))
            + content[at + 1 :],
            "cut": b"",
            "insert": new + content[at:],
            "overwrite": new + content[at + len(new) :],
            "drop": content[at + len(new) :],
        }
        content = content[:at] + after[how]
    return content


def tiny_config() -> BaselineConfig:
    learning = TrainingConfig(
        worlds=2, updates=2, batch_size=4, replay_capacity=16, warm_up=4, log_every=1, steps_per_update=1
    )
    return BaselineConfig(
        game=baseline_config().game.replace(episode_length=4),
        regime="staged",
        seeds=(0, 1),
        maddpg=MADDPGConfig(hidden_units=4, contexts=2),
        stages=(
            Stage(name="follow", training=learning),
            Stage(name="lure", training=learning.model_copy(update={"learners": (BLUE_AGENT,)}), alone_share=0.5),
        ),
    )


CONFIG = tiny_config()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyDirectory:
    """A study that was only just begun; nothing waits for the disk."""
    monkeypatch.setattr(files, "_synchronise", lambda path: None)
    return open_study(tmp_path / "study", CONFIG)


@cases("study.json")
@given(changes=CHANGES, damage=st.none() | BYTES)
def test_study_files(changes: Any, damage: Any, study: StudyDirectory, ran: Ran) -> None:
    ran["study.json"] += 1
    file = study.path / "study.json"
    content = json.dumps(changed(study.manifest.model_dump(mode="json"), changes)).encode()
    content = content if damage is None else broken(content, damage)
    file.write_bytes(content)
    for use in (lambda: read_study(study.path), lambda: open_study(study.path, CONFIG)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other versions
                use()
        except RunDirectoryError as error:
            refused(error)
            assert str(study.path) in str(error)
            assert file.read_bytes() == content, "the user decides what to do about it"
        else:
            now, before = json.loads(file.read_bytes()), json.loads(content)
            assert now | {"sessions": 0} == before | {"sessions": 0}, "only the versions in use are added"
    if ran["study.json"] % 10 == 0:
        write_report(study.path)


@pytest.fixture(scope="module")
def half_trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDirectory, ShardCheckpoint, bytes]:
    """A study with a checkpoint."""
    directory = open_study(tmp_path_factory.mktemp("half_trained") / "study", CONFIG)
    with pytest.raises(Interrupted):
        training.train_shard(CONFIG, directory.path, (0, 1), "cpu", report=lambda done: None, stop=lambda: True)
    checkpoint = ShardCheckpoint.of(CONFIG, directory.path, (0, 1))
    return directory, checkpoint, checkpoint.path.read_bytes()


def with_header(content: bytes, changes: Any) -> bytes:
    """A safetensors file with another header of its own length."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(changed(json.loads(content[8 : 8 + size]), changes)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


@cases("checkpoint")
@given(header=CHANGES, damage=BYTES, which=st.sampled_from(("header", "bytes", "both")))
def test_checkpoints(
    header: Any, damage: Any, which: str, half_trained: tuple[StudyDirectory, ShardCheckpoint, bytes], ran: Ran
) -> None:
    ran["checkpoint"] += 1
    directory, checkpoint, whole = half_trained
    content = with_header(whole, header) if which != "bytes" else whole
    content = broken(content, damage) if which != "header" else content
    checkpoint.path.write_bytes(content)
    try:
        task = training.baseline_task(CONFIG)
        done = [False] * len(task.phases)
        session = phases._next_session(task, directory, checkpoint, (0, 1), "cpu", done)
    except RunDirectoryError as error:
        refused(error)
        assert str(checkpoint.path) in str(error) and "delete it to" in str(error)
    else:
        assert session is not None
        expected, loaded = load(whole), session.state()
        assert all(torch.equal(loaded[name].nan_to_num(), expected[name].nan_to_num()) for name in expected)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDirectory, bytes]:
    """A study with an agent."""
    directory = open_study(tmp_path_factory.mktemp("agent") / "study", CONFIG)
    save_agents(directory, "honest", MADDPG(agent_spaces(CONFIG.game), CONFIG.maddpg, (0,)))
    return directory, agent_file(directory, "honest", 0).read_bytes()


@cases("agent")
@given(header=CHANGES, damage=BYTES, which=st.sampled_from(("header", "bytes")))
def test_agents(header: Any, damage: Any, which: str, agent: tuple[StudyDirectory, bytes], ran: Ran) -> None:
    ran["agent"] += 1
    directory, whole = agent
    path = agent_file(directory, "honest", 0)
    path.write_bytes(with_header(whole, header) if which == "header" else broken(whole, damage))
    try:
        load_agents(directory, "honest", (0,), CONFIG.game, CONFIG.maddpg)
    except RunDirectoryError as error:
        refused(error)
        assert str(path) in str(error) and "delete it" in str(error)


FIELDS = (
    "game.force",
    "maddpg.gamma",
    "stages.0.training.worlds",
    "stages.-1.name",
    "seeds",
    "stages",
    "kinds.0",
    "game",
)
WORDS = (
    "",
    "0",
    "1",
    "-1",
    "1e999",
    "NaN",
    "-inf",
    "9" * 30,
    "9" * 5_000,
    "true",
    "null",
    "[]",
    "[" * 100_000,
    "{}",
    "../x",
    "/dev/null",
    "/dev/null/x",
    "/proc/none/x",
    "x" * 300,
    "\udcff",
    "a\nb",
    "\x1b[31m",
    "[bold]",
    "=",
    ".",
    "trackable",
    "staged",
    "joint",
    "quick",
    "soo",
    "cpu",
    "cuda:99",
    "meta",
    "ray",
    "local",
    "auto",
    "host:1",
    "--",
    "study",
)
WORK = (
    "train_and_evaluate",
    "classify",
    "write_results",
    "merge_results",
    "print_study",
    "refresh",
    "train_points",
    "write_sweep_results",
    "print_sweep",
    "run_finetuning",
    "finetune_competent",
    "finetuning_notes",
    "print_conditions",
    "profile_study",
    "print_profiles",
    "reproduce_preset",
    "print_preset",
    "name_presets",
    "print_plan",
)
"""What commands do once their options are read."""

TEXT = st.sampled_from(WORDS) | st.text(st.characters(exclude_characters="\0"), max_size=8)
SETTING = st.builds("{}={}".format, st.sampled_from(FIELDS) | TEXT, TEXT)
JSON_SETTING = st.builds(lambda field, value: f"{field}={json.dumps(value)}", st.sampled_from(FIELDS), VALUES)
OPTIONS = {
    "train": (
        "--output",
        "--preset",
        "--regime",
        "--seeds",
        "--scale",
        "--set",
        "--workers",
        "--device",
        "--engine",
        "--address",
        "--no-resume",
        "--resume",
    ),
    "demo": ("--output", "--seeds", "--scale", "--evaluation-seeds", "--episodes", "--workers", "--device"),
    "classify": ("--evaluation-seeds", "--episodes", "--workers", "--device", "--engine"),
    "report": ("--study", "--pretrained", "--output"),
    "profile": ("--episodes", "--pretrained", "--output", "--workers", "--device"),
    "finetune": ("--methods", "--weights", "--updates", "--seeds", "--output", "--episodes", "--layers", "--workers"),
    "reproduce": ("--output", "--scale", "--presets", "--dry-run", "--workers", "--device"),
    "sweep": ("--output", "--grid", "--random", "--points", "--search-seed", "--metric", "--seeds", "--workers"),
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with real options and whatever values."""
    command = draw(st.sampled_from(sorted(OPTIONS)))
    line = [command] + ([draw(TEXT)] if command in ("classify", "report", "profile", "finetune") else [])
    for option in draw(st.lists(st.sampled_from(OPTIONS[command]), max_size=4)):
        several = draw(st.lists(SETTING if option in ("--set", "--grid", "--random") else TEXT, min_size=1, max_size=2))
        line += [option, *([] if option.endswith(("resume", "-run")) else several)]
    return line + draw(st.lists(TEXT, max_size=1))


@cases("command line")
@given(line=command_lines())
def test_command_lines(
    line: list[str],
    study: StudyDirectory,
    ran: Ran,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran["command line"] += 1
    inner = study.path.parent / "a" / "b" / "c"
    shutil.rmtree(inner, ignore_errors=True)
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    for command in OPTIONS:
        module = importlib.import_module(f"soo_marl.commands.{command}")
        for name in WORK:
            if hasattr(module, name) and (command, name) != ("report", "refresh"):
                monkeypatch.setattr(module, name, MagicMock())
    parsed = True
    try:
        status = cli.main(line)
    except SystemExit as leaving:
        parsed, status = False, int(leaving.code or 0)
    message = capsys.readouterr().err
    assert status in (0, 2) and "Traceback" not in message
    if parsed and status == 2:
        assert message.startswith("soo-marl: ") and message.count("\n") == 1 and message[:-1].isprintable(), message


@cases("--set")
@given(changes=st.lists(SETTING | TEXT | JSON_SETTING, min_size=1, max_size=3))
def test_changes_of_fields(changes: list[str], ran: Ran) -> None:
    ran["--set"] += 1
    try:
        config = with_changes(CONFIG, changes)
    except ValueError as error:
        assert one_sentence(error)
    else:
        assert isinstance(config, BaselineConfig)


INTERVAL = Interval(estimate=0.5, low=0.25, high=0.75, n=4)
RECORDS: dict[str, Any] = {
    "summary.json": [Record(name="honest/goal_rate", unit="share", command="x", **INTERVAL.model_dump())],
    "agents.json": [AgentRecord(kind="honest", seed=1, goal_rate=0.5, competent=True)],
    "classification.json": Classification(
        rows=(
            ClassificationRow(
                form="kept",
                layers="both",
                pairing="imagined_red",
                auroc=INTERVAL,
                leave_one_out=INTERVAL,
                recall_at_5_percent=INTERVAL,
            ),
        ),
        values={"kept": (OverlapValue(kind="honest", seed=1, value=0.5),)},
        protocol={"kept": ProtocolCurve(episodes=(1, 2), mean=(0.5, 1.0), standard_deviation=(0.0, 0.1), pairs=4)},
        roc={"kept": RocPoints(false_positive_rate=(0.0, 1.0), true_positive_rate=(0.0, 1.0))},
        findings=("Found.",),
    ),
    "curves.json": [LearningCurve(stage="lure", kind="honest", metric="noise", updates=(1, 2), values=((0.5, None),))],
    "figures.json": [FigureRecord(file="roc.png", caption="A curve.")],
}
PLAIN = {
    name: TypeAdapter(Any).dump_python(content, mode="json", serialize_as_any=True) for name, content in RECORDS.items()
}
MODELS = {name: type(content[0]) for name, content in RECORDS.items() if isinstance(content, list)}


@cases("records")
@given(name=st.sampled_from(sorted(RECORDS)), changes=CHANGES, damage=st.none() | BYTES)
def test_records(name: str, changes: Any, damage: Any, study: StudyDirectory, ran: Ran) -> None:
    ran["records"] += 1
    study.results.mkdir(exist_ok=True)
    for file, plain in PLAIN.items():
        (study.results / file).write_text(json.dumps(plain))
    path, content = study.results / name, json.dumps(changed(PLAIN[name], changes)).encode()
    path.write_bytes(content if damage is None else broken(content, damage))
    try:
        _ = read_list(path, MODELS[name]) if name in MODELS else read_one(path, Classification)
    except RunDirectoryError as error:
        refused(error)
        assert str(path) in str(error) and "delete it to make it anew" in str(error)
    if ran["records"] % 5 == 0:
        write_report(study.path)


def test_there_are_enough_cases() -> None:
    assert sum(CASES.values()) >= 2_000


def test_nothing_unpickles_a_file() -> None:
    package = Path(cli.__file__).parent
    for path in package.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for call in ("torch.load(", "pickle.load(", "allow_pickle", "cPickle", "joblib", "shelve", "dill", "marshal"):
            assert call not in source, f"{path} has {call}"
        # Engines exchange pickles through pipes and Ray; nothing else does. Elsewhere the word stands in refusals.
        used = re.search(r"import \w*pickle|from \w*pickle|pickle\.\w", source)
        assert used is None or path.parent.name == "engines", path


@cases("marks")
@given(changes=CHANGES, damage=st.none() | BYTES, earlier=st.booleans())
def test_marks(changes: Any, damage: Any, earlier: bool, study: StudyDirectory, ran: Ran) -> None:
    ran["marks"] += 1
    files.write_json(study.results / "agents.json", PLAIN["agents.json"])
    study.mark_done("evaluate", [study.results / "agents.json"], [study.path / "study.json"])
    mark = study.path / "steps" / "evaluate.json"
    whole = ["results/agents.json"] if earlier else json.loads(mark.read_bytes())
    content = json.dumps(changed(whole, changes)).encode()
    mark.write_bytes(content if damage is None else broken(content, damage))
    try:
        assert study.done("evaluate") in (True, False)
    except RunDirectoryError as error:
        refused(error)
        assert str(study.path) in str(error) and "delete it" in str(error)


TREATED = FinetuneConfig(
    baselines=CONFIG,
    agents_digest="0" * 32,
    treatments=(treatment("none", updates=2),),
    seeds=(0, 1),
    evaluation_episodes=2,
)
CONDITION = conditions(TREATED)[-1]


@pytest.fixture(scope="module")
def measured() -> dict[str, bytes]:
    """The two files of a condition's measures, by the end of their names."""
    agents = AgentNetworks(agent_spaces(CONFIG.game), CONFIG.maddpg, (0, 1))
    tensors = evaluation._tensors(measure_agents(agents, CONFIG.evaluation_game, 2))
    return {".safetensors": save(tensors), ".json": json.dumps({"stops": [None, None], "episodes": []}).encode()}


@cases("measures")
@given(header=CHANGES, damage=BYTES, which=st.sampled_from(("tensors", "bytes", "about")))
def test_measures(
    header: Any, damage: Any, which: str, measured: dict[str, bytes], study: StudyDirectory, ran: Ran
) -> None:
    ran["measures"] += 1
    folder = study.path / "measures"
    folder.mkdir(exist_ok=True)
    tensors, about = measured.values()
    if which == "about":
        about = json.dumps(changed(json.loads(about), header)).encode()
    else:
        tensors = with_header(tensors, header) if which == "tensors" else broken(tensors, damage)
    (folder / f"{CONDITION.file_name}.safetensors").write_bytes(tensors)
    (folder / f"{CONDITION.file_name}.json").write_bytes(about)
    for read in (evaluation.read_measures, evaluation.read_about):
        try:
            read(study, CONDITION)
        except RunDirectoryError as error:
            refused(error)
            assert str(folder) in str(error)


PLACES = (
    "study.json",
    "steps",
    "steps/train.json",
    "results",
    "results/summary.json",
    "figures",
    "figures/roc.png",
    "honest",
    "honest/seed_0",
    "tensorboard",
    "checkpoints",
    "finetune",
    ".command.lock",
    ".workers.lock",
    "report.html",
    "notes",
    "notes/.x.0123456789abcdef.soo-marl-partial",
    ".x.0123456789abcdef.soo-marl-partial",
)


def _put(place: Path, what: str, outside: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    else:
        place.symlink_to({"file": outside / "precious", "link to a folder": outside, "device": Path("/dev/zero")}[what])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
@cases("links")
@given(
    put=st.dictionaries(
        st.sampled_from(PLACES), st.sampled_from(("file", "link to a folder", "device", "pipe", "folder")), max_size=3
    )
)
def test_links_pipes_and_devices(put: dict[str, str], study: StudyDirectory, tmp_path: Path, ran: Ran) -> None:
    ran["links"] += 1
    outside, inside = tmp_path / "outside", tmp_path / "another" / "study"
    shutil.rmtree(inside, ignore_errors=True)
    open_study(inside, CONFIG)
    outside.mkdir(exist_ok=True)
    (outside / "precious").write_text("mine")
    for place, what in put.items():
        path = inside / place
        if path.is_file() and not path.is_symlink():
            path.unlink()
        if not os.path.lexists(path) and not any(parent.is_symlink() for parent in path.parents):
            try:
                _put(path, what, outside)
            except (FileExistsError, NotADirectoryError):
                continue

    def use() -> None:
        directory = open_study(inside, CONFIG)
        with directory.locked():
            directory.done("train")
            files.write_json(directory.results / "figures.json", PLAIN["figures.json"])
            write_report(directory.path)

    try:
        use()
    except RunDirectoryError as error:
        refused(error)
    assert (outside / "precious").read_text() == "mine" and os.listdir(outside) == ["precious"]
    page = inside / "report.html"
    assert not page.is_file() or page.is_symlink() or "bWluZ" not in page.read_text(), "files outside stay out"
