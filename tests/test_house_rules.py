"""The promises of the layout, each as a test: what imports what, what loads torch, what is documented, what links."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import floor_plan
from floor_plan import folder_of, import_graph, imports, reaches, sources
from processes import loaded

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "diffsweep"
GROUPS = sorted({path.parent.name for path in (ROOT / "conf").glob("*/*.yaml")})

# Whatever is typed often must not pay for these.
HEAVY = {"lightning", "matplotlib", "numpy", "pandas", "PIL", "scipy", "sklearn", "torch", "torchvision", "wandb"}

# Files at the root of the package that every folder may import; they import one another only.
GROUND = {
    "caller",
    "compilation",
    "files",
    "former_names",
    "grid_geometry",
    "hub",
    "lazy_torchmetrics",
    "messages",
    "mistakes",
    "philox",
    "project",
    "random_streams",
    "ranks",
    "settings",
    "trainer",
    "transformers_folder",
}

# Folder -> what of ours it may import besides itself and the ground. Below `sweep/`, floor by floor.
ARROWS = {
    "": {"commands", "results", "sweep"},
    "autoencoders": {"data"},
    "backbones": {"diffusion"},
    "conditioners": {"backbones", "data", "diffusion", "sweep.store"},
    "commands": {"data", "entry", "report", "results", "runs", "sweep", "tracking"},
    "data": {"sweep.store"},
    "diffusion": set[str](),
    "entry": {"report", "runs", "sweep", "tracking", "training"},
    "evaluation": set[str](),
    "interop": {"backbones", "diffusion", "sweep.store"},
    "report": {"sweep"},
    "results": {"autoencoders", "conditioners", "data", "diffusion", "interop", "report", "runs", "sweep"},
    "runs": {
        "autoencoders",
        "conditioners",
        "data",
        "diffusion",
        "evaluation",
        "interop",
        "scoring",
        "sweep.store",
        "tracking",
        "training",
    },
    "scoring": {"autoencoders", "conditioners", "data", "diffusion", "evaluation", "sweep.store"},
    "sweep": set[str](),
    "sweep/execute": {"sweep.plan", "sweep.slurm", "sweep.status", "sweep.store"},
    "sweep/plan": {"sweep.store"},
    "sweep/search": {"sweep.execute", "sweep.plan", "sweep.slurm", "sweep.status", "sweep.store"},
    "sweep/slurm": set[str](),
    "sweep/status": {"sweep.plan", "sweep.slurm", "sweep.store"},
    "sweep/store": set[str](),
    "tracking": {"report", "sweep"},
    "training": {
        "autoencoders",
        "conditioners",
        "data",
        "diffusion",
        "evaluation",
        "scoring",
        "sweep.store",
        "tracking",
    },
}

# What is typed often imports these only where something must be computed.
COMPUTING = ("interop", "runs", "scoring", "training")

# The mathematics is usable without any of the machinery around it.
DIFFUSION_ONLY = {"diffsweep", "torch"}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(folder: str) -> list[str]:
    return sorted(module_name(path) for path in (PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", ["sweep", "report"])
def test_no_module_of_these_folders_loads_torch_or_anything_heavy(folder: str) -> None:
    names, _ = loaded("import", *modules(folder))
    assert set(modules(folder)) <= names
    assert not names & (HEAVY | {"hydra", "omegaconf"} if folder == "sweep" else HEAVY)


def test_the_mathematics_load_nothing_but_torch() -> None:
    names, _ = loaded("import", *modules("diffusion"))
    assert "torch" in names
    assert not names & {"hydra", "lightning", "omegaconf", "pytorch_lightning", "torchmetrics", "wandb"}


def test_the_command_line_loads_no_torch() -> None:
    names, _ = loaded("import", "diffsweep.entry.train")
    assert not names & HEAVY


def test_help_loads_no_torch_and_names_every_group() -> None:
    names, printed = loaded("train", "--help", cwd=ROOT)
    assert not names & HEAVY
    for group in GROUPS:
        assert re.search(rf"^{group}: \S", printed, re.MULTILINE), f"--help does not name the group {group}"
    assert len(printed.splitlines()) <= 50, "--help is meant to be short"


def reaches_any(name: str, places: Iterable[str]) -> bool:
    return any(reaches(name, place) for place in places)


def test_every_folder_has_its_arrows() -> None:
    assert {folder_of(path) for path in sources()} == set(ARROWS)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    folder = folder_of(path)
    for name, at_once in imports(path):
        top, _, rest = name.partition(".")
        if top != "diffsweep":
            assert folder != "diffusion" or top in DIFFUSION_ONLY | sys.stdlib_module_names, f"{path} imports {name}"
            continue
        if rest == "__version__":
            continue
        allowed = {*ARROWS[folder], *GROUND, *([folder.replace("/", ".")] if folder else [])}
        assert reaches_any(rest, allowed), f"{path} imports {name}"
        light = folder in ("", "commands", "entry", "results")
        assert not (light and at_once and reaches_any(rest, COMPUTING)), f"{path} imports {name} before it is needed"


def test_plugins_are_thin() -> None:
    """Hydra imports every plugin at every start."""
    paths = sorted((SOURCE / "hydra_plugins").glob("*.py"))
    assert len(paths) >= 4
    names, _ = loaded("import", *(f"hydra_plugins.{path.stem}" for path in paths))
    assert not names & (HEAVY | {"optuna", "submitit"})
    for path in paths:
        for name, at_once in imports(path):
            top, _, rest = name.partition(".")
            lazy = ["autoencoders", "conditioners", "data", "recommended", "runs", "scoring"]
            allowed = {"entry", "messages", "mistakes", "project", "report", "sweep", *([] if at_once else lazy)}
            assert top != "diffsweep" or rest.split(".")[0] in allowed, f"{path} imports {name}"


def test_no_circle_between_folders() -> None:
    rest = dict(import_graph())
    while rest:
        leaves = [folder for folder, used in rest.items() if not used & rest.keys()]
        assert leaves, f"a circle among {sorted(rest)}"
        for folder in leaves:
            del rest[folder]


def test_the_floor_plan_in_the_docs_shows_the_imports_of_today() -> None:
    drawn = floor_plan.drawn_graph(floor_plan.PICTURE.read_text(encoding="utf-8"))
    assert drawn == import_graph(), "imports between folders have changed: run `python docs/floor_plan.py`"
    again = floor_plan.picture(drawn)
    assert again == floor_plan.picture(drawn)
    assert floor_plan.drawn_graph(again) == drawn


def test_a_floor_plan_shows_only_arrows_that_no_others_imply() -> None:
    used = {"data": set[str](), "entry": {"runs", "data"}, "runs": {"data"}}
    shown = floor_plan.picture({folder: frozenset(below) for folder, below in used.items()})
    assert shown.count("marker-end") == 2
    assert "entry uses data, runs" in shown


def test_the_files_that_a_folder_describes_are_there() -> None:
    """A folder's docstring is the map of its files; it describes every folder in a few lines."""
    for folder in sorted(set(map(folder_of, sources())) - {""}):
        text = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert len(text.splitlines()) >= 3, f"{folder}/__init__.py does not say what lives there"
        absent = [name for name in re.findall(r"\b\w+\.py\b", text) if not (PACKAGE / folder / name).is_file()]
        assert not absent, f"{folder}/__init__.py describes {absent}, which are not there"


def prints(tree: ast.Module) -> list[int]:
    """The lines that print text as it is: what comes from files must be shown and not obeyed by a terminal."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {"print", "sys.stderr.write", "traceback.print_exc", "traceback.print_exception"}
    return [call.lineno for call in calls if ast.unparse(call.func) in names]


def test_text_is_printed_in_one_place() -> None:
    found = {path: prints(ast.parse(path.read_text(encoding="utf-8"))) for path in sources()}
    named = [f"{path}:{line}" for path, lines in found.items() for line in lines if path.name != "messages.py"]
    assert not named, "use say and print_lines of diffsweep.messages"
    assert prints(ast.parse("if a:\n    print(a)")) == [2]


def undocumented(tree: ast.Module) -> list[str]:
    nodes = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    names = [node.name for node in nodes if not node.name.startswith("_") and not ast.get_docstring(node)]
    return names if ast.get_docstring(tree) else ["the module", *names]


@pytest.mark.parametrize(
    "path",
    [path for path in sources() if path.stat().st_size] + [ROOT / "train.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_public_name_is_documented(path: Path) -> None:
    assert undocumented(ast.parse(path.read_text(encoding="utf-8"))) == []


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows; the checks below are about what is published, not about what lies around."""
    done = subprocess.run(["git", "ls-files", "-z", *patterns], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_names_a_place_on_a_developers_machine() -> None:
    # Written in pieces, so that this file does not find itself.
    place = re.compile("(?<![\\w.}/-])/(?:" + "|".join(["home", "Users", "work", "root", "mnt", "tmp/v"]) + ")/\\w")
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = text.splitlines()
        found += [f"{path.relative_to(ROOT)}:{i}: {line}" for i, line in enumerate(lines, 1) if place.search(line)]
    assert found == []


def slug(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+\s+(.*)$", prose(path), re.MULTILINE)}


def broken_links(path: Path) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", tracked("*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_markdown_resolve(path: Path) -> None:
    assert broken_links(path) == []


def test_a_broken_link_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One & two\n[a](#one--two) [b](#three) [c](absent.md) [d](page.md#one--two) [e](https://x.org/)\n"
    )
    assert broken_links(page) == ["#three", "absent.md"]
