"""How the learner trains; apart from the learner, which takes long to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainers.alphazero.optimizer import OptimizerName
from trainers.alphazero.replay_window import WindowSettings

#: How the activations of a convolutional net lie in memory; "winograd": as "channels_last", and the 3x3 convolutions
#: of the blocks are computed by `selfplay.nets.winograd`, on a CPU in float32.
Layout = Literal["channels_last", "contiguous", "winograd"]


@dataclass(frozen=True)
class LearnerSettings:
    """How the net is trained.

    batch: rows of one step, over all learners; a multiple of `learners`.
    optimizer: "adamw", or "muon" for hidden kernels and AdamW for the rest; see `trainers.alphazero.optimizer`.
    lr: learning rate, where `train` is given none.
    weight_decay: on kernels only (not on biases, gains and normalisation).
    grad_clip: largest global norm of the gradient.
    learners: 0, one learner in this process; N, that many data-parallel processes (ray must be running).
    device: "auto", "cpu" or "cuda".
    bf16: bfloat16 autocast in the forward pass; None: where it is faster, or where the device multiplies in it.
    layout: of kernels and activations; None: the fastest, or the usual one, which is "channels_last".
    measure: whether to find out what is faster by trying it; False: so that it is the same each time.
    ema: decay per step of the averaged weights that `weights()` gives (shorter memory at the start); 0: no averaging.
    threads: of torch in each learner; None: as torch chooses.
    seed: of the first weights and of the sampling.
    window: size of the replay window, over all learners.
    """

    batch: int = 512
    optimizer: OptimizerName = "adamw"
    lr: float = 2e-3
    weight_decay: float = 1e-4
    grad_clip: float = 5.0
    learners: int = 0
    device: str = "auto"
    bf16: bool | None = None
    layout: Layout | None = None
    measure: bool = False
    ema: float = 0.0
    threads: int | None = None
    seed: int = 0
    window: WindowSettings = WindowSettings()
