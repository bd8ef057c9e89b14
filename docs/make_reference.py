"""Write the generated pages of the reference: one per public name, the settings, the commands.

python docs/make_reference.py

The pages lie in docs/reference/ and are kept under version control, so that they can be
read without building the site. A test compares them with what this script gives.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import napari_strata
from napari_strata import settings
from napari_strata.cli.command_line import build_parser

DOCS = Path(__file__).parent
ROOT = DOCS.parent
NOTE = "<!-- Made by docs/make_reference.py. Do not edit. -->"
CARD = ROOT / "src" / "napari_strata" / "encoder" / "shipped" / "MODEL_CARD.md"

GROUPS: dict[str, tuple[str, ...]] = {
    "Scans": ("read", "list_series", "Volume", "Geometry"),
    "Proposals": ("propose", "ProposeSettings", "Proposal", "embed"),
    "Corrections": ("Refinement", "find_unfinished", "Teaching"),
    "Labels": ("Segmentation", "Region", "read_labels", "write"),
    "Measures": ("measure_regions", "agree", "compare"),
    "Cohorts": ("fit_codebook", "Codebook"),
    "The encoder": ("adapt",),
    "Errors": ("StrataError",),
}
"""Every name of `napari_strata.__all__`, by what it is for."""

TABLES: tuple[tuple[str, str], ...] = (
    ("ProposeSettings", "propose"),
    ("RunSettings", "run"),
    ("BatchSettings", "batch"),
    ("ServeSettings", "serve"),
    ("ExportSettings", "export"),
    ("AdaptSettings", "adapt"),
    ("PretrainSettings", "pretrain"),
)
"""Settings classes, with the table of a TOML file that each is read from."""


def pages() -> dict[str, str]:
    """Return the generated pages: path below docs/, and Markdown."""
    names = [name for group in GROUPS.values() for name in group]
    return {
        **{f"reference/api/{name}.md": api_page(name) for name in names},
        "reference/index.md": index_page(),
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "reference/model_card.md": card_page(),
    }


def api_page(name: str) -> str:
    """Return the page of one public name; its text comes from the docstring."""
    page = f"{NOTE}\n\n# {name}\n\n::: napari_strata.{name}\n"
    if name == "ProposeSettings":
        # its signature would show how defaults are declared; the table of settings
        # shows what they are
        page += (
            "    options:\n      show_signature: false\n      members: false\n\nEvery"
            " setting with its default, limits and unit: [Settings](../settings.md).\n"
        )
        for method in ("to_dict", "from_dict", "from_toml"):
            page += (
                f"\n::: napari_strata.{name}.{method}\n    options:\n     "
                " heading_level: 3\n"
            )
    page += (
        "\n[What the examples start from](../index.md#what-the-examples-start-from)\n"
    )
    if name == "StrataError":
        page += (
            "\n## The kinds of error\n\nAll of them are a `StrataError`, from"
            " `napari_strata.errors`.\n"
        )
        for kind in error_kinds():
            page += (
                f"\n::: napari_strata.errors.{kind}\n    options:\n     "
                " heading_level: 3\n"
            )
    return page


def error_kinds() -> list[str]:
    """Return the names of all errors but their base, as the module has them."""
    module = importlib.import_module("napari_strata.errors")
    found = [item for _, item in inspect.getmembers(module, inspect.isclass)]
    kinds = [item for item in found if issubclass(item, napari_strata.StrataError)]
    kinds.sort(key=lambda item: inspect.getsourcelines(item)[1])
    return [item.__name__ for item in kinds if item is not napari_strata.StrataError]


def index_page() -> str:
    """Return the list of public names, a line each."""
    text = f"{NOTE}\n\n# Reference\n\n"
    text += (
        "- [Settings](settings.md): every setting with its default, limits and unit.\n"
    )
    text += "- [Commands](commands.md): every command and option of `strata`.\n"
    text += "- [Model card](model_card.md): the encoder that ships with Strata.\n\n"
    text += (
        "Everything below is imported from one place: `import napari_strata as"
        " strata`.\n"
    )
    for title, names in GROUPS.items():
        text += f"\n## {title}\n\n| Name | What it is |\n|---|---|\n"
        for name in names:
            line = inspect.getdoc(getattr(napari_strata, name)) or ""
            text += (
                f"| [`{name}`](api/{name}.md) | {cell(line.partition(chr(10))[0])} |\n"
            )
    text += (
        "\n## What the examples start from\n\nEach page has an example that the tests"
        " run. It starts in a folder with a small MR scan,\n`scan.nii.gz`, and a DICOM"
        " series in `dicom/`, after these lines:\n\n```python\nimport numpy as"
        " np\nimport napari_strata as strata\n\nvolume ="
        ' strata.read("scan.nii.gz")\nsettings ='
        ' strata.ProposeSettings(method="gmm-mrf")  # quick, without the'
        " encoder\nproposal = strata.propose(volume, settings=settings)\n```\n"
    )
    return text


def settings_page() -> str:
    """Return a table of settings for each class in settings.py."""
    text = f"{NOTE}\n\n# Settings\n\n"
    text += (
        "Each setting is a flag of the command line, a key of a TOML file and a field"
        " of the form in\nnapari. All three are made from the same class. A file with"
        " settings looks like this, and\ngoes to `--settings FILE`; flags win over the"
        " file. The flag of `working_spacing_mm` is\n`--working-spacing-mm`, and so"
        " on.\n\n```toml\n[propose]\nworking_spacing_mm = 1.5\n\n[run]\nthreads ="
        " 4\n```\n"
    )
    for name, table in TABLES:
        kind = getattr(settings, name)
        text += f"\n## {name}\n\n{(inspect.getdoc(kind) or '').partition(chr(10))[0]}"
        text += f" TOML table: `[{table}]`.\n\n"
        text += "| Setting | Default | Allowed | What it does |\n|---|---|---|---|\n"
        hints = get_type_hints(kind)
        for knob in fields(kind):
            default = (
                ""
                if knob.default is MISSING
                else shown(knob.default, knob.metadata["unit"])
            )
            allowed = cell(limits(hints[knob.name], dict(knob.metadata)))
            says = cell(knob.metadata["description"])
            text += f"| `{knob.name}` | {default} | {allowed} | {says} |\n"
    return text


def shown(value: Any, unit: str) -> str:
    """Return a default for the table, with its unit."""
    if value == "":
        return "empty"
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{number} {unit}".strip()


def limits(hint: Any, metadata: dict[str, Any]) -> str:
    """Return in words which values a setting takes."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if hint is str:
        return "names" if metadata.get("names") else "text"
    low, high = metadata.get("minimum"), metadata.get("maximum")
    kind = "a whole number" if hint is int else "a number"
    span = "" if low is None or high is None else f", {low:.10g} to {high:.10g}"
    step = (
        f", a multiple of {metadata['multiple_of']}"
        if "multiple_of" in metadata
        else ""
    )
    return f"{kind}{span}{step}"


def commands_page() -> str:
    """Return every command with its options, from the parser itself."""
    parser = build_parser()
    text = f"{NOTE}\n\n# Commands\n\n{parser.description}\n\n"
    text += (
        "`strata COMMAND --help` says the same in the terminal. Exit codes: 0 done, 1"
        " scans of a\n"
    )
    text += (
        "batch failed, 2 an error that you can mend (one line says how), 130 stopped by"
        " Ctrl+C.\n"
    )
    for path, says, command in commands_of(parser, ()):
        level = "#" * (1 + len(path))
        usage = re.sub(
            r"\s+", " ", command.format_usage().removeprefix("usage: ")
        ).strip()
        text += f"\n{level} strata {' '.join(path)}\n\n{sentence(says)}\n"
        if any(
            isinstance(action, argparse._SubParsersAction)
            for action in command._actions
        ):
            continue
        text += f"\n```\n{short_usage(command, usage)}\n```\n"
        text += "\n| Argument | Default | What it does |\n|---|---|---|\n"
        for action in command._actions:
            if action.dest != "help":
                text += argument_row(action)
    return text


def commands_of(
    parser: argparse.ArgumentParser, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, argparse.ArgumentParser]]:
    """Return each command below a parser: its words, what it does, its own parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            says = {
                choice.dest: choice.help or "" for choice in action._choices_actions
            }
            for name, command in action.choices.items():
                yield (*path, name), says.get(name, ""), command
                yield from commands_of(command, (*path, name))


def short_usage(command: argparse.ArgumentParser, usage: str) -> str:
    """Return the usage with what is required only: the table has the rest."""
    words = [command.prog]
    for action in command._actions:
        metavar = (
            action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        )
        if not action.option_strings:
            words.append(
                f"{metavar.upper()} ..."
                if action.nargs in ("+", "*")
                else metavar.upper()
            )
        elif action.required:
            words.append(f"{action.option_strings[0]} {metavar}")
    return " ".join([*words, "[options]"])


def argument_row(action: argparse.Action) -> str:
    """Return the row of one argument."""
    if action.option_strings:
        takes = "" if action.nargs == 0 else f" {taken(action)}"
        name = ", ".join(f"`{option}{takes}`" for option in action.option_strings)
    else:
        name = f"`{(action.metavar or action.dest).upper()}`"  # type: ignore[union-attr]
    says = (action.help or "").replace("%%", "%")
    found = re.search(r" \(default: (.*)\)$", says)
    default = "required" if action.required else found[1] if found else ""
    says = says[: found.start()] if found else says
    return f"| {cell(name)} | {cell(default)} | {cell(sentence(says))} |\n"


def taken(action: argparse.Action) -> str:
    """Return the word for what an option takes."""
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    return action.metavar or action.dest.upper()


def card_page() -> str:
    """Return the model card, with the data at its head as a table."""
    text = CARD.read_text(encoding="utf-8")
    return f"{NOTE}\n\n{without_front_matter(text)}"


def without_front_matter(text: str) -> str:
    """Return a Markdown text without the YAML at its head."""
    return re.sub(r"\A---\n.*?\n---\n+", "", text, flags=re.DOTALL)


def sentence(text: str) -> str:
    """Return a help text as a sentence."""
    text = text.strip()
    return (
        text[:1].upper()
        + text[1:]
        + ("" if text.endswith((".", "")) and text[-1:] == "." else "." if text else "")
    )


def cell(text: str) -> str:
    """Return a text that can stand in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(pages())} pages in {DOCS / 'reference'}")


if __name__ == "__main__":
    main()
