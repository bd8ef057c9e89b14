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
    for setting in fields(settings):  # type: ignore[arg-type]
        facts = dict(setting.metadata)
        options: dict[str, Any] = {"tooltip": facts.get("description", "")}
        if hints[setting.name] in (int, float):
            options |= {
                key: facts[source]
                for key, source in (("min", "minimum"), ("max", "maximum"))
                if source in facts
            }
            options["step"] = 0.1 if hints[setting.name] is float else 1
        unit = facts.get("unit", "")
        label = (
            setting.name.removesuffix(f"_{unit.lower()}").replace("_", " ").capitalize()
        )
        rows.append(
            create_widget(
                value=getattr(settings, setting.name),
                annotation=hints[setting.name],
                name=setting.name,
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
    names = [setting.name for setting in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(form, name).value for name in names})
