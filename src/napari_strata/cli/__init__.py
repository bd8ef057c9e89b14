"""The `strata` command: one module per group of commands."""

from napari_strata.cli.command_line import main as main
from napari_strata.deprecated import moved_names

__getattr__ = moved_names("cli")
