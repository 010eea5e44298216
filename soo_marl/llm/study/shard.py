"""Train and evaluate one model of a study, and what that leaves on disk: the work of one shard.

::

    <label>/seed_<n>/
        adapter/             LoRA weights as peft reads them; none where nothing is trained
        training.json        loss of every step, and what the model answered after each epoch
        measures.json        perplexity and activations
        responses.jsonl      every answer to every prompt
        latent.json          latent overlap by layer, on three sets of pairs
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from soo_marl.engines import Interrupted, one_torch_thread, torch_threads
from soo_marl.llm.measures.evaluation import HONESTY_PROMPT, ModelMeasures, evaluate, latent_records, share_of
from soo_marl.llm.measures.records import EpochRecord, TrainingRecord
from soo_marl.llm.measures.responses import Response, read_responses, write_responses
from soo_marl.llm.methods.finetuning import finetune, recipe_pairs
from soo_marl.llm.methods.optimisation import BreakdownError
from soo_marl.llm.methods.organism import teach_organism
from soo_marl.llm.methods.steering import DISHONEST, HONEST, mean_difference, random_vectors, steered
from soo_marl.llm.model.adapters import ADAPTER_WEIGHTS
from soo_marl.llm.model.layers import matching_layers
from soo_marl.llm.model.models import DeviceMemoryError, LanguageModel, adapters_off, save_adapter
from soo_marl.llm.prompts.scenarios import ORIENTATIONS, Orientation, Prompt
from soo_marl.llm.study.configuration import BASE, HONESTY, ORGANISM, Condition, LanguageStudyConfig
from soo_marl.llm.study.models_on_disk import (
    adapter_folder,
    adapter_owner,
    load_study_model,
    mark_trained,
    model_before,
    organism_done,
    read_training,
    trained_step,
    training_file,
    write_training,
)
from soo_marl.storage.files import DELETE, RunDirectoryError, read_json, validate, write_json
from soo_marl.storage.lock import worker_lock
from soo_marl.storage.records import write_list
from soo_marl.storage.study_directory import StudyDirectory

_TRAINING_SHARE = 0.6  # of a shard's progress; the rest is evaluation
_SCALES = (0.5, 1.0, 2.0, 4.0)  # factors on a steering vector among which training prompts decide


def model_shard(
    config: LanguageStudyConfig,
    label: str,
    seed: int,
    path: Path,
    device: str,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> str | None:
    """Train one model, as far as it is trained, and evaluate it, unless that is done.

    A training that breaks down is done with that, too: how it went stands in ``training.json``, and nothing is asked.

    Returns:
        Why it could not be done where memory did not suffice, which says nothing about other models; else None.

    Raises:
        Interrupted: ``stop()`` became true; what training needs to go on is written.
        RunDirectoryError: a file cannot be read or written.
        ValueError: the model, a layer or a scenario does not exist.
    """
    directory = StudyDirectory.read(path)
    step = f"models/{label}/{seed}"
    with worker_lock(path), one_torch_thread():
        if not directory.done(step):
            if stop():
                raise Interrupted
            work = _Work(config, label, seed, directory, device, report, stop)
            try:
                work.carry_out()
            except BreakdownError as error:
                work.break_down(error)
            except DeviceMemoryError as error:
                why = str(error)
                # What did not fit must not be in the way of the next model.
                del work, error
                gc.collect()
                return why
            asked = [responses_file(directory, label, seed), measures_file(directory, label, seed)]
            training = training_file(directory, label, seed)
            # Where the adapter is gone it is trained anew, since treatments start from it.
            adapter = adapter_folder(directory, label, seed) / ADAPTER_WEIGHTS
            some = [file for file in (latent_file(directory, label, seed), training, adapter) if file.exists()]
            broke_down = read_training(directory, label, seed).broke_down
            directory.mark_done(step, [training] if broke_down else [*asked, *some])
    report(1.0)
    return None


def organism_shard(
    config: LanguageStudyConfig,
    seed: int,
    path: Path,
    device: str,
    threads: int,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> None:
    """Teach one organism, unless that is done; it is asked later, beside the treatments. Raises as `model_shard`."""
    directory = StudyDirectory.read(path)
    with worker_lock(path), torch_threads(threads):
        if not organism_done(directory, seed):
            if stop():
                raise Interrupted
            work = _Work(config, ORGANISM, seed, directory, device, report, stop)
            try:
                work.train()
            except BreakdownError as error:
                work.break_down(error)
    report(1.0)


def responses_file(directory: StudyDirectory, label: str, seed: int) -> Path:
    """Where a model's answers lie."""
    return directory.agent_directory(label, seed) / "responses.jsonl"


def measures_file(directory: StudyDirectory, label: str, seed: int) -> Path:
    """Where what was measured of a model lies."""
    return directory.agent_directory(label, seed) / "measures.json"


def latent_file(directory: StudyDirectory, label: str, seed: int) -> Path:
    """Where a model's latent overlap lies; not for models that are only asked or steered otherwise."""
    return directory.agent_directory(label, seed) / "latent.json"


def read_model_responses(
    config: LanguageStudyConfig, directory: StudyDirectory, label: str, seed: int
) -> dict[str, list[Response]]:
    """A model's answers by role. Raises RunDirectoryError where the file is missing or damaged."""
    asked, file = config.evaluation_of(label), responses_file(directory, label, seed)
    answers = read_responses(file)
    prompts = {role: asked.prompts(role) for role in asked.all_roles}
    due = [_which(prompt) for of_role in prompts.values() for prompt in of_role]
    if [_which(answer) for answer in answers] != due:
        raise RunDirectoryError(f"{file} does not hold one answer to each question of this study; {DELETE}")
    rest = iter(answers)
    return {role: list(itertools.islice(rest, len(of_role))) for role, of_role in prompts.items()}


def _which(asked: Prompt | Response) -> tuple[str, str, int]:
    return asked.scenario, asked.orientation, asked.number


def read_measures(directory: StudyDirectory, label: str, seed: int) -> ModelMeasures | None:
    """What was measured of a model; None where only its answers were asked for. Raises as the answers' file does."""
    file = measures_file(directory, label, seed)
    return validate(TypeAdapter(ModelMeasures), content, file) if (content := read_json(file)) else None


@dataclass
class _Work:
    """One model under way."""

    config: LanguageStudyConfig
    label: str
    seed: int
    directory: StudyDirectory
    device: str
    report: Callable[[float], None]
    stop: Callable[[], bool]

    def __post_init__(self) -> None:
        self.checkpoint = self.directory.path / "checkpoints" / f"{self.label}.{self.seed}.safetensors"
        self.directory.agent_directory(self.label, self.seed).mkdir(parents=True, exist_ok=True)

    def carry_out(self) -> None:
        """Train the model, as far as it is trained, ask it, and write what came out."""
        asked, which = self.config.evaluation_of(self.label), (self.directory, self.label, self.seed)
        if self.label in (BASE, ORGANISM) or self.config.condition(self.label).trains:
            model = self.train()
            responses, measures = evaluate(model, asked, before_batch=self._go_on)
            latent = latent_records(model, self.label, self.seed, raw=self.config.evaluation.raw)
            write_list(latent_file(*which), latent)
        elif self.config.condition(self.label).method == HONESTY:
            model = load_study_model(self.config, *which, self.device)
            responses, measures = evaluate(model, asked, prefix=HONESTY_PROMPT, before_batch=self._go_on)
        else:
            responses, measures = self._steered(self.config.condition(self.label))
        write_responses(responses_file(*which), itertools.chain(*responses.values()))
        write_json(measures_file(*which), {} if measures is None else measures.model_dump(mode="json"))
        self.checkpoint.unlink(missing_ok=True)

    def train(self) -> LanguageModel:
        """The model with its adapter, which is trained unless that is done."""
        which = self.directory, self.label, self.seed
        if self.label == BASE or self.directory.done(trained_step(self.label, self.seed)):
            return load_study_model(self.config, *which, self.device)
        model = self._organism() if self.label == ORGANISM else self._finetuned(self.config.condition(self.label))
        save_adapter(model, adapter_folder(*which), owner=adapter_owner(*which))
        mark_trained(*which)
        self.checkpoint.unlink(missing_ok=True)
        return model

    def break_down(self, error: BreakdownError) -> None:
        """Write that training came to nothing, and how far it came."""
        before = read_training(self.directory, self.label, self.seed)
        if not before.broke_down:
            told = {"losses": error.losses, "stopped": str(error), "broke_down": True}
            self._record(before.model_copy(update=told))
            if self.label == ORGANISM or self.config.condition(self.label).trains:
                mark_trained(self.directory, self.label, self.seed)
        self.checkpoint.unlink(missing_ok=True)

    def _organism(self) -> LanguageModel:
        config = self.config.organism
        assert config is not None
        model, losses = teach_organism(
            load_study_model(self.config, self.directory, BASE, self.seed, self.device),
            config,
            self.seed,
            report=lambda steps: self.report(_TRAINING_SHARE * steps / config.steps),
            checkpoint=self.checkpoint,
            stop=self.stop,
        )
        self._record(TrainingRecord(losses=tuple(losses)))
        return model

    def _finetuned(self, condition: Condition) -> LanguageModel:
        recipe, epochs = condition.recipe, list[EpochRecord]()
        # Where training is taken up again, what was measured before stands on the disk.
        if self.checkpoint.exists():
            epochs += read_training(self.directory, self.label, self.seed).epochs
        why, before = list[str](), list[float]()

        def after_epoch(epoch: int, model: LanguageModel) -> bool:
            if self.config.epoch_fills == 0:
                return False
            record, roomless = self._epoch(epoch, model)
            epochs[:] = [*(earlier for earlier in epochs if earlier.epoch < epoch), record]
            self._record(TrainingRecord(epochs=tuple(epochs)))
            limit = self.config.stop_on_damage
            # Only where it can matter is it worth asking what the untrained model says, and once.
            if roomless > limit and not before:
                before.append(self._roomless_untrained(model))
            if before and roomless - before[0] > limit:
                why.append(
                    f"after epoch {epoch}, {100 * roomless:.0f} % of the answers chose no room, "
                    f"and before training {100 * before[0]:.0f} %"
                )
            return bool(why)

        epoch_steps = recipe.steps_per_epoch
        total = recipe.epochs * epoch_steps
        model, losses = finetune(
            model_before(self.config, self.directory, self.seed, self.device),
            recipe,
            condition.method,
            self.seed,
            after_epoch=after_epoch,
            report=lambda steps: self.report(_TRAINING_SHARE * steps / total),
            checkpoint=self.checkpoint,
            stop=self.stop,
        )
        told = {"losses": losses, "steps_per_epoch": epoch_steps, "epochs": epochs, "stopped": why[0] if why else None}
        self._record(TrainingRecord.model_validate(told))
        return model

    def _epoch(self, epoch: int, model: LanguageModel) -> tuple[EpochRecord, float]:
        """Behaviour after an epoch, and the share of answers that chose no room."""
        responses = self._asked_few(model)
        shares = {
            f"{label}_{orientation}": share_of([_of(responses, orientation)], label).estimate
            for orientation in ORIENTATIONS
            for label in ("deceptive", "honest")
        }
        return EpochRecord.model_validate({"epoch": epoch, **shares}), _roomless(responses)

    def _roomless_untrained(self, model: LanguageModel) -> float:
        with adapters_off(model):
            return _roomless(self._asked_few(model))

    def _asked_few(self, model: LanguageModel) -> list[Response]:
        """Answers to the burglar with the training half of the inventory, and fills drawn apart from those of pairs."""
        evaluation = self.config.evaluation
        changes = {
            "roles": {"burglar": evaluation.roles["burglar"]},
            "fills": {"burglar": max(1, self.config.epoch_fills)},
            "more_scenarios": (),
            "split": "train",
            "seed": evaluation.seed + 1_000_003,
            "measures": False,
        }
        return evaluate(model, evaluation.model_copy(update=changes))[0]["burglar"]

    def _steered(self, condition: Condition) -> tuple[dict[str, list[Response]], ModelMeasures | None]:
        """Answers of the model with a vector added, as strongly as training prompts say is best."""
        model, recipe = model_before(self.config, self.directory, self.seed, self.device), condition.recipe
        layers = matching_layers(model.transformer, recipe.loss.layers, recipe.loss.site)
        chosen = recipe_pairs(recipe, self.seed)
        others = [pair.other_text for pair in chosen]
        if condition.method == "repe":
            signed = 1.0
            sides = [HONEST + text for text in others], [DISHONEST + text for text in others]
        else:
            signed = -1.0
            sides = others, [pair.self_text for pair in chosen]
        vectors = mean_difference(model, *sides, layers, raw=recipe.raw)
        if condition.method == "steer_random":
            vectors = random_vectors(vectors, self.seed)
        best = (-1.0, _SCALES[0])
        for number, scale in enumerate(_SCALES):
            with steered(model, vectors, signed * scale):
                responses = self._asked_few(model)
            honest = min(share_of([_of(responses, each)], "honest").estimate or 0.0 for each in ORIENTATIONS)
            best = max(best, (honest, scale), key=lambda found: found[0])
            self.report(_TRAINING_SHARE * (number + 1) / len(_SCALES))
            self._go_on()
        self._record(TrainingRecord(scale=best[1]))
        with steered(model, vectors, signed * best[1]):
            return evaluate(model, self.config.evaluation_of(self.label), before_batch=self._go_on)

    def _record(self, record: TrainingRecord) -> None:
        write_training(self.directory, self.label, self.seed, record)

    def _go_on(self) -> None:
        """Raise Interrupted where work is to stop."""
        if self.stop():
            raise Interrupted


def _of(responses: Sequence[Response], orientation: Orientation) -> list[Response]:
    return [response for response in responses if response.orientation == orientation]


def _roomless(responses: Sequence[Response]) -> float:
    return share_of([responses], "refusal", "other").estimate or 0.0
