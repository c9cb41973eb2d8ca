"""The texts that an evaluation scores: the run's own validation part, or any other text."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.batches import Batches
from data.dataset import longest_document, plan_validation
from data.documents import BLANK_LINE, read_documents
from data.prepare import prepare, write_split
from data.prepared_folder import META, is_up_to_date, read_meta, val_coverage
from data.readers import check_json_field
from data.stories import story as stories
from data.token_file import TokenFile
from sample import LoadedRun
from tok.text_files import check_include, describe_folders, expand_folders, suggest_include
from train import Config
from utils.cli import read_stdin
from utils.errors import UserError, looked_in
from utils.output import log
from utils.run.folder import RunFolder

STDIN = "-"  # value of --text


@dataclass(frozen=True)
class EvalSet:
    """The windows to score, and their entropy floor if it is known."""

    name: str  # for the head of a page
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
        """Return the folder with the run's own data; prepare it again if it is missing.

        Raises:
            UserError: the settings do not describe the data, or the result has another identity.
        """
        identity = self.loaded.state["data_identity"]
        folder = Path(self.folder.read_record()["data"]["folder"])
        if is_up_to_date(folder, identity):
            return folder
        log(f"{folder}: missing or changed, so the run's data is prepared again")
        config, vocab_size = self.config, self.loaded.model.config.vocab_size
        if config.data.dir:
            problem = f"the run's data is missing or has changed{looked_in(folder)}"
            raise UserError(f"{folder}: {problem}; restore it")
        tokenizer = self.loaded.tokenizer if config.train.init_from else None
        made = prepare(config.data, vocab_size, tokenizer=tokenizer)
        if (found := read_meta(made)["identity"]) != identity:
            raise UserError(
                f"{made}: other data than the run was trained on ({found[:12]}, expected "
                f"{identity[:12]}); put the original files back, or give --text FILE"
            )
        return made

    def separator(self) -> str:
        """Return the document separator of the run's text. Stories are separated by blank lines."""
        folder, config = Path(self.folder.read_record()["data"]["folder"]), self.config.data
        if (folder / META).exists():
            corpus = read_meta(folder)["recipe"]["corpus"]
            # The first of the settings is data.doc_sep, see data/document_source.py.
            return BLANK_LINE if "stories" in corpus else corpus["settings"][0]
        return config.doc_sep if config.files or config.dir else BLANK_LINE

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
        data, tokenizer, hint = self.config.data, self.loaded.tokenizer, "convert the file to UTF-8"
        separator = self.separator()
        check_include([path], include, "--include")
        try:
            include = include or data.include
            files = expand_folders([path], include=include)
            if line := describe_folders(files, [path], include):
                log(line)
            if field:
                check_json_field(files, "--json-field")
            field = data.json_field if field is None else field
            with suggest_include(files, [path], "--include"):
                found = read_documents(files, separator, data.errors, field=field, hint=hint)
                documents = list(found)
            if not documents:
                raise UserError(f"{files[0]}: no text in it; name another --text")
        except UserError as error:  # name what the user has given: standard input, our flag
            message = str(error).replace(path, name).replace("--data.json_field", "--json-field")
            raise UserError(message) from None
        write_split(scratch / "val.npy", documents, tokenizer, "text")
        longest = longest_document(scratch / "val.npy", tokenizer.eot_id)
        floor = stories.floor_if_stories(documents)
        windows = "documents" if floor else data.windows
        block_size = self.loaded.model.config.block_size
        if windows == "documents" and longest > block_size:
            log(
                f"{Path(path).name}: a document holds {longest} tokens, more than block_size "
                f"{block_size}: the text is read in packed windows"
            )
            windows, floor = "packed", None
        nats = floor.nats_per_byte if floor else None
        return EvalSet(name, self._batches(scratch, windows), nats)

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
