"""The stand-in device itself: what it refuses as a GPU does, what it counts, and that it computes as the CPU."""

import numpy as np
import pytest
import torch

import pretend_device

DEVICE = pretend_device.NAME
# The stand-in would copy what is a view elsewhere, and lose what is written into it.
pytestmark = pytest.mark.filterwarnings("error:.*appears to be a view operator")


def test_the_device_is_as_strict_as_a_gpu():
    ours = torch.ones(3, device=DEVICE)
    beside = torch.ones(3)
    place, number = torch.tensor([0]), torch.tensor(0.0)
    for mixed in (
        lambda: ours + beside,
        lambda: torch.eye(3) @ ours,
        lambda: torch.stack([ours, beside]),
        lambda: torch.stack([ours[0], number]),
        lambda: ours.index_select(0, place),
        lambda: ours.gather(0, place),
        lambda: beside[place.to(DEVICE)],
        lambda: beside[ours > 0],
        lambda: beside.index_put_((place.to(DEVICE),), number),
        lambda: number.add_(ours[0]),
        lambda: torch.where(beside > 0, ours, 0.0),
        lambda: torch.nn.functional.conv1d(ours[None, None], torch.ones(1, 1, 2)),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert torch.equal(ours[place].cpu(), beside[place])  # which a GPU takes
    assert torch.equal((ours + number).cpu(), beside)
    for read in (lambda: ours.numpy(), lambda: np.asarray(ours)):
        with pytest.raises(TypeError, match="numpy"):
            read()
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, generator=torch.Generator(), device=DEVICE)


def test_the_device_has_no_float64():
    """As MPS: what needs it is computed on the CPU."""
    ours, exact = torch.ones(3, device=DEVICE), torch.ones(3, dtype=torch.float64)
    for refused in (
        ours.double,
        lambda: exact.to(DEVICE),
        lambda: ours.to("cpu", torch.float64),  # MPS casts before it copies
        lambda: torch.zeros(3, dtype=torch.float64, device=DEVICE),
        lambda: ours * ours.new_tensor(2.0, dtype=torch.float64),
    ):
        with pytest.raises(TypeError, match="float64"):
            refused()
    assert torch.equal(ours.cpu().double(), exact)
    assert exact.to(ours).dtype == (ours * 2.0).dtype == torch.float32


def test_autocast_halves_there_what_it_halves_on_a_gpu():
    ours = torch.ones(3, 3, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        product = ours @ ours
        assert product.dtype == torch.bfloat16
        assert product.softmax(-1).dtype == torch.float32
        with torch.autocast(DEVICE, enabled=False):
            assert (ours @ ours).dtype == torch.float32


def test_the_device_computes_as_the_cpu_does():
    for change in (
        lambda x: x[:, :2, 1].sub_(2.0),
        lambda x: x[:, :2, :2].mul_(3.0),
        lambda x: x.mT[0].add_(x[1]),
        lambda x: x[1:].copy_(x[:1]),
        lambda x: x.index_put_((torch.tensor([0, 1]).to(x.device),), x[:2] * 2),
        lambda x: x[0].clamp_(0.2, 0.8),
        lambda x: x.unfold(1, 2, 2).mul_(2.0),
    ):
        here, there = torch.rand(3, 4, 4), torch.empty(3, 4, 4, device=DEVICE)
        there.copy_(here)
        change(here)
        change(there)
        assert torch.equal(there.cpu(), here)


def test_the_device_counts_what_the_host_waits_for():
    ours, mask, place = torch.ones(3, device=DEVICE), torch.tensor([True, False, True]).to(DEVICE), torch.tensor([0])
    matrix = torch.eye(3).to(DEVICE)
    waits = {
        "_local_scalar_dense": [
            lambda: ours[0].item(),
            lambda: bool((ours > 0).all()),
            lambda: torch.linalg.inv(matrix),
        ],
        "_copy_from": [lambda: ours.cpu(), lambda: ours.tolist(), lambda: torch.zeros(3).copy_(ours)],
        "nonzero": [lambda: mask.nonzero(), lambda: torch.where(mask), lambda: ours[mask]],
        "_index_put_impl_": [lambda: ours.clone().index_put_((mask,), ours[:2])],
        "masked_select": [lambda: ours.masked_select(mask)],
        "_unique2": [lambda: ours.unique()],
        "equal": [lambda: torch.equal(ours, ours)],
    }
    for name, calls in waits.items():
        for call in calls:
            with pretend_device.reads() as seen:
                call()
            assert seen.reads == [f"aten::{name}"]
            assert seen.writes == []
            with pretend_device.reads(refused=True), pytest.raises(RuntimeError, match=name):
                call()
    for write in (
        lambda: torch.tensor([1.0], device=DEVICE),
        lambda: place.to(DEVICE),
        lambda: ours[place],
        lambda: ours.clone().index_put_((place,), ours[:1]),
    ):
        with pretend_device.reads() as seen:
            write()
        assert len(seen.writes) == 1

    weight = torch.ones(2, 3, device=DEVICE, requires_grad=True)
    optimizer = torch.optim.Adam([weight])

    def step():
        loss = torch.where(mask, (weight * ours + 1).softmax(1).clamp(min=0.1), 0.0).sum()
        loss.backward()
        weight.grad[weight < 0] = 0
        optimizer.step()
        optimizer.zero_grad()

    with pretend_device.reads() as seen:
        step()
    assert (seen.reads, seen.writes) == ([], [])
    assert seen.operations > 10
