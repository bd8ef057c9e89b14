"""Names of the first versions that moved, for one release: every use warns, and then works.

Modules are found under their old names, and names inside them that changed are looked up in the
module of today. Nothing of Strata itself uses this. It goes away with version 0.3.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from operator import attrgetter
from types import ModuleType
from typing import Any

_PACKAGE = "napari_strata"

MODULES: dict[str, str] = {
    "batch.bids": "batch.inputs.bids",
    "batch.cluster": "batch.workers.cluster",
    "batch.collect": "batch.outputs.tables",
    "batch.discovery": "batch.inputs.discovery",
    "batch.earlier": "batch.resume",
    "batch.engine": "batch.workers.local",
    "batch.lists": "batch.inputs.lists",
    "batch.memory": "batch.workers.memory",
    "batch.outliers": "batch.outputs.outlier_scores",
    "batch.page": "batch.outputs.page",
    "batch.plan": "batch.inputs.plan",
    "batch.process": "batch.workers.process",
    "batch.results": "batch.outputs.results",
    "batch.scans": "batch.inputs.scans",
    "batch.work": "batch.one_scan",
    "body": "preprocess.body",
    "cli": "cli.command_line",
    "commands_batch": "cli.batch",
    "commands_codebook": "cli.codebook",
    "commands_convert": "cli.convert",
    "commands_encoder": "cli.encoder",
    "commands_refine": "cli.refine",
    "commands_teach": "cli.teach",
    "encoder.bring": "encoder.custom_network",
    "encoder.patches": "encoder.pretraining.patches",
    "encoder.pretrain": "encoder.pretraining.pretrain",
    "encoder.real_patches": "encoder.pretraining.real_patches",
    "encoder.tasks": "encoder.pretraining.tasks",
    "gui.answers": "gui.tasks.explanation_tasks",
    "gui.brush": "gui.tools.brush",
    "gui.canvas": "gui.canvas.canvas",
    "gui.case": "gui.session.scan_case",
    "gui.cases": "gui.session.open_cases",
    "gui.contributions": "gui.plugin.contributions",
    "gui.cut_line": "gui.tools.cut_line",
    "gui.dialogs": "gui.widgets.dialogs",
    "gui.edit_queue": "gui.session.edit_queue",
    "gui.edit_section": "gui.widgets.edit_section",
    "gui.editing": "gui.panel.editing",
    "gui.explain_section": "gui.widgets.explain_section",
    "gui.explaining": "gui.panel.explaining",
    "gui.exporting": "gui.panel.exporting",
    "gui.filing": "gui.panel.file_controller",
    "gui.followup": "gui.session.followup",
    "gui.forms": "gui.widgets.forms",
    "gui.granularity": "gui.widgets.granularity",
    "gui.hand_paint": "gui.tools.hand_paint",
    "gui.help": "gui.widgets.help",
    "gui.hooks": "gui.canvas.viewer_bindings",
    "gui.hovering": "gui.panel.hover_card",
    "gui.jobs": "gui.tasks.jobs",
    "gui.keys": "gui.panel.keys",
    "gui.layers": "gui.canvas.layers",
    "gui.layout": "gui.panel.layout",
    "gui.list_sections": "gui.widgets.list_sections",
    "gui.listing": "gui.panel.region_list",
    "gui.looking": "gui.panel.review_navigator",
    "gui.looks": "gui.widgets.icons",
    "gui.names": "gui.widgets.region_names",
    "gui.painter": "gui.session.labels_painter",
    "gui.panel": "gui.panel.panel",
    "gui.placing": "gui.canvas.placement",
    "gui.planes": "gui.panel.linked_planes",
    "gui.pointer": "gui.session.cursor",
    "gui.position": "gui.canvas.position",
    "gui.previewing": "gui.session.stroke_preview",
    "gui.quiet": "gui.tasks.quiet",
    "gui.recovering": "gui.panel.recovery_banner",
    "gui.region_model": "gui.widgets.region_model",
    "gui.region_table": "gui.widgets.region_table",
    "gui.region_tools": "gui.tools.region_tools",
    "gui.ruler": "gui.tools.ruler",
    "gui.sections": "gui.widgets.sections",
    "gui.surfaces": "gui.canvas.surfaces",
    "gui.view": "gui.canvas.orientation",
    "gui.viewing": "gui.panel.view_controller",
    "gui.windows": "gui.canvas.window_presets",
    "gui.worker": "gui.tasks.worker",
    "gui.writing": "gui.plugin.writers",
    "io.dicom": "io.dicom.series",
    "io.dicom_headers": "io.dicom.headers",
    "io.dicom_pixels": "io.dicom.pixels",
    "io.dicom_slice": "io.dicom.slice",
    "io.seg_nrrd": "io.labels.seg_nrrd",
    "preprocess": "preprocess.intensity",
    "proposal.ahead": "proposal.supervoxels.prefetch",
    "proposal.apart": "proposal.hierarchy.ward_subprocess",
    "proposal.build": "proposal.methods.learned",
    "proposal.classical": "proposal.methods.gmm_mrf",
    "proposal.codebook": "proposal.codebook.codebook",
    "proposal.cohort": "proposal.codebook.cohort_table",
    "proposal.descriptors": "proposal.supervoxels.descriptors",
    "proposal.dividing": "proposal.hierarchy.divisive_clustering",
    "proposal.growing": "proposal.supervoxels.oversegmentation",
    "proposal.hierarchy": "proposal.hierarchy.tree",
    "proposal.merging": "proposal.hierarchy.region_merging",
    "proposal.rounds": "proposal.codebook.fit",
    "proposal.settling": "proposal.supervoxels.boundary_refinement",
    "proposal.supervoxels": "proposal.supervoxels.clustering",
    "proposal.surroundings": "proposal.supervoxels.context_features",
    "proposal.trees": "proposal.hierarchy.build_trees",
    "refine.autosave": "refine.storage.autosave",
    "refine.case": "refine.storage.case_file",
    "refine.cutting": "refine.state.fragments",
    "refine.doubts": "refine.suggestions.uncertainty",
    "refine.editing": "refine.session.editing",
    "refine.edits": "refine.edits.basic",
    "refine.journal": "refine.history.journal",
    "refine.keeping": "refine.session.persistence",
    "refine.likeness": "refine.scribble.dissimilarity",
    "refine.morphology": "refine.edits.morphology",
    "refine.overlay": "refine.state.sparse_voxels",
    "refine.owner": "refine.state.assignment",
    "refine.packing": "refine.history.array_codec",
    "refine.pieces": "refine.state.proposal_index",
    "refine.preview": "refine.session.preview",
    "refine.records": "refine.history.edit_serialization",
    "refine.recovery": "refine.session.recovery",
    "refine.refinement": "refine.session.refinement",
    "refine.region_editing": "refine.session.editing",
    "refine.region_edits": "refine.edits.region_edits",
    "refine.rendering": "refine.state.rendering",
    "refine.replaying": "refine.session.replay",
    "refine.scan": "refine.storage.lazy_scan",
    "refine.shown": "refine.session.view",
    "refine.snapshot": "refine.history.snapshot",
    "refine.start": "refine.history.initial_state",
    "refine.statistics": "refine.state.statistics",
    "refine.suggestions": "refine.suggestions.suggest",
    "refine.taught": "refine.transfer",
    "refine.teaching": "refine.scribble.scribble_classifier",
    "refine.ways": "refine.scribble.geodesic",
    "regrid": "preprocess.regrid",
    "terminal": "cli.terminal",
    "wanted": "cancellation",
}
"""Old module, and the one that holds its names today (both below `napari_strata`)."""

NAMES: dict[str, dict[str, str]] = {
    "batch.collect": {
        "Row": "batch.outputs.tables:ScanRow",
    },
    "batch.earlier": {
        "Found": "batch.resume:EarlierResult",
    },
    "batch.engine": {
        "Engine": "batch.workers.local:Executor",
        "Here": "batch.workers.local:LocalExecutor",
        "Outcome": "batch.workers.local:ScanOutcome",
    },
    "batch.lists": {
        "Row": "batch.inputs.lists:ListRow",
    },
    "batch.outliers": {
        "Oddness": "batch.outputs.outlier_scores:OutlierScore",
        "oddness": "batch.outputs.outlier_scores:outlier_scores",
    },
    "encoder.bring": {
        "BroughtEncoder": "encoder.custom_network:CustomEncoder",
    },
    "encoder.embed": {
        "brightness_codes": "encoder.embed:intensity_codes",
        "embed_brightness": "encoder.embed:embed_intensity",
    },
    "encoder.patches": {
        "patch_brightness": "encoder.pretraining.patches:patch_intensity",
    },
    "encoder.real_patches": {
        "match_brightness": "encoder.pretraining.real_patches:match_intensity",
    },
    "gui.cases": {
        "Cases": "gui.session.open_cases:OpenCases",
    },
    "gui.filing": {
        "Filing": "gui.panel.file_controller:FileController",
    },
    "gui.hooks": {
        "ViewerHooks": "gui.canvas.viewer_bindings:ViewerBindings",
    },
    "gui.list_sections": {
        "LookSection": "gui.widgets.list_sections:ReviewSection",
    },
    "gui.listing": {
        "Lister": "gui.panel.region_list:RegionListController",
    },
    "gui.looking": {
        "Looker": "gui.panel.review_navigator:ReviewNavigator",
    },
    "gui.pointer": {
        "Pointer": "gui.session.cursor:Cursor",
    },
    "gui.recovering": {
        "Recovery": "gui.panel.recovery_banner:RecoveryController",
        "RecoveryCard": "gui.panel.recovery_banner:RecoveryBanner",
    },
    "gui.viewing": {
        "Viewing": "gui.panel.view_controller:ViewController",
    },
    "gui.worker": {
        "Step": "gui.tasks.worker:ProgressStep",
    },
    "preprocess": {
        "CT_KNOTS_BRIGHTNESS": "preprocess.intensity:CT_KNOTS_INTENSITY",
        "brightness": "preprocess.intensity:scale_intensity",
        "encoder_brightness": "preprocess.intensity:encoder_intensity",
        "prepare_brightness": "preprocess.intensity:prepare_intensity",
    },
    "proposal.ahead": {
        "Ahead": "proposal.supervoxels.prefetch:Prefetch",
        "Found": "proposal.supervoxels.prefetch:Result",
    },
    "proposal.build": {
        "Evidence": "proposal.methods.learned:ProposalInputs",
    },
    "proposal.classical": {
        "confidence": "proposal.methods.gmm_mrf:class_confidence",
    },
    "proposal.cohort": {
        "BrightnessMap": "proposal.codebook.cohort_table:IntensityMap",
        "align_brightness": "proposal.codebook.cohort_table:align_intensity",
    },
    "proposal.confidence": {
        "Grounds": "proposal.confidence:ConfidenceInputs",
        "confidence": "proposal.confidence:estimate_confidence",
    },
    "proposal.descriptors": {
        "brightness_rank": "proposal.supervoxels.descriptors:intensity_rank",
        "describe_brightness": "proposal.supervoxels.descriptors:describe_intensity",
    },
    "proposal.growing": {
        "Grown": "proposal.supervoxels.oversegmentation:Supervoxels",
        "Sight": "proposal.supervoxels.oversegmentation:PreparedScan",
        "Started": "proposal.supervoxels.oversegmentation:InitialSegments",
        "fits_beside": "proposal.supervoxels.oversegmentation:fits_beside_encoder",
        "grow": "proposal.supervoxels.oversegmentation:find_supervoxels",
        "piece_looks": "proposal.supervoxels.oversegmentation:segment_features",
        "see": "proposal.supervoxels.oversegmentation:prepare_scan",
        "start": "proposal.supervoxels.oversegmentation:grow_initial_segments",
    },
    "proposal.merging": {
        "PieceGraph": "proposal.hierarchy.region_merging:SupervoxelGraph",
    },
    "proposal.supervoxels": {
        "Sprouts": "proposal.supervoxels.clustering:Segments",
        "ripen": "proposal.supervoxels.clustering:merge_segments",
        "sprout": "proposal.supervoxels.clustering:grow_segments",
    },
    "refine.cutting": {
        "any_piece": "refine.state.fragments:any_supervoxel",
        "by_largest_piece": "refine.state.fragments:by_largest_supervoxel",
        "cut_pieces": "refine.state.fragments:cut_supervoxels",
        "piece_sizes": "refine.state.fragments:supervoxel_sizes",
        "voxels_of_piece": "refine.state.fragments:voxels_of_supervoxel",
    },
    "refine.doubts": {
        "Doubts": "refine.suggestions.uncertainty:Uncertainty",
        "doubts": "refine.suggestions.uncertainty:estimate_uncertainty",
    },
    "refine.editing": {
        "Editing": "refine.session.editing:Edits",
    },
    "refine.edits": {
        "Outcome": "refine.edits.basic:EditResult",
    },
    "refine.journal": {
        "Step": "refine.history.journal:JournalStep",
    },
    "refine.keeping": {
        "Keeping": "refine.session.persistence:Storage",
    },
    "refine.owner": {
        "of_pieces": "refine.state.assignment:of_supervoxels",
        "piece_table": "refine.state.assignment:supervoxel_table",
        "pieces_at": "refine.state.assignment:supervoxels_at_voxels",
    },
    "refine.pieces": {
        "Pieces": "refine.state.proposal_index:ProposalIndex",
    },
    "refine.region_editing": {
        "RegionEditing": "refine.session.editing:Edits",
    },
    "refine.refinement": {
        "Change": "refine.session.edit_session:Change",
        "changed_box": "refine.session.edit_session:changed_box",
    },
    "refine.scan": {
        "ScanOnDisk": "refine.storage.lazy_scan:LazyScan",
    },
    "refine.shown": {
        "Shown": "refine.session.view:View",
    },
    "refine.start": {
        "Start": "refine.history.initial_state:InitialState",
    },
    "refine.taught": {
        "TaughtLabels": "refine.transfer:TransferredLabels",
        "taught_regions": "refine.transfer:transferable_regions",
        "teach_from_state": "refine.transfer:fit_teaching",
    },
    "refine.teaching": {
        "Lesson": "refine.scribble.scribble_classifier:StrokeExamples",
        "TeachingSpace": "refine.scribble.scribble_classifier:FeatureSpace",
        "Verdict": "refine.scribble.scribble_classifier:Classification",
        "teaching_space": "refine.scribble.scribble_classifier:feature_space",
    },
    "refine.ways": {
        "Ways": "refine.scribble.geodesic:GeodesicDistances",
    },
    "wanted": {
        "check_wanted": "cancellation:raise_if_cancelled",
        "watched": "cancellation:progress_scope",
    },
}
"""For each old module: its names that changed, as "module of today:name of today"."""

REFINEMENT: dict[str, str] = {
    "assign": "edits.assign",
    "assign_at": "edits.assign_at",
    "autosave": "storage.begin_autosave",
    "autosave_problem": "storage.autosave_problem",
    "check_replaceable": "storage.check_replaceable",
    "delete": "edits.delete",
    "end_autosave": "storage.end_autosave",
    "fill_holes": "edits.fill_holes",
    "granularity": "view.granularity",
    "grow": "edits.grow",
    "jump": "steps.jump",
    "keep_largest": "edits.keep_largest",
    "label_dtype": "view.label_dtype",
    "labels_in": "view.labels_in",
    "mirror": "edits.mirror",
    "next_id": "view.next_id",
    "on_change": "steps.on_change",
    "origin_at": "view.origin_at",
    "place_of": "view.place_of",
    "prepare": "view.prepare",
    "recolor": "edits.recolor",
    "region_at": "view.region_at",
    "remove_islands": "edits.remove_islands",
    "shrink": "edits.shrink",
    "sizes_vox": "view.sizes_vox",
    "smooth": "edits.smooth",
    "split_line": "edits.split_line",
    "split_parts": "edits.split_parts",
    "split_plane": "edits.split_plane",
    "statistics": "view.statistics",
    "stroked": "view.stroked",
    "suggestions": "view.suggestions",
    "swap": "edits.swap",
    "symmetry_plane": "view.symmetry_plane",
    "table": "view.table",
    "tree": "view.tree",
    "undone": "steps.undone",
    "volume": "proposal.volume",
    "with_steps": "steps.carry_out",
}
"""Attributes of `Refinement` that moved to its parts, and their places today."""


class _OldModules(MetaPathFinder, Loader):
    """Find modules that moved under their old names."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return a spec for a module that moved, None for any other."""
        package, _, old = fullname.partition(".")
        if package != _PACKAGE or old not in {*MODULES, *NAMES}:
            return None
        return spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Look up every name of the old module in the module of today."""
        old = module.__name__.partition(".")[2]
        module.__dict__["__getattr__"] = moved_names(old)


def moved_names(old: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module that moved.

    Parameters
    ----------
    old : str
        Its old name below `napari_strata`.
    """

    def find(name: str) -> Any:
        if name.startswith("__") or _is_module(f"{_PACKAGE}.{old}.{name}"):
            raise AttributeError(f"module '{_PACKAGE}.{old}' has no attribute {name!r}")
        home, _, today = NAMES.get(old, {}).get(name, "").partition(":")
        home, today = home or MODULES.get(old, old), today or name
        try:
            value = getattr(importlib.import_module(f"{_PACKAGE}.{home}"), today)
        except AttributeError:
            raise AttributeError(
                f"module '{_PACKAGE}.{old}' has no attribute {name!r}"
            ) from None
        warnings.warn(
            f"{_PACKAGE}.{old}.{name} is {_PACKAGE}.{home}.{today} now. "
            "The old name goes away with version 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        return value

    return find


def _is_module(name: str) -> bool:
    """Return whether a package has a module of today, which `from ... import` then finds."""
    package, _, leaf = name.rpartition(".")
    paths = getattr(sys.modules.get(package), "__path__", None)
    return (
        paths is not None
        and PathFinder.find_spec(f"{package}.{leaf}", paths) is not None
    )


def install() -> None:
    """Make modules importable under their old names. The package calls it once."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())


def moved_attribute(work: object, name: str) -> Any:
    """Return an attribute of `Refinement` that moved to one of its parts.

    Parameters
    ----------
    work : Refinement
        The refinement.
    name : str
        The old name.

    Raises
    ------
    AttributeError
        If there was no such attribute.
    """
    today = REFINEMENT.get(name)
    if today is None:
        raise AttributeError(
            f"{type(work).__name__!r} object has no attribute {name!r}"
        )
    value = attrgetter(today)(work)
    warnings.warn(
        f"Refinement.{name} is Refinement.{today} now. "
        "The old name goes away with version 0.3.",
        DeprecationWarning,
        stacklevel=3,
    )
    return value
