from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.config.load import build, cast, cast_flag, dump, load
from utils.config.schema import check, describe, flat_fields, flatten
from utils.config.schema import setting as make
from utils.config.strict_yaml import format_value, parse_value, unknown_key
from utils.errors import UserError


@dataclass(frozen=True)
class Net:
    n_layer: int = make(2, "blocks", minimum=1, maximum=99)
    dropout: float = make(0.0, "share of values dropped", minimum=0, below=1)
    norm: str = make("layernorm", "kind", choices=["layernorm", "rmsnorm"])
    bias: bool = make(False, "add biases")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Optim:
    lr: float = make(1e-3, "learning rate", above=0)
    betas: tuple[float, float] = make((0.9, 0.95), "of Adam", minimum=0, below=1)
    patience: int | None = make(None, "evaluations")


@dataclass(frozen=True)
class Config:
    model: Net = field(default_factory=Net)
    optim: Optim = field(default_factory=Optim)
    files: tuple[str, ...] = make((), "texts to read")
    run_dir: str = make("runs/x", "folder", may_change_on_resume=True)
    note: str | None = make(None, "free text")


@pytest.fixture
def read(tmp_path):
    """Return a function: read(text, overrides) loads this YAML and these flags."""

    def read_text(text: str | bytes, overrides=None) -> Config:
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(Config, [str(path)], overrides or {})[0]

    return read_text


def test_flags_override_files_and_files_override_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("model: {n_layer: 3}\noptim:\n  lr: 3e-4\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("model:\n  n_layer: 4\n  bias: true\n", encoding="utf-8")
    paths = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    config, given = load(Config, paths, {"model.n_layer": "5"})
    assert (config.model.n_layer, config.model.bias, config.optim.lr) == (5, True, 3e-4)
    assert config.optim.betas == (0.9, 0.95)
    assert given == {"model.n_layer": 5, "model.bias": True, "optim.lr": 3e-4}


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "model:\noptim: {}\n", "~\n", "\ufeff", "\r\n"]
)
def test_an_empty_file_means_the_defaults(text, read):
    assert read(text) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  n_layers: 3\n", r"c.yaml:2: unknown key model.n_layers .*model.n_layer\?"),
        ("modle:\n  n_layer: 3\n", r"c.yaml:1: unknown key modle \(did you mean model\?\)"),
        ("optim:\n  n_layer: 3\n", r"c.yaml:2: unknown key .*did you mean model.n_layer\?"),
        ("n_layer: 3\n", r"c.yaml:1: unknown key n_layer \(did you mean model.n_layer\?\)"),
        ("qqq: 3\n", r"c.yaml:1: unknown key qqq$"),
        ("<<: {model: 3}\n", "c.yaml:1: unknown key <<"),
        ("model:\n  n_layer: 3\n  n_layer: 4\n", "c.yaml:3: model.n_layer given twice .*line 2"),
        ("model: {bias: true}\nmodel: {bias: true}\n", "c.yaml:2: model given twice .*line 1"),
        ("model: {n_layer: 3}\nmodel.n_layer: 4\n", "c.yaml:2: model.n_layer given twice"),
        ("\noptim:\n  lr: '1e-3'\n", "c.yaml:3: optim.lr: expected number, got '1e-3'"),
        ("model: {n_layer: 1.5}\n", "model.n_layer: expected int, got 1.5"),
        ("model: {n_layer: true}\n", "model.n_layer: expected int, got True"),
        ("model: {bias: 1}\n", "model.bias: expected true or false, got 1"),
        ("model: {bias: yes}\n", "model.bias: expected true or false, got 'yes'"),
        ("model: {dropout: {a: 1}}\n", "model.dropout: expected number, got {'a': 1}"),
        ("model: {dropout: null}\n", "model.dropout: expected number, got None"),
        ("run_dir: 3\n", "run_dir: expected text, got 3"),
        ("optim: {betas: [0.9]}\n", r"optim.betas: expected a list of 2 numbers, got \[0.9\]"),
        ("optim: {betas: 0.9}\n", "optim.betas: expected a list of 2 numbers, got 0.9"),
        ("files: [a, 3]\n", "files: expected text, got 3"),
        ("files:\n", "files: expected a list of text, got None"),
        ("model: {n_layer: 0}\n", "c.yaml:1: model.n_layer: must be at least 1, got 0"),
        ("model: {n_layer: 100}\n", "must be at most 99, got 100"),
        ("model: {dropout: 1.0}\n", "model.dropout: must be below 1, got 1.0"),
        ("optim: {lr: 0}\n", "optim.lr: must be above 0, got 0.0"),
        ("optim: {betas: [0.9, 1]}\n", "optim.betas: must be below 1, got 1.0"),
        ("optim: {lr: .inf}\n", "optim.lr: must be a finite number, got inf"),
        ("optim: {lr: .nan}\n", "optim.lr: must be a finite number, got nan"),
        ("optim: {lr: 1e999}\n", "optim.lr: must be a finite number, got inf"),
        ("model: {norm: rms_norm}\n", r"got 'rms_norm' \(did you mean rmsnorm\?\)"),
        ("model: 3\n", "c.yaml:1: section model must hold `name: value` lines"),
        ("- 1\n", "c.yaml:1: the file must hold `name: value` lines"),
        ("model: [\n", r"c.yaml:\d: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("run_dir: \x07\n", "c.yaml: not valid YAML"),
        ("run_dir: !!int abc\n", "not valid YAML"),
        ("run_dir: !!python/name:os.system\n", "c.yaml:1: not valid YAML"),
        (b"run_dir: \xff\n", "c.yaml: not UTF-8 at byte 9"),
    ],
)
def test_an_error_in_a_file_names_its_line(text, message, read):
    with pytest.raises(UserError, match=message) as caught:
        read(text)
    assert "--errors" not in str(caught.value)  # that hint is for text files


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model.n_layers", "3", r"--model.n_layers: unknown key .*did you mean model.n_layer\?"),
        ("model", "3", "--model: unknown key model"),
        ("model.n_layer", "many", "--model.n_layer: expected int, got 'many'"),
        ("model.n_layer", "0", "--model.n_layer: must be at least 1, got 0"),
        ("model.n_layer", "9" * 400, "--model.n_layer: must be at most 99"),
        ("optim.lr", "'1e-3'", "--optim.lr: expected number, got '1e-3'"),
        ("optim.lr", "", "--optim.lr: expected number, got None"),
        ("optim.betas", ["0.9"], "--optim.betas: expected a list of 2 numbers"),
        ("model.n_layer", "9" * 5000, "--model.n_layer: expected int"),
    ],
)
def test_an_error_in_a_flag_names_the_flag(name, text, message):
    with pytest.raises(UserError, match=message):
        load(Config, [], {name: text})


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"no\.yaml: No such file"):
        load(Config, ["no.yaml"], {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1E5", 1e5), ("-.5", -0.5), ("+1_000", 1000), ("0", 0), ("1.", 1.0),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("yes", "yes"), ("on", "on"), ("1:30", "1:30"), ("0x10", "0x10"),
        ("2020-01-01", "2020-01-01"), ("1e", "1e"), ("e5", "e5"), ("--x", "--x"),
        ("[a, 1]", ["a", 1]), ("[a", "[a"), ("@x", "@x"),
    ],
)  # fmt: skip
def test_scalars_are_parsed_without_yaml_1_1_surprises(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    "text", ["", "null", "12", "a: b", "#5", "it's", "C:\\x", "'", "a #b", "[x]", " a "]
)
def test_the_text_of_a_flag_is_literal(text):
    assert cast_flag(text, str, "--x") == text


@pytest.mark.parametrize("text", ["9" * 100_000 + "x", "9" * 100_000 + "e", "9_" * 50_000 + ":"])
def test_a_long_number_with_a_wrong_end_is_text(text):
    """A pattern that tries every position for the decimal point would take minutes."""
    assert parse_value(text) == text


def test_quotes_around_the_text_of_a_flag_are_removed():
    assert cast_flag("'3'", str, "--x") == "3"
    assert cast_flag('""a""', str, "--x") == '""a""'


def test_values_are_converted_to_the_declared_type():
    assert cast(1e4, int, "x") == 10000 and type(cast(1e4, int, "x")) is int
    assert type(cast(1, float, "x")) is float
    assert cast(None, int | None, "x") is None
    assert cast(3, int | None, "x") == 3
    assert cast_flag(["a", "3"], tuple[str, ...], "x") == ("a", "3")
    assert cast_flag(["[a, b]"], tuple[str, ...], "x") == ("a", "b")
    assert cast_flag(["0.5"], tuple[float, ...], "x") == (0.5,)
    assert cast("a.txt", tuple[str, ...], "x") == ("a.txt",)


def test_fields_and_values_have_the_same_names_in_the_same_order():
    assert list(flat_fields(Config)) == list(flatten(Config()))
    assert flatten(Config())["optim.betas"] == (0.9, 0.95)
    assert build(Config, {"optim.lr": 0.5}).optim == Optim(lr=0.5)


def test_the_dataclass_itself_refuses_a_value_out_of_range():
    with pytest.raises(UserError, match="n_layer: must be at least 1, got 0"):
        Net(n_layer=0)
    with pytest.raises(UserError, match="dropout: must be a finite number"):
        Net(dropout=math.nan)


CONFIGS = st.builds(
    Config,
    model=st.builds(
        Net,
        n_layer=st.integers(1, 99),
        dropout=st.floats(0, 1, exclude_max=True),
        norm=st.sampled_from(["layernorm", "rmsnorm"]),
        bias=st.booleans(),
    ),
    optim=st.builds(
        Optim,
        lr=st.floats(0, exclude_min=True, allow_infinity=False),
        betas=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
        patience=st.none() | st.integers(),
    ),
    files=st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=3).map(tuple),
    run_dir=st.text(st.characters(codec="utf-8"), max_size=60)
    | st.sampled_from(["true", "1e3", ".5", "null", "~", "...", "---", "on", ".inf", "x" * 60]),
    note=st.none() | st.text(st.characters(codec="utf-8"), max_size=9),
)


@given(CONFIGS, st.booleans())
def test_a_dumped_config_is_read_back_equal(tmp_path_factory, config, comments):
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_bytes(dump(config, comments=comments).encode())
    loaded, given_by_name = load(Config, [str(path)], {})
    assert loaded == config
    assert given_by_name == flatten(config)


@given(st.text(st.characters(codec="utf-8")))
def test_a_formatted_value_is_one_line(text):
    assert len(format_value(text).splitlines()) == 1
    assert parse_value(format_value(text)) == text


def test_every_line_of_the_dump_has_a_comment():
    lines = dump(Config(), comments=True).splitlines()
    settings = [line for line in lines if not line.endswith(":")]
    assert len(settings) == len(flat_fields(Config))
    assert all("  # " in line for line in settings)
    assert describe(flat_fields(Config)["model.n_layer"][1].metadata) == "blocks (>= 1; <= 99)"
    assert "one of layernorm, rmsnorm" in "".join(lines)


def test_an_unknown_key_without_a_near_one_has_no_suggestion():
    assert unknown_key("zzz", ["model.n_layer"]) == "unknown key zzz"


def test_a_comment_after_a_long_value_is_not_part_of_it(tmp_path):
    (tmp_path / "c.yaml").write_text(
        dump(Config(run_dir="x" * 60), comments=True), encoding="utf-8"
    )
    assert load(Config, [str(tmp_path / "c.yaml")], {})[0].run_dir == "x" * 60


@pytest.mark.parametrize(
    "value, problem",
    [
        ("[" * 400 + "]" * 400, "nested too deeply"),
        ("{a: " * 400 + "1" + "}" * 400, "nested too deeply"),
        ("&a [*a]", "its aliases repeat more than 100,000 values"),
        ("[" + "1," * 100_000 + "1]", "more than 100,000 values"),
        (
            "[&a [1,1,1,1,1,1,1,1,1]"
            + "".join(f", &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]" for n in range(9))
            + "]",
            "its aliases repeat more than 100,000 values",
        ),
    ],
)
def test_files_that_need_much_memory_are_refused(tmp_path: Path, value: str, problem: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"optim:\n  lr: {value}\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"c.yaml.*: not valid YAML: {problem}") as error:
        load(Config, [str(path)], {})
    assert len(str(error.value)) < 500
    with pytest.raises(UserError, match="--optim.lr: expected number, got ") as error:
        load(Config, [], {"optim.lr": value})
    assert len(str(error.value)) < 500


def test_a_file_that_takes_minutes_to_parse_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("# " + "x" * 10_000_000, encoding="utf-8")
    with pytest.raises(UserError, match="c.yaml: not valid YAML: more than 10,000,000 characters"):
        load(Config, [str(path)], {})
