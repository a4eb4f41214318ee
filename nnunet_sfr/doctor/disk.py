"""What fine-tuning is expected to write: the embedded views of a frozen encoder."""

from __future__ import annotations

from nnunet_sfr.atomic import free_bytes
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.doctor.findings import Finding, ok, problem
from nnunet_sfr.doctor.plan import volumes
from nnunet_sfr.nnunet_json import OWN_KEY, read_fingerprint
from nnunet_sfr.sam_models import find_model
from nnunet_sfr.sam_stage.adaptations import find_adaptation
from nnunet_sfr.sam_stage.embedding import number_of_views, spread_patches
from nnunet_sfr.sam_stage.views import bytes_of_view
from nnunet_sfr.wording import gib


def check_views(dataset: SFRDataset) -> list[Finding]:
    """The disk space of all labelled cases' views for round 0, beside what is free; nothing where none are made.

    Args:
        dataset: planned.
    """
    settings = dataset.settings
    if not find_adaptation(settings.sam.adaptation).freezes_encoder(dataset.num_input_channels):
        return []
    count, size = expected_views(dataset)
    folder = dataset.paths.sam_views
    there = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    free = free_bytes(folder)
    text = f"{count} embedded views, {gib(count * size)} (estimated)"
    if there:
        text += f", of which {gib(there)} are there"
    if count * size - there <= free:
        return [ok("disk", f"{text}; {gib(free)} free")]
    remedy = "free some space, or lower fine_tuning.views in the SFR plan"
    return [problem("disk", f"{text}; {folder} has {gib(free)} free", remedy)]


def expected_views(dataset: SFRDataset) -> tuple[int, int]:
    """Number of views that fine-tuning on all labelled cases makes, over all axes, and the bytes of each.

    Args:
        dataset: planned.
    """
    stitching, fine_tuning = dataset.settings.stitching, dataset.settings.fine_tuning
    fingerprint = read_fingerprint(dataset.paths.fingerprint_file)
    shapes = volumes(dataset, fingerprint)
    # labelled cases come first; nnU-Net's own fingerprint has no others
    labelled = shapes[: fingerprint.get(OWN_KEY, {}).get("num_labelled", len(shapes))]
    draws = fine_tuning.iterations * fine_tuning.batch_size / len(labelled)
    patches = [len(spread_patches(shape, stitching.patch_size)) for shape in labelled]
    views = sum(number_of_views(count, fine_tuning.views, draws) for count in patches)
    model = find_model(dataset.settings.sam.model)
    side = stitching.canvas_size // model.stride
    size = bytes_of_view((model.decoder.dim, side, side), stitching.canvas_size)
    return views * len(stitching.slice_axes), size
