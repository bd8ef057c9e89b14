"""Run the fit: `python -m benchmarks.confidence --help`."""

from benchmarks.confidence.run import main

if __name__ == "__main__":
    main()
