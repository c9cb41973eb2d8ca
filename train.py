"""Train a model and write the run to a folder.

Settings come from YAML files and from flags such as `--model.n_layer 6`, which override the files.
"""

if __name__ == "__main__":  # before the slow imports
    from utils.signals import before_slow_imports

    before_slow_imports()

import argparse
import contextlib
import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.config import DataConfig
from data.dataset import Dataset, check_run_tokenizer
from data.prepare import measure_text, prepare
from data.prepared_folder import check_compatible, check_content, check_val_bytes
from model.config import ModelConfig
from model.flops import check_size, describe, mib
from model.gpt import TinyGPT
from model.hf.pretrained import load_initial_weights, pretrained_settings
from model.load import load_weights
from model.training.config import RunConfig, TrainConfig, is_complete, limit_passes
from model.training.duration import describe_rest, is_worth_measuring, plan, trial_settings
from model.training.fit import fit
from model.training.optim import OPTIMIZERS, OptimConfig, make_optimizer
from model.training.preflight import check_memory, check_numbers, hint_if_out_of_memory
from model.training.step_log import describe_run, run_metadata
from model.training.trainer import Trainer
from tok.formats.convert import read_folder_tokenizer
from tok.tokenizer import BPETokenizer
from utils import device
from utils.cli import Parser
from utils.config.flags import add_flags, given_flags
from utils.config.load import dump, load
from utils.config.resume import resumed_config
from utils.config.schema import setting
from utils.config.sizing import SizeConfig, sized
from utils.distributed import SINGLE_PROCESS, Distributed, init_distributed
from utils.errors import UserError, run_cli
from utils.files import write_atomic
from utils.output import log
from utils.run import tensorboard
from utils.run.environment import VERSION
from utils.run.folder import FLAGS_RUN, RunFolder, run_to_resume
from utils.run.log import worse_than_start
from utils.run.plot import plot_finished_run
from utils.run.resume import load_state
from utils.suggest import shell_quote

DEFAULT_CONFIG = "configs/tiny.yaml"
EXAMPLES = (
    "python train.py  # the same as --config configs/tiny.yaml",
    "python train.py --config configs/text.yaml --data.files mytext.txt --run_dir runs/mine",
    "python train.py --config configs/tiny.yaml --model.n_layer 6 --run_dir runs/deep",
    "python train.py --config configs/tiny.yaml --resume",
    "torchrun --nproc_per_node 2 train.py --config configs/tiny.yaml  # two processes",
)


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    run_dir: str = setting(
        "", "folder of the run; empty = runs/<name of the last --config>", is_path=True
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    size: SizeConfig = field(default_factory=SizeConfig)

    def __post_init__(self) -> None:
        if self.train.init_from and self.data.tokenizer:
            raise UserError("train.init_from comes with a tokenizer; drop data.tokenizer")
        if self.model.tie_weights and self.optim.head_lr_ratio != 1.0:
            raise UserError(
                "optim.head_lr_ratio has an effect only without model.tie_weights; drop one of them"
            )


def parse(argv: Sequence[str] | None) -> tuple[Config, dict[str, Any], argparse.Namespace]:
    """Return the config, the settings that files or flags have set, and the parsed arguments."""
    parser = Parser(prog="train.py", description=__doc__, examples=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"llm-tiny {VERSION}")
    about = "YAML file of settings; with several, later files override (default, if no model or "
    about += "data is set: configs/tiny.yaml)"
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help=about)
    parser.add_argument("--resume", action="store_true", help="continue the run in run_dir")
    parser.add_argument("--print_config", action="store_true", help="print every setting and exit")
    add_flags(parser, Config)
    args = parser.parse_args(argv)
    flags = given_flags(args, Config)
    if not args.config and not args.resume and not args.print_config:
        note_default_config(args, flags)
    # A resumed run reads its model settings from its config.yaml.
    more = () if args.resume else (initial_settings,)
    config, given = load(Config, args.config, flags, *more)
    if not config.run_dir:
        run_dir = f"runs/{Path(args.config[-1]).stem}" if args.config else FLAGS_RUN
        if args.resume and not args.config:
            run_dir = run_to_resume()
        config = dataclasses.replace(config, run_dir=run_dir)
    return config, given, args


def note_default_config(args: argparse.Namespace, flags: Mapping[str, Any]) -> None:
    """Use the default config if no setting of model or data is given; log which settings apply."""
    if flags.keys() <= {"run_dir", "train.device", "train.max_minutes", "train.num_threads"}:
        args.config = [str(Path(__file__).resolve().parent / DEFAULT_CONFIG)]
        log(f"no model or data is set, so --config {DEFAULT_CONFIG} is used (see --help)")
    elif not any(name.startswith("model.") for name in flags):  # the user has chosen no model
        log(
            "no --config: other settings have the defaults that --print_config shows; better are "
            "--config configs/tiny.yaml for stories, --config configs/text.yaml for your own text"
        )


def initial_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model settings of the folder `train.init_from`; none if it is not set.

    Args:
        given: the settings that files or flags have set, by name.

    Raises:
        UserError: a given setting contradicts the folder, or TinyGPT cannot load its model.
    """
    folder = given.get("train.init_from")
    return pretrained_settings(folder, given) if folder else {}


def load_data(
    config: Config, run: RunFolder, state: dict[str, Any] | None, dist: Distributed
) -> Dataset:
    """Load or prepare the data, and check that it matches the model and the checkpoint.

    Raises:
        UserError: the data is damaged, or belongs to another tokenizer, model or run.
    """
    vocab_size, block_size = config.model.vocab_size, config.model.block_size
    pretrained_tokenizer = None
    if config.train.init_from:
        if state and run.tokenizer.exists():  # the pretrained folder may no longer exist
            pretrained_tokenizer = BPETokenizer.load(run.tokenizer)
        else:
            pretrained_tokenizer = read_folder_tokenizer(Path(config.train.init_from), vocab_size)
    if config.data.dir:
        folder = Path(config.data.dir)
        check_content(folder)
        check_val_bytes(folder, config.data.val_max_bytes)
    else:  # prepare() checks the folder that it returns
        with dist.main_process_first("data"):
            folder = prepare(
                config.data, vocab_size, block_size=block_size, tokenizer=pretrained_tokenizer
            )
    data = Dataset.load(folder, config.data.windows, block_size)
    check_compatible(
        folder, data.tokenizer, vocab_size, pretrained_tokenizer=pretrained_tokenizer, state=state
    )
    return data


def build_trainer(
    config: Config,
    run: RunFolder,
    state: dict[str, Any] | None = None,
    dist: Distributed = SINGLE_PROCESS,
    data: Dataset | None = None,
) -> tuple[Trainer, Dataset]:
    """Return a trainer and its data; write nothing to the run folder.

    Args:
        state: the checkpoint to resume from.
        data: used instead of the data that the settings describe.
    """
    check_size(config.model, n_rows=config.train.batch_size * config.train.grad_accum_steps)
    train, weights = config.train, None
    threads = train.num_threads or dist.threads()
    if state and state.get("ranks", 1) == dist.size:  # older checkpoints have no ranks
        threads = state["threads"]  # floating-point sums depend on it
    torch_device = device.set_up(dist.device_name(train.device), threads)
    if train.init_from and not state:  # before load_data: bad weights are an early error
        weights = load_initial_weights(train.init_from, config.model)
    data = data or load_data(config, run, state, dist)
    batches = data.batches(
        config.data,
        block_size=config.model.block_size,
        rows=train.batch_size * train.grad_accum_steps,
        seed=train.seed,
        fixed_length=train.compile,
    )
    train = limit_passes(train, 1 / batches.epoch_at(1))
    config = dataclasses.replace(config, train=train)
    batches.cache_on_device(torch_device, device.free_gpu_memory_bytes(torch_device))
    device.seed_all(train.seed, 0)  # for the initial weights
    model = TinyGPT(config.model).to(torch_device)
    if weights:
        load_weights(model, weights)
    trainer = Trainer(
        config,
        model,
        make_optimizer(model, config.optim),
        batches,
        data.tokenizer,
        run,
        data_identity=data.meta["identity"],
        floor_nats_per_byte=data.floor["nats_per_byte"] if data.floor else None,
        state=state,
        dist=dist,
    )
    return trainer, data


def run_training(
    run: RunFolder,
    config: Config,
    given: dict[str, Any],
    resume: bool,
    dist: Distributed = SINGLE_PROCESS,
) -> int:
    """Start or resume a run; return the exit status."""
    state = None
    if resume:
        state = load_state(run, dist.is_main)
        if state:
            check_run_tokenizer(run.tokenizer, state["tokenizer_sha256"])
        run.read_record()  # a damaged run.json is reported before anything is written
        config = resumed_config(Config, run.config, given, state)
        if state and is_complete(config.train, state):
            if dist.is_main and not run.plot.exists():  # killed between checkpoint and plot
                plot_finished_run(run)
            log(f"{run.path}: finished at step {state['step']}, nothing to do")
            return 0
    else:
        run.check_has_no_run(None)  # a killed start may have left config.yaml
        config, line = sized(config, given, measure_text)
        if line:
            log(line)
    if config.train.tensorboard:
        tensorboard.import_library()  # if it is not installed, fail before anything is written
    data, lines = None, [describe_rest(config.train, state)] if state and state["step"] else []
    if measured := not state and is_worth_measuring(config):
        config, data, lines = plan_run(config, run, dist)
    trainer, data = build_trainer(config, run, state, dist, data)
    if not measured:
        lines.insert(0, f"about {mib(check_memory(trainer))} of memory")
    if resume:
        check_run_tokenizer(run.tokenizer, data.tokenizer.identity)
    dist.barrier()  # all ranks have read the folder before the main process changes it
    if dist.is_main:
        claim_run_folder(run, trainer.config, trainer, data, resume)
        row = data.tokens_per_row(config.data.windows, config.model.block_size)
        for line in [*describe_run(trainer, *row), *data.notes, *lines]:
            log(line)
    with contextlib.closing(trainer.batches), hint_if_out_of_memory(trainer):
        check_numbers(trainer)
        status = fit(trainer, resumed=state is not None)
    if dist.is_main and trainer.step:  # 0: a signal came before the first step
        report_end(run, trainer, data)
    return status


def plan_run(
    config: Config, run: RunFolder, dist: Distributed
) -> tuple[Config, Dataset, list[str]]:
    """Measure a trial: return the config with its number of steps, the data, and log lines."""
    trial = dataclasses.replace(config, train=trial_settings(config.train, dist.size))
    trainer, data = build_trainer(trial, run, None, dist)
    memory = check_memory(trainer)
    with contextlib.closing(trainer.batches), hint_if_out_of_memory(trainer):
        train, duration = plan(config.train, trainer)
    memory = max(memory, device.peak_memory_bytes(trainer.device))  # the steps may need more
    lines = [f"about {mib(memory)} of memory", duration]
    return dataclasses.replace(config, train=train), data, lines


def report_end(run: RunFolder, trainer: Trainer, data: Dataset) -> None:
    """Plot the loss, compare it with n-grams, and log the command that samples from the weights."""
    plot = f"plot {run.plot}; " if plot_finished_run(run) else ""
    command, best = f"python sample.py --run {shell_quote(run.path)}", "no best.pt yet"
    if run.best.exists():
        best = f"best val {trainer.best_val:.4f} nats/token"
        best += worse_than_start(run, trainer.best_val) if trainer.config.train.init_from else ""
        if trainer.finished() and (compared := data.compare_with_ngrams(trainer.best_val)):
            log(f"{run.path}: {compared}")
    else:  # stopped before the first evaluation of trained weights
        command += " --checkpoint last"
    log(f"{run.path}: {best}; {plot}sample with `{command}`")


def claim_run_folder(
    run: RunFolder, config: RunConfig, trainer: Trainer, data: Dataset, resume: bool
) -> None:
    """Lock the run folder; write config.yaml, tokenizer.json and run.json.

    Raises:
        UserError: another process has locked it, or has started a run in it meanwhile.
    """
    run.lock()  # makes the folder; an error before this line leaves no folder
    if not resume:
        run.check_has_no_run(dump(config).encode())
    write_atomic(run.config, dump(config).encode())
    data.tokenizer.save(run.tokenizer)
    run.write_record(data.metadata() | run_metadata(trainer))


def main(argv: Sequence[str] | None = None) -> int:
    """Train or resume a run, or print the settings; return the exit status."""
    with init_distributed() as dist:  # before parsing: only one rank prints a wrong flag
        config, given, args = parse(argv)
        if args.print_config:
            train, moments = config.train, OPTIMIZERS[config.optim.name].moments
            print(dump(config, comments=True), end="")
            print(textwrap.indent(describe(config.model, train.batch_size, moments), "# "), end="")
            if dist.size > 1:
                print(f"# {dist.describe(train.batch_size * train.grad_accum_steps)}")
            return 0
        with contextlib.closing(RunFolder(config.run_dir)) as run:
            return run_training(run, config, given, args.resume, dist)


if __name__ == "__main__":
    run_cli(main)
