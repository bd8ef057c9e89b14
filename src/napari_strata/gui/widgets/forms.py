"""Forms made from settings dataclasses, so that defaults stand in settings.py only."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from magicgui.widgets import Container, create_widget

S = TypeVar("S")


def settings_form(settings: object) -> Container[Any]:
    """Make a form with one row per setting, with its limits, unit and help.

    Parameters
    ----------
    settings : dataclass
        Its values are the form's values; its field metadata give `minimum`, `maximum`,
        `unit` and `description`.
    """
    hints = get_type_hints(type(settings))
    rows = []
    for knob in fields(settings):  # type: ignore[arg-type]
        facts = dict(knob.metadata)
        options: dict[str, Any] = {"tooltip": facts.get("description", "")}
        if hints[knob.name] in (int, float):
            options |= {
                key: facts[source]
                for key, source in (("min", "minimum"), ("max", "maximum"))
                if source in facts
            }
            options["step"] = 0.1 if hints[knob.name] is float else 1
        unit = facts.get("unit", "")
        label = (
            knob.name.removesuffix(f"_{unit.lower()}").replace("_", " ").capitalize()
        )
        rows.append(
            create_widget(
                value=getattr(settings, knob.name),
                annotation=hints[knob.name],
                name=knob.name,
                label=f"{label} ({unit})" if unit else label,
                options=options,
            )
        )
    return Container(widgets=rows, labels=True)


def form_values(form: Container[Any], kind: type[S]) -> S:
    """Read the settings back from the form that was made of them.

    Raises
    ------
    SettingsError
        If a value is outside its limits.
    """
    return kind(**{knob.name: getattr(form, knob.name).value for knob in fields(kind)})  # type: ignore[arg-type]
