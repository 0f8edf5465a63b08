"""Parameter groups, learning-rate schedules and a running average of the weights, on top of ``torch.optim``."""

from __future__ import annotations

import itertools
import warnings

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR, StepLR
from torch.optim.swa_utils import AveragedModel


def parameter_groups(model: nn.Module, *, decay_all: bool = False) -> list[dict]:
    """Split the parameters of a model into those with and those without weight decay.

    Weight decay applies to parameters with ``weight`` in their name and at least two axes. Of the parameters with
    other names, it applies to those whose first axis and one more are longer than 1: to a ``lora_A`` of ``(8, 192)``,
    but not to latents of ``(1, 64, 192)``.

    Args:
        model: the model. Parameters shared between modules are counted once.
        decay_all: apply weight decay to every parameter, as PointMLP's training does.

    Returns:
        Parameter groups for a torch optimiser. The second, if there is one, has ``weight_decay`` 0.
    """
    if decay_all:
        return [{"params": list(model.parameters())}]
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        # weights of linear maps and convolutions, and `in_proj_weight` of torch's attention
        is_weight = "weight" in name.rpartition(".")[2] and parameter.ndim >= 2
        is_matrix = is_weight or (parameter.ndim >= 2 and parameter.numel() > parameter.shape[0] > 1)
        (decayed if is_matrix and parameter.requires_grad else rest).append(parameter)
    return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]


def cosine_with_warmup(
    optimizer: Optimizer,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    min_lr: float = 0.0,
) -> LRScheduler:
    """Return a schedule with a linear warm-up and a cosine decay, updated at every step.

    Args:
        optimizer: the ``lr`` of each parameter group is its peak learning rate.
        epochs, steps_per_epoch: length of the whole run.
        warmup_epochs: length of the warm-up in epochs, fractions allowed; 0 for no warm-up.
        min_lr: learning rate of all groups at the end.

    Raises:
        ValueError: the warm-up is negative or not shorter than the run, or ``min_lr`` is negative or above the
            smallest peak.
    """
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(
            f"warmup_epochs: expected at least 0 and below the {epochs} epochs of the run, got {warmup_epochs}; "
            f"shorten the warm-up (optim.schedule.warmup_epochs={epochs / 10:g}) or train longer (train.epochs)."
        )
    peak = min(float(group["lr"]) for group in optimizer.param_groups)
    if not 0 <= min_lr <= peak:
        raise ValueError(
            f"min_lr: expected at least 0 and at most the learning rate {peak:g}, got {min_lr:g}; lower "
            "optim.schedule.min_lr or raise optim.optimizer.lr."
        )
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    cosine = CosineAnnealingLR(optimizer, T_max=epochs * steps_per_epoch - warmup_steps, eta_min=min_lr)
    if not warmup_steps:
        return cosine
    # older releases of torch warn about a call that their own SequentialLR makes
    warnings.filterwarnings(
        "ignore", message=r"The epoch parameter in `scheduler\.step\(\)` was not necessary"
    )
    warmup = LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    return SequentialLR(optimizer, [warmup, cosine], milestones=[warmup_steps])


def step_decay(
    optimizer: Optimizer,
    *,
    epochs: int,
    steps_per_epoch: int,
    every_epochs: int = 40,
    factor: float = 0.5,
) -> LRScheduler:
    """Return a schedule that multiplies the learning rate by a factor every few epochs: ``StepLR``, in epochs.

    Args:
        optimizer: its ``lr`` is the initial learning rate.
        epochs, steps_per_epoch: length of the whole run; ``epochs`` is not used here.
        every_epochs: epochs between two changes.
        factor: the factor, above 0 and at most 1.

    Raises:
        ValueError: ``every_epochs`` is below 1, or ``factor`` is out of range.
    """
    if every_epochs < 1:
        raise ValueError(f"every_epochs: expected at least 1, got {every_epochs}.")
    if not 0 < factor <= 1:
        raise ValueError(f"factor: expected above 0 and at most 1, got {factor}.")
    return StepLR(optimizer, step_size=every_epochs * steps_per_epoch, gamma=factor)


class ExponentialAverage(AveragedModel):
    """Exponential moving average of a model's weights and buffers: ``ema = d * ema + (1 - d) * model``.

    The first update copies the model. After ``t >= 1`` updates, ``d`` is ``min(decay, (1 + t) / (10 + t))``, so that
    the initial weights do not dominate the average of a short run.

    Args:
        model: the model to average. Call ``update_parameters(model)`` after each step.
        decay: the decay, in [0, 1).

    Attributes:
        updates: t, as an int. torch's own counter is a tensor on the device, so reading it would synchronise.

    Raises:
        ValueError: ``decay`` is outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay: expected at least 0 and below 1, got {decay}.")
        super().__init__(model)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the current weights and buffers of the model."""
        t = self.updates
        weight = 1 - min(self.decay, (1 + t) / (10 + t)) if t else 1.0
        tensors = (itertools.chain(m.parameters(), m.buffers()) for m in (self.module, model))
        pairs = list(zip(*tensors, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        # a few kernel launches for hundreds of tensors
        torch._foreach_lerp_([mine for mine, _ in floats], [its for _, its in floats], weight)
        if counters:
            torch._foreach_copy_([mine for mine, _ in counters], [its for _, its in counters])
        self.updates += 1
