import pytest
import torch
from torch import Tensor, nn

from soo_marl.overlap import record_activations


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
    return sum(len(layer._forward_hooks) for layer in module.modules())


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
        assert hooks(module) == 2
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
    with record_activations(module, ["0"]), pytest.raises(ValueError, match="'0' returns dict"):
        module(torch.ones(1, 2, 4))
    assert hooks(module) == 0


def test_stacked_module() -> None:
    module = nn.Sequential(StackedLinear(3, 2, 5), nn.ReLU(), StackedLinear(3, 5, 1))
    with record_activations(module, ["0"]) as record:
        module(torch.ones(3, 4, 2))
    assert record["0"].shape == (3, 4, 5)
