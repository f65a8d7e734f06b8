"""Builds the parts of a run from its config, and checks them: the data, the network in a Classifier, the Trainer."""

import contextlib
import copy
import errno
import functools
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d

from quadrant_lstm.callbacks.checkpoints import AtomicCheckpointIO
from quadrant_lstm.compat import OF_INSTANTIATE
from quadrant_lstm.config.check import takes
from quadrant_lstm.dashboard.loggers import logger_arguments
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.orderings import SequenceSpec, orderings_of
from quadrant_lstm.errors import FILE_ERRNOS, UserError, place_in_own_code, printable, with_type
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.describe import describe
from quadrant_lstm.model.encoder import Backbone, Standardize
from quadrant_lstm.model.protocols import LogitsPerStep, as_argument, make_part, wrong_result
from quadrant_lstm.model.recurrent import StepClassifier
from quadrant_lstm.model.time_distributed import in_eval_mode
from quadrant_lstm.text import NUM_CLASSES_OF_TOP5, assigned, counted, plural

# Messages of Lightning and TensorBoard that a user cannot act on


def quiet_lightning() -> None:
    """Silences Lightning's info messages, this project's in all processes but the first, and the warnings below."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if getattr(rank_zero_only, "rank", 0):
        logging.getLogger("quadrant_lstm").setLevel(logging.WARNING)
    for message in (
        "smaller than the logging interval",
        "Total length of `list` across ranks is zero",  # no validation images
        "LeafSpec",  # Lightning 2.6 with torch 2.13
        "`srun` command",  # a run on a cluster may be started without SLURM on purpose
        "Grad strides do not match bucket view strides",  # of convolutions that are channels last
        "Be aware that when using `ckpt_path`",  # a callback with a state was removed from a run that resumes
        "You requested to overfit",  # the loader itself stops shuffling
        "sync_dist=True",  # metrics synchronize themselves; other logged values are equal in all processes
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
    threading.excepthook = ignore_disk_errors


def allow_frozen_modules(network: nn.Module) -> None:
    """Silences Lightning's warning about modules in eval mode, unless they have weights that are trained."""
    frozen = [module for module in network.modules() if not module.training]
    if not any(weights.requires_grad for module in frozen for weights in module.parameters()):
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")


def ignore_disk_errors(failed: threading.ExceptHookArgs) -> None:
    """Prints the traceback of a thread unless the main thread reports its error: of the disk, or a missing folder."""
    if not (isinstance(failed.exc_value, OSError) and failed.exc_value.errno in (*FILE_ERRNOS, errno.ENOENT)):
        threading.__excepthook__(failed)


# The precision of `trainer.precision=auto`
#
# It is bf16-mixed on CPUs that multiply bf16, where training steps are faster (docs/speed.md), and 32-true elsewhere.
# It is also 32-true with torch 2.10, which does not tell what the CPU multiplies.


log = logging.getLogger(__name__)


def resolve_precision(precision: str, accelerator: str) -> Any:
    if precision != "auto":
        return precision
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    return "bf16-mixed" if on_cpu and bf16_instructions() else "32-true"


def bf16_instructions() -> list[str]:
    """Returns the names of the CPU's instructions that multiply bf16."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 has no get_capabilities
    return [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]


# Parts of a run


def instantiate_node(group: str, node: DictConfig | dict[str, Any], **arguments: Any) -> Any:
    """Instantiates a node of the config. Raises UserError if the class rejects its values."""
    try:
        return instantiate(node, **arguments, **OF_INSTANTIATE, _convert_="all")
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error  # Hydra 1.4 does not wrap it
        if isinstance(cause, UserError):
            raise cause from None
        if cause and (place := place_in_own_code(cause)):
            raise UserError(f"{group}: {place}{with_type(cause)}") from error
        if isinstance(
            cause, MisconfigurationException | ValueError | TypeError | RuntimeError | AssertionError | ImportError
        ):
            reason = str(cause).partition("\n")[0].rstrip(".!")
            raise UserError(f"{group}: {reason}; change a value of {group}.") from error
        raise


@contextlib.contextmanager
def in_one_thread() -> Iterator[None]:
    """Lets torch start no threads in the block: processes that are forked from this one could not use them."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@in_one_thread()
def check_fit(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Raises UserError if the values of the data or of the network do not fit, as their constructors say."""
    build_classifier(cfg, (data := build_data(cfg)).spec)
    check_used(data, overrides)


def check_used(data: SequenceDataModule, overrides: Iterable[str]) -> None:
    """Raises UserError for an override without effect, because the data are divided."""
    typed = assigned(overrides)
    for key in (key for key in data.unused if key in typed):
        raise UserError(f"{key}: {typed[key]}, but the data say which samples these are; leave it out.")


def build_data(cfg: DictConfig) -> SequenceDataModule:
    return instantiate_node("data", cfg.data)


def build_network(cfg: DictConfig, spec: SequenceSpec) -> nn.Module:
    """Passes those of the five arguments below that the class takes; grid and orderings are for images only."""
    grid = tuple(cfg.data.grid) if "grid" in cfg.data else None
    orderings = orderings_of(cfg.data.orderings, grid) if grid else None
    known = {"frame_shape": spec.frame_shape, "num_classes": spec.num_classes, "num_steps": spec.num_steps}
    known |= {"orderings": orderings, "grid": grid}
    network_class = get_class(cfg.model._target_)
    arguments = {name: value for name, value in known.items() if takes(network_class, name)}
    network = make_part("model", functools.partial(instantiate_node, "model", cfg.model), **arguments)
    mixed = [key for key in ("train_orderings", "test_orderings") if cfg.data.get(key)]
    if mixed and isinstance(network, StepClassifier) and network.needs_orderings:
        remedy = "leave it out, or let the network encode every frame: model=cnn_lstm model.shared_tiles=false"
        raise UserError(f"data.{mixed[0]}: this network reads frames of data.orderings only; {remedy}.")
    return network


def build_classifier(
    cfg: DictConfig, spec: SequenceSpec, class_counts: Tensor | None = None, trained: bool = False
) -> Classifier:
    """A training needs `class_counts`, those of the training samples, for class_weights=balanced: scikit-learn's
    formula, by which the mean weight of a sample is 1. `trained`: a checkpoint holds the weights, so that no pretrained
    ones are downloaded or read. Raises UserError for a metric that the data do not have.
    """
    for key in ("monitor", *(f"trainer.callbacks.{name}.monitor" for name in cfg.trainer.callbacks)):
        if OmegaConf.select(cfg, key) == "val/top5_accuracy" and spec.num_classes < NUM_CLASSES_OF_TOP5:
            rule = f"needs {NUM_CLASSES_OF_TOP5} classes or more, but there are {spec.num_classes}"
            raise UserError(f"{key}: val/top5_accuracy {rule}; choose another metric, such as val/accuracy.")
    if spec.is_series and not trained and cfg.trainer.precision in ("bf16-true", "16-true"):
        rule = f"{cfg.trainer.precision} would round series before they are standardized"
        raise UserError(f"trainer.precision: {rule}; write {cfg.trainer.precision.replace('true', 'mixed')}.")
    if trained and OmegaConf.select(cfg, "model.encoder.weights"):
        cfg = cfg.copy()
        cfg.model.encoder.weights = None
    network = build_network(cfg, spec)
    allow_frozen_modules(network)
    optimizer, schedule = instantiate_node("optimizer", cfg.optimizer), instantiate_node("schedule", cfg.schedule)
    weights = None
    if cfg.get("class_weights") and class_counts is not None:
        weights = class_counts.sum() / (class_counts.count_nonzero() * class_counts)
    return Classifier(network, optimizer, schedule, spec, cfg.label_smoothing, weights)


# The network is called before training starts: a mistake in it costs one line, with the place in the user's code


MANY_PARAMETERS = 5_000  # for each training sample


def parts_without_lengths(network: nn.Module) -> list[nn.Module]:
    parts = [network, network.recurrent] if isinstance(network, StepClassifier) else [network]
    return [part for part in parts if not takes(part.forward, "lengths")]


def num_trained(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters() if weights.requires_grad)


def largest_part(network: nn.Module) -> tuple[str, str]:
    """Says which part has the most trained parameters, and what would make it smaller."""
    sizes = {name: num_trained(part) for name, part in network.named_children()} or {
        "the network": num_trained(network)
    }
    name = max(sizes, key=sizes.__getitem__)
    remedies = {"recurrent": "write e.g. model.recurrent.units=16", "encoder": "choose a smaller model/encoder"}
    remedy = remedies.get(name, "choose a smaller network")
    if backbone_of(network) and name == "encoder":
        remedy += ", or write model.encoder.frozen=true"
    return f"{sizes[name] / 1e6:.1f} million of them in {name}", remedy


def check_network(network: nn.Module, data: SequenceDataModule) -> None:
    """Logs the stages of the network, how many samples there are for its parameters, and warnings. Raises UserError if
    the network does not map frames to logits that can be trained.
    """
    frames = torch.zeros(2, *data.batch_shape[1:])
    lengths = torch.tensor([frames.shape[1], 1]) if data.pads else None
    if data.pads and (lacking := parts_without_lengths(network)):
        rule = f"has no argument lengths, but {plural(data.kind)} are padded"
        remedy = f"write a data.num_frames that no {data.kind} is shorter than, choose another model, or add it"
        raise UserError(f"model: {type(lacking[0]).__name__}.forward {rule}; {remedy}.")
    with contextlib.suppress(Exception), torch.no_grad(), in_eval_mode(network):
        network(frames, **as_argument(lengths))  # weights of torch.nn.utils.weight_norm can then be copied
    try:
        stages = describe(network, frames)
        with torch.random.fork_rng([]):
            copied = copy.deepcopy(network)
            check_logits(copied.eval(), frames, lengths, data.spec.num_classes)
            copied.train()(frames, **as_argument(lengths))  # may run other code
    except Exception as error:
        place = place_in_own_code(error)
        if isinstance(error, UserError) or not (place or isinstance(error, ValueError)):
            raise
        raise UserError(f"model: {place}{error if error.__cause__ else with_type(error)}") from error
    log.info(stages)
    warnings = [*(f"model: {warning}" for warning in stages.warnings()), *data.warnings]
    if data.summary:
        trained = num_trained(network)
        log.info(f"data: {data.summary}; {trained:,} parameters are trained; {data.origin}")
        if trained > MANY_PARAMETERS * (number := len(data.train_indices)):
            rule = f"{trained / 1e6:.1f} million parameters for {counted(number, f'training {data.kind}')}"
            share, remedy = largest_part(network)
            warnings.append(f"model: {rule}, {share}: expect overfitting; add {plural(data.kind)}, or {remedy}")
    for warning in warnings:
        rank_zero_only(log.warning)(printable(warning))  # in one line: names of files may hold line breaks


def check_logits(network: nn.Module, frames: Tensor, lengths: Tensor | None, num_classes: int) -> None:
    logits = network(frames, **as_argument(lengths))
    expected = (len(frames), num_classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        hint = "; x[:, -1] takes the last step" if isinstance(logits, Tensor) and logits.ndim == 3 else ""
        rule = f"logits [N, classes], here {list(expected)}{hint}"
        raise wrong_result("model", network, frames, logits, rule)
    if not logits.requires_grad or not list(network.parameters()):
        remedy = "compute them in layers that are its attributes or in an nn.ModuleList, without detach() and no_grad()"
        raise UserError(f"model: no gradient leads from logits of {type(network).__name__} to parameters; {remedy}.")
    if not isinstance(network, LogitsPerStep):
        return
    steps = network.logits_per_step(frames, **as_argument(lengths))
    is_one = isinstance(steps, Tensor) and steps.ndim == 3 and steps.shape[::2] == expected
    if not is_one or not 1 <= steps.shape[1] <= frames.shape[1]:
        raise wrong_result("model", network, frames, steps, "logits [N, steps, classes] from logits_per_step")
    drawn = torch.rand(frames.shape, generator=torch.Generator().manual_seed(0))
    drawn[1, 1:] *= lengths is None  # padding
    last = network.logits_per_step(drawn, **as_argument(lengths))[:, -1].float()
    returned = network(drawn, **as_argument(lengths)).float()
    if not torch.allclose(last, returned, rtol=1e-3, atol=1e-3, equal_nan=True):
        rule = "returns other logits than the last ones of logits_per_step, which are tested"
        raise UserError(f"model: {type(network).__name__}.forward {rule}; let both return the same.")


def unreached_weights(network: nn.Module, data: SequenceDataModule) -> list[tuple[nn.Parameter, Tensor]]:
    """Returns the kernels of convolutions some of whose weights meet only padding, such as the outer ones of 3 x 3 on
    maps of one pixel, with masks of these weights, as large as a kernel of one channel.

    The gradients of these weights are 0. In bf16 on CPUs, torch 2.13 to 2.15 sometimes leaves them unset, so that they
    are any numbers, also infinite ones.
    """
    reached: dict[nn.Module, Tensor] = {}

    def note(layer: Any, args: Any) -> None:
        convolve: Any = {1: conv1d, 2: conv2d, 3: conv3d}[len(layer.kernel_size)]
        pixels = torch.ones(1, 1, *args[0].shape[-len(layer.kernel_size) :])
        kernel = torch.ones(1, 1, *layer.kernel_size, requires_grad=True)
        with torch.enable_grad():
            total = convolve(pixels, kernel, None, layer.stride, layer.padding, layer.dilation).sum()
        (meetings,) = torch.autograd.grad(total, kernel)
        reached[layer] = reached.get(layer, torch.zeros(())) + meetings

    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    hooks = [layer.register_forward_pre_hook(note) for layer in convs if layer.padding_mode == "zeros"]
    with torch.no_grad(), in_eval_mode(network):
        network(torch.zeros(1, *data.batch_shape[1:]))
    for hook in hooks:
        hook.remove()
    kernels = [(layer.weight, meetings == 0) for layer, meetings in reached.items() if not meetings.all()]
    return [(kernel, mask) for kernel, mask in kernels if isinstance(kernel, nn.Parameter)]  # others are computed


def set_statistics(network: nn.Module, data: SequenceDataModule) -> None:
    """Lets the network standardize series by the training data."""
    for layer in network.modules():
        if isinstance(layer, Standardize) and data.statistics:
            layer.set(*data.statistics)


def keep_features(network: nn.Module, data: SequenceDataModule) -> None:
    """Lets the data keep the features of an encoder that is frozen for all epochs or some."""
    encoder = backbone_of(network)
    if encoder and encoder.frozen_epochs:
        data.keep_features(encoder)


def backbone_of(network: nn.Module) -> Backbone | None:
    encoder = getattr(network.encoder, "module", None) if isinstance(network, StepClassifier) else None
    return encoder if isinstance(encoder, Backbone) else None


# The Trainer


def build_trainer(cfg: DictConfig, folder: Path) -> pl.Trainer:
    """Builds the Trainer. The callbacks find the run folder as its `default_root_dir`.

    conf/trainer gives loggers and callbacks names, so that overrides can change them; Lightning takes lists.
    """
    config: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    loggers = {name: logger_arguments(node, folder) for name, node in (config.pop("logger", None) or {}).items()}
    nodes = {"logger": loggers, "callbacks": config.pop("callbacks") or {}}
    parts = {key: list(instantiate_node("trainer", node).values()) for key, node in nodes.items()}
    frozen, strategy = OmegaConf.select(cfg, "model.encoder.frozen"), config.get("strategy")
    if bare_trainer(cfg).world_size == 1:
        config |= {"strategy": "auto"} if isinstance(strategy, dict) else {}
    elif isinstance(frozen, int) and not isinstance(frozen, bool):  # for so many epochs, its weights have no gradients
        if not isinstance(strategy, dict):  # the weights of the processes would differ in silence
            raise UserError(f"trainer.strategy: {strategy}, but model.encoder.frozen={frozen}; leave the strategy out.")
        strategy["find_unused_parameters"] = True
    config["precision"] = resolve_precision(cfg.trainer.precision, config.get("accelerator", "auto"))
    if cfg.trainer.precision == "auto":
        log.info(f"trainer.precision: auto is {config['precision']} here")
    return instantiate_node("trainer", config, **parts, plugins=[AtomicCheckpointIO()], default_root_dir=folder)


def num_processes_to_launch(cfg: DictConfig) -> int:
    """Returns how many processes this one has to start: none for one device, or if something else started this one.

    Raises UserError for several nodes without SLURM, and for processes that srun started.
    """
    trainer = bare_trainer(cfg)
    if trainer.world_size == 1:
        return 0
    environment = trainer.strategy.cluster_environment
    if isinstance(environment, SLURMEnvironment) and "SUBMITIT_EXECUTOR" not in os.environ:
        remedy = "start them by torchrun in one task per node, or add -m hydra/launcher=submitit_slurm"
        raise UserError(f"trainer.devices: processes that srun starts do not share a run folder; {remedy}.")
    if environment.creates_processes_externally:
        return 0
    if trainer.num_nodes > 1:
        remedy = "start torchrun on each of them, or on SLURM add -m hydra/launcher=submitit_slurm"
        raise UserError(f"trainer.num_nodes: {trainer.num_nodes} machines need a process on each; {remedy}.")
    return trainer.num_devices


def bare_trainer(cfg: DictConfig) -> Any:
    """Builds a Trainer that knows its devices, each of which has one process, and nothing else. Does not use CUDA."""
    devices = OmegaConf.masked_copy(cfg.trainer, ["_target_", "accelerator", "devices", "num_nodes"])
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return instantiate_node("trainer", devices, **options)
