"""The lists of versions are correct: requirements, constraints, the public workflow."""

from __future__ import annotations

import re

import pytest
import yaml

from scripts.constraints import OLDEST, problem_of
from tests.conftest import ROOT


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def requirement_names(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [re.split(r"[=<>;\[ ]", line)[0].lower() for line in lines if line and line[0] != "#"]


def test_every_version_is_pinned_for_every_python():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    form = (
        r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [a-z0-9_'.*<>=!() -]+)?"  # no address, no path, no range
    )
    assert [line for line in pins if not re.fullmatch(form, line, re.IGNORECASE)] == []
    wanted = [*requirement_names("requirements.txt"), *requirement_names("requirements-test.txt")]
    packaging = pytest.importorskip("packaging.markers")
    for version in ("3.10", "3.11", "3.12", "3.13", "3.14"):
        here = {"python_version": version, "python_full_version": f"{version}.1"}
        chosen = [
            line.partition("==")[0]
            for line in pins
            if ";" not in line or packaging.Marker(line.partition(";")[2].strip()).evaluate(here)
        ]
        assert len(chosen) == len(set(chosen)), "two pins for one package"
        assert set(wanted) <= set(chosen)


def test_the_oldest_torch_is_the_same_everywhere():
    (oldest,) = re.findall(r"^torch>=(\S+)$", read("requirements.txt"), re.MULTILINE)
    (tested,) = re.findall(r"^torch==(\S+)$", read("constraints.txt"), re.MULTILINE)
    assert problem_of(tested) == "" and oldest == OLDEST
    assert f'torch.__version__ >= "{oldest}"' in read("model/__init__.py")
    assert f"lowest: torch {oldest}" in read(".github/workflows/ci.yml")


def test_the_public_workflow_covers_every_system_and_version():
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    linux, others = workflow["jobs"]["linux"], workflow["jobs"]["others"]
    pythons = linux["strategy"]["matrix"]["python"]
    assert pythons == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    jobs = {(job["os"], job["python"]) for job in others["strategy"]["matrix"]["include"]}
    systems = ("ubuntu-latest", "macos-latest", "windows-latest")
    assert jobs >= {(system, python) for system in systems for python in (pythons[0], pythons[-1])}
    assert workflow["defaults"]["run"]["shell"] == "bash"
    for job in (linux, others):
        setup = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
        assert [step["cache"] for step in setup] == ["pip"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
    assert not any("make" in step.get("run", "") for step in others["steps"])
