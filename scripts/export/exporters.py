"""The export formats: how each is written, and how its model card describes it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.hf.config import CLASSES
from sample import LoadedRun
from scripts.export.gguf import FILE_NAME, write_gguf
from scripts.export.hf_config import hf_model_type
from scripts.export.hf_folder import folder_tokenizer_files, model_files


@dataclass(frozen=True)
class Exporter:
    """An export format, a value of `--to`."""

    # (folder, run, name of the model) -> the name of its class or architecture in that format.
    # Raises a UserError if the format can't hold the model.
    write: Callable[[Path, LoadedRun, str], str]
    usage: str  # file with the card's section on how to use the model
    front_matter: str = ""  # additional lines of the card's YAML header


def export_hf(folder: Path, loaded: LoadedRun, name: str) -> str:
    """Write the files that transformers loads; return the name of the model's class.

    Only GGUF files hold the model's name, so `name` is not used.
    """
    config, tokenizer = loaded.model.config, loaded.tokenizer
    files = model_files(config, loaded.model.state_dict(), tokenizer.eot_id)
    for file, content in (files | folder_tokenizer_files(tokenizer, config.block_size)).items():
        (folder / file).write_bytes(content)
    return CLASSES[hf_model_type(config)]


def export_gguf(folder: Path, loaded: LoadedRun, name: str) -> str:
    """Write model.gguf; return llama.cpp's name for the architecture."""
    return write_gguf(folder / FILE_NAME, loaded.model, loaded.tokenizer, name)


HF_HEADER = "library_name: transformers\npipeline_tag: text-generation\n"
EXPORTERS = {
    "hf": Exporter(export_hf, "usage_hf.template", HF_HEADER),
    "gguf": Exporter(export_gguf, "usage_gguf.template"),
}
