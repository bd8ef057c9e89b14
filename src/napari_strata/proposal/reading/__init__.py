"""Reading aids of a proposal: symmetry, pairs, outliers and colours.

All of them are computed when first asked for, from tables of supervoxels; none changes
a label.
"""
