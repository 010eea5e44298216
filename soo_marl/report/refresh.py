"""Draw what a study shows: from the files in its directory to its figures, its films and its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from soo_marl.llm.study import study as language
from soo_marl.report.figures.drawing import draw_figures, draw_finetuning, draw_profiles
from soo_marl.report.figures.style import list_figures
from soo_marl.report.figures.sweep import draw_sweep
from soo_marl.report.language.drawing import draw_language
from soo_marl.report.language.page import write_language_report
from soo_marl.report.page.page import TITLE, write_report, write_reproduction
from soo_marl.report.videos.animation import Episode, episode_frames, save_gif
from soo_marl.report.videos.videos import save_videos
from soo_marl.storage.files import DELETE, RunDirectoryError
from soo_marl.storage.records import FigureRecord, read_one
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import read_tensors
from soo_marl.studies.baselines.evaluation import EPISODES_FILE, FILMED
from soo_marl.studies.baselines.study import BASELINES, merge_results
from soo_marl.studies.finetuning.records import EpisodeCollection
from soo_marl.studies.finetuning.study import FINETUNED
from soo_marl.studies.learning.recipes import KINDS
from soo_marl.studies.reproduction.study import REPRODUCTION, shown_presets
from soo_marl.studies.sweep.records import SweepResult
from soo_marl.studies.sweep.study import SWEEP

_FILMED_METHODS = ("soo", "soo_difference_any_kept", "position_tie")
"""Methods of fine-tuning that the film shows beside the baselines."""
_MOST_FILMED = 5


def refresh(path: Path, left_out: list[str] | None = None) -> Path:
    """Draw the figures and films of a study and write its page, from what stands in its directory.

    Studies in its folders (fine-tuning, presets of a reproduction, points of a sweep) are studies of their own. Films
    of a study of before, whose episodes were not kept, stay as they are.

    Args:
        path: the study's directory.
        left_out: takes a sentence for everything that could not be drawn; where None, that is an error.

    Returns:
        The page; of a sweep, which has none, the folder of its figures.

    Raises:
        RunDirectoryError: there is no study, another command is at work there, or a file cannot be read or written.
    """
    directory = StudyDirectory.read(path)
    draw, page = _steps(directory)
    with directory.locked():
        for step in draw:
            try:
                step()
            except RunDirectoryError as error:
                if left_out is None:
                    raise
                left_out.append(str(error))
        return page()


def unfinished(path: Path) -> list[str]:
    """What a study has not done yet, in words.

    Raises:
        RunDirectoryError: there is no study, or the mark of a step is unreadable.
    """
    directory = StudyDirectory.read(path)
    if directory.manifest.kind == language.LANGUAGE.name:
        return language.unfinished_models(directory)
    kinds = {kind.name: kind for kind in (BASELINES, FINETUNED)}
    return kinds[name].unfinished(directory) if (name := directory.manifest.kind) in kinds else []


def _steps(directory: StudyDirectory) -> tuple[list[Callable[[], object]], Callable[[], Path]]:
    """What is drawn of a study, in order, and what writes its page."""
    path, kind = directory.path, directory.manifest.kind
    if kind == FINETUNED.name:
        FINETUNED.read(path)
        return [lambda: film_finetuning(directory), lambda: draw_finetuning(path)], lambda: write_report(path)
    if kind == language.LANGUAGE.name:
        language.read_language_study(path)
        return [lambda: draw_language(path)], lambda: write_language_report(path)
    if kind == SWEEP.name:
        _, found = SWEEP.read(path)
        results = directory.results / "sweep.json"
        return [lambda: draw_sweep(path, read_one(results, SweepResult), found.axes)], lambda: directory.figures
    if kind == REPRODUCTION.name:
        _, scale = REPRODUCTION.read(path)
        studies = {name: path / name for name in shown_presets(directory)}
        title = f"{TITLE}: {scale.remark.split(':')[0]}" if scale.remark else TITLE
        return [], lambda: write_reproduction(path, studies, title=title)
    BASELINES.read(path)
    draw: list[Callable[[], object]] = [lambda: film_baselines(directory), lambda: draw_figures(path)]
    if (directory.results / "profiles.safetensors").exists():
        draw.append(lambda: draw_profiles(path))
    return [*draw, lambda: merge_results(directory)], lambda: write_report(path)


def film_baselines(directory: StudyDirectory) -> None:
    """Animate the episode of each kind that the evaluation kept.

    Raises:
        RunDirectoryError: the episodes are damaged, or a file cannot be written.
    """
    file = directory.results / EPISODES_FILE
    if not file.exists():
        return
    tensors, _ = read_tensors(file)
    films = []
    filmed = {name.split("/")[0] for name in tensors}
    for kind in [kind for kind in KINDS if kind in filmed]:
        try:
            content: dict[str, Any] = {name: tensors[f"{kind}/{name}"].numpy() for name in FILMED}
            goal, sight_radius = int(tensors[f"{kind}/goal"]), float(tensors[f"{kind}/sight_radius"])
            episode = Episode(goal=goal, alone=False, sight_radius=sight_radius, **content)
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunDirectoryError(f"{file} does not fit: {error}; {DELETE}") from error
        save_gif(episode_frames(episode, f"{kind} blue"), directory.figures / f"episode_{kind}.gif")
        caption = f"One greedy episode of a {kind} blue agent; the ring is its sight radius."
        films.append(FigureRecord(file=f"episode_{kind}.gif", caption=caption))
    list_figures(directory.path, films)


def film_finetuning(directory: StudyDirectory) -> None:
    """Film the baselines and a few treatments from the same start.

    Raises:
        RunDirectoryError: the episodes are damaged, or a file cannot be written.
    """
    file = directory.results / "episodes.json"
    if not file.exists():
        return
    shown = read_one(file, EpisodeCollection)
    recorded = dict.fromkeys(episode.condition for episode in shown.episodes)
    treated = [name for name in recorded if name.split(".")[0] in _FILMED_METHODS]
    chosen = [name for name in ("deceptive", *treated[: _MOST_FILMED - 2], "honest") if name in recorded]
    if not chosen:
        return
    gif, *_ = save_videos(shown, directory.figures / "episodes", conditions=chosen)
    seed = shown.episodes[0].seed
    words = {episode.condition: episode.verdict for episode in shown.episodes if episode.seed == seed}
    caption = (
        "One start, one column per agent: "
        + ", ".join(f"{name} ({words.get(name) or 'no verdict'})" for name in chosen)
        + ". Below each its overlap and what the rubric counts, step by step."
    )
    list_figures(directory.path, [FigureRecord(file=gif.name, caption=caption)])
