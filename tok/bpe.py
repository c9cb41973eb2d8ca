"""The tokenizer's public name, `from tok.bpe import BPETokenizer`, and its command line.

python -m tok.bpe train FILE... --vocab-size N --out tok.json
python -m tok.bpe encode|decode|import|export ...
"""

if __name__ == "__main__":  # before the imports that take long
    from utils.signals import exit_silently_on_sigint

    exit_silently_on_sigint()

from tok.tokenizer import BPETokenizer

__all__ = ["BPETokenizer"]

if __name__ == "__main__":
    from tok.cli import main
    from utils.errors import run_cli

    run_cli(main)
