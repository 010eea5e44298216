import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from soo_marl.overlap import overlap, overlap_loss, record_activations


class StackedLinear(nn.Module):
    """R independent linear layers: ``[R, B, inputs] -> [R, B, outputs]``."""

    def __init__(self, runs: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(runs, inputs, outputs, generator=torch.Generator().manual_seed(0)))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.bmm(inputs, self.weight)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.o_proj = nn.Linear(4, 4)

    def forward(self, hidden: Tensor) -> tuple[Tensor, None]:
        return self.o_proj(hidden), None


class TinyTransformer(nn.Module):
    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"self_attn": Attention()}) for _ in range(blocks))
        self.unused = nn.Linear(4, 4)

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        for layer in self.layers:
            attended, _ = layer["self_attn"](hidden)
            hidden = hidden + attended
        return {"hidden": hidden}


def hooks(module: nn.Module) -> int:
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in module.modules())


def policy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def test_records_the_outputs_of_the_named_layers_with_their_graph() -> None:
    module, inputs = policy(), torch.randn(7, 3)
    with record_activations(module, ["1", "3"]) as record:
        module(inputs)
    first = torch.tanh(module[0](inputs))
    assert list(record) == ["1", "3"]
    torch.testing.assert_close(record["1"], first)
    torch.testing.assert_close(record["3"], torch.tanh(module[2](first)))
    record["3"].sum().backward()
    assert module[0].weight.grad is not None and module[0].weight.grad.abs().sum() > 0
    assert module[4].weight.grad is None


def test_latest_forward_pass_wins_and_take_forgets() -> None:
    module = policy()
    with record_activations(module, ["0"]) as record:
        module(torch.zeros(1, 3))
        module(torch.ones(2, 3))
        taken = record.take()
        torch.testing.assert_close(taken["0"], module[0].weight.sum(1).expand(2, 5) + module[0].bias)
        with pytest.raises(RuntimeError, match="'0' has not run"):
            record.take()


def test_no_gradient_under_no_grad() -> None:
    module = policy()
    with record_activations(module, ["0"]) as record, torch.no_grad():
        module(torch.ones(1, 3))
    assert not record["0"].requires_grad


def test_hooks_are_removed_at_the_end_and_after_an_exception() -> None:
    module = policy()
    with record_activations(module, ["0", "2"]):
        assert hooks(module) >= 2
    assert hooks(module) == 0
    with pytest.raises(ZeroDivisionError), record_activations(module, ["0", "2"]):
        raise ZeroDivisionError
    assert hooks(module) == 0
    with pytest.raises(RuntimeError), record_activations(module, ["0"]):
        module(torch.ones(1, 99))
    assert hooks(module) == 0


def test_nested_records_are_independent() -> None:
    module = policy()
    with record_activations(module, ["0"]) as outer:
        with record_activations(module, ["0", "2"]) as inner:
            module(torch.ones(1, 3))
        module(torch.zeros(1, 3))
    assert not torch.equal(outer["0"], inner["0"])
    assert hooks(module) == 0


def test_unknown_layer_lists_close_names_and_leaves_no_hook() -> None:
    module = TinyTransformer()
    with (
        pytest.raises(ValueError, match=r"no layer 'layers.1.self_attn.oproj'.*layers\.1\.self_attn\.o_proj"),
        record_activations(module, ["layers.0.self_attn", "layers.1.self_attn.oproj"]),
    ):
        pass
    assert hooks(module) == 0


@pytest.mark.parametrize("layers", [[], "0"])
def test_layers_must_be_a_sequence_of_names(layers: object) -> None:
    with pytest.raises(ValueError, match="sequence"), record_activations(policy(), layers):  # type: ignore[arg-type]
        pass


def test_layer_that_did_not_run() -> None:
    module = TinyTransformer()
    with record_activations(module, ["layers.0.self_attn", "unused"]) as record:
        module(torch.ones(1, 2, 4))
    with pytest.raises(RuntimeError, match="'unused' has not run"):
        record["unused"]
    assert record["layers.0.self_attn"].shape == (1, 2, 4)
    with pytest.raises(KeyError):
        record["layers.1.self_attn"]


def test_first_element_of_a_tuple_is_recorded() -> None:
    module, hidden = TinyTransformer(), torch.randn(2, 3, 4)
    with record_activations(module, ["layers.1.self_attn", "layers.1.self_attn.o_proj"]) as record:
        module(hidden)
    assert record["layers.1.self_attn"].shape == (2, 3, 4)
    assert torch.equal(record["layers.1.self_attn"], record["layers.1.self_attn.o_proj"])


def test_output_without_tensor_is_refused_by_name() -> None:
    module = nn.Sequential(TinyTransformer())
    with record_activations(module, ["0"]), pytest.raises(ValueError, match=r"'0' returns dict.*such as 'hidden'"):
        module(torch.ones(1, 2, 4))
    assert hooks(module) == 0


def test_stacked_module() -> None:
    module = nn.Sequential(StackedLinear(3, 2, 5), nn.ReLU(), StackedLinear(3, 5, 1))
    with record_activations(module, ["0"]) as record:
        module(torch.ones(3, 4, 2))
    assert record["0"].shape == (3, 4, 5)


class Twice(nn.Module):
    """One activation function after both layers, of one width or of two."""

    def __init__(self, second: int = 4) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(3, 4), nn.Linear(4, second), nn.Tanh()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.act(self.second(self.act(self.first(inputs))))
        return outputs


class Recurrent(nn.Module):
    """A cell that runs once per step of its input ``[T, B, 3]``."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.zeros(inputs.shape[1], 4)
        for step in inputs:
            hidden = self.cell(step, hidden)
        return hidden


@pytest.mark.parametrize("make", [Twice, Recurrent])
def test_a_layer_that_runs_more_than_once_is_refused_or_told_apart(make: Callable[[], nn.Module]) -> None:
    module, inputs = make(), torch.randn(5, 2, 3)
    layer = "cell" if make is Recurrent else "act"
    seen: list[Tensor] = []
    module.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with record_activations(module, [layer]), pytest.raises(ValueError, match=r"more than once.*calls='stack'"):
        module(inputs)
    seen.clear()
    with record_activations(module, [layer], calls="stack") as record:
        module(inputs)
        assert torch.equal(record.take()[layer], torch.stack(seen))
        module(inputs)
        module(inputs)
        assert record[layer].shape[0] == len(seen) / 3, "each pass begins anew"
    with record_activations(module, [layer], calls="last") as record:
        module(inputs)
    assert torch.equal(record[layer], seen[-1])


def test_stacked_calls_need_one_shape() -> None:
    module = Twice(second=6)
    with record_activations(module, ["act"], calls="stack") as record:
        module(torch.ones(2, 3))
        with pytest.raises(ValueError, match=r"'act' cannot be stacked.*\(2, 4\), \(2, 6\)"):
            record.take()
    with pytest.raises(ValueError, match="calls must be"), record_activations(module, ["act"], calls="all"):  # type: ignore[arg-type]
        pass


def test_two_names_of_one_layer_are_refused() -> None:
    act = nn.ReLU()
    module = nn.Sequential(nn.Linear(3, 3), act, nn.Linear(3, 3), act)
    with pytest.raises(ValueError, match="'1' and '3' are the same module"), record_activations(module, ["1", "3"]):
        pass
    assert hooks(module) == 0


def test_passes_of_a_part_of_the_module_need_a_take_between_them() -> None:
    module = nn.ModuleDict({"body": policy(), "head": nn.Linear(2, 1)})
    with record_activations(module, ["body.0"]) as record:
        module["body"](torch.zeros(1, 3))
        record.take()
        module["body"](torch.ones(1, 3))
        with pytest.raises(ValueError, match=r"call take\(\)"):
            module["body"](torch.ones(1, 3))


def test_what_a_backward_pass_runs_again_is_not_recorded() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = policy()

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = checkpoint(self.body, inputs, use_reentrant=False)
            return outputs

    module = Checkpointed()
    with record_activations(module, ["body.1"], calls="stack") as record:
        module(torch.ones(2, 3)).sum().backward()
        assert record["body.1"].shape == (1, 2, 5)


@pytest.mark.parametrize("how", ["wrapper", "in place", "part"])
def test_compiled_modules_are_recorded(how: str) -> None:
    plain, inputs = policy(), torch.randn(4, 3)
    expected = plain[1](plain[0](inputs))
    module: Any = copy.deepcopy(plain)
    if how == "in place":
        module.compile(backend="eager")
    else:
        module = torch.compile(module, backend="eager")
    if how == "part":
        module = nn.Sequential(module, nn.Tanh())
    name = {"wrapper": "_orig_mod.1", "in place": "1", "part": "0._orig_mod.1"}[how]
    module(inputs)
    with record_activations(module, [name]) as record:
        module(inputs)
    torch.testing.assert_close(record[name], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_layers_of_torchscript_are_refused_and_those_beside_it_are_not() -> None:
    scripted = torch.jit.script(policy())
    module = nn.Sequential(scripted, nn.Tanh())
    for root, name in ((scripted, "1"), (module, "0.1"), (module, "0")):
        with pytest.raises(ValueError, match=f"'{name}' is part of TorchScript"), record_activations(root, [name]):
            pass
    with record_activations(module, ["1"]) as record:
        module(torch.ones(2, 3))
    assert record["1"].shape == (2, 2)


def test_ensembles_under_vmap_have_the_mapped_axes_in_front() -> None:
    members, inputs = [policy() for _ in range(3)], torch.randn(7, 3)
    parameters, buffers = stack_module_state(members)  # type: ignore[arg-type]
    base = copy.deepcopy(members[0]).to("meta")

    def member(own: Any, batch: Tensor) -> Tensor:
        outputs: Tensor = functional_call(base, (own, buffers), (batch,))
        return outputs

    with record_activations(base, ["1"]) as record:
        vmap(member, in_dims=(0, None))(parameters, inputs)
        self_side = record.take()
        vmap(lambda batch: vmap(member, in_dims=(0, None))(parameters, batch), in_dims=1)(inputs.expand(5, 7, 3))
        nested = record.take()
        vmap(member, in_dims=(0, None))(parameters, inputs + 1.0)
        other_side = record.take()
    for run, single in enumerate(members):
        torch.testing.assert_close(self_side["1"][run], single[1](single[0](inputs)))
    assert nested["1"].shape == (7, 3, 5, 5)
    overlap_loss(self_side, other_side, run_dims=1).sum().backward()
    assert parameters["0.weight"].grad is not None and bool(parameters["0.weight"].grad.flatten(1).any(1).all())


def test_other_transforms_are_refused() -> None:
    module = policy()
    with record_activations(module, ["1"]), pytest.raises(ValueError, match=r"transform of torch\.func"):
        grad(lambda inputs: module(inputs).sum())(torch.ones(2, 3))
    assert hooks(module) == 0


def test_the_axes_of_units_can_be_named() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8))
    one, other = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)

    def sides(**options: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with record_activations(module, ["1", "3"], **options) as record:
            module(one)
            first = record.take()
            module(other)
            return first, record.take()

    with pytest.raises(ValueError, match=r"'1' and '3' differ.*units=\{name: \(1, 2, 3\)\}"):
        overlap(*sides())
    first, second = sides(units={"1": (1, 2, 3)})
    plain = sides()
    torch.testing.assert_close(first["1"], plain[0]["1"].flatten(1))
    per_unit = torch.cat([plain[0]["1"] - plain[1]["1"]], dim=1).flatten(1), plain[0]["3"] - plain[1]["3"]
    torch.testing.assert_close(overlap(first, second), torch.cat(per_unit, dim=1).square().mean(1).mean())
    channels, _ = sides(units={"1": 1})
    assert channels["1"].shape == (2, 2, 2, 4) and torch.equal(channels["1"], plain[0]["1"].movedim(1, -1))
    with pytest.raises(ValueError, match=r"units=\(7,\) do not fit layer '1'"):
        sides(units={"1": 7})
    with pytest.raises(ValueError, match="units names '2'"):
        sides(units={"2": 1})
    with record_activations(module[:2], ["0", "1"], units=1) as record:
        module[:2](one)
    assert record["0"].shape == record["1"].shape == (2, 2, 2, 4)


def test_a_part_of_an_output_can_be_named() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, inputs: Tensor) -> Any:
            return self.inner(inputs)

    inputs = torch.randn(2, 3, 4)
    transformer = Outer(TinyTransformer())
    with record_activations(transformer, ["inner"], outputs={"inner": "hidden"}) as record:
        assert torch.equal(transformer(inputs)["hidden"], record["inner"])
    recurrent = Outer(nn.LSTM(4, 6, batch_first=True))
    with record_activations(recurrent, ["inner"], outputs={"inner": (1, 0)}) as record:
        assert torch.equal(recurrent(inputs)[1][0], record["inner"])
    with record_activations(recurrent, ["inner"]) as record:
        assert torch.equal(recurrent(inputs)[0], record["inner"])
    for part in ("logits", 3):
        with (
            record_activations(transformer, ["inner"], outputs={"inner": part}),
            pytest.raises(ValueError, match=f"'inner' returns dict without a part {part!r}"),
        ):
            transformer(inputs)


class FunctionalDropout(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.dropout(inputs, 0.5, self.training)


def with_layer(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), layer, nn.Linear(5, 2))


CHANCE: list[Callable[[], nn.Module]] = [
    lambda: nn.Dropout(0.5),
    lambda: nn.AlphaDropout(0.5),
    FunctionalDropout,
    nn.RReLU,
    lambda: nn.BatchNorm1d(5),
    lambda: nn.TransformerEncoderLayer(5, 1, 8, dropout=0.1, batch_first=True),
]


@pytest.mark.parametrize("make", CHANCE)
def test_a_model_in_training_mode_is_warned_of_where_equal_inputs_differ(make: Callable[[], nn.Module]) -> None:
    module, inputs = with_layer(make()), torch.randn(4, 3)

    def recorded(**options: Any) -> int:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            with record_activations(module, ["1"], **options) as record:
                for _ in range(3):
                    module(inputs)
                    record.take()
        assert all("training=True" in str(warning.message) for warning in found)
        return len(found)

    assert recorded() == 1, "once, however many passes"
    assert recorded(training=True) == 0
    module.eval()
    assert recorded() == 0


def test_no_warning_without_need() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.0), nn.LayerNorm(5), nn.Linear(5, 2), nn.Dropout(0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with record_activations(module, ["3"]) as record:
            module(torch.randn(4, 3))  # drawn inside the block, and dropout after the layer
            record.take()
            module[:4](torch.randn(4, 3))
            record.take()


def test_batch_statistics_in_evaluation_mode_are_warned_of_too() -> None:
    module = with_layer(nn.BatchNorm1d(5, track_running_stats=False)).eval()
    with pytest.warns(UserWarning, match="normalises by batch"), record_activations(module, ["1"]):
        pass
