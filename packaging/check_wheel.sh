#!/bin/sh
# Check an environment that holds the wheel alone: no napari, no Qt, and the commands run.
# Run from the repository, with the environment's `python` and `strata` first on PATH.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" # away from the sources: the package has to come from the wheel

if python -m pip list --format freeze | grep -iE '^(napari|pyqt|pyside|qtpy|superqt|magicgui|npe2|vispy)[a-z0-9_-]*==' \
	| grep -v '^napari-strata=='; then
	echo "The base install brings the packages above; they belong to the extra gui." >&2
	exit 1
fi

strata --version
strata info "$here/sample_scans/thick_t2.nii.gz" >info.json
strata propose "$here/sample_scans/thick_t2.nii.gz" -o labels.nii.gz --tissues 8 --threads 2
test -s labels.json && test -s labels.csv
strata evaluate labels.nii.gz "$here/sample_scans/thick_t2_truth.nii.gz"
strata convert labels.nii.gz -o labels.seg.nrrd volumes.tsv --like "$here/sample_scans/thick_t2.nii.gz"
strata batch "$here/sample_scans/thick_t2.nii.gz" -o out --tissues 8 --dry-run

# The window is not there, and one line says what brings it.
code=0
strata view "$here/sample_scans/thick_t2.nii.gz" 2>view.txt || code=$?
cat view.txt
test "$code" = 2
grep -qF 'napari-strata[gui]' view.txt
test "$(wc -l <view.txt)" -eq 1
