"""Linear layers from packed weights: the same values, only where that is safe, and never from weights of before."""

from __future__ import annotations

import copy
import pickle
import threading

import accelerate.hooks
import pytest
import tiny
import torch
import torch.nn.utils.parametrizations
import torch.nn.utils.prune
from torch.nn import functional as F

from modeling_aspert.packed_linear import MAX_ROWS, PackedForward, is_plain, pack_linears

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN: nothing is packed"
)


def make_layer(bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(3)
    layer = torch.nn.Linear(24, 40, bias=bias)
    pack_linears(layer)
    return layer


def is_packed(layer: torch.nn.Linear) -> bool:
    return layer.forward.weights.packed is not None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 7, 24), (2, MAX_ROWS // 2, 24)])
def test_the_same_values(shape, bias):
    layer, values = make_layer(bias), torch.randn(shape)
    with torch.inference_mode():
        found = layer(values)
    assert is_packed(layer)
    torch.testing.assert_close(found, F.linear(values, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)


def test_strided_values():
    layer, values = make_layer(), torch.randn(5, 24, 3).transpose(1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(layer(values), F.linear(values, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)
    assert is_packed(layer)


def test_not_for_many_rows():
    layer = make_layer()
    with torch.inference_mode():
        layer(torch.randn(1, MAX_ROWS + 1, 24))
        assert layer(torch.randn(0, 24)).shape == (0, 40)
    assert not is_packed(layer)


def test_not_where_weights_may_change():
    layer, values = make_layer(), torch.randn(2, 24)
    layer(values).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        layer(values)
    assert not is_packed(layer)


def test_not_in_other_precisions():
    layer, values = make_layer(), torch.randn(2, 24)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(values).dtype == torch.bfloat16
    layer.bfloat16()
    with torch.inference_mode():
        assert layer(values.bfloat16()).dtype == torch.bfloat16
    assert not is_packed(layer)


def test_packed_weights_go_where_they_are_of_no_use():
    layer, values = make_layer(), torch.randn(2, 24)
    for use in ("training", "bf16"):
        with torch.inference_mode():
            layer(values)
        assert is_packed(layer)
        if use == "training":
            layer(values)
        else:
            with torch.inference_mode():
                layer.bfloat16()(values.bfloat16())
        assert not is_packed(layer)


def test_weights_made_in_inference_mode_are_not_packed():
    with torch.inference_mode():
        layer = make_layer()
        layer(torch.randn(2, 24))
    assert not is_packed(layer)


@pytest.mark.parametrize("change", ["in place", "optimizer", "load", "cast", "data"])
def test_changed_weights_are_packed_again(change):
    layer, values = make_layer(), torch.randn(3, 24)
    with torch.inference_mode():
        before = layer(values)
    if change == "in place":
        with torch.no_grad():
            layer.weight.mul_(2)
    elif change == "optimizer":
        layer(values).sum().backward()
        torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True).step()
    elif change == "load":
        layer.load_state_dict({name: 3 * weight for name, weight in layer.state_dict().items()})
    elif change == "cast":
        layer.bfloat16().float()
    else:
        layer.weight.data = layer.weight.data + 1
    with torch.inference_mode():
        found = layer(values)
    torch.testing.assert_close(found, F.linear(values, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)
    assert not torch.equal(found, before)


def test_a_copy_is_of_its_own():
    layer, values = make_layer(), torch.randn(3, 24)
    with torch.inference_mode():
        before = layer(values)
    twin = copy.deepcopy(layer)
    assert twin.forward.layer is twin and not is_packed(twin)
    with torch.no_grad():
        twin.weight.zero_()
    with torch.inference_mode():
        assert torch.equal(layer(values), before)
        torch.testing.assert_close(twin(values), layer.bias.expand(3, -1), rtol=1e-5, atol=1e-6)


class Attention(torch.nn.Module):
    def __init__(self, names=("query", "key", "value"), biases=(True, True, True)):
        super().__init__()
        torch.manual_seed(4)
        for name, size, bias in zip(names, (24, 16, 8), biases):
            setattr(self, name, torch.nn.Linear(24, size, bias=bias))
        pack_linears(self)

    def layers(self):
        return list(self._modules.values())


def assert_right(layers, values):
    for layer in layers:
        found = layer(values)
        torch.testing.assert_close(found, F.linear(values, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("biases", [(True, True, True), (False, False, False)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 0), (0,), (2, 2, 2)])
def test_layers_with_one_input_share_a_product(order, biases):
    layers = Attention(biases=biases).layers()
    with torch.inference_mode():
        for _ in range(2):
            assert_right([layers[position] for position in order], torch.randn(3, 24))


def together(layers):
    """Whether one product makes the outputs of the layers."""
    values = torch.randn(3, layers[0].in_features)
    with torch.inference_mode():
        outputs = [layer(values) for layer in layers]
    return len({output.untyped_storage().data_ptr() for output in outputs}) == 1


@pytest.mark.parametrize(
    "family, names",
    [
        *((family, ("query", "key", "value")) for family in ("bert", "roberta", "albert", "electra")),
        ("mpnet", ("q", "k", "v")),
        ("distilbert", ("q_lin", "k_lin", "v_lin")),
    ],
)
def test_query_key_and_value_go_together(family, names):
    encoder = tiny.make_model(family).encoder
    groups = [
        [getattr(module, name) for name in names]
        for module in encoder.modules()
        if all(isinstance(getattr(module, name, None), torch.nn.Linear) for name in names)
    ]
    assert groups and all(map(together, groups))


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_change_of_one_layer_is_seen_by_all(name, position):
    layers, values = Attention().layers(), torch.randn(3, 24)
    with torch.inference_mode():
        assert_right(layers, values)
    with torch.no_grad():
        getattr(layers[position], name).add_(1)
    with torch.inference_mode():
        assert_right(layers, values)


def test_a_shared_product_is_for_one_input_only_and_is_taken_once():
    query, key, value = Attention().layers()
    first, second = torch.randn(2, 3, 24)
    with torch.inference_mode():
        query(first)
        assert_right([key], second)
        assert_right([value, key, query], first)
        # nothing is kept when all have theirs
        assert query.forward.weights.local.waiting[0] is None
        query(first)
        # taken already: what is asked for again is made anew
        first.mul_(2)
        assert_right([query, key, value], first)


def test_layers_of_other_names_or_kinds_stay_apart():
    for other in (Attention(names=("query", "key", "output")), Attention(biases=(True, False, True))):
        assert not together(other.layers())
        with torch.inference_mode():
            assert_right(other.layers(), torch.randn(3, 24))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_of_layers_together(copied):
    module, values = Attention(), torch.randn(3, 24)
    with torch.inference_mode():
        assert_right(module.layers(), values)
    twin = copied(module)
    weights = {id(layer.forward.weights): layer.forward.weights for layer in twin.layers()}
    assert len(weights) == 1 and all(a is b for a, b in zip(next(iter(weights.values())).layers, twin.layers()))
    with torch.no_grad():
        twin.key.bias.add_(1)
    with torch.inference_mode():
        assert_right([*module.layers(), *twin.layers()], values)


def test_threads_do_not_mix():
    module, failed = Attention(), []

    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            for _ in range(200):
                try:
                    assert_right(module.layers(), torch.randn(3, 24, generator=generator))
                except Exception as error:
                    failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_compiled_layer_is_plain():
    layer, values = make_layer(), torch.randn(3, 24)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(values), F.linear(values, layer.weight, layer.bias))
    assert not is_packed(layer)


def test_a_model_packs_its_encoder_and_nothing_that_is_saved():
    model = tiny.make_model()
    names = set(model.state_dict())
    batch = tiny.make_batch(model.config, training=False, indices=[0])
    batch.pop("word_spans")
    assert batch["input_ids"].numel() <= MAX_ROWS
    with torch.no_grad():
        expected = model(**batch)
    with torch.inference_mode():
        found = model(**batch)
    layers = [layer for layer in model.encoder.modules() if type(layer) is torch.nn.Linear]
    assert layers and all(isinstance(layer.forward, PackedForward) and is_packed(layer) for layer in layers)
    for name in ("span_logits", "relation_logits"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    assert set(model.state_dict()) == names


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("position", [0, 1])
def test_layers_that_are_not_plain_go_their_own_way(position, name):
    """Pruning, parametrizations and the like take the weight's place away."""
    parent = torch.nn.ModuleDict({name: torch.nn.Linear(24, 40) for name in ("query", "key", "value")})
    pack_linears(parent)
    torch.nn.utils.prune.l1_unstructured(parent[("query", "key")[position]], name, amount=0.5)
    values = torch.randn(3, 24)
    with torch.inference_mode():
        for layer in parent.values():
            torch.testing.assert_close(layer(values), F.linear(values, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)


class OtherLinear(torch.nn.Linear):
    pass


class OtherWeight(torch.Tensor):
    pass


def make_other(kind: str) -> torch.nn.Module:
    layer = make_layer()
    if kind == "class":
        return OtherLinear(24, 40)
    if kind == "weight":
        layer.weight = torch.nn.Parameter(layer.weight.detach().as_subclass(OtherWeight))
    elif kind == "pruned":
        torch.nn.utils.prune.l1_unstructured(layer, "weight", amount=0.5)
    elif kind == "parametrized":
        torch.nn.utils.parametrizations.weight_norm(layer)
    elif kind == "pre-hook":
        layer.register_forward_pre_hook(lambda *_: None)
    elif kind == "hook":
        layer.register_forward_hook(lambda *_: None)
    else:
        accelerate.hooks.add_hook_to_module(layer, accelerate.hooks.ModelHook())
    return layer


@pytest.mark.parametrize("kind", ["class", "weight", "pruned", "parametrized", "pre-hook", "hook", "accelerate"])
def test_what_is_not_plain(kind):
    layer, values = make_other(kind), torch.randn(3, 24)
    assert is_plain(make_layer()) and is_plain(make_layer(bias=False))
    assert not is_plain(layer)
    with torch.inference_mode():
        torch.testing.assert_close(layer(values), F.linear(values, layer.weight, layer.bias))


def add_noise(layer):
    layer.weight.data += 0.1 * torch.randn_like(layer.weight)


def cut_rows(layer):
    layer.weight.data[1:] = 0


def move_biases(layer):
    layer.bias.data[1:] += 1


@pytest.mark.parametrize("change", [add_noise, cut_rows, move_biases])
def test_what_is_written_into_data_counts(change):
    """As when an adapter is merged, or a layer is pruned; nobody is told of it."""
    model = tiny.make_model()
    batch = tiny.make_batch(model.config, training=False, indices=[0])
    del batch["word_spans"]
    with torch.inference_mode():
        before = model(**batch).span_logits
    assert any(is_packed(layer) for layer in model.encoder.modules() if isinstance(layer, torch.nn.Linear))
    for layer in model.encoder.modules():
        if isinstance(layer, torch.nn.Linear):
            change(layer)
    with torch.inference_mode():
        after = model(**batch).span_logits
    with torch.no_grad():
        expected = model(**batch).span_logits
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)
    assert (after - before).abs().max() > 1e-3
