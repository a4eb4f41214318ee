"""Label the cases that a fold leaves out, and compare with their true labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from nnunet_sfr.confidence import class_dices, no_confidence
from nnunet_sfr.crosscheck.network import TRAINER, network_labeller, train_network, trained_checkpoint
from nnunet_sfr.crosscheck.sources import MEAN, NNUNET, SAM, LeftOutCase
from nnunet_sfr.data.datasets import LabelledDataset, UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.label_decision import DECISION_RULES
from nnunet_sfr.labelling.case_labels import Labeller
from nnunet_sfr.labelling.filling import NO_REFERENCE_STORES, ReferenceStores, label_pool, missing_cases, store_of_maker
from nnunet_sfr.labelling.fusion import Fusion, stored_probabilities
from nnunet_sfr.paths import FINAL_ADAPTER
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.model import adapter_files
from nnunet_sfr.sam_stage.pseudo_labelling import sam_labeller


def label_left_out(
    dataset: SFRDataset, fold: int, device: torch.device, *, with_nnunet: bool, overwrite: bool
) -> dict[str, list[LeftOutCase]]:
    """Train without the cases of a fold, as far as that is not done, and label them.

    Args:
        dataset: from :func:`nnunet_sfr.crosscheck.folds.with_crosscheck_folds`.
        fold: a number.
        device: to compute on.
        with_nnunet: train nnU-Net, too; without it, a network that is there and up to date still counts.
        overwrite: train again.

    Returns:
        The cases by who labelled them; SAM alone where there is no network.

    Raises:
        UserError: training or labelling cannot be done.
    """
    sam = _labelled_by_sam(dataset, fold, device, overwrite=overwrite)
    found = {SAM: _cases_in(sam, dataset, fold)}
    checkpoint = trained_checkpoint(dataset, fold)
    if with_nnunet:
        checkpoint = train_network(dataset, fold, device, overwrite=overwrite)
    if checkpoint is not None:
        made_by = Provenance.of_model([checkpoint], dataset.settings, fold=fold, trainer=TRAINER)
        network = _labelled(
            dataset,
            fold,
            NNUNET,
            # the records compare its labels with SAM's
            replace(made_by, others={"compared_with": sam.made_by.fingerprint}),
            lambda: network_labeller(dataset, fold, device),
            references=ReferenceStores(first_round=sam),
        )
        found[NNUNET] = _cases_in(network, dataset, fold)
        found[MEAN] = _mean_of(sam, network, dataset, fold)
    return found


def _labelled_by_sam(dataset: SFRDataset, fold: int, device: torch.device, *, overwrite: bool) -> PseudoLabelStore:
    fine_tune(dataset, fold, device, overwrite=overwrite)
    adapters = adapter_files(dataset, fold, FINAL_ADAPTER)
    made_by = Provenance.of_sam(adapters, dataset.settings, fold=fold, round_index=0)
    return _labelled(dataset, fold, SAM, made_by, lambda: sam_labeller(dataset, fold, device, adapter=FINAL_ADAPTER))


def _labelled(
    dataset: SFRDataset,
    fold: int,
    source: str,
    made_by: Provenance,
    make_labeller: Callable[[], Labeller],
    references: ReferenceStores = NO_REFERENCE_STORES,
) -> PseudoLabelStore:
    """The labels of the cases that a fold leaves out, made as far as they are not there."""
    store = store_of_maker(dataset, dataset.paths.left_out_labels(fold, source), made_by)
    cases = UnlabelledDataset(dataset.paths.labelled)  # of the true labels, what lies outside of the image alone counts
    _, left_out = dataset.split(fold)
    if missing_cases(store, cases, left_out):
        label_pool(
            store,
            dataset,
            make_labeller(),
            left_out,
            mirrored=dataset.settings.pseudo_labels.measure_flip_agreement,
            references=references,
            cases=cases,
        )
    return store


def _cases_in(store: PseudoLabelStore, dataset: SFRDataset, fold: int) -> list[LeftOutCase]:
    """What the labels of a store are worth."""
    return [
        LeftOutCase(case, fold, _dice(store.read_labels(case)[0], dataset, case), store.read_confidence(case))
        for case in dataset.split(fold)[1]
    ]


def _mean_of(sam: PseudoLabelStore, network: PseudoLabelStore, dataset: SFRDataset, fold: int) -> list[LeftOutCase]:
    cases = []
    for case in dataset.split(fold)[1]:
        decision = dataset.settings.pseudo_labels.decision
        labels = mean_labels(sam, network, case, num_classes=dataset.num_classes, decision=decision)
        record = no_confidence(torch.from_numpy(labels), num_classes=dataset.num_classes)
        cases.append(LeftOutCase(case, fold, _dice(labels, dataset, case), record))
    return cases


def mean_labels(
    sam: PseudoLabelStore, network: PseudoLabelStore, case: str, *, num_classes: int, decision: str
) -> np.ndarray:
    """What the mean of two sources' probabilities decides on, (D, H, W); as in a round of SFR+ with a share of 0.5.

    Args:
        sam: a store with the probability of each voxel's label, from which those of the other classes follow.
        network: another one.
        case: that both have.
        num_classes: label values, background included.
        decision: SAM's rule, a key of :data:`nnunet_sfr.label_decision.DECISION_RULES`.
    """
    of_sam = torch.stack(list(stored_probabilities(sam, case, num_classes)))
    labels: np.ndarray = DECISION_RULES[decision].decide(Fusion(network, 0.5)(case, of_sam)).numpy()
    return labels


def _dice(labels: np.ndarray, dataset: SFRDataset, case: str) -> dict[str, float | None]:
    """Dice of every class with the truth; voxels with the ignore label are background in both maps.

    Args:
        labels: (D, H, W).
        dataset: of the case.
        case: labelled.
    """
    truth = LabelledDataset(str(dataset.paths.labelled), [case]).load_case(case)[1][0]
    counted = truth != dataset.label_manager.ignore_label
    ours, theirs = (np.where(counted, values, 0).astype(np.int64) for values in (labels, truth))
    return class_dices(torch.from_numpy(ours), torch.from_numpy(theirs), num_classes=dataset.num_classes)
