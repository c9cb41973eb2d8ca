import pytest

from utils.cli import Parser, checked, nonempty_text, positive_int, unknown_flag
from utils.errors import UserError


def make_parser() -> Parser:
    parser = Parser(prog="tool")
    parser.add_argument("--val_size", type=float)
    parser.add_argument("--num-samples", type=int, default=1)
    parser.add_argument("--model.n_layer", type=int)
    parser.add_argument("-n", type=int)
    parser.add_argument("--resume", action="store_true")
    commands = parser.add_subparsers(dest="command")
    encode = commands.add_parser("encode")
    encode.add_argument("--out_file")
    encode.add_argument("files", nargs="*")
    commands.add_parser("measure").add_argument("--rounds")
    return parser


@pytest.mark.parametrize(
    "words",
    [["--val_size", "0.5"], ["--val-size", "0.5"], ["--val-size=0.5"], ["--val_size=0.5"]],
)
def test_both_spellings_of_a_flag(words):
    assert make_parser().parse_args(words).val_size == 0.5


def test_both_spellings_of_dashes_dots_and_subcommands():
    args = make_parser().parse_args(
        ["--num_samples", "3", "--model.n-layer=2", "encode", "--out-file=x"]
    )
    assert (args.num_samples, getattr(args, "model.n_layer"), args.out_file) == (3, 2, "x")


def test_a_value_keeps_its_dashes():
    assert (
        make_parser().parse_args(["encode", "--out-file=a--val-size_b"]).out_file == "a--val-size_b"
    )


@pytest.mark.parametrize("words", [["-n", "5"], ["-n5"]])
def test_short_flags(words):
    assert make_parser().parse_args(words).n == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--val-siz", "1"], r"unknown argument --val-siz \(did you mean --val_size\?\)"),
        (["--val"], "unknown argument --val"),  # a prefix is not enough
        (["encode", "--out", "x"], r"unknown argument --out \(did you mean --out_file\?\)"),
        (["encode", "--out_fil=x"], r"unknown argument --out_fil \(did you mean --out_file\?\)"),
        (["--zzzzz=1"], r"unknown argument --zzzzz \(see tool --help\)"),
        (["--val-siz", "1", "encode"], r"unknown argument --val-siz \(did you mean --val_size"),
        (["--val-size", "much"], "argument --val_size: invalid float value: 'much'"),
        (["--val-size"], "argument --val_size: expected one argument"),
        (["decode"], "invalid choice: 'decode'"),
        (["--val_size", "1", "--val-size", "2"], "--val_size: given twice"),
        (["-n1", "-n2"], "-n: given twice"),
        (["encode", "--out_file=a", "--out-file", "a"], "--out_file: given twice"),
    ],
)
def test_an_invalid_command_line_raises_user_error(words, message, capsys):
    with pytest.raises(UserError, match=message):
        make_parser().parse_args(words)
    assert capsys.readouterr() == ("", "")


def test_flags_of_another_subcommand_are_not_offered():
    with pytest.raises(UserError) as caught:
        make_parser().parse_args(["--out_file", "x"])
    assert "did you mean" not in str(caught.value)
    with pytest.raises(UserError, match=r"unknown argument --round \(see tool"):
        make_parser().parse_args(["encode", "--round", "x"])


def test_help_exits_with_zero(capsys):
    with pytest.raises(SystemExit) as caught:
        make_parser().parse_args(["--help"])
    assert caught.value.code == 0
    assert "--val_size" in capsys.readouterr().out


def test_help_has_the_description_first_and_the_examples_last(capsys):
    parser = Parser(prog="tool", description="Count words.", examples=["tool a.txt", "tool 5%"])
    parser.add_argument("--seed", type=positive_int)
    parser.add_argument("--out_dir")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    assert text.startswith("Count words.\n\nusage: tool [-h] [--seed INT] [--out_dir OUT_DIR]\n")
    assert text.endswith("\nexamples:\n  tool a.txt\n  tool 5%\n")


def test_a_setting_of_a_sweep_is_given_with_set():
    expected = "unknown argument --data.files (did you mean --set data.files=a.txt?)"
    assert unknown_flag("--data.files=a.txt", ["--set", "--base"]) == expected


def test_an_empty_path_is_refused():
    parser = Parser(prog="p")
    parser.add_argument("--out", metavar="FILE")
    parser.add_argument("--config", metavar="FILE", default="")
    assert parser.parse_args([]).config == ""
    with pytest.raises(UserError, match="^--out: an empty path; name a file"):
        parser.parse_args(["--out", ""])


@pytest.mark.parametrize("words", [["--files", "a"], ["--data.files=a"]])
def test_a_flag_for_a_positional_argument(words):
    parser = Parser(prog="p")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--val-files", metavar="FILE")
    with pytest.raises(UserError, match="^unknown argument --.*: name the files without a flag"):
        parser.parse_args(words)


def test_an_unknown_flag_without_a_near_one_has_no_suggestion():
    assert unknown_flag("--xyz", ["--seed"]) == "unknown argument --xyz"


def test_a_misspelled_required_flag_is_named():
    parser = Parser()
    parser.add_argument("--out_dir", required=True)
    with pytest.raises(UserError, match=r"unknown argument --out-dri \(did you mean --out_dir\?\)"):
        parser.parse_args(["--out-dri", "x"])
    with pytest.raises(UserError, match="arguments are required: --out_dir"):
        parser.parse_args(["--", "--out-dri"])


def test_words_after_two_dashes_are_not_flags():
    assert make_parser().parse_args(["encode", "--", "--val-siz"]).files == ["--val-siz"]


def test_a_parser_can_be_used_twice():
    parser = make_parser()
    assert parser.parse_args(["-n", "1"]).n == parser.parse_args(["-n", "1"]).n == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "argument --steps: must be at least 1, got 0 (see tool --help)"),
        (["--steps", "-2"], "argument --steps: must be at least 1, got -2 (see tool --help)"),
        (["--steps", "x"], "argument --steps: invalid int value: 'x' (see tool --help)"),
        (["--sizes", "1", "nan"], "argument --sizes: must be above 0, got nan (see tool --help)"),
        (["--stop", ""], "argument --stop: must be some text, got '' (see tool --help)"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_flag(words, message):
    parser = Parser(prog="tool")
    parser.add_argument("--steps", type=positive_int)
    parser.add_argument(
        "--sizes", type=checked(float, "above 0", lambda value: value > 0), nargs="+"
    )
    parser.add_argument("--stop", type=nonempty_text)
    with pytest.raises(UserError) as caught:
        parser.parse_args(words)
    assert str(caught.value) == message
    assert parser.parse_args(["--steps", "3", "--sizes", "0.5", "2"]).sizes == [0.5, 2.0]
