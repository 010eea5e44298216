"""The command line: bad input, the main job from end to end, and interruption."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent / "commands"))

from command_lines import Run, contents, refuse, run_command

import soo_marl
from soo_marl.cli import COMMANDS, load_command, main
from soo_marl.engines import Interrupted
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import RATES, read_study
from soo_marl.studies.baselines.training import train_shard

torch.set_num_threads(1)

SHORT = ("updates=6", "log_every=2", "worlds=8", "warm_up=64", "batch_size=16")
TINY = [
    *("--seeds", "0", "1", "--workers", "0", "--set", "evaluation_episodes=20", "--set", "game.episode_length=12"),
    *(f"--set=stages.{stage}.training.{change}" for stage in range(3) for change in SHORT),
]
"""Options of ``train`` that make a study train in a moment."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; returns its exit status and what it wrote to stderr."""
    return lambda *arguments: run_command(capsys, *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained study. Not to be changed."""
    path = tmp_path_factory.mktemp("trained") / "study"
    assert main(["train", "--output", str(path), *TINY]) == 0
    return path


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained study."""
    return Path(shutil.copytree(trained, tmp_path / "study"))


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else together."""
    for name in ("draw_figures", "film_baselines"):
        monkeypatch.setattr(f"soo_marl.report.refresh.{name}", lambda path: [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "papr"], ["there is no preset 'papr'; choose one of paper, trackable, watch"]),
        (["--regime", "both"], ["there is no regime 'both'; choose one of staged, joint, scripted"]),
        (["--set", "game.blue_sight=1"], ["no field game.blue_sight; did you mean game.blue_sight_radius?"]),
        (["--set", "game.blue_sight_radius"], ["--set takes name=value"]),
        (["--set", "game.blue_sight_radius=-1"], ["game.blue_sight_radius: Input should be greater than 0", "-1"]),
        (["--set", "game.blue_sight_radius=near"], ["game.blue_sight_radius", "valid number", "'near'"]),
        (["--set", "game.red_goal_reward=NaN"], ["game.red_goal_reward: Input should be a finite number (given: nan)"]),
        (["--set", "game.blue_speed_limit=None"], ["game.blue_speed_limit", "write null for no value"]),
        (["--set", "stages.0.training.worlds=1e18"], ["stages.0.training.worlds must be at most 2,147,483,647"]),
        (["--set", "maddpg.hidden_units=1000000000"], ["maddpg.hidden_units is too large for this machine"]),
        (["--set", "stages.1.training.learners=[]"], ["learners of the stage lure"]),
        (["--engine", "ray"], ["--engine ray needs --address", "TMPDIR"]),
        (["--set", "stages=[]"], ["stages"]),
        (["--set", "stages.0.training.learners=[3]"], ["learners of the stage follow"]),
        (["--seeds", "1", "2", "1"], ["seeds: each may be given only once, but 1 is repeated"]),
        (["--scale", "0"], ["scale must be a positive number, not 0"]),
        (["--scale", "-1"], ["scale must be a positive number"]),
        (["--workers", "-1"], ["workers must be 0 (this process alone) or more, not -1"]),
        (["--device", "abacus"], ["cannot compute on the device 'abacus'"]),
    ],
)
def test_bad_options_of_train(options: list[str], words: list[str], run: Run, tmp_path: Path) -> None:
    refuse(run("train", "--output", tmp_path / "study", *options), *words)
    assert not (tmp_path / "study").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there(run: Run, tmp_path: Path) -> None:
    refuse(run("demo", "--output", tmp_path / "study", "--device", "cuda"), "cannot compute on the device 'cuda'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seeds", "5"], ["at least two seeds, and there is only 5"]),
        (["--evaluation-seeds", "0"], ["evaluation_seeds: Input should be greater than or equal to 1 (given: 0)"]),
        (["--episodes", "10", "1"], ["episodes: must be numbers from 1 on, each larger than the one before it"]),
        (["--episodes", "0", "1"], ["episodes: must be numbers from 1 on"]),
        (["--scale", "0"], ["scale must be a positive number"]),
    ],
)
def test_bad_options_of_demo_are_refused_before_training(
    options: list[str], words: list[str], run: Run, tmp_path: Path
) -> None:
    refuse(run("demo", "--output", tmp_path / "study", *options), *words)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("trane", "did you mean train?"),
        ("fine-tune", "did you mean finetune?"),
        ("xyz", "choose one of train, classify, profile, finetune, demo, reproduce, sweep, report"),
        ("\x1b[31m", "choose one of"),
    ],
)
def test_commands_that_nobody_knows(command: str, advice: str, run: Run) -> None:
    refuse(run(command, "--seeds", 1), "there is no command", advice)


@pytest.mark.parametrize("arguments", [[], ["train", "--colour", "red"], ["train", "--seeds", "one"]])
def test_arguments_that_nobody_knows(arguments: list[str], run: Run) -> None:
    status, stderr = run(*arguments)
    assert status == 2
    assert stderr and "Traceback" not in stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["llm", "-h"], *([*command.split(), "--help"] for command in COMMANDS)]
)
def test_help_is_no_error(arguments: list[str], run: Run) -> None:
    assert run(*arguments) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_help_are_of_the_command(
    name: str, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of each, which name no option that is not there; and what follows is said."""
    assert len(COMMANDS[name]["examples"]) == 2
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    shown = capsys.readouterr().out
    monkeypatch.setattr(load_command(name), "run", lambda command, line: line)
    for example in COMMANDS[name]["examples"]:
        assert example.startswith(f"soo-marl {name}") and f"    {example}\n" in shown
        assert main(shlex.split(example)[1:]) == 0
        assert capsys.readouterr().out == f"Next:    {example}\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_completion_in_bash(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Commands and options; help texts are one line each, since every further line would be taken for a choice."""
    with pytest.raises(SystemExit) as leaving:
        main(["--tyro-print-completion", "bash"])
    assert leaving.value.code in (None, 0)
    (tmp_path / "completion").write_text(capsys.readouterr().out)

    def completed(line: str) -> list[str]:
        words = " ".join(map(shlex.quote, line.split(" ")))
        count = f"COMP_WORDS=({words}); COMP_CWORD=$(({len(line.split(' '))} - 1)); _tyro_soo_marl"
        show = 'printf "%s\\n" "${COMPREPLY[@]}"'
        script = f'PATH={Path(sys.executable).parent}:$PATH; source "$1"; {count}; {show}'
        command = ["bash", "-c", script, "bash", str(tmp_path / "completion")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert {*completed("soo-marl ")} == {"-h", "--help", *(name.split()[0] for name in COMMANDS)}
    assert {*completed("soo-marl llm ")} == {"-h", "--help", "demo", "finetune", "sweep", "merge"}
    assert completed("soo-marl finetune --kind ") == ["honest", "deceptive"]
    options = completed("soo-marl llm finetune --")
    assert "--learning-rate" in options and all(option.startswith("--") for option in options)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [(["--version"], 0, f"soo-marl {soo_marl.__version__}"), (["--help"], 0, "reproduce"), (["trane"], 2, "train?")],
)
def test_what_needs_no_command_loads_none(arguments: list[str], status: int, words: str) -> None:
    """Neither torch nor what draws figures, which take seconds."""
    check = "import atexit, sys; atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr)); "
    start = "from soo_marl.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", check + start, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status and words in done.stdout + done.stderr
    loaded = done.stderr.splitlines()[-1]
    assert "'soo_marl.cli'" in loaded
    assert not [name for name in ("torch", "numpy", "matplotlib", "scipy", "pydantic", "tyro") if f"'{name}'" in loaded]
    module = subprocess.run([sys.executable, "-m", "soo_marl", *arguments], capture_output=True, text=True, check=False)
    assert (module.returncode, module.stdout) == (done.returncode, done.stdout)


def test_a_notebooks_environment_and_a_lost_output_change_nothing(tmp_path: Path, trained: Path) -> None:
    """A backend and fonts that are not there, TeX for every text, and nobody who reads what is said."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: Nowhere Sans\nsavefig.transparent: True\n")
    elsewhere = {"MPLBACKEND": "module://nowhere.backend", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    study = Path(shutil.copytree(trained, tmp_path / "study"))
    shutil.rmtree(study / "figures")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "soo_marl", "report", str(study)]
    done = subprocess.run(
        command, env={**os.environ, **elsewhere}, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1) and "standard output is lost" in done.stderr
    drawn = {path.name: path.read_bytes() for path in (study / "figures").glob("*.png")}
    assert drawn and drawn == {name: (trained / "figures" / name).read_bytes() for name in drawn}


def test_output_that_cannot_be_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuse(run("train", "--output", tmp_path / "file"), "file is a file, not a folder; name another output folder")
    refuse(run("train", "--output", tmp_path / "file" / "below"), "cannot write", "name another output folder")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    refuse(run("demo", "--output", tmp_path / "thesis"), "holds files (thesis.tex) but no study.json")
    assert contents(tmp_path) == {"file": b"", "thesis/thesis.tex": b"x"}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_output_without_permission(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refuse(run("train", "--output", tmp_path / "study"), "Permission denied")


def test_another_configuration_is_refused_by_its_field(run: Run, study: Path) -> None:
    before = contents(study)
    refuse(
        run("train", "--output", study, *TINY, "--set", "maddpg.gamma=0.8"),
        "configuration.maddpg.gamma is 0.9 there and 0.8 here",
    )
    refuse(run("demo", "--output", study, "--seeds", "0", "1"), "belongs to another study: configuration.")
    refuse(run("train", "--output", study, *TINY, "--no-resume"), "holds a study already")
    assert contents(study) == before


@pytest.mark.parametrize("command", [["classify"], ["report"], ["profile"], ["finetune"], ["train", *TINY, "--output"]])
def test_half_written_manifest(command: list[str], run: Run, study: Path) -> None:
    manifest = study / "study.json"
    manifest.write_text(manifest.read_text()[:100])
    before = contents(study)
    refuse(run(*command, study), "study.json is not readable JSON, perhaps half-written", "delete this one")
    assert contents(study) == before


@pytest.mark.parametrize("command", ["classify", "report", "profile", "finetune"])
def test_missing_study(command: str, run: Run, tmp_path: Path) -> None:
    refuse(run(command, tmp_path / "nowhere"), "study.json is missing, so", "is not a study's directory")
    assert not list(tmp_path.iterdir())


def test_study_of_another_kind(run: Run, tmp_path: Path) -> None:
    StudyDirectory.open(tmp_path / "study", "profiles", {}, [0])
    refuse(run("classify", tmp_path / "study"), "holds a study of kind profiles, not of baselines")


def test_fine_tuning_of_agents_that_play_badly(run: Run, study: Path) -> None:
    before = contents(study)
    refuse(run("finetune", study), "an interval needs at least 2 seeds whose agents play well enough", "has 0 to treat")
    refuse(run("finetune", study, "--methods", "magic"), "there is no method 'magic'")
    assert contents(study) == before


def half_train(study: Path) -> Path:
    """Take a trained study back to the middle of its training; returns the checkpoint."""
    shutil.rmtree(study / "steps")
    directory, config = read_study(study)
    with pytest.raises(Interrupted):
        train_shard(config, directory.path, config.seeds, "cpu", report=lambda done: None, stop=lambda: True)
    (checkpoint,) = (study / "checkpoints").iterdir()
    return checkpoint


def test_classify_refuses_what_is_half_trained(run: Run, study: Path) -> None:
    half_train(study)
    before = contents(study)
    refuse(run("classify", study), "is not trained to the end; run the command that began it again, then classify")
    refuse(run("profile", study), "is not trained to the end; run the command that began it again, then take profiles")
    refuse(run("finetune", study), "is not trained to the end; run the command that began it again, then fine-tune")
    assert contents(study) == before


def test_report_of_what_is_half_trained(run: Run, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half_train(study)
    shutil.rmtree(study / "results")
    assert main(["report", str(study)]) == 0
    said = capsys.readouterr().out
    assert "Not done yet: training, evaluation, classification; the page shows what is there" in said
    assert said.endswith(f"Next:    soo-marl classify {study}\n")
    page = (study / "report.html").read_text()
    assert "This report is incomplete." in page and "results/agents.json is missing" in page
    assert "<td>trackable</td>" in page, "what is known is shown"


def test_report_of_a_damaged_study(run: Run, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "results" / "curves.json").write_text("[{")
    assert main(["report", str(study)]) == 0
    assert "Left out: " in capsys.readouterr().out
    assert "honest / goal rate" in (study / "report.html").read_text()


@pytest.mark.usefixtures("without_figures")
def test_classify_checks_its_options_first(run: Run, study: Path, tmp_path: Path) -> None:
    refuse(run("classify", study, "--evaluation-seeds", "0"), "evaluation_seeds")
    refuse(run("classify", study, "--episodes", "5", "5"), "episodes: must be numbers from 1 on")
    refuse(run("classify", study, "--workers", "-3"), "workers must be 0")
    alone = [option for option in TINY if option != "1"]
    assert run("train", "--output", tmp_path / "alone", *alone)[0] == 0
    refuse(run("classify", tmp_path / "alone"), "at least two seeds, and there is only 0")


@pytest.mark.usefixtures("without_figures")
def test_damaged_files_are_named(run: Run, study: Path) -> None:
    checkpoint = half_train(study)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    refuse(run("train", "--output", study, *TINY), str(checkpoint), "delete it")
    checkpoint.unlink()
    assert run("train", "--output", study, *TINY)[0] == 0
    agent = study / "honest" / "seed_1" / "agent.safetensors"
    agent.write_bytes(agent.read_bytes()[:-10])
    refuse(run("classify", study, "--workers", 0, "--episodes", 1), str(agent), "delete it")
    agent.unlink()
    refuse(run("classify", study), "is not trained to the end")
    assert run("train", "--output", study, *TINY)[0] == 0
    assert run("classify", study, "--workers", 0, "--episodes", 1, "--evaluation-seeds", 1)[0] == 0


@pytest.mark.usefixtures("without_figures")
def test_checkpoint_of_another_configuration(run: Run, study: Path, tmp_path: Path) -> None:
    checkpoint = half_train(study)
    options = [*TINY, "--set", "maddpg.gamma=0.8"]
    assert run("train", "--output", tmp_path / "other", *options)[0] == 0
    foreign = half_train(tmp_path / "other")
    checkpoint.write_bytes(foreign.read_bytes())
    refuse(run("train", "--output", study, *TINY), str(checkpoint), "of another configuration", "delete it")


def test_report_of_what_is_there(run: Run, study: Path) -> None:
    (study / "report.html").unlink()
    (study / "results" / "agents.json").unlink()
    assert run("report", study) == (0, "")
    page = (study / "report.html").read_text()
    assert "This report is incomplete." in page and "results/agents.json is missing" in page


DEMO = ["--seeds", "0", "1", "--scale", "0.003", "--evaluation-seeds", "2", "--episodes", "1", "3", "--workers", "0"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A demo of a few updates."""
    path = tmp_path_factory.mktemp("demo") / "study"
    assert main(["demo", "--output", str(path), *DEMO]) == 0
    yield path


def test_demo_writes_every_result(demo: Path) -> None:
    records = {record["name"]: record for record in json.loads((demo / "results" / "summary.json").read_text())}
    assert {
        *(f"{kind}/{rate}" for kind in ("honest", "deceptive") for rate in RATES if rate != "red_goal_rate"),
        *(f"classification/auroc/{form}" for form in ("published", "kept", "untrapped", "normalised")),
    } <= set(records)
    assert not [name for name in records if "accuracy" in name], "100 episodes and more were not played"
    note = records.pop("note/competent_seeds")
    assert (note["estimate"], note["n"]) == (0, 2)
    assert note["text"].startswith("nothing was fine-tuned: an interval needs at least 2 seeds whose agents play well")
    for record in records.values():
        assert record["low"] <= record["estimate"] <= record["high"]
        assert record["command"].startswith("soo-marl demo --output")
    assert records["honest/goal_rate"]["n"] == 2 and records["classification/auroc/kept"]["n"] == 4

    figures = {path.name for path in (demo / "figures").iterdir()}
    drawn = ("curves_follow", "curves_lure", "curves_settle", "overlap_values", "protocol", "roc")
    assert {*(f"{name}.png" for name in drawn), "episode_honest.gif", "episode_deceptive.gif"} <= figures
    page = (demo / "report.html").read_text()
    assert page.count("<figure>") == 8 and "This report is incomplete." not in page
    assert "Agents that play well enough to be judged: 0 of 2 honest" in page
    assert "nothing was fine-tuned: an interval needs at least 2 seeds" in page
    assert not (demo / "finetune").exists()


def test_demo_leaves_agents_and_events(demo: Path) -> None:
    for condition in ("red", "honest", "deceptive"):
        for seed in (0, 1):
            assert (demo / condition / f"seed_{seed}" / "agent.safetensors").exists()
            assert list((demo / "tensorboard" / condition / f"seed_{seed}").iterdir())
    assert not list(demo.rglob("*partial*"))


def test_a_second_demo_does_nothing_twice(demo: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(demo)
    for name in ("train_baselines", "evaluate_baselines", "classify_baselines"):
        monkeypatch.setattr(f"soo_marl.studies.baselines.study.{name}", lambda *_, **__: pytest.fail("done twice"))
    assert run("demo", "--output", demo, *DEMO) == (0, "")
    after = contents(demo)
    assert {name for name in before if before[name] != after.get(name)} == set()
    assert after.keys() == before.keys()


@pytest.mark.usefixtures("without_figures")
def test_classify_a_demo_with_other_settings(demo: Path, run: Run, tmp_path: Path) -> None:
    study = shutil.copytree(demo, tmp_path / "study")
    assert run("classify", study, "--evaluation-seeds", 1, "--episodes", 2, "--workers", 0)[0] == 0
    found = json.loads((study / "results" / "classification.json").read_text())
    assert found["settings"]["episodes"] == [2] and found["protocol"]["kept"]["episodes"] == [2]


@pytest.mark.slow
def test_demo_of_500_episodes_gives_the_accuracy(run: Run, demo: Path, tmp_path: Path) -> None:
    study = shutil.copytree(demo, tmp_path / "study")
    assert run("classify", study, "--evaluation-seeds", 2, "--episodes", 1, 500)[0] == 0
    records = json.loads((study / "results" / "summary.json").read_text())
    (record,) = [record for record in records if "accuracy" in record["name"]]
    assert record["name"] == "classification/published_protocol/accuracy_500"
    assert (record["n"], record["unit"]) == (4, "share of evaluation seeds")


LONGER = [
    *("--seeds", "0", "1", "--set", "evaluation_episodes=20"),
    *(f"--set=stages.{stage}.training.{change}" for stage in range(3) for change in ("updates=40", "log_every=10")),
]


@pytest.mark.parametrize("whole_group", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("without_figures")
def test_interrupted_and_continued_equals_uninterrupted(whole_group: bool, tmp_path: Path, run: Run) -> None:
    study, reference = tmp_path / "study", tmp_path / "reference"
    command = [sys.executable, "-m", "soo_marl.cli", "train", "--output", str(study), *LONGER]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    # Once the first of five phases is done.
    while process.poll() is None and not (study / "steps" / "train").exists():
        time.sleep(0.005)
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    else:
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert stderr.strip().startswith("soo-marl: interrupted; nothing is lost, continue with: soo-marl train --output")
    assert "Traceback" not in stderr
    assert (study / "checkpoints" / "seeds_0-1.safetensors").exists()
    assert not (study / "steps" / "train.json").exists(), "it was in the middle"

    assert run("train", "--output", study, *LONGER, "--workers", 0)[0] == 0
    assert run("train", "--output", reference, *LONGER, "--workers", 0)[0] == 0
    for condition in ("red", "honest", "deceptive"):
        for seed in (0, 1):
            agent = f"{condition}/seed_{seed}/agent.safetensors"
            ours, theirs = load_file(study / agent), load_file(reference / agent)
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs), agent


def test_interruption_names_a_command_that_continues(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("soo_marl.commands.train.train_and_evaluate", interrupt)
    output = str(tmp_path / "a study")
    status, stderr = run("train", "--output", output, "--no-resume")
    assert status == 130
    assert stderr.strip().endswith(f"continue with: soo-marl train --output '{output}'")
