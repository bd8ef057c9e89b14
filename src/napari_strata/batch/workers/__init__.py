"""Where a batch runs: in this process, in several, on a cluster; and what memory allows."""
