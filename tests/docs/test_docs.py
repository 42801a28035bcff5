"""The documentation agrees with the program: commands, options, hooks, protocols; the site builds, and fetches nothing."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import typer
from tests_support import Done

from mrbench import hookspecs
from mrbench.plugins import Registry
from mrbench.protocol import named_protocols

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\d?\b")
ABRIDGED = re.compile(
    rf"\||\.\.\.|\$|{PLACEHOLDER.pattern}"
)  # lines that cannot be typed as they stand: names are checked, not values
ANY_METHOD = {"tuned"}  # options that the engine gives to every method


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = load_generator()
PAGES = sorted(str(p.relative_to(ROOT)) for p in DOCS.rglob("*.md"))
CARDS = sorted(str(p.relative_to(ROOT)) for kind in ("methods", "datasets") for p in (ROOT / kind).glob("*/README.md"))


def text_of(page: str) -> str:
    """A page as readers see it (cards and README as they are)."""
    return GENERATE.page_text(ROOT / page)


# -- commands as they are shown ----------------------------------------------------------------------------------------
class Shown(NamedTuple):
    """A line of a console block; ``title`` is that of its block."""

    line: str
    title: str


def shown_lines(text: str) -> Iterator[Shown]:
    """Lines that call mrbench: of console blocks, of scripts for a cluster, and indented ones."""
    for language, title, body in BLOCK.findall(text):
        if language in ("console", "bash"):
            for line in body.replace("\\\n", " ").splitlines():
                call = re.sub(r"^(\$ |srun |accelerate launch .* -m (?=mrbench\.))", "", line.strip())
                call = re.sub(r"^mrbench\.cli\.main ", "mrbench ", call)
                if call.startswith("mrbench "):
                    yield Shown(call, title)
    rest = BLOCK.sub("", text)
    for line in re.findall(r"^    (mrbench (?:.*\\\n)*.*)", rest, re.MULTILINE):
        yield Shown(line.replace("\\\n", " "), "")


def inline_commands(text: str) -> list[str]:
    return [c for c in re.findall(r"`(mrbench [^`]+)`", BLOCK.sub("", text))]


def calls(line: str) -> Iterator[tuple[tuple[str, ...], Any, list[str]]]:
    """Words, command and arguments of every call of a line.

    ``a | b`` shows alternatives, where b lives beside a; ``x|y`` one word or the other; ``...`` what a page has shown before.
    """
    either = next((t for t in shlex.split(line, comments=True) if "|" in t.strip("|") and "=" not in t), "")
    if either:
        for word in either.split("|"):
            yield from calls(line.replace(either, word, 1))
        return
    root = program()
    tokens = [t if "=" in t else t.replace("[", "").replace("]", "") for t in shlex.split(line, comments=True)]
    tokens = [t for t in tokens if t != "..."]
    assert tokens[0] == "mrbench"
    parent: tuple[str, ...] = ()
    for i, piece in enumerate(split(tokens[1:], "|")):
        words, command = ((), root) if i == 0 else (parent, inside(root, parent))
        while piece and hasattr(command, "commands") and not piece[0].startswith("-"):
            assert piece[0] in command.commands, f"no command {' '.join(('mrbench', *words, piece[0]))}: {line}"
            words, command, piece = (*words, piece[0]), command.commands[piece[0]], piece[1:]
        if i == 0:
            parent = words[:-1]
        yield words, command, piece


@functools.cache
def program() -> Any:
    from mrbench.cli.main import app

    return typer.main.get_command(app)


def inside(command: Any, words: tuple[str, ...]) -> Any:
    for word in words:
        command = command.commands[word]
    return command


def split(tokens: list[str], at: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for token in tokens:
        if token == at:
            found.append([])
        else:
            found[-1].append(token)
    return found


def check_call(words: tuple[str, ...], command: Any, arguments: list[str], strict: bool) -> dict[str, Any]:
    """The options of a call; an unknown option, or a value of the wrong type (``strict``), fails."""
    context = command.context_class(command, info_name=" ".join(words))
    try:
        given, _, _ = command.make_parser(context).parse_args(list(arguments))
        if strict and not hasattr(command, "commands"):
            given = command.make_context(" ".join(words), list(arguments)).params
    except Exception as error:
        message = error.format_message() if hasattr(error, "format_message") else error
        pytest.fail(f"mrbench {' '.join([*words, *arguments])}: {message}")
    return dict(given)


def check_names(given: dict[str, Any], registry: Registry, text: str) -> None:
    """Methods, data sets, protocols, metrics and options of a ``run`` exist, or the page itself brings them."""
    own = {"mine", "yours", *re.findall(r'(?:Card\(|name=)"(\w+)"', text), *re.findall(r"--as (\w+)", text)}
    targets: dict[str, Any] = {}
    for kind, shelf in (("method", registry.methods), ("dataset", registry.datasets)):
        for entry in given.get(kind) or []:
            label, _, rest = entry.rpartition("=")
            name = rest.split("@")[0]
            if name not in own and not PLACEHOLDER.fullmatch(name):
                targets[label or name] = shelf.get(name)
    for metric in (given.get("metrics") or "").split(","):
        assert metric in {"", *own, *registry.metrics.names()}, metric
    protocol = given.get("protocol")
    assert protocol is None or protocol in named_protocols() or protocol.endswith(".yaml"), protocol
    for setting in given.get("settings") or []:
        *target, key = setting.partition("=")[0].split(".")
        card = registry.metrics.get(target[1]) if target[0] == "metric" else targets.get(target[0])
        assert card is not None or target[0] in own, f"--set {setting} names nothing of its line"
        assert card is None or key in {*card.options.model_fields, *ANY_METHOD}, f"--set {setting}: no such option"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "leaderboards/README.md", *PAGES, *CARDS])
def test_shown_commands_exist(page: str, registry: Registry) -> None:
    text = text_of(page)
    for shown in shown_lines(text):
        for words, command, arguments in calls(shown.line):
            given = check_call(words, command, arguments, strict=not ABRIDGED.search(shown.line))
            if words == ("run",):
                check_names(given, registry, text)
    for line in inline_commands(text):
        for words, command, arguments in calls(line):
            check_call(words, command, arguments, strict=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mrbench rum --method bicubic", "no command mrbench rum"),
        ("mrbench run --methods bicubic", "--methods"),
        ("mrbench run --method bicubic --scale four", "four"),
        ("mrbench run --method bicubic --draws", "--draws"),
        ("mrbench data list | inf NAME", "no command mrbench data inf"),
        ("mrbench stats", "RUNS"),
    ],
)
def test_wrong_commands_are_noticed(line: str, message: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(message)):
        [check_call(words, command, arguments, strict=True) for words, command, arguments in calls(line)]


@pytest.mark.parametrize(
    "line",
    [
        "--method bicubik",
        "--dataset sampel",
        "--method bicubic --protocol uniform-x5",
        "--method dps --set dps.stops=3",
        "--metrics psnr,ssimm",
    ],
)
def test_wrong_names_are_noticed(line: str, registry: Registry) -> None:
    ((words, command, arguments),) = calls(f"mrbench run {line}")
    given = check_call(words, command, arguments, strict=True)
    with pytest.raises(Exception, match=r"bicubik|sampel|uniform-x5|stops|ssimm"):
        check_names(given, registry, "")


# -- reference ---------------------------------------------------------------------------------------------------------
def test_every_command_and_option_is_in_the_reference() -> None:
    text = text_of("docs/reference/cli.md")
    sections = {
        m[1]: m[2] for m in re.finditer(r"^#{2,3} (mrbench[^\n]*)\n\n```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    }

    def walk(words: tuple[str, ...], command: Any) -> None:
        section = sections.pop(" ".join(words))
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                for name in (*parameter.opts, *parameter.secondary_opts):
                    assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", section), (words, name)
        for name, inner in getattr(command, "commands", {}).items():
            walk((*words, name), inner)

    walk(("mrbench",), program())
    assert not sections, f"commands that do not exist: {list(sections)}"


def test_every_hook_is_documented_with_its_signature() -> None:
    text = text_of("docs/reference/hooks.md")
    sections = dict(re.findall(r"^## (\w+)\n\n```python\n(.*?)\n```", text, re.DOTALL | re.MULTILINE))
    specs = {n: f for n, f in vars(hookspecs).items() if hasattr(f, "mrbench_spec")}
    assert specs
    assert set(sections) == set(specs)
    for name, function in specs.items():
        assert sections[name] == f"def {name}{str(inspect.signature(function)).replace(chr(39), '')}: ..."
        first = (inspect.getdoc(function) or "").splitlines()[0].replace("``", "`")
        assert first
        assert first in text


def test_every_protocol_is_documented() -> None:
    text = text_of("docs/protocols.md")
    for name, protocol in named_protocols().items():
        section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert protocol.summary in section
        assert all(a in section for a in protocol.assumptions)


def test_every_metric_is_documented_with_its_signature(registry: Registry) -> None:
    text = text_of("docs/metrics.md").replace("\\|", "|")
    for name in registry.metrics.names():
        card = registry.metrics.get(name)
        if not registry.metrics.code(name):
            assert f"`{card.signed(card.options())}`" in text, name


@pytest.mark.parametrize("shelf", ["methods", "datasets"])
def test_every_card_has_a_page(shelf: str, registry: Registry) -> None:
    index, pages = text_of(f"docs/{shelf}/index.md"), GENERATE.card_pages()
    cards = getattr(registry, shelf)
    for name in (n for n in cards.names() if not cards.code(n)):
        found = re.search(rf"\[`{name}`\]\((\w+\.md)\)", index)
        assert found, name
        assert f"## Card of {name}\n" in pages[f"{shelf}/{found[1]}"]
    assert {p for p in pages if p.startswith(shelf)} == {
        f"{shelf}/{Path(c).parent.name}.md" for c in CARDS if c.startswith(shelf)
    }


def test_lists_after_paragraphs_become_lists() -> None:
    assert GENERATE.spaced("words:\n- a\n- b\n| not |") == "words:\n\n- a\n- b\n| not |"
    assert GENERATE.spaced("```text\nwords\n- a\n```\n- b") == "```text\nwords\n- a\n```\n- b"


# -- the site ----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the documentation needs pip install 'mrbench[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "generate:" not in text, page
        fetched = re.findall(r'<(?:script|img|iframe)\b[^>]*\bsrc="([^"]+)"', text)
        fetched += [m for m in re.findall(r"<link\b[^>]*>", text) if "rel=canonical" not in m and 'rel="canonical"' not in m]
        assert not [f for f in fetched if re.search(r"(?:https?:)?//", f)], page
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet


# -- what is shown, done -----------------------------------------------------------------------------------------------
BROUGHT = (
    "lr.nii.gz",
    "/data/",
    "predictions",
    "--label theirs",
    "tuned/",
    "study1",
    "mine",
    " get ixi",
    "study serve",
    "study analyse",
)


def needs(line: str) -> bool:
    """A line wants something of the reader's: a word in capitals that is no output folder, or files that are not there."""
    without_output = re.sub(r"(--out|-o) DIR\b", "", line.partition("#")[0])
    return bool(PLACEHOLDER.search(without_output)) or any(b in line for b in BROUGHT)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_need_something_say_so(page: str) -> None:
    for shown in shown_lines(text_of(page)):
        if "README" not in page and not shown.title.startswith("Needs"):
            assert not needs(shown.line), f"{page}: no test can run this, and its block has no title 'Needs ...': {shown.line}"


def executed_pages() -> list[str]:
    return [p for p in PAGES if any(not s.title.startswith("Needs") for s in shown_lines(text_of(p)))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", ["README.md", *executed_pages()])
def test_shown_commands_run(page: str, mrbench: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in order, in one folder (the README: a folder a section); files with a title are written first."""
    text = GENERATE.titled(text_of(page))
    done = 0
    for number, section in enumerate(re.split(r"^(?=## )", text, flags=re.MULTILINE) if page == "README.md" else [text]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        for language, title, body in BLOCK.findall(section):
            if language in ("python", "yaml") and re.fullmatch(r"[\w.-]+\.(py|yaml)", title):
                Path(title).write_text(body)
            if language == "console" and not title.startswith("Needs"):
                done += run_block(body, mrbench)
    assert done


def is_of_the_reader(line: str) -> bool:
    """A line of a card wants weights or data that do not ship, or shows only what differs from another line."""
    words = shlex.split(line, comments=True)
    datasets = [w.partition("=")[2] or w for f, w in itertools.pairwise(words) if f == "--dataset"]
    return needs(line) or "..." in words or "@" in " ".join(words) or datasets != ["sample"]


CARD_RUNS = [
    (card, shown.line)
    for card in CARDS
    for shown in shown_lines(text_of(card))
    if shown.line.startswith("mrbench run ") and not is_of_the_reader(shown.line)
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("card", "line"), CARD_RUNS, ids=[c.split("/")[1] for c, _ in CARD_RUNS])
def test_runs_of_cards_work(
    card: str, line: str, mrbench: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a method's card runs on the slices that ship, for one slice, one metric, and two draws where it has several."""
    monkeypatch.chdir(tmp_path)
    ((words, _, arguments),) = calls(line)
    fewer = ["--draws", 2] if "--draws" in arguments else []
    result = mrbench(*words, *arguments, *fewer, "--subset", 1, "--metrics", "psnr", "--no-pictures")
    assert result.code == 0, f"{card}: {line}\n{result.err}"


def test_commands_of_cards_name_what_they_want() -> None:
    """What no test runs names a data set, weights or a file of the reader's, or is a variation of a line above it."""
    assert len(CARD_RUNS) >= 8
    for card in CARDS:
        for shown in shown_lines(text_of(card)):
            if (card, shown.line) not in CARD_RUNS:
                follows_a_run = re.match(r"mrbench (uncertainty|data get|data add|train) ", shown.line)
                assert is_of_the_reader(shown.line) or follows_a_run, f"{card}: {shown.line}"


def run_block(body: str, mrbench: Callable[..., Done]) -> int:
    """Run the lines of a block here; the number of calls. Lines that need something of the reader's are left out."""
    done = 0
    for script in re.findall(r"^python (\w+\.py)$", body, re.MULTILINE):  # before the lines that use what it writes
        subprocess.run([sys.executable, script], check=True)
    for shown in shown_lines(f"```console\n{body}```"):
        for words, _, arguments in [] if needs(shown.line) else calls(shown.line):
            if words == ("run",) and "--draws" in arguments and "--subset" not in arguments:
                arguments = [*arguments, "--subset", "2"]  # the same command, for fewer slices
            given = [found for a in arguments for found in (map(str, sorted(Path().glob(a))) if "*" in a else [a])]
            result = mrbench(*words, *given)
            assert result.code == 0, f"{shown.line}\n{result.err}"
            done += 1
    return done
