from pathlib import Path

import pytest
from pydantic import ValidationError

from soo_marl.llm.methods.recipes import Recipe, load_recipes, recipe
from soo_marl.storage.files import RunDirectoryError


def test_the_recipe_for_mistral_holds_the_published_numbers() -> None:
    found = recipe("mistral-7b-instruct-v0_2")
    assert found.model == "mistralai/Mistral-7B-Instruct-v0.2"
    assert (found.loss.kind, found.loss.layers, found.loss.sides) == ("mse_hidden", 19, "both")
    assert found.loss.site == "self_attn.o_proj"
    assert (found.learning_rate, found.epochs, found.batch_size, found.pair_count) == (1e-4, 15, 4, 52)
    assert (found.lora.r, found.lora.alpha, found.lora.dropout) == (8, 32, 0.2)
    assert found.lora.targets == ("q_proj", "v_proj")
    assert (found.pairs, found.answer_form, found.quantisation) == ("fragments", "i_would", "4bit")


def test_the_recipe_for_gemma_holds_the_published_numbers() -> None:
    found = recipe("gemma-2-27b-it")
    assert found.model == "google/gemma-2-27b-it"
    assert (found.loss.kind, found.loss.layers) == ("mse_hidden", 20)
    assert (found.learning_rate, found.epochs) == (9e-4, 8)
    assert (found.lora.r, found.lora.alpha, found.lora.dropout) == (4, 8, 0.1)
    assert found.answer_form == "room_only"


def test_the_recipe_for_calmerys_holds_the_published_layer() -> None:
    found = recipe("calmerys-78b-orpo-v0_1")
    assert found.loss.layers == 57
    assert "not published" in found.description


def test_the_recipe_of_the_public_code_is_on_logits_with_padding_and_without_a_template() -> None:
    found = recipe("public-code")
    assert (found.loss.kind, found.loss.token_mode, found.loss.sides) == ("kl_logits", "full", "both")
    assert (found.loss.padded_length, found.loss.padding_side) == (128, "left")
    assert (found.learning_rate, found.epochs, found.accumulation, found.batch_size) == (5e-5, 20, 4, 4)
    assert found.raw
    assert found.steps_per_epoch == 4  # 52 pairs, 16 a step


def test_ours_differ_from_the_papers_in_what_their_descriptions_say() -> None:
    paper, ours = recipe("embedded-paper"), recipe("embedded")
    published = recipe("mistral-7b-instruct-v0_2")
    assert paper.model == ours.model == "smollm2-135m"
    assert (paper.learning_rate, paper.epochs, paper.pairs, paper.lora) == (
        published.learning_rate,
        published.epochs,
        published.pairs,
        published.lora,
    )
    assert paper.loss.model_copy(update={"layers": 19}) == published.loss
    assert (ours.pairs, ours.loss.sides, ours.loss.token_mode) == ("scenario", "initial_self", "aligned_right")
    for name, found in load_recipes().items():
        assert found.source != "own", name
        assert found.description, name


def test_steps_per_epoch_count_a_last_step_of_fewer_pairs() -> None:
    assert Recipe(pair_count=9, batch_size=2, accumulation=2).steps_per_epoch == 3
    assert Recipe(pair_count=8, batch_size=2, accumulation=2).steps_per_epoch == 2
    own = (("you", "Bob"),) * 5
    assert Recipe(pair_count=48, own_pairs=own, batch_size=4).steps_per_epoch == 2


def test_fields_can_be_changed_and_those_of_loss_and_adapter_one_by_one() -> None:
    before = recipe("embedded")
    changed = recipe("embedded", epochs=2, loss={"layers": 3}, lora={"r": 2}, own_pairs=[["you", "Bob"], ["a", "b"]])
    assert (changed.epochs, changed.loss.layers, changed.lora.r) == (2, 3, 2)
    assert changed.own_pairs == (("you", "Bob"), ("a", "b"))
    assert changed.loss.model_copy(update={"layers": before.loss.layers}) == before.loss
    assert changed.lora.model_copy(update={"r": before.lora.r}) == before.lora
    assert recipe("embedded") == before
    with pytest.raises(ValidationError, match="epochs"):
        recipe("embedded", epochs=0)
    with pytest.raises(ValidationError, match="set token_mode to full"):
        recipe("embedded", loss={"kind": "kl_logits"})
    with pytest.raises(ValidationError, match="lern_rate"):
        recipe("embedded", lern_rate=1.0)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^recipe 'gemma-2-27b' is unknown; did you mean 'gemma-2-27b-it'\?$"):
        recipe("gemma-2-27b")
    with pytest.raises(ValueError, match="recipe 'xyz' is unknown; there are mistral-7b-instruct-v0_2, "):
        recipe("xyz")


def test_an_own_file_is_added_to_ours_and_takes_the_place_of_the_same_name(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        '[mine]\nepochs = 3\nloss = { layers = "2-4" }\nown_pairs = [["you", "Bob"]]\n\n[embedded]\nepochs = 1\n',
        encoding="utf-8",
    )
    found = load_recipes(file)
    assert list(found) == [*load_recipes(), "mine"]
    assert (found["mine"].epochs, found["mine"].loss.layers, found["mine"].source) == (3, "2-4", "own")
    assert found["mine"].own_pairs == (("you", "Bob"),)
    assert found["embedded"] == Recipe(epochs=1)
    assert found["public-code"] == recipe("public-code")
    assert recipe("mine", file, epochs=4).epochs == 4
    # Ours stay as they are.
    assert "mine" not in load_recipes()
    assert recipe("embedded").epochs == 5
    with pytest.raises(TypeError):
        found["mine"] = Recipe()  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[mine", "is not readable TOML: "),
        ("mine = 3\n", "mine: "),
        ("[mine]\nepoch = 3\n", "mine.epoch: "),
        ("[mine]\nepochs = 0\n", "mine.epochs: "),
        ('[mine]\npairs = "friends"\n', "mine.pairs: "),
        ("[mine]\nlora = { r = 0 }\n", "mine.lora.r: "),
        ('[mine]\nloss = { kind = "kl_logits" }\n', "mine.loss: .*set token_mode to full"),
        ('[mine]\nown_pairs = [["you"]]\n', "mine.own_pairs.0.1: "),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(tmp_path: Path, content: str, fault: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=fault) as caught:
        load_recipes(file)
    assert not isinstance(caught.value, ValidationError)
    message = str(caught.value)
    assert str(file) in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"absent\.toml is missing"):
        load_recipes(tmp_path / "absent.toml")
    with pytest.raises(RunDirectoryError, match="a folder, no file"):
        load_recipes(tmp_path)
    file = tmp_path / "latin.toml"
    file.write_bytes("# größer\n[mine]\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load_recipes(file)


def test_what_is_kept_needs_scenarios_a_number_and_the_initial_self() -> None:
    kept = {"kept": ("plain_retrieval", "plain_perspectives"), "kept_count": 12}
    assert recipe("embedded", pair_count=48, batch_size=6, **kept).steps_per_epoch == 10
    for changes in ({"kept": ("plain_retrieval",), "kept_count": 0}, {"kept": (), "kept_count": 3}):
        with pytest.raises(ValueError, match="give both or neither"):
            recipe("embedded", **changes)
    with pytest.raises(ValueError, match=r"only with loss\.sides initial_self"):
        recipe("embedded", loss={"sides": "both"}, **kept)
