"""A second opinion on labels, without a reference: where they do not follow the scan."""
