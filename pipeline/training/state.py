"""A training run's state as safetensors and JSON: weights, optimizer moments, plan, metrics so far.

Random states are not among it: every step seeds its own from (seed, step, rank).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

STATE = "state.json"


def moments_file(model: str) -> str:
    """The name of the file that holds the moments of a model's optimizer."""
    return f"{model}.optimizer.safetensors"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once even where modules share it."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def save_state(
    folder: Path,
    models: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    information: Mapping[str, Any],
) -> None:
    """Write everything that resuming needs into `folder`.

    Args:
        folder: an existing local folder.
        models: the trained models by name.
        optimizers: their optimizers, by the same names.
        information: JSON values to find again in `load_state`.
    """
    for name, model in models.items():
        save_file(_on_cpu(weights_of(model)), folder / f"{name}.weights.safetensors")
        moments = _moments(optimizers[name])
        save_file(_on_cpu(moments), folder / moments_file(name))
    (folder / STATE).write_text(json.dumps(dict(information), indent=1))


def load_information(folder: Path) -> dict[str, Any]:
    """The `information` that `save_state` was given."""
    information: dict[str, Any] = json.loads((folder / STATE).read_text())
    return information


def load_state(
    folder: Path,
    models: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Restore weights and optimizer moments in place.

    Raises:
        ValueError: the checkpoint holds another model.
    """
    for name, model in models.items():
        saved = load_file(folder / f"{name}.weights.safetensors")
        own = weights_of(model)
        if {key: value.shape for key, value in own.items()} != {
            key: value.shape for key, value in saved.items()
        }:
            raise ValueError(
                f"{folder}: the checkpoint's weights are not those of this {name}; "
                "remove the checkpoints of the earlier run, or restore the earlier base model"
            )
        with torch.no_grad():
            for key, value in saved.items():
                own[key].copy_(value)
        load_moments(folder / moments_file(name), optimizers[name])


def load_moments(file: Path, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer the moments of a file that `save_state` has written.

    Raises:
        ValueError: they are another model's.
    """
    saved = load_file(file)
    shapes = dict(enumerate(p.shape for group in optimizer.param_groups for p in group["params"]))
    for key, value in saved.items():
        number = int(key.split(".", 1)[0])
        if number not in shapes or (value.ndim and value.shape != shapes[number]):
            raise ValueError(f"{file}: these are the moments of another model")
    _restore_moments(optimizer, saved)


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, flattened: "<parameter number>.<moment>" -> tensor."""
    return {
        f"{number}.{moment}": value
        for number, moments in optimizer.state_dict()["state"].items()
        for moment, value in moments.items()
    }


def _restore_moments(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        number, moment = key.split(".", 1)
        state.setdefault(int(number), {})[moment] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
