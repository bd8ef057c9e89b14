"""Run the bench: `python -m benchmarks.proposal --help`."""

from benchmarks.proposal.run import main

if __name__ == "__main__":
    main()
