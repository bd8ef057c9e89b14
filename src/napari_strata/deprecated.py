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
    "commands_batch": "cli.commands.batch",
    "commands_codebook": "cli.commands.codebook",
    "commands_convert": "cli.commands.convert",
    "commands_encoder": "cli.commands.pretrain",
    "commands_refine": "cli.commands.refine",
    "commands_teach": "cli.commands.teach",
    "encoder.bring": "encoder.custom_network",
    "encoder.patches": "encoder.pretraining.patches",
    "encoder.pretrain": "encoder.pretraining.pretrain",
    "encoder.real_patches": "encoder.pretraining.real_patches",
    "encoder.tasks": "encoder.pretraining.tasks",
    "gui.answers": "gui.tasks.explanation_tasks",
    "gui.brush": "gui.tools.stroke_layer",
    "gui.canvas": "gui.canvas.canvas",
    "gui.case": "gui.session.scan_case",
    "gui.cases": "gui.session.open_cases",
    "gui.contributions": "gui.plugin.napari_open",
    "gui.cut_line": "gui.tools.cut_line",
    "gui.dialogs": "gui.widgets.dialogs",
    "gui.edit_queue": "gui.session.edit_queue",
    "gui.edit_section": "gui.widgets.edit_section",
    "gui.editing": "gui.panel.editing",
    "gui.explain_section": "gui.widgets.explain_section",
    "gui.explaining": "gui.panel.explaining",
    "gui.exporting": "gui.widgets.export_dialog",
    "gui.filing": "gui.panel.file_controller",
    "gui.followup": "gui.session.followup",
    "gui.forms": "gui.widgets.forms",
    "gui.granularity": "gui.widgets.granularity",
    "gui.hand_paint": "gui.tools.hand_paint",
    "gui.help": "gui.widgets.help",
    "gui.hooks": "gui.canvas.viewer_bindings",
    "gui.hovering": "gui.panel.hover_card",
    "gui.jobs": "gui.tasks.jobs",
    "gui.keys": "gui.actions",
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
    "gui.writing": "gui.plugin.napari_save",
    "io.dicom": "io.dicom.series",
    "io.dicom_headers": "io.dicom.headers",
    "io.dicom_pixels": "io.dicom.pixels",
    "io.dicom_slice": "io.dicom.slice",
    "io.terms": "io.labels.terms",
    "io.seg_nrrd": "io.labels.seg_nrrd",
    "preprocess": "preprocess.intensity",
    "proposal.ahead": "proposal.supervoxels.prefetch",
    "proposal.apart": "proposal.hierarchy.ward",
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
    "batch.bids": {
        "BIDS_VERSION": "batch.outputs.bids_derivative:BIDS_VERSION",
        "Why": "batch.inputs.bids:SkipReason",
        "sidecar_keys": "batch.outputs.bids_derivative:sidecar_keys",
        "why_not_taken": "batch.inputs.bids:skip_reason",
        "write_description": "batch.outputs.bids_derivative:write_description",
        "write_label_table": "batch.outputs.bids_derivative:write_label_table",
    },
    "batch.cases": {
        "Edited": "batch.cases:EditedLabels",
        "Matched": "batch.cases:MatchedCases",
        "edited": "batch.cases:apply_case",
    },
    "batch.cohort": {
        "CODEBOOK_NAME": "batch.outputs.names:COHORT_CODEBOOK",
        "Look": "batch.cohort:CohortTableTask",
        "Looked": "batch.cohort:CohortTableResult",
        "put_aside": "batch.cohort:archive_codebook",
    },
    "batch.collect": {
        "Row": "batch.outputs.tables:ScanRow",
    },
    "batch.discovery": {
        "PassedOver": "batch.inputs.discovery:SkippedPath",
    },
    "batch.earlier": {
        "Found": "batch.resume:EarlierResult",
        "look": "batch.resume:check_earlier",
    },
    "batch.engine": {
        "Engine": "batch.workers.local:Executor",
        "Here": "batch.workers.local:LocalExecutor",
        "Outcome": "batch.workers.local:ScanOutcome",
        "Say": "batch.workers.local:LogEvent",
    },
    "batch.lists": {
        "Row": "batch.inputs.lists:ListRow",
    },
    "batch.memory": {
        "core_count": "machine:core_count",
    },
    "batch.outliers": {
        "Oddness": "batch.outputs.outlier_scores:OutlierScore",
        "oddness": "batch.outputs.outlier_scores:outlier_scores",
    },
    "batch.page": {
        "PAGE_NAME": "batch.outputs.names:PAGE",
    },
    "batch.results": {
        "THUMBNAILS": "batch.outputs.names:THUMBNAILS",
        "settle": "batch.outputs.results:repair_interrupted",
        "sweep": "batch.outputs.results:remove_unfinished",
    },
    "batch.run": {
        "Foreseen": "batch.run:PlannedAction",
        "foresee": "batch.run:plan_actions",
    },
    "batch.scans": {
        "Who": "batch.inputs.scans:ScanIdentity",
        "who": "batch.inputs.scans:identity_of",
    },
    "batch.work": {
        "Work": "batch.one_scan:ScanTask",
    },
    "commands_batch": {
        "BatchProgress": "cli.batch_progress:BatchProgress",
        "duration": "cli.batch_progress:duration",
    },
    "commands_encoder": {
        "MOST_SCANS": "cli.commands.adapt:MAX_SCANS",
    },
    "encoder.bring": {
        "BroughtEncoder": "encoder.custom_network:CustomEncoder",
        "encoder_hash": "encoder.identity:encoder_hash",
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
    "encoder.weights": {
        "read_recipe": "encoder.identity:read_recipe",
        "weights_hash": "encoder.identity:weights_hash",
    },
    "export.files": {
        "FORMATS": "export.formats:FORMATS_BY_NAME",
        "Known": "export.base:ExportContext",
        "region_paths": "export.per_region:region_paths",
    },
    "gui.case": {
        "Absorbed": "gui.session.outside_edits:Absorbed",
        "OUTLINE_PIXELS": "gui.session.labels_painter:OUTLINE_PIXELS",
        "marked_work": "gui.session.layer_marks:marked_cases",
    },
    "gui.cases": {
        "Cases": "gui.session.open_cases:OpenCases",
    },
    "gui.brush": {
        "Brush": "gui.tools.stroke_layer:StrokeLayer",
    },
    "gui.contributions": {
        "OLDEST_NAPARI": "gui.plugin.window:OLDEST_NAPARI",
        "PLUGIN": "gui.plugin.window:PLUGIN",
        "SCAN_SUFFIXES": "filenames:SCAN_SUFFIXES",
        "StrataPanel": "gui.panel.panel:StrataPanel",
        "WIDGET": "gui.plugin.window:WIDGET",
        "accept": "gui.plugin.commands:accept",
        "compare": "gui.plugin.commands:compare",
        "cut": "gui.plugin.commands:cut",
        "export": "gui.plugin.commands:export",
        "keys": "gui.plugin.commands:keys",
        "merge": "gui.plugin.commands:merge",
        "next_place": "gui.plugin.commands:next_place",
        "open_viewer": "gui.plugin.window:open_viewer",
        "paint": "gui.plugin.commands:paint",
        "panel": "gui.plugin.window:dock_panel",
        "propose": "gui.plugin.commands:propose",
        "redo": "gui.plugin.commands:redo",
        "require_napari": "gui.plugin.window:require_napari",
        "require_qt": "gui.plugin.window:require_qt",
        "ruler": "gui.plugin.commands:ruler",
        "sample_chest_ct": "gui.plugin.samples:sample_chest_ct",
        "sample_head_t1": "gui.plugin.samples:sample_head_t1",
        "sample_thick_t2": "gui.plugin.samples:sample_thick_t2",
        "save_case": "gui.plugin.commands:save_case",
        "scribble": "gui.plugin.commands:scribble",
        "split": "gui.plugin.commands:split",
        "surfaces": "gui.plugin.commands:surfaces",
        "three_planes": "gui.plugin.commands:three_planes",
        "tour": "gui.plugin.commands:tour",
        "undo": "gui.plugin.commands:undo",
        "update": "gui.plugin.commands:update",
        "view_scan": "gui.plugin.window:view_scan",
        "why": "gui.plugin.commands:why",
    },
    "gui.editing": {
        "next_steps": "gui.panel.editing:next_step_names",
        "reported": "gui.tasks.notifications:notify_errors",
    },
    "gui.filing": {
        "Filing": "gui.panel.file_controller:FileController",
    },
    "gui.hooks": {
        "ViewerHooks": "gui.canvas.viewer_bindings:ViewerBindings",
    },
    "gui.jobs": {
        "ANSWER_MS": "gui.tasks.jobs:ABANDON_MS",
    },
    "gui.layers": {
        "tell_assumed": "gui.canvas.layers:warn_assumptions",
        "what_to_do": "gui.canvas.layers:advice_without_scan",
    },
    "gui.layout": {
        "single_shot": "gui.tasks.timers:single_shot",
    },
    "gui.list_sections": {
        "LookSection": "gui.widgets.list_sections:ReviewSection",
    },
    "gui.listing": {
        "Lister": "gui.panel.region_list:RegionListController",
    },
    "gui.looking": {
        "Looker": "gui.panel.review_navigator:ReviewNavigator",
        "MARK_NAME": "gui.panel.review_navigator:RING_NAME",
    },
    "gui.names": {
        "MOST_OWN": "gui.widgets.region_names:MAX_OWN_NAMES",
    },
    "gui.pointer": {
        "Pointer": "gui.session.cursor:Cursor",
    },
    "gui.recovering": {
        "Recovery": "gui.panel.recovery_banner:RecoveryController",
        "RecoveryCard": "gui.panel.recovery_banner:RecoveryBanner",
    },
    "gui.surfaces": {
        "MOST_VOXELS": "gui.canvas.surfaces:MAX_VOXELS",
    },
    "gui.viewing": {
        "Viewing": "gui.panel.view_controller:ViewController",
    },
    "gui.worker": {
        "Several": "gui.tasks.worker:ScanChoices",
        "Step": "gui.tasks.worker:ProgressStep",
    },
    "gui.writing": {
        "CASE_SUFFIX": "filenames:CASE_SUFFIX",
        "check_scans_stay": "gui.canvas.scan_files:check_keeps_scans",
        "open_files": "gui.canvas.scan_files:open_scan_files",
    },
    "io.dicom_pixels": {
        "PixelError": "io.dicom.decompress:PixelError",
    },
    "io.dicom_slice": {
        "BoundedFile": "io.dicom.file_head:BoundedFile",
        "head_of": "io.dicom.file_head:head_of",
        "is_dicom": "io.dicom.file_head:is_dicom",
        "is_segmentation": "io.dicom.file_head:is_segmentation",
        "is_system_file": "io.dicom.file_head:is_system_file",
        "open_bounded": "io.dicom.file_head:open_bounded",
        "quiet_pydicom": "io.dicom.header_values:quiet_pydicom",
    },
    "measure.exported_columns": {
        "REGION_COLUMNS": "measure.exported_columns:EXPORTED_COLUMNS",
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
        "Around": "proposal.supervoxels.descriptors:SmoothedIntensity",
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
    "proposal.settling": {
        "settle_edges": "proposal.supervoxels.boundary_refinement:refine_boundaries",
    },
    "proposal.supervoxels": {
        "Sprouts": "proposal.supervoxels.clustering:Segments",
        "ripen": "proposal.supervoxels.clustering:merge_segments",
        "sprout": "proposal.supervoxels.clustering:grow_segments",
    },
    "proposal.surroundings": {
        "tissues_in_rounds": (
            "proposal.supervoxels.context_features:find_tissues_iteratively"
        ),
    },
    "refine.autosave": {
        "folders_for": "refine.storage.autosave_folders:autosave_folders",
        "state_folder": "refine.storage.autosave_folders:state_folder",
    },
    "refine.cutting": {
        "any_piece": "refine.state.fragments:any_supervoxel",
        "by_largest_piece": "refine.state.fragments:by_largest_supervoxel",
        "cut_pieces": "refine.state.fragments:cut_supervoxels",
        "give_voxels": "refine.state.fragments:assign_voxels",
        "nearer": "refine.state.fragments:nearer_voxels",
        "piece_sizes": "refine.state.fragments:supervoxel_sizes",
        "voxels_of_piece": "refine.state.fragments:voxels_of_supervoxel",
    },
    "refine.doubts": {
        "Doubts": "refine.suggestions.uncertainty:Uncertainty",
        "doubts": "refine.suggestions.uncertainty:estimate_uncertainty",
    },
    "refine.edits": {
        "Outcome": "refine.edits.basic:EditResult",
        "Paint": "refine.edits.strokes:Paint",
        "REACH_MM": "refine.edits.spread:FIRST_REACH_MM",
        "Scribble": "refine.edits.strokes:Scribble",
        "foreseen": "refine.edits.strokes:previewed_result",
    },
    "refine.edits.basic": {
        "Paint": "refine.edits.strokes:Paint",
        "REACH_MM": "refine.edits.spread:FIRST_REACH_MM",
        "Scribble": "refine.edits.strokes:Scribble",
        "previewed_result": "refine.edits.strokes:previewed_result",
    },
    "refine.journal": {
        "Step": "refine.history.journal:JournalStep",
        "stepped": "refine.history.journal:apply_delta",
    },
    "refine.morphology": {
        "surroundings": "refine.edits.morphology:most_touching_label",
    },
    "refine.owner": {
        "NOT_GIVEN": "refine.state.assignment:NOT_PINNED",
        "base_owner": "refine.state.assignment:base_assigned",
        "give": "refine.state.assignment:assign_supervoxels",
        "of_pieces": "refine.state.assignment:of_supervoxels",
        "piece_table": "refine.state.assignment:supervoxel_table",
        "pieces_at": "refine.state.assignment:supervoxels_at_voxels",
    },
    "refine.pieces": {
        "Pieces": "refine.state.proposal_index:ProposalIndex",
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
    "refine.storage.autosave": {
        "folders_for": "refine.storage.autosave_folders:autosave_folders",
        "state_folder": "refine.storage.autosave_folders:state_folder",
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
        "weigh": "refine.scribble.scribble_classifier:region_memberships",
    },
    "refine.ways": {
        "Ways": "refine.scribble.geodesic:GeodesicDistances",
    },
    "terminal": {
        "AUTO": "cli.flags:AUTO",
        "add_recipe": "cli.flags:add_recipe",
        "add_settings": "cli.flags:add_settings",
        "count_or_auto": "cli.flags:count_or_auto",
        "passed_lines": "cli.terminal:skipped_lines",
        "settings_of": "cli.flags:settings_of",
        "tell_passed": "cli.terminal:print_skipped",
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

TEACHING: dict[str, str] = {"looks": "features", "taught": "example_regions"}
"""Attributes of `Teaching` that changed their names, and their names today."""


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
        if (home, today) == (old, name):
            raise AttributeError(f"module '{_PACKAGE}.{old}' has no attribute {name!r}")
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


def moved_attribute(
    instance: object, name: str, moved: dict[str, str] = REFINEMENT
) -> Any:
    """Return an attribute of an object under its old name, with a warning.

    Parameters
    ----------
    instance : Refinement or Teaching
        The object.
    name : str
        The old name.
    moved : dict of str
        Place or name today of each old name.

    Raises
    ------
    AttributeError
        If there was no such attribute.
    """
    today = moved.get(name)
    if today is None:
        raise AttributeError(
            f"{type(instance).__name__!r} object has no attribute {name!r}"
        )
    value = attrgetter(today)(instance)
    warnings.warn(
        f"{type(instance).__name__}.{name} is {type(instance).__name__}.{today} now. "
        "The old name goes away with version 0.3.",
        DeprecationWarning,
        stacklevel=3,
    )
    return value
