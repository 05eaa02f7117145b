"""AdamW without bias correction, against the update written out."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from modeling_aspert import AspertTrainingArguments
from modeling_aspert.optimization import UncorrectedAdamW
from tests.training_corpus import make_encoder, make_records
from tests.training_steps import make_trainer

RATES = [1e-3, 3e-3, 0.0, 2e-3, 1e-3, 5e-4]
BETAS, EPS, DECAY = (0.9, 0.999), 1e-6, 0.1


def gradients(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(7, generator=generator) for _ in range(steps)]


def slow_steps(start: torch.Tensor, steps: int) -> torch.Tensor:
    weights = start.double().tolist()
    first, second = [0.0] * len(weights), [0.0] * len(weights)
    for rate, gradient in zip(RATES, gradients(steps)):
        for i, g in enumerate(gradient.double().tolist()):
            first[i] = BETAS[0] * first[i] + (1 - BETAS[0]) * g
            second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * g * g
            weights[i] -= rate * DECAY * weights[i]
            weights[i] -= rate * first[i] / (second[i] ** 0.5 + EPS)
    return torch.tensor(weights)


def make_optimizer(*weights: torch.Tensor, **options: bool) -> UncorrectedAdamW:
    return UncorrectedAdamW(weights, lr=RATES[0], betas=BETAS, eps=EPS, weight_decay=DECAY, **options)


def take(optimizer: UncorrectedAdamW, weights: torch.Tensor, steps: range) -> None:
    drawn = gradients(steps.stop)
    for step in steps:
        optimizer.param_groups[0]["lr"] = RATES[step]
        weights.grad = drawn[step].to(weights.device)
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == RATES[step]


WAYS = [{}, {"foreach": True}, {"fused": True}]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_steps_equal_the_update_written_out(way: dict[str, bool], device: str) -> None:
    start = torch.linspace(-1, 1, 7)
    weights, unused = (values.to(device).requires_grad_() for values in (start.clone(), torch.ones(3)))
    take(make_optimizer(weights, unused, **way), weights, range(len(RATES)))
    weights, unused = weights.cpu(), unused.cpu()
    torch.testing.assert_close(weights.detach(), slow_steps(start, len(RATES)), rtol=1e-5, atol=1e-6)
    assert torch.equal(unused, torch.ones(3))


def test_amsgrad_is_refused() -> None:
    with pytest.raises(ValueError, match="amsgrad = True is another kind of AdamW"):
        UncorrectedAdamW([torch.nn.Parameter(torch.zeros(2))], amsgrad=True)


def test_defaults_are_those_of_berts_code() -> None:
    assert UncorrectedAdamW([torch.ones(1)]).defaults["eps"] == 1e-6
    assert UncorrectedAdamW([torch.ones(1)]).defaults["weight_decay"] == 0.0


def test_a_closure_computes_the_gradients() -> None:
    start = torch.linspace(-1, 1, 7)
    weights, [gradient] = start.clone().requires_grad_(), gradients(1)
    optimizer = make_optimizer(weights)

    def closure() -> torch.Tensor:
        loss = (weights * gradient).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx((start * gradient).sum().item())
    torch.testing.assert_close(weights.detach(), slow_steps(start, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_steps_that_mixed_precision_skips_do_not_count(way: dict[str, bool]) -> None:
    results = []
    for bad in (0, 3):
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        weights = torch.linspace(-1, 1, 7).requires_grad_()
        optimizer = make_optimizer(weights, **way)
        for step in range(bad + 1):
            optimizer.zero_grad()
            scaler.scale((weights * (float("inf") if step < bad else 1.0)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(weights.detach())
    assert torch.equal(*results)
    assert not torch.equal(results[0], torch.linspace(-1, 1, 7))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_goes_on_from_its_state(way: dict[str, bool], device: str) -> None:
    whole = torch.linspace(-1, 1, 7, device=device).requires_grad_()
    take(make_optimizer(whole, **way), whole, range(6))
    part = torch.linspace(-1, 1, 7, device=device).requires_grad_()
    optimizer = make_optimizer(part, **way)
    take(optimizer, part, range(3))
    state = copy.deepcopy(optimizer.state_dict())
    resumed = make_optimizer(part, **way)
    resumed.load_state_dict(state)
    take(resumed, part, range(3, 6))
    assert torch.equal(whole, part)


def test_the_trainer_takes_it(tmp_path: Path) -> None:
    encoder = make_encoder(tmp_path / "encoder", dropout=0.0)
    trainer = make_trainer(
        encoder,
        tmp_path / "run",
        make_records(4, 1),
        adam_bias_correction=False,
        adam_epsilon=1e-6,
        head_learning_rate=1e-3,
    )
    optimizer = trainer.create_optimizer()
    assert type(optimizer) is UncorrectedAdamW
    assert {(group["eps"], group["fused"]) for group in optimizer.param_groups} == {(1e-6, True)}
    assert {group["lr"] for group in optimizer.param_groups} == {trainer.args.learning_rate, 1e-3}


def test_is_a_kind_of_adamw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not go with optim = adafactor"):
        AspertTrainingArguments(output_dir=str(tmp_path), adam_bias_correction=False, optim="adafactor")
