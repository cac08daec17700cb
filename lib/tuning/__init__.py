"""Fine-tuning a small pretrained Transformer: which parameters are trained, and what it costs.

For the article https://kexue.fm/archives/9138 and Sung, Cho and Bansal, LST: Ladder Side-Tuning,
arXiv 2206.06522.

- `Trunk`, `load_trunk`: a masked language model of Python source, whose weights come with the book;
  ``python -m lib.tuning.pretrain`` makes them again;
- `LadderSideNetwork`: a narrow trained network beside any frozen model, in the paper's and the
  article's form, and `NoRungs`, its control;
- `full_tuning`, `linear_probe`, `bitfit`, `adapter`, `prompt_tuning`, `lora`: the methods to
  compare with; `make_body` builds any of them by its name, `Tunable` puts a head on it;
- `activation_memory`, `count_operations`, `peak_memory`: what a step of any model costs, measured;
  `account`: the same for a trunk, predicted to the byte and the operation;
- `fine_tune`: any method on a task, several seeds; `trunk_features`: a frozen trunk's states,
  computed once; `pretrain_together`: trunk and ladder from the start.

Notation: B windows of n tokens, width D, L blocks; N rungs. Left out, besides what the modules name
themselves: generation, padding, several devices.
"""

from __future__ import annotations

from lib.tuning.costs import (
    Account,
    Operations,
    SavedTensor,
    TrainingStep,
    account,
    activation_bytes,
    activation_memory,
    count_operations,
    ladder_floor,
    operations,
    peak_memory,
    saved_tensors,
    trainable_parameters,
    training_step,
)
from lib.tuning.ladder import (
    FORMS,
    INITIALS,
    LadderSideNetwork,
    NoRungs,
    path_weights,
    prune,
)
from lib.tuning.methods import (
    METHODS,
    Adapter,
    PointHead,
    PooledHead,
    PositionHead,
    Prompted,
    Tunable,
    adapter,
    bitfit,
    body_width,
    full_tuning,
    linear_probe,
    lora,
    make_body,
    prompt_tuning,
    trainable,
    trainable_count,
)
from lib.tuning.training import (
    HEADS,
    LEARNING_RATES,
    REUSING,
    Features,
    FineTuned,
    Rates,
    Task,
    Together,
    batches,
    descend,
    fine_tune,
    pretrain_together,
    trunk_features,
)
from lib.tuning.trunk import (
    CHECKPOINT,
    Block,
    Trunk,
    TrunkConfig,
    load_trunk,
    save_trunk,
    stored_words,
)

__all__ = [
    "CHECKPOINT",
    "FORMS",
    "HEADS",
    "INITIALS",
    "LEARNING_RATES",
    "METHODS",
    "REUSING",
    "Account",
    "Adapter",
    "Block",
    "Features",
    "FineTuned",
    "LadderSideNetwork",
    "NoRungs",
    "Operations",
    "PointHead",
    "PooledHead",
    "PositionHead",
    "Prompted",
    "Rates",
    "SavedTensor",
    "Task",
    "Together",
    "TrainingStep",
    "Trunk",
    "TrunkConfig",
    "Tunable",
    "account",
    "activation_bytes",
    "activation_memory",
    "adapter",
    "batches",
    "bitfit",
    "body_width",
    "count_operations",
    "descend",
    "fine_tune",
    "full_tuning",
    "ladder_floor",
    "linear_probe",
    "load_trunk",
    "lora",
    "make_body",
    "operations",
    "path_weights",
    "peak_memory",
    "pretrain_together",
    "prompt_tuning",
    "prune",
    "save_trunk",
    "saved_tensors",
    "stored_words",
    "trainable",
    "trainable_count",
    "trainable_parameters",
    "training_step",
    "trunk_features",
]
