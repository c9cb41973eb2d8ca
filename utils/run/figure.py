"""Figures in our own style, whatever the user's Matplotlib settings are, and their image files.

The functions import Matplotlib, which takes half a second, because train.py needs it only at its
end.
"""

import contextlib
import functools
import importlib.util
import inspect
import io
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from unittest import mock

from utils.errors import UserError, cut_middle, describe_os_error, one_line
from utils.files import check_writable, write_atomic
from utils.output import log

P = ParamSpec("P")
T = TypeVar("T")
# Differences from Matplotlib's defaults. The texts are names of runs and settings, so that $ is a
# dollar sign in them.
STYLE: dict[str, Any] = {"text.parse_math": False, "text.usetex": False}
MAX_TEXT = 80  # characters of a line: a longer text would leave no room for the axes
FORMATS = ("png", "pdf", "svg")
# Okabe and Ito, Color Universal Design (2008): people with any colour vision can tell these apart.
# Their yellow is left out: too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, RED = COLOURS[:2]
MARKERS = "os^DvPX*"  # 8, and 7 colours: 56 different lines
DASHES = ("-", "--", "-.", ":")
LEGEND_COLUMNS, LEGEND_LINE = 100, 0.2  # characters across a figure; height of a line in inches


def import_matplotlib() -> Any:
    """Import Matplotlib and return it; MPLBACKEND and the user's matplotlibrc are not read.

    Call it before a module that imports Matplotlib at its top: with an unknown MPLBACKEND, such as
    a notebook exports to its child processes, the import itself fails.
    """
    spec = importlib.util.find_spec("matplotlib")
    installed = Path(spec.origin or "").parent if spec else Path()
    ours = {"MPLBACKEND": "agg", "MATPLOTLIBRC": str(installed / "mpl-data" / "matplotlibrc")}
    with mock.patch.dict(os.environ, ours):
        import matplotlib
    return matplotlib


def draws(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function that draws a picture into its argument `out` use our style.

    It runs with Matplotlib's defaults and `STYLE`, without the user's settings, and without
    warnings, such as those about a character that the font lacks.

    Raises:
        UserError: instead of any error of Matplotlib.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            matplotlib = import_matplotlib()
            with warnings.catch_warnings(), matplotlib.rc_context():
                warnings.simplefilter("ignore")
                defaults = dict(matplotlib.rcParamsDefault)
                del defaults["backend"]  # setting it would switch the backend of a notebook
                matplotlib.rcParams.update(defaults | STYLE)
                return function(*args, **kwargs)
        except (UserError, OSError):
            raise
        except Exception as error:
            out = signature.bind(*args, **kwargs).arguments["out"]
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{out}: can't draw the figure ({reason}); report this error") from None

    return draw


@contextlib.contextmanager
def warn_if_not_drawn() -> Iterator[None]:
    """Log a warning if the block can't draw its figure, so that a finished run does not fail."""
    try:
        yield
    except Exception as error:  # Matplotlib may even fail to be imported
        reason = describe_os_error(error) if isinstance(error, OSError) else str(error)
        log(f"warning: no figure: {one_line(reason)}")


def line_style(number: int) -> dict[str, Any]:
    """Return the style of line `number`: neighbours differ in colour, marker and dashes.

    >>> line_style(1)
    {'color': '#D55E00', 'marker': 's', 'linestyle': '--', 'markersize': 4, 'linewidth': 1.5}
    """
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markersize": 4,
        "linewidth": 1.5,
    }


def new_figure(width: float = 8, height: float = 4.8) -> Any:
    """Return a figure of this size in inches, without pyplot, which would keep it in memory."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def style_axes(axes: Any) -> None:
    """Set the common style: no frame at the top and the right, a faint grid, plain numbers.

    Call it last, when the axes have their scales and lines.
    """
    from matplotlib.ticker import LogFormatter, LogFormatterMathtext, StrMethodFormatter

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    for axis in (axes.xaxis, axes.yaxis):  # a logarithmic axis writes 10^2 as mathematics
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
            axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))


def add_legend(axes: Any, *, below: bool = False, **options: Any) -> None:
    """Add a legend of all labelled lines and points, in the axes or below them.

    Matplotlib's own leaves out labels with a leading underscore, which may be names of runs.
    """
    found = [one for one in (*axes.lines, *axes.collections) if one.get_label()]
    found = [one for one in found if not re.fullmatch(r"_child\d+", one.get_label())]
    labels = [one.get_label() for one in found]
    owner: Any = axes
    if below:  # for many or long labels: the figure grows, the axes keep their size
        owner = axes.get_figure()
        columns = max(1, LEGEND_COLUMNS // (max(len(plain_text(label)) for label in labels) + 8))
        lines = math.ceil(len(found) / columns) + options.get("title", "").count("\n") + 1
        owner.set_figheight(owner.get_figheight() + LEGEND_LINE * lines)
        place = {"loc": "outside lower left", "ncols": columns, "fontsize": 9}
        options = {**place, "title_fontsize": 9, "alignment": "left", "handlelength": 3, **options}
    legend = owner.legend(found, ["label"] * len(found), frameon=False, **options)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


def plain_text(text: str, limit: int = MAX_TEXT) -> str:
    r"""Return a text that can be drawn: short lines, with escapes for what has no glyph.

    Labels of ticks must be plain before they are set; `save_figure` does it for all other texts.

    >>> plain_text("caf\udce9"), len(plain_text("long" * 100))
    ('caf\\udce9', 80)
    """
    shown = "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in text
    )
    return "\n".join(cut_middle(line, limit) for line in shown.split("\n"))


def picture_format(out: Path) -> str:
    """Return the image format of a file name, from its extension; without one, PNG.

    Raises:
        UserError: the format is none of `FORMATS`.
    """
    extension = out.suffix.lstrip(".").lower() or "png"
    if extension not in FORMATS:
        supported = ", ".join(f".{one}" for one in FORMATS)
        raise UserError(f"{out}: can't write a .{extension} picture; supported: {supported}")
    return extension


def check_picture(out: Path, flag: str) -> None:
    """Check, before long work, that a picture can be written.

    Raises:
        UserError: the path can't be written, or the format is not known.
    """
    picture_format(out)
    check_writable(out, flag)


def save_figure(figure: Any, out: Path) -> None:
    """Write a figure in the format of the file name's extension; long lines are shortened.

    Raises:
        UserError: the format is none of `FORMATS`.
        OSError: the file can't be written.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(plain_text(text.get_text()))
    picture = io.BytesIO()
    figure.savefig(picture, format=picture_format(out), dpi=120)
    write_atomic(out, picture.getvalue())
