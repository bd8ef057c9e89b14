"""The version, alone in its module so that any other may import it."""

__version__ = "0.1.0"
