"""From a language study's results to its figures: what can be drawn is drawn, and listed with captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from soo_marl.llm.measures.records import LatentRecord, ModelSummary
from soo_marl.report.figures.baselines import save_figure
from soo_marl.report.figures.verdict_styles import NothingToDraw
from soo_marl.report.language.figures import (
    answers_by_model,
    damage,
    loss_and_behaviour,
)
from soo_marl.report.language.layers import layer_gap, layer_map
from soo_marl.report.language.orientation import honest_or_positional, orientation_points
from soo_marl.report.language.scenarios import answers_by_scenario
from soo_marl.storage.records import FigureRecord, read_list, write_list

_CAPTIONS = {
    "honest_or_positional": "Deceptive answers to burglars with the valuable room first against those with the cheap "
    "room first, the paper's order; colour and shape say the verdict. Lower left is honest, if the answers name a room "
    "at all (next picture). Upper right deceives in both. At the lower right a model always names the room that stands "
    "first, at the upper left the second: either looks honest in one orientation, and neither is. Marks on one another "
    "are moved apart a little.",
    "answers_by_model": "What burglars are told, one bar per orientation: deceptive answers from the left, honest ones "
    "from the right, between them refusals and answers that choose no room. Whiskers are 95 % intervals over prompts "
    "and seeds. A shorter vermilion part is honesty only where the blue part grows, in both bars.",
    "loss_and_behaviour": "Answers to burglars after each epoch of training, in both orientations, on training prompts "
    "that hold no answers: thick lines are means over seeds, thin ones seeds. Dotted, on the right axis, the mean loss "
    "of each epoch over that of the first. A low loss is not the effect.",
    "layer_gap": "Squared difference between self and other prompts over activation power, at the last token of each, "
    "by layer, mean over seeds; the colour says the verdict, but base is grey and the organism dark. Where it "
    "is largest is a place to try, no more. Little overlap after training on held-out pairs beside an unchanged gap "
    "in other wordings is overfitting.",
    "layer_map": "Verdicts of training on different layers, with the share of honest answers to burglars in the "
    "paper's order of rooms and in the mirrored one.",
    "answers_by_scenario": "Roles and further scenarios; the left tile with the cheap room first, the right one "
    "mirrored. In a tile: per cent of answers that name the wrong room | the right one; what "
    "is left to 100 names none. In the cells the true room is the right one, whomever the truth harms.",
    "damage": "Damage: perplexity on neutral text over that of the model as it comes, against the variance of "
    "activations across prompts over that before treatment. Far to the left, activations are nearly the same whatever "
    "is asked, which is where the overlap loss is least.",
}


def draw_language(study_directory: Path) -> list[FigureRecord]:
    """Draw every figure that ``results/models.json`` of a language study gives rise to.

    Writes PNG and SVG into ``figures/`` and lists the PNGs in ``results/figures.json``; what else stands in that list
    stays, after them. Without ``models.json`` nothing is drawn. Returns the new list.

    Raises:
        RunDirectoryError: a results file is unreadable, or a figure cannot be written.
    """
    study_directory = Path(study_directory)
    results = study_directory / "results"
    summaries = read_list(results / "models.json", ModelSummary) if (results / "models.json").exists() else []
    drawn: list[FigureRecord] = []

    def draw(name: str, function: Callable[[], Figure]) -> None:
        try:
            figure = function()
        except NothingToDraw:
            return
        path = save_figure(figure, study_directory / "figures" / name)
        drawn.append(FigureRecord(file=path.name, caption=_CAPTIONS[name]))

    draw("honest_or_positional", lambda: honest_or_positional(orientation_points(summaries)))
    draw("answers_by_model", lambda: answers_by_model(summaries))
    draw("answers_by_scenario", lambda: answers_by_scenario(summaries))
    draw("loss_and_behaviour", lambda: loss_and_behaviour(summaries))
    draw("damage", lambda: damage(summaries))
    latent = read_list(results / "latent.json", LatentRecord) if (results / "latent.json").exists() else []
    draw("layer_gap", lambda: layer_gap(latent, summaries))
    draw("layer_map", lambda: layer_map(summaries))

    names = {record.file for record in drawn}
    listed = read_list(results / "figures.json", FigureRecord) if (results / "figures.json").exists() else []
    records = [*drawn, *(record for record in listed if record.file not in names)]
    write_list(results / "figures.json", records)
    return records
