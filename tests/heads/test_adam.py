"""Our Adam: torch's, bit for bit, without the compiler that torch's imports."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from heads.adam import Adam

BETAS, EPS = (0.9, 0.99), 1e-12


def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(7, 3)), nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(2))]


def groups(of):
    return [{"params": of[:2], "lr": 0.01, "name": "a"}, {"params": of[2:], "lr": 0.1, "eps": 0.03}]


def test_it_steps_as_torchs_fused_adam_does_with_changing_rates_and_absent_gradients():
    ours, theirs = parameters(), parameters()
    adam, reference = (
        Adam(groups(ours), betas=BETAS, eps=EPS),
        torch.optim.Adam(groups(theirs), betas=BETAS, eps=EPS, fused=True),
    )
    for step in range(6):
        torch.manual_seed(step)
        for mine, its in zip(ours, theirs, strict=True):
            gradient = torch.randn(mine.shape)
            absent = step in (0, 3) and mine.numel() == 4
            mine.grad, its.grad = (None, None) if absent else (gradient.clone(), gradient.clone())
        for optimizer in (adam, reference):
            optimizer.param_groups[0]["lr"] *= 0.9
            optimizer.step()
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine, its)
        moments = reference.state[its]
        assert adam.moments(mine).keys() == moments.keys()
        assert all(torch.equal(value, moments[name]) for name, value in adam.moments(mine).items())
    adam.zero_grad()
    assert all(parameter.grad is None for parameter in ours)


def test_a_step_that_is_refused_changes_nothing():
    ours = parameters()
    adam, before = Adam(groups(ours), betas=BETAS, eps=EPS), [p.detach().clone() for p in ours]
    for parameter in ours:
        parameter.grad = torch.full_like(parameter, float("nan"))
    adam.found_inf = torch.ones(())
    adam.step()
    assert all(torch.equal(p, old) for p, old in zip(ours, before, strict=True))
    assert all(int(adam.moments(p)["step"]) == 0 for p in ours)


def test_a_step_shows_in_the_versions_of_what_it_moved():
    moved, still = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = Adam([{"params": [moved, still], "lr": 0.1}])
    moved.grad, before = torch.ones(2), (moved._version, still._version)
    optimizer.step()
    assert (moved._version > before[0], still._version) == (True, before[1])


def test_stepping_imports_no_compiler():
    code = """
import sys, torch
from heads.adam import Adam
p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)
adam = Adam([{"params": [p], "lr": 0.1}]); adam.step(); adam.zero_grad()
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
