"""The texts that an evaluation scores: the run's own validation part, or any other text."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.batches import Batches
from data.dataset import plan_validation
from data.prepared_folder import is_up_to_date, read_meta, val_coverage
from data.readers import check_json_field
from data.token_file import TokenFile
from sample import LoadedRun
from scripts.eval.scoring import document_separator, encode_text, rebuild_run_data
from tok.text_files import check_include, describe_folders, expand_folders
from train import Config
from utils.cli import read_stdin
from utils.errors import UserError
from utils.output import log
from utils.run.folder import RunFolder

STDIN = "-"  # value of --text


@dataclass(frozen=True)
class EvalSet:
    """The windows to score, and their entropy floor if it is known."""

    name: str  # for the title of a heat map
    batches: Batches
    floor: float | None  # nats per byte
    part_bytes: int | None = None  # of the whole validation part, if only its start is scored


@dataclass(frozen=True)
class Run:
    """A trained run: its folder, its settings, and its loaded model."""

    folder: RunFolder
    config: Config
    loaded: LoadedRun

    def data_folder(self) -> Path:
        """Return the folder with the run's own data; prepare it again if it is missing."""
        identity = self.loaded.state["data_identity"]
        folder = Path(self.folder.read_record()["data"]["folder"])
        if is_up_to_date(folder, identity):
            return folder
        log(f"{folder}: missing or changed, so the run's data is prepared again")
        config, vocab_size = self.config, self.loaded.model.config.vocab_size
        tokenizer = self.loaded.tokenizer if config.train.init_from else None
        return rebuild_run_data(config.data, vocab_size, folder, identity, tokenizer)

    def validation_set(self) -> EvalSet:
        """Return the run's own validation part."""
        folder, eot_id = self.data_folder(), self.loaded.tokenizer.eot_id
        block_size = self.loaded.model.config.block_size
        windows, floor, note = plan_validation(folder, self.config.data.windows, block_size, eot_id)
        if note:
            log(note)
        batches, meta = self._batches(folder, windows), read_meta(folder)
        if coverage := val_coverage(meta):
            log(f"scoring {coverage} (data.val_max_bytes of the run)")
        floor_nats = floor["nats_per_byte"] if floor else None
        return EvalSet("validation part", batches, floor_nats, meta["val"].get("part_bytes"))

    def text_set(
        self, path: str, field: str | None, scratch: Path, include: Sequence[str] = ()
    ) -> EvalSet:
        """Return the windows of any text, split into documents as the run's data is.

        If all documents are stories, or the run has data.windows documents, each document is a
        separate window, provided that the longest fits into block_size. Otherwise the text is read
        in packed windows, without a floor.

        Args:
            path: a file or folder; - reads standard input.
            field: of JSON objects, the field that holds the document; None = that of the run.
            scratch: an empty folder for the prepared text.
            include: patterns of the files to read in a folder; none = those of the run.
        """
        name = path
        if path == STDIN:
            name, path = "standard input", str(scratch / "standard input")
            Path(path).write_bytes(read_stdin())
        data, tokenizer = self.config.data, self.loaded.tokenizer
        separator = document_separator(Path(self.folder.read_record()["data"]["folder"]), data)
        check_include([path], include, "--include")
        try:
            include = include or data.include
            files = expand_folders([path], include=include)
            if line := describe_folders(files, [path], include):
                log(line)
            if field:
                check_json_field(files, "--json-field")
            field = data.json_field if field is None else field
            found = encode_text(files, separator, field, data.errors, tokenizer, scratch, path)
        except UserError as error:  # name what the user has given: standard input, our flag
            message = str(error).replace(path, name).replace("--data.json_field", "--json-field")
            raise UserError(message) from None
        (longest, floor), windows = found, data.windows
        block_size = self.loaded.model.config.block_size
        if floor is not None:
            windows = "documents"
        if windows == "documents" and longest > block_size:
            log(
                f"{Path(path).name}: a document holds {longest} tokens, more than block_size "
                f"{block_size}: the text is read in packed windows"
            )
            windows, floor = "packed", None
        return EvalSet(name, self._batches(scratch, windows), floor)

    def _batches(self, folder: Path, windows: str) -> Batches:
        """Open val.npy with windows as in training. Packed windows are no longer than the text."""
        config, block_size = self.config.data, self.loaded.model.config.block_size
        if windows == "packed":
            with contextlib.closing(TokenFile(folder / "val.npy")) as tokens:
                block_size = min(block_size, max(1, tokens.n_tokens))
        return Batches(
            folder,
            replace(config, stride=min(config.stride, block_size)),
            block_size=block_size,
            rows=1,  # of a training batch, as is the seed: no effect here
            eot_id=self.loaded.tokenizer.eot_id,
            seed=0,
            val_windows=windows,
            splits=("val",),
        )
