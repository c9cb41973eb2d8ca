"""The page of `--html`: a text, what the model expected at each token, and what it attended to."""

import base64
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.batches import Batch
from model.eval_mode import eval_mode
from model.internals import internals
from scripts.eval.eval_sets import EvalSet, Run
from scripts.eval.visible_text import visible, whole_characters
from utils.files import write_atomic
from utils.output import json_line, log
from utils.run import checkpoint

TEMPLATE = Path(__file__).with_name("page.html")
PLACEHOLDER = "{DATA}"  # in the template
MAX_TOKENS = 20_000  # a browser needs seconds to lay out more
MAX_ATTENTION_BYTES = 6_000_000  # of all attention weights, one byte each
N_LIKELY = 5  # tokens that the page shows as alternatives


def write_page(run: Run, eval_set: EvalSet, out: Path) -> None:
    """Write the page of a text. It needs no other file and no network.

    Raises:
        OSError: the file can't be written.
    """
    data = page_data(run, eval_set)
    # "<" could end the script element; the browser's JSON parser reads the escape.
    escaped = json_line(data).replace("<", "\\u003c")
    before, after = TEMPLATE.read_text(encoding="utf-8").split(PLACEHOLDER)
    write_atomic(out, f"{before}{escaped}{after}".encode())
    log("; ".join([f"{out}: open it in a browser", *data["limits"][1:]]))


def page_data(run: Run, eval_set: EvalSet) -> dict[str, Any]:
    """Return the data of the page, which page.html explains where it reads them."""
    tokenizer, config = run.loaded.tokenizer, run.loaded.model.config
    windows: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {"nats": [], "entropy": [], "likely": [], "p": []}
    n_planes, room = config.n_layer * config.n_head + config.pointer, MAX_ATTENTION_BYTES
    for start, context, targets_T, batch in windows_of(run, eval_set):
        rows = min(len(targets_T), math.isqrt(2 * room // n_planes))
        attention, gains = pack_attention(run.loaded.model, batch, rows)
        room = max(0, room - len(attention))
        windows.append({"start": start, "length": len(targets_T), "rows": rows, "gains": gains})
        windows[-1]["attention"] = base64.b64encode(attention).decode()
        with torch.inference_mode(), eval_mode(run.loaded.model):
            logits_BTV = run.loaded.model(batch.x_BT, doc_BT=batch.doc_BT)
        for name, values in expectations(logits_BTV[0, context:], targets_T[context:]):
            columns[name] += values
    n_tokens = len(columns["nats"])
    tokens = eval_set.batches.splits["val"].tokens
    ids, special = tokens.read(0, n_tokens).tolist(), set(tokenizer.special_ids.values())
    raw = tokenizer.token_bytes
    named = {i: raw[i] if i < len(raw) else b"" for i in {*ids, *columns["likely"]}}
    texts = whole_characters((raw[i], i in special) for i in ids)
    n_stored = sum(one["rows"] for one in windows)
    limits = ["· is a space, ↵ the end of a line; \\x and two digits are a byte of a character"]
    if n_tokens < tokens.n_tokens:
        limits.append(f"the page shows the first {n_tokens:,} of {tokens.n_tokens:,} tokens")
    if any(one["rows"] < one["length"] for one in windows):
        limits.append(f"it has attention weights for about the first {n_stored:,} tokens")
    limits.append("attention weights are rounded to 1/255")
    return columns | {
        "title": f"What surprises {run.loaded.path.parent.name}",
        "about": f"{eval_set.name}, read by {run.loaded.path} "
        f"({checkpoint.describe(run.loaded.state)})",
        "limits": limits,
        "groups": list(texts),
        "ids": ids,
        "labels": {
            str(i): visible(one.decode("utf-8", "backslashreplace")) or f"(token {i})"
            for i, one in named.items()
        },
        "layers": config.n_layer,
        "heads": config.n_head,
        "pointer": config.pointer,
        "windows": windows,
    }


def windows_of(run: Run, eval_set: EvalSet) -> Iterator[tuple[int, int, Tensor, Batch]]:
    """Yield, for each window in the order of the text, up to about MAX_TOKENS tokens:

    the position of its first target, the number of targets that an earlier window has, the targets
    (T,), and the input of the model, a batch of one row.
    """
    batches, device = eval_set.batches, next(run.loaded.model.parameters()).device
    windows = batches.splits["val"]
    for number in range(windows.n_windows):
        index_B = np.array([number])
        start, _, context = (int(one_B[0]) for one_B in windows.targets(index_B))
        if start + context >= MAX_TOKENS:
            return
        [(x_T, _)] = windows.rows(index_B)
        x_BT = torch.from_numpy(x_T).to(device)[None]
        targets_T = windows.tokens.read(start, start + len(x_T)).astype(np.int64)
        y_T = torch.from_numpy(targets_T).to(device)
        yield start, context, y_T, batches.with_document_ids(x_BT, y_T[None])


def expectations(logits_TV: Tensor, targets_T: Tensor) -> Iterator[tuple[str, list[Any]]]:
    """Yield the columns of the page: surprise and entropy in nats, the most likely tokens, their p.

    >>> dict(expectations(torch.zeros(1, 2), torch.tensor([1])))["nats"]
    [0.69315]
    """
    logp_TV = logits_TV.float().log_softmax(-1)
    top = logp_TV.topk(min(N_LIKELY, logp_TV.shape[-1]))
    nats_T = -logp_TV.gather(1, targets_T[:, None])[:, 0]
    entropy_T = torch.special.entr(logp_TV.exp()).sum(-1)
    yield "likely", top.indices.flatten().tolist()
    for name, values in (("nats", nats_T), ("entropy", entropy_T), ("p", top.values.exp())):
        yield name, [round(one, 5) for one in values.flatten().tolist()]


def pack_attention(model: nn.Module, batch: Batch, rows: int) -> tuple[bytes, list[float]]:
    """Return attention weights in bytes, and the sum of the pointer's gains in each row, if any.

    For each head of each layer, and then the pointer, there is a triangle: row t holds 1/255 of the
    row's sum for each s <= t.

    Args:
        batch: a window.
        rows: how many rows to return; later tokens have no effect on them.
    """
    if not rows:
        return b"", []
    doc_BT = None if batch.doc_BT is None else batch.doc_BT[:, :rows]
    inside = internals(model, batch.x_BT[:, :rows], doc_BT=doc_BT)
    planes = [layer[0] for layer in inside.attention]
    planes += [] if inside.gains_BTT is None else [inside.gains_BTT]
    weights_PTT = torch.cat([one.double().cpu() for one in planes]).nan_to_num().numpy()
    sums_PT = weights_PTT.sum(-1)
    shares_PTT = weights_PTT / np.maximum(sums_PT, 1e-30)[..., None]
    # Rounding the running sum makes the bytes of each row add up to 255.
    levels_PTT = np.diff(np.rint(shares_PTT.cumsum(-1) * 255), prepend=0).astype(np.uint8)
    gains = [] if inside.gains_BTT is None else sums_PT[-1].round(5).tolist()
    return levels_PTT[:, np.tri(rows, dtype=bool)].tobytes(), gains
