"""Run the bench: `python -m benchmarks.encoder --help`."""

from benchmarks.encoder.run import main

if __name__ == "__main__":
    main()
