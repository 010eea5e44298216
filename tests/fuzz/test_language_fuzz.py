"""Broken and hostile files of the language half: taken, or refused with one sentence; there is never a traceback.

The cases are the same in every run. Adapters have theirs in ``tests/llm/test_llm_adapter_files.py``.
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from test_fuzz import BYTES, CASES, CHANGES, broken, cases, changed, refused

from soo_marl.llm.measures.evaluation import EvaluationConfig, ModelMeasures
from soo_marl.llm.measures.latent import LatentOverlap, LayerGap, LayerOverlap
from soo_marl.llm.measures.records import EpochRecord, LatentRecord, TrainingRecord
from soo_marl.llm.measures.responses import Response, write_responses
from soo_marl.llm.methods.recipes import load_recipes
from soo_marl.llm.prompts.pairs import read_pairs
from soo_marl.llm.prompts.templates import load_templates
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig
from soo_marl.llm.study.models_on_disk import read_training, training_file
from soo_marl.llm.study.shard import latent_file, measures_file, read_measures, read_model_responses, responses_file
from soo_marl.llm.study.study import open_language_study, read_language_study, write_language_results
from soo_marl.report.language.page import write_language_report
from soo_marl.storage import files
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import read_list, write_list
from soo_marl.storage.study_directory import StudyDirectory

CASES |= {"language study": 150, "TOML": 150, "pairs": 100}

CONFIG = LanguageStudyConfig(
    organism=None,
    conditions=(Condition(label="soo", method="soo"),),
    seeds=(0,),
    evaluation=EvaluationConfig(fills={"burglar": 1}, other_fills=1),
)
MODEL = ("soo", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDirectory, dict[Path, bytes]]:
    """A study that is done, as far as its files say, and what stands in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_synchronise", lambda path: None)
        directory = open_language_study(tmp_path_factory.mktemp("language") / "study", CONFIG)
        asked = [prompt for role in CONFIG.evaluation.all_roles for prompt in CONFIG.evaluation.prompts(role)]
        fields = ("scenario", "orientation", "number", "right_room", "wrong_room", "item")
        responses = [
            Response(**{name: getattr(prompt, name) for name in fields}, prompt=prompt.text, text="x", truncated=False)
            for prompt in asked
        ]
        value = LayerOverlap(layer=0, site="a", raw=1.0, power=1.0, normalised=1.0, prompt_variance=0.5)
        latent = LatentRecord(
            label="soo",
            seed=0,
            pairs="scenario/test",
            overlap=LatentOverlap(token_mode="full", skip_header=0, pairs=2, values=(value,)),
            gap=LayerGap(site="a", pairs=2, layers=(0,), relative=(0.5,)),
        )
        shares = dict.fromkeys(
            ("deceptive_cheap_first", "deceptive_mirrored", "honest_cheap_first", "honest_mirrored"), 0.5
        )
        training = TrainingRecord(losses=(1.0, 0.5), steps_per_epoch=1, epochs=(EpochRecord(epoch=1, **shares),))
        measures = ModelMeasures(perplexity=2.0, power=1.0, prompt_variance=0.5, name_gap=0.1)
        for model in CONFIG.models:
            write_responses(responses_file(directory, *model), responses)
            files.write_json(measures_file(directory, *model), measures.model_dump(mode="json"))
            files.write_json(training_file(directory, *model), training.model_dump(mode="json"))
            write_list(latent_file(directory, *model), [latent])
            # As version 0.1 marked what was done: without digests, which would notice before anything is read.
            mark = directory.path / "steps" / "models" / model[0] / f"{model[1]}.json"
            files.write_json(mark, [str(responses_file(directory, *model).relative_to(directory.path))])
        write_language_results(CONFIG, directory, "x")
    paths = [responses_file, measures_file, training_file, latent_file]
    found = [directory.path / "study.json", *(path(directory, *MODEL) for path in paths)]
    return directory, {path: path.read_bytes() for path in [*found, *sorted(directory.results.glob("*.json"))]}


@cases("language study")
@given(which=st.integers(0, 100), changes=CHANGES, damage=st.none() | BYTES)
def test_files_of_a_language_study(
    which: int, changes: Any, damage: Any, whole: tuple[StudyDirectory, dict[Path, bytes]]
) -> None:
    directory, content = whole
    path = sorted(content)[which % len(content)]
    first, _, rest = content[path].partition(b"\n") if path.suffix == ".jsonl" else (content[path], b"", b"")
    new = json.dumps(changed(json.loads(first), changes)).encode() + rest
    path.write_bytes(new if damage is None else broken(new, damage))
    try:
        for use in (
            lambda: read_language_study(directory.path),
            lambda: read_model_responses(CONFIG, directory, *MODEL),
            lambda: read_measures(directory, *MODEL),
            lambda: read_training(directory, *MODEL),
            lambda: read_list(latent_file(directory, *MODEL), LatentRecord),
        ):
            try:
                use()
            except RunDirectoryError as error:
                refused(error)
                assert str(path) in str(error)
        if which == 0:
            write_language_report(directory.path)
    finally:
        path.write_bytes(content[path])


TOML = {
    name: resources.files("soo_marl.llm").joinpath("data", name).read_bytes()
    for name in ("recipes.toml", "scenarios.toml")
}
READERS: dict[str, Any] = {"recipes.toml": load_recipes, "scenarios.toml": load_templates}
HOSTILE = (
    b"a = " + b"[" * 100_000,
    b"a." * 500 + b"b = 1",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"a = 1e999",
    b"[x]\nr = nan",
    b"[scenarios.x]\ntext = 5",
    b"scenarios = 1",
    b"x = 9" + b"9" * 5_000,
    b"",
)


@cases("TOML")
@given(name=st.sampled_from(sorted(TOML)), damage=BYTES, hostile=st.none() | st.sampled_from(HOSTILE))
def test_toml_files_of_the_user(name: str, damage: Any, hostile: bytes | None, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(broken(TOML[name], damage) if hostile is None else hostile)
    try:
        READERS[name](path)
    except (ValueError, RunDirectoryError) as error:
        refused(error)
        assert str(path) in str(error)


@cases("pairs")
@given(changes=CHANGES, damage=st.none() | BYTES)
def test_pairs_of_the_user(changes: Any, damage: Any, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "pairs.jsonl"
    line = json.dumps(changed({"self": "You hide it.", "other": "Bob hides it."}, changes)).encode()
    path.write_bytes(line if damage is None else broken(line, damage))
    try:
        assert read_pairs(path)
    except (ValueError, RunDirectoryError) as error:
        refused(error)
        assert str(path) in str(error)
