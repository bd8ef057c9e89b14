"""The routes of MONAI Label's protocol, one module per part of it."""
