"""The dock widget, and the controllers that connect its widgets with the open scan."""
