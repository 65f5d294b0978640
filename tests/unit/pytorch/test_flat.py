"""The vector as a value: what goes in, what comes out; the sum is done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headrace.errors import ConfigError
from headrace.pytorch.flat import FlatGradients
from headrace.role.rounds import Tallies


def flat_of(model: nn.Module) -> FlatGradients:
    return FlatGradients(list(model.parameters()), model.buffers())


def add(*vectors: FlatGradients) -> Tallies:
    """Do what the all-reduce does; return the sums as the first sees them."""
    total = torch.stack([each.vector for each in vectors]).sum(dim=0)
    for each in vectors:
        each.vector.copy_(total)
    first, *_ = [each.tallies() for each in vectors]
    return first


def test_the_sum_becomes_the_gradient_without_a_copy() -> None:
    one, two = nn.Linear(2, 1), nn.Linear(2, 1)
    flats = flat_of(one), flat_of(two)
    for model, value in ((one, 1.0), (two, 4.0)):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
    flats[0].load(Tallies(rows=3, active=1), weight=3)
    flats[1].load(Tallies(rows=1, active=1), weight=1)
    totals = add(*flats)
    assert (totals.rows, totals.active) == (4, 2)
    flats[0].store(gradients_over=totals.rows, totals=totals)
    assert one.weight.grad is not None
    assert one.weight.grad.tolist() == [[1.75, 1.75]]
    vector = flats[0].vector
    end = vector.data_ptr() + vector.numel() * vector.element_size()
    assert vector.data_ptr() <= one.weight.grad.data_ptr() < end


def test_a_parameter_is_stepped_if_any_worker_has_a_gradient_for_it() -> None:
    one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    flats = flat_of(one), flat_of(two)
    one.weight.grad = torch.tensor([[6.0]])
    flats[0].load(Tallies(rows=1, active=1), weight=1)
    flats[1].load(Tallies(rows=2, active=1), weight=2)
    totals = add(*flats)
    for flat in flats:
        flat.store(gradients_over=totals.rows, totals=totals)
    for model in (one, two):
        assert model.weight.grad is not None
        assert model.weight.grad.item() == 2.0
        assert model.bias.grad is None


def test_half_precision_is_summed_in_single() -> None:
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    flat = flat_of(model)
    model.weight.grad = torch.tensor([[1.0]], dtype=torch.bfloat16)
    flat.load(Tallies(rows=3, active=1), weight=3)
    assert flat.vector.dtype == torch.float32
    totals = add(flat)
    flat.store(gradients_over=totals.rows, totals=totals)
    assert model.weight.grad.dtype == torch.bfloat16
    assert model.weight.grad.item() == 1.0


def test_double_precision_is_kept() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    flat = flat_of(model)
    model.weight.grad = torch.tensor([[1 / 3]], dtype=torch.float64)
    flat.load(Tallies(rows=1, active=1), weight=1)
    flat.store(gradients_over=1, totals=add(flat))
    assert model.weight.grad.item() == 1 / 3


def test_running_means_are_weighted_and_counters_advance_once() -> None:
    one, two = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    flats = flat_of(one), flat_of(two)
    one(torch.tensor([[1.0], [3.0]]))
    two(torch.tensor([[10.0]] * 6))
    flats[0].load(Tallies(rows=2, active=1), weight=2)
    flats[1].load(Tallies(rows=6, active=1), weight=6)
    totals = add(*flats)
    for model, flat in zip((one, two), flats, strict=True):
        flat.store(gradients_over=totals.rows, totals=totals)
        assert model.running_mean is not None
        assert model.running_mean.item() == pytest.approx(0.1 * (2 + 2 + 60) / 8)
        assert model.num_batches_tracked is not None
        assert model.num_batches_tracked.item() == 1


def test_taken_gradients_come_back_although_the_vector_was_used() -> None:
    model = nn.Linear(1, 1, bias=False)
    flat = flat_of(model)
    model.weight.grad = torch.tensor([[5.0]])
    flat.load(Tallies(rows=1, active=1), weight=1)
    flat.store(gradients_over=1, totals=add(flat))  # now the gradient lies in the vector
    taken = flat.take_gradients()
    left = [parameter.grad for parameter in model.parameters()]
    flat.clear(Tallies())
    flat.put_gradients(taken)
    assert left == [None]
    assert model.weight.grad.item() == 5.0


def test_sparse_complex_and_missing_parameters_are_refused() -> None:
    embedding = nn.Embedding(3, 2, sparse=True)
    flat = flat_of(embedding)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match="sparse"):
        flat.load(Tallies(rows=1, active=1), weight=1)
    with pytest.raises(ConfigError, match="complex"):
        flat_of(nn.Linear(1, 1, dtype=torch.complex64))
    with pytest.raises(ConfigError, match="no parameters"):
        FlatGradients([], [])
