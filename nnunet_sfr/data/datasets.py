"""What nnU-Net's data loader reads when it draws unlabelled patches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_sfr.data.b2nd_files import open_b2nd
from nnunet_sfr.data.preprocessed_files import (
    DATA_ENDING,
    damage_explained,
    image_hash,
    read_properties,
    unlabelled_identifiers,
)
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.voxel_confidence import voxel_confidence_file
from nnunet_sfr.errors import UserError


class LabelledDataset(nnUNetDatasetBlosc2):
    """Labelled cases, as nnU-Net reads them; a damaged file is named."""

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image (C, D, H, W), label map (1, D, H, W), None, properties."""
        with damage_explained(Path(self.source_folder), identifier):
            data, segmentation, previous, properties = super().load_case(identifier)
            if not isinstance(properties, dict):
                raise TypeError("a pickle that holds something else")
        return data, segmentation, previous, properties


class UnlabelledDataset(nnUNetDatasetBlosc2):
    """Unlabelled cases in nnU-Net's format, without targets worth learning from.

    The segmentation that nnU-Net's preprocessing writes for them is -1 outside the non-zero mask and 0 inside.

    Args:
        folder: :attr:`nnunet_sfr.paths.SFRPaths.unlabelled`.
        identifiers: None for every case in the folder.

    Raises:
        UserError: the folder is missing or empty.
    """

    voxel_confidence = False
    """Whether :meth:`load_case` gives the probability of each voxel's label too."""
    made_by: Provenance | None = None
    """What made the pseudo-labels; None where there are images alone."""

    def __init__(self, folder: str | Path, identifiers: list[str] | None = None) -> None:
        there = unlabelled_identifiers(Path(folder))
        super().__init__(str(folder), there if identifiers is None else identifiers)

    def read_properties(self, identifier: str) -> dict[str, Any]:
        """What nnU-Net's preprocessing recorded of a case, without opening its arrays."""
        return read_properties(Path(self.source_folder), identifier)

    def confidence(self, identifier: str) -> dict[str, Any] | None:
        """The confidence record of a case's pseudo-label; None where there are images alone."""
        return None

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image (C, D, H, W), segmentation (1, D, H, W), None, properties; patches fall anywhere in the image."""
        with damage_explained(Path(self.source_folder), identifier):
            data, segmentation, _, properties = super().load_case(identifier)
            # with an ignore label nnU-Net's loader asks for the annotated voxels, of which there are none
            properties.setdefault("class_locations", defaultdict(list))
        return data, segmentation, None, properties


class PseudoLabelledDataset(UnlabelledDataset):
    """Unlabelled cases with the labels of a pseudo-label store, foreground locations included.

    Args:
        folder: :attr:`nnunet_sfr.paths.SFRPaths.unlabelled`.
        store: with a pseudo-label for every case.
        identifiers: None for every case in the folder.
        voxel_confidence: deliver the probability of each voxel's label too.

    Raises:
        UserError: a case has no pseudo-label, one of another shape, or no voxel confidence where that is asked for.
    """

    def __init__(
        self,
        folder: str | Path,
        store: PseudoLabelStore,
        identifiers: list[str] | None = None,
        *,
        voxel_confidence: bool = False,
    ) -> None:
        super().__init__(folder, identifiers)
        self.store = store
        self.made_by = store.made_by
        self.voxel_confidence = voxel_confidence
        missing = sorted(set(self.identifiers) - set(store.identifiers()))
        if missing:
            raise UserError(
                f"{store.folder}: no pseudo-label for {missing[0]} ({len(missing)} of {len(self.identifiers)} cases "
                "are missing); run sfr_pseudolabel again"
            )
        for identifier in self.identifiers:
            self._check_case(identifier)
        if voxel_confidence:
            self._check_voxel_confidence()

    def _check_voxel_confidence(self) -> None:
        files = {case: voxel_confidence_file(self.store.folder, case) for case in self.identifiers}
        missing = [case for case, file in files.items() if not file.is_file()]
        if missing:
            raise UserError(
                f"{self.store.folder}: has no voxel confidence of {missing[0]} ({len(missing)} of "
                f"{len(self.identifiers)} cases are without), which retraining.pseudo_weighting asks for (voxel_power, "
                "voxel_threshold or soft_targets) and which label maps and earlier versions do not have; run "
                "sfr_pseudolabel --overwrite without --from-images, or leave these at their defaults"
            )

    def confidence(self, identifier: str) -> dict[str, Any] | None:
        """The confidence record of a case's pseudo-label."""
        return self.store.read_confidence(identifier)

    def _check_case(self, identifier: str) -> None:
        remedy = "run sfr_pseudolabel again"
        properties = self.read_properties(identifier)
        recorded = self.store.read_confidence(identifier).get("input")
        if recorded is not None and recorded != image_hash(properties):
            raise UserError(f"{self.store.folder}: the image of {identifier} changed since it was labelled; {remedy}")
        image = open_b2nd(Path(self.source_folder) / f"{identifier}{DATA_ENDING}").shape[1:]
        labels = self.store.open_labels(identifier).shape[1:]
        if image != labels:
            raise UserError(
                f"{self.store.folder}: the pseudo-label of {identifier} has shape {labels}, its preprocessed image "
                f"{image}; {remedy} with --overwrite"
            )

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """As nnU-Net's labelled cases: image (C, D, H, W), pseudo-label (1, D, H, W), map or None, properties.

        The map (D, H, W) is the voxel confidence. It has the place where nnU-Net's cascade has the labels of the stage
        before: its loader crops what is there like the labels, and appends it to them as a channel.
        """
        data, _, _, properties = super().load_case(identifier)
        file = voxel_confidence_file(self.store.folder, identifier)
        confidence = open_b2nd(file) if self.voxel_confidence else None
        properties = {**properties, **self.store.read_locations(identifier)}
        return data, self.store.open_labels(identifier), confidence, properties


class LoadableCases(Protocol):
    """As much of nnU-Net's data sets as its data loader reads."""

    identifiers: Sequence[str]

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image (C, D, H, W), label map (1, D, H, W), None, properties."""


class JoinedDataset:
    """Several data sets as one; their identifiers must differ."""

    def __init__(self, *parts: LoadableCases) -> None:
        self._part_of = {identifier: part for part in parts for identifier in part.identifiers}
        self.identifiers: Sequence[str] = list(self._part_of)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        return self._part_of[identifier].load_case(identifier)
