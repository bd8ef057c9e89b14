"""What a batch writes: results of each scan, tables, outlier scores and the page."""
