"""The page of `scripts.eval --html` in a real browser: figures, keys, both themes, a phone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.internals import Internals, internals
from scripts.eval.page import write_page
from tests.helpers.browser import Page, chromium, needs_chromium
from tests.helpers.pages import eval_set, random_run
from tok.tokenizer import BPETokenizer

pytestmark = needs_chromium
TOKENIZER = BPETokenizer([(97, 98), (256, 99)])  # ab, abc: most characters are several tokens
END = TOKENIZER.eot_id
LINES = [
    "abc abba, a cab.\n",
    "床前明月光，疑是地上霜。\n",
    "كان يا ما كان ثعلب صغير\n",
    "🙂 👩\u200d👩\u200d👧 🇩🇪 👍🏽 e\u0301 हिन्दी\n",
    "</script><script>document.title='hacked'</script><!-- <img src=x onerror=\"hacked=1\">\n",
    "' \" & &lt; ${1} \\ \x00\x1b[0m\u2028\u202eabc\u202c\ufeff\t\r\n",
    "long" + "y" * 90,
]
TEXT = "".join(LINES)
BAD = b"\xed\xa0\x80\xff\xf0\x9f"  # half of a surrogate pair, no UTF-8, and a cut emoji
IDS = [*TOKENIZER.encode(TEXT), *BAD, END, *TOKENIZER.encode("second")]
BLOCK = len(IDS) - 4  # two windows
CONTRASTS = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (...colours) => {
    for (const one of colours) { canvas.fillStyle = one; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((x) => x / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!own || !node.checkVisibility() || node.closest("select, script, noscript")) continue;
    const layers = [];
    for (let up = node; up; up = up.parentElement) {
      const style = getComputedStyle(up);
      const bar = style.backgroundImage.match(/rgb\\([^)]*\\)/); // below some letters of a cell
      layers.unshift([style.backgroundColor, up.matches("td") && bar ? bar[0] : "transparent"]);
    }
    for (const which of [0, 1]) {
      const page = light(over("white", ...layers.map((one) => one[which === 1 && one[1]
        !== "transparent" ? 1 : 0])));
      const ink = light(over(getComputedStyle(node).color));
      found.push((Math.max(page, ink) + 0.05) / (Math.min(page, ink) + 0.05));
    }
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Internals]]:
    """Return the page's file, and what the model computes in each of the two windows."""
    folder = tmp_path_factory.mktemp("made")
    run = random_run(folder, TOKENIZER, block_size=BLOCK, pointer=True)
    write_page(run, eval_set(run, folder, IDS, windows="packed"), folder / "page.html")
    stream = torch.tensor([[END, *IDS[:-1]]])
    parts = (stream[:, :BLOCK], stream[:, BLOCK:])
    return folder / "page.html", [internals(run.loaded.model, part) for part in parts]


@pytest.fixture
def page(browser: Page, made: tuple[Path, Any]) -> Iterator[Page]:
    """Return the page in a wide window; at the end, nothing was logged, loaded or injected."""
    browser.visit(made[0])
    yield browser
    assert browser.problems == []
    assert browser.requests == [made[0].absolute().as_uri()]
    assert browser.js("document.title") == "What surprises " + made[0].parent.name
    assert browser.js("window.hacked") is None
    assert browser.js("$('about').textContent").startswith("text </script><script>hacked = 1")
    assert browser.js("document.querySelectorAll('img, #text *:not(p, span)').length") == 0


def cells(page: Page, table: str) -> list[list[str]]:
    rows = f"[...document.querySelectorAll('#{table} tr')]"
    return page.js(f"{rows}.map(row => [...row.children].map(cell => cell.textContent))")


def select(page: Page, name: str, value: object) -> None:
    page.js(f"$('{name}').value = '{value}'; $('{name}').onchange()")


def test_every_script_is_shown_as_it_is(page):
    shown = page.js(
        "groups.map(one => one.span).filter(e => !e.matches('.special')).map(e => e.textContent)"
    )
    assert "".join(shown) == TEXT + r"\xed\xa0\x80\xff\xf0\x9f" + "second"
    lines = page.js("[...document.querySelectorAll('#text p')].map(e => e.textContent)")
    assert lines[:6] == LINES[:6]
    directions = page.js(
        "[...document.querySelectorAll('#text p')].map(e => getComputedStyle(e).direction)"
    )
    assert directions[:4] == ["ltr", "ltr", "rtl", "ltr"]
    spans = page.js("groups.map(one => one.span.textContent)")
    whole = ["床", "🙂", "👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "e\u0301"]
    assert all(one in spans for one in whole), "a visible character is in one piece"
    assert page.js("groups.reduce((sum, one) => sum + one.n, 0)") == len(IDS)
    sizes = page.js("groups.map(one => one.span.getBoundingClientRect().width)")
    assert min(sizes) > 1, "every token can be seen and pointed at"
    # Arabic letters stay joined: the line is as wide as without spans.
    widths = page.js("""(() => {
          const line = document.querySelectorAll("#text p")[2], plain = line.cloneNode();
          plain.textContent = line.textContent.trim();
          line.lastChild.removeAttribute("data-mark");
          const width = (e) => { const r = document.createRange(); r.selectNodeContents(e);
            return r.getBoundingClientRect().width; };
          const before = width(line);
          line.replaceWith(plain);
          return [before, width(plain)];
        })()""")
    assert widths[0] == pytest.approx(widths[1], abs=1)


@pytest.mark.parametrize("token", [1, 20, BLOCK + 1])
def test_a_click_shows_five_alternatives_and_the_entropy(page, made, token):
    group = page.js(f"groupOf[{token}]")
    page.click(f'[data-group="{group}"]')
    first = page.js(f"groups[{group}].first")
    if first != token:
        page.click(f"#parts button:nth-of-type({token - first + 1})")
    number, row = divmod(token, BLOCK)
    logp_V = made[1][number].logits_BTV[0, row].double().log_softmax(-1)
    top = logp_V.topk(5)
    labels = page.js("data.labels")
    rows = cells(page, "likely")
    for (shown, p), id_, expected in zip(rows, top.indices.tolist(), top.values.exp().tolist()):
        assert shown.removesuffix(" ← in the text") == labels[str(id_)]
        assert float(p.removesuffix(" %")) / 100 == pytest.approx(expected, rel=0.06, abs=6e-5)
    actual = [text for text, _ in rows if text.endswith("in the text")]
    assert actual == [labels[str(IDS[token])] + " ← in the text"]
    surprise, entropy = -float(logp_V[IDS[token]]), -float((logp_V * logp_V.exp()).sum())
    figures = page.js("$('figures').textContent")
    assert f"Token {token + 1} of {len(IDS)}. Surprise {surprise:.2f} nats" in figures
    assert figures.endswith(f"Entropy {entropy:.2f} nats.")


def test_the_chosen_head_shows_its_attention_weights(page, made):
    token = 30
    page.click(f'[data-group="{page.js(f"groupOf[{token}]")}"]')
    page.js(f"choose({token})")
    inside = made[1][0]
    heads = [("0", "1", inside.attention[0][0, 1]), ("1", "0", inside.attention[1][0, 0])]
    heads += [("1", "mean", inside.attention[1][0].mean(0))]
    for layer, head, weights_TT in heads:
        select(page, "layer", layer)
        select(page, "head", head)
        found = page.js(f"weights({token})")
        assert sum(found) == pytest.approx(1)
        expected = weights_TT[token, : token + 1].tolist()
        assert found == pytest.approx(expected, abs=1 / 255)
        shown = [float(p.removesuffix(" %")) / 100 for _, p in cells(page, "read")]
        assert shown == pytest.approx(sorted(found, reverse=True)[: len(shown)], abs=6e-5)
        assert page.js("document.body.className") == "attention"
        most = max(range(token + 1), key=lambda read: found[read]) - 1  # 0 is the start
        if most >= 0:
            shade = f"getComputedStyle(groups[groupOf[{most}]].span).getPropertyValue('--w')"
            assert float(page.js(shade)) == 1
    select(page, "layer", "pointer")
    gains = inside.gains_BTT[0, token, : token + 1].tolist()
    assert page.js(f"weights({token})") == pytest.approx(gains, abs=sum(gains) / 255)
    assert cells(page, "read")[0][1] == f"+{max(page.js(f'weights({token})')):.2f}"
    assert page.js("$('head').disabled") is True


def test_mouse_finger_and_keys_choose_tokens(page, made):
    page.hover('[data-group="3"]')
    assert page.js("chosen") == page.js("groups[3].first")
    page.click('[data-group="5"]')
    page.hover('[data-group="3"]')
    assert page.js("groupOf[chosen]") == 5, "a click keeps the choice"
    page.press("Escape")
    page.hover('[data-group="4"]')
    assert page.js("groupOf[chosen]") == 4
    page.visit(made[0])
    page.js("$('head').focus()")
    page.press("Tab")
    assert page.js("groupOf[chosen]") == 0
    for key, expected in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0)):
        page.press(key)
        assert page.js("[groupOf[chosen], Number(document.activeElement.dataset.group)]") == [
            expected,
            expected,
        ]
    arabic = page.js("groups.findIndex(one => one.span.textContent === 'ك')")
    page.js(f"groups[{arabic}].span.focus()")
    page.press("ArrowLeft")  # forward, in a text from right to left
    assert page.js("groupOf[chosen]") == arabic + 1
    assert page.js("document.querySelectorAll('#text [tabindex=\"0\"]').length") == 1
    page.press("End")
    assert page.js("groupOf[chosen]") == page.js("groups.length - 1")
    page.visit(made[0], width=360, height=640)
    page.tap('[data-group="7"]')
    assert page.js("groupOf[chosen]") == 7 and page.js("$('likely').checkVisibility()")


@pytest.mark.parametrize("dark", [False, True])
def test_everything_is_readable_in_both_themes_and_on_a_phone(page, made, dark):
    for width, height in ((1200, 800), (360, 640), (320, 480)):
        page.visit(made[0], width=width, height=height, dark=dark)
        page.js("choose(20)")
        for colours in ("surprise", "attention"):
            select(page, "colours", colours)
            contrasts = page.js(CONTRASTS)
            assert len(contrasts) > 100 and min(contrasts) >= 4.5, (width, colours)
        assert page.js("document.documentElement.scrollWidth") == width, "nothing to scroll"
        outside = page.js(
            "[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && "
            "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"
        )
        assert outside == []
        bottom = page.js("$('panel').getBoundingClientRect().bottom")
        assert math.floor(bottom) <= height, "the panel is in view"
    page_colour = page.js("getComputedStyle(document.body).backgroundColor")
    assert (page_colour == "rgb(255, 255, 255)") is not dark
