"""Prepared folders: written atomically, by one process at a time."""

from __future__ import annotations

import threading
from pathlib import Path

from data.prepared_folder import locked_atomic_folder


def test_a_second_writer_of_a_folder_waits_for_the_first(tmp_path: Path) -> None:
    folder, seen, inside = tmp_path / "deep" / "x", [], threading.Event()

    def second() -> None:
        inside.wait()
        with locked_atomic_folder(folder):
            seen.append((folder / "meta.json").exists())

    thread = threading.Thread(target=second)
    thread.start()
    with locked_atomic_folder(folder) as temporary:
        inside.set()
        thread.join(0.3)
        assert thread.is_alive() and not seen, "the second waits"
        (temporary / "meta.json").write_bytes(b"{}")
    thread.join(10)
    assert seen == [True] and [p.name for p in folder.parent.iterdir()] == ["x"]
