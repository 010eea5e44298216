import io
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from soo_marl.commands.tables import terminal
from soo_marl.commands.tables.baselines import print_agents, print_records, print_study
from soo_marl.commands.tables.terminal import ProgressDisplay, carry_out
from soo_marl.engines import WorkerLostError
from soo_marl.storage.faults import one_sentence
from soo_marl.storage.files import RunDirectoryError, printable
from soo_marl.storage.records import Interval, Record
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.learning.overlap_values import FORMS, LAYER_SETS, PAIRINGS
from soo_marl.studies.learning.records import AgentRecord, Classification, ClassificationRow


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    radius: float = Field(1.0, gt=0)


def row(form: str, layers: str, pairing: str, missing: int = 0) -> ClassificationRow:
    interval = Interval(estimate=0.966, low=0.9, high=1.0, n=19)
    return ClassificationRow(
        form=form,
        layers=layers,
        pairing=pairing,
        auroc=interval,
        leave_one_out=interval,
        recall_at_5_percent=interval,
        missing=missing,
    )


def print_everything(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> list[str]:
    directory = StudyDirectory.open(tmp_path / "a [bold] name", "baselines", {}, [0])
    rates = {
        "goal_rate": 0.5,
        "trap_rate": 1.0,
        "following_rate": 0.25,
        "rubric_rate": 0.123,
        "rubric_rate_en_route": 0.0,
    }
    agents = [
        AgentRecord(kind="honest", seed=10, competent=True, goal_rate_alone=0.75, **rates),
        AgentRecord(kind="deceptive", seed=10, competent=False, reasons=("goal rate is low", "trap too"), **rates),
    ]
    rows = [row(form, layers, pairing) for form in FORMS for layers in LAYER_SETS for pairing in PAIRINGS]
    rows += [row("trap rate", "–", "–"), row("linear probe", "both", "–")]
    rows[0] = row("published", "both", "imagined_red", missing=3)
    found = Classification(rows=tuple(rows), findings=("A finding.", "Another [finding]."))
    records = [
        Record(
            name="classification/published_protocol/accuracy_1500",
            estimate=0.966,
            low=0.9,
            high=1.0,
            n=100,
            unit="share of evaluation seeds",
            command="",
        )
    ]
    print_study(agents, found, records, directory)
    return capsys.readouterr().out.splitlines()


def test_tables_fit_80_columns_and_wrap_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.console, "width", 80)
    lines = print_everything(capsys, tmp_path)
    tables = [line for line in lines if not line.startswith(("Report", "Figures", "Records", "The report"))]
    assert max(map(len, tables)) <= 80
    assert not [line for line in tables if "…" in line]
    agent = next(line.split() for line in lines if line.startswith(" deceptive"))
    assert agent == ["deceptive", "10", "0.50", "–", "1.00", "0.25", "0.12", "0.00", "no"]
    assert "deceptive 10: goal rate is low; trap too" in lines
    interval = "0.97 [0.90, 1.00]"
    rows = [line.strip().split("  ") for line in lines if line.count(interval) == 3]
    assert [cells[0] for cells in rows] == [*FORMS, *FORMS, "trap rate", "linear probe"]
    assert "Agents without a value: published (imagined red) 3." in lines
    assert any("published_protocol/accuracy_1500" in line and interval in line and "100" in line for line in lines)
    assert "• Another [finding]." in lines


def test_agents_that_broke_down_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = "lure, after 1,250 updates: values exploded or were not finite"
    reasons = (f"training was stopped in {stopped}",)
    print_agents([AgentRecord(kind="honest", seed=3, stopped=stopped, competent=False, reasons=reasons)])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["honest", "3"] and line.split()[-1] == "stopped" for line in lines)
    assert f"honest 3: {reasons[0]}" in " ".join(" ".join(lines).split())


def test_a_terminal_without_unicode_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii", write_through=True))
    agents = [AgentRecord(kind="honest", seed=3, competent=False, reasons=("none – at all",))]
    assert carry_out(lambda: print_agents(agents), "again", "soo-marl") == 0
    assert b"honest 3: none ? at all" in output.getvalue()


def test_paths_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    lines = print_everything(capsys, deep)
    assert f"Report:  {deep}/a [bold] name/report.html" in lines


HOSTILE = ["[/x]", "[bold]b[/bold]", "\x1b]0;owned\x07", "\x1b[2J", ":smile:", "\ud800", "\u202eleft", "a\rb", "a\nb"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are_and_do_nothing(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = StudyDirectory.open(tmp_path / "study", "baselines", {}, [0])
    agents = [AgentRecord(kind=name, seed=0, competent=False, reasons=(f"because {name}",))]
    rows = (row(name, "both", "imagined_red", missing=1),)
    records = [
        Record(name=record, estimate=1.0, n=1, unit="share", command="", text=name)
        for record in (f"{name}/goal_rate", f"note/{name}")
    ]
    print_study(agents, Classification(rows=rows, findings=(name,)), records, directory)
    shown = capsys.readouterr().out
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.count(printable(name)) >= 5 or "\n" in name


def test_a_table_in_a_log_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a_long_name/" * 30
    print_records([Record(name=name, estimate=0.5, low=0.4, high=0.6, n=3, unit="share", command="")])
    assert any(name in line and line.rstrip().endswith("3") for line in capsys.readouterr().out.splitlines())


def test_a_log_tells_how_far_a_task_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0.01)
    said = ""
    with ProgressDisplay().task("training", 1000.0, 2) as advance:
        advance(0, 400.0)  # that much was found done
        advance(1, 0.0)
        advance(1, 300.0)
        while "700/1,000" not in said:
            time.sleep(0.01)
            said += capsys.readouterr().out
    assert said.startswith("training: begins, 1,000 to do\n")
    assert "\ntraining: 700/1,000 after 0 s, about 0 s left\n" in said
    assert capsys.readouterr().out.splitlines()[-1] == "training: 1,000/1,000 after 0 s"


def test_progress_ends_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay().task("training", 10.0, 2) as advance:
        advance(0, 2.0)
        advance(1, 3.0)
        advance(1, 5.0)
    assert "10/10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RunDirectoryError("that [file] is missing"), "that [file] is missing"),
        (WorkerLostError("a worker was lost"), "a worker was lost"),
        (ValueError("no such preset"), "no such preset"),
        (PermissionError(13, "Permission denied", "/a/b"), "[Errno 13] Permission denied: '/a/b'"),
    ],
)
def test_errors_are_one_sentence(error: Exception, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert carry_out(fail, "soo-marl demo", "soo-marl") == 2
    captured = capsys.readouterr()
    assert captured.err == f"soo-marl: {sentence}\n" and captured.out == ""


def test_interruption_names_the_command_that_continues(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert carry_out(interrupt, "soo-marl demo --output 'a b'", "soo-marl") == 130
    message = "soo-marl: interrupted; nothing is lost, continue with: soo-marl demo --output 'a b'"
    assert capsys.readouterr().err.strip() == message
    assert carry_out(lambda: None, "", "soo-marl") == 0


@pytest.mark.parametrize("error", [KeyError("a\x1b[31m"), RuntimeError("a bug"), AssertionError()])
def test_bugs_are_a_sentence_and_their_traceback_a_file(
    error: Exception, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug() -> None:
        raise error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert carry_out(bug, "", "soo-marl") == 1
    message = capsys.readouterr().err
    (kept,) = tmp_path.iterdir()
    assert message.startswith(f"soo-marl: unexpected {type(error).__name__}: ") and message[:-1].isprintable()
    assert message.endswith(f"please report it with the traceback in {kept}\n") and message.count("\n") == 1
    assert kept.read_text().startswith("Traceback") and ", in bug" in kept.read_text()

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert carry_out(bug, "", "soo-marl") == 1
    message = capsys.readouterr().err
    assert message.startswith("Traceback") and message.endswith("please report it with the traceback above\n")


def test_faults_of_a_configuration() -> None:
    def sentence(**fields: object) -> str:
        with pytest.raises(ValueError) as raised:
            Settings.model_validate(fields)
        return one_sentence(raised.value)

    assert sentence(radius=-1) == "radius: Input should be greater than 0 (given: -1)"
    assert sentence(size=1) == "size is no field of Settings; the fields are those in study.json"
    assert one_sentence(ValueError("plain")) == "plain"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OverflowError("int too big to convert"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
)
def test_sizes_that_no_memory_holds_are_one_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert carry_out(fail, "", "soo-marl") == 2
    message = capsys.readouterr().err
    assert message.startswith("soo-marl: this needs more memory than there is") and message.count("\n") == 1


def test_errors_are_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("a\nb\x1b[31m\udcff")

    assert carry_out(fail, "", "soo-marl") == 2
    assert capsys.readouterr().err == "soo-marl: a\\nb\\x1b[31m\\udcff\n"


def test_of_very_many_agents_only_their_number_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_agents([AgentRecord(kind="honest", seed=seed, competent=seed > 0) for seed in range(1500)])
    assert capsys.readouterr().out.strip() == (
        "1,500 agents, 1,499 of them competent; results/agents.json has every one."
    )
