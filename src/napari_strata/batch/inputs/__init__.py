"""Which scans a batch works on: files, folders, BIDS data sets and lists."""
