"""The commands that connect Strata with other programs, one module each."""
