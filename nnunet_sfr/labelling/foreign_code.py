"""What the files of a trained model could run on the machine that loads it, and the check that it is nothing.

nnU-Net unpickles whatever a checkpoint holds, and imports the classes that ``plans.json`` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import fold_of
from nnunet_sfr.safe_checkpoints import NeedsCodeError, load_checkpoint, nnunet_types

KNOWN_PACKAGES = ("dynamic_network_architectures", "nnunet_sfr", "nnunetv2", "torch.nn")
"""Where the classes of nnU-Net's networks and ours come from."""

_REMEDY = "add --trust if you know who made this model"


def require_no_code(checkpoints: Sequence[Path], plans: Mapping[str, Any], plans_file: Path) -> None:
    """Check that nnU-Net can load a model without running code that its files bring or name.

    Args:
        checkpoints: to be loaded.
        plans: content of the model's ``plans.json``.
        plans_file: where it lies.

    Raises:
        UserError: one of them needs more than nnU-Net's own types, or is broken.
    """
    for file in checkpoints:
        try:
            load_checkpoint(file, nnunet_types())
        except NeedsCodeError as name:
            raise UserError(
                f"{file}: holds {name}, which nnU-Net does not write; loading it could run any code; {_REMEDY}"
            ) from None
        except ValueError as error:
            fold = fold_of(file.parent)
            raise UserError(
                f"{file.parents[1]}: nnU-Net cannot load {file.name} of fold {fold} (truncated, or not a checkpoint: "
                f"{error})"
            ) from None
    for imported in _imported(plans):
        if not any(imported.startswith(f"{package}.") for package in KNOWN_PACKAGES):
            raise UserError(f"{plans_file}: wants {imported} to be imported, which is not nnU-Net's; {_REMEDY}")


def _imported(plans: Mapping[str, Any]) -> Iterator[str]:
    """Names of what nnU-Net imports to build the networks of a plan."""
    for configuration in plans.get("configurations", {}).values():
        architecture = configuration.get("architecture") if isinstance(configuration, dict) else None
        if not isinstance(architecture, dict):
            continue
        arguments = architecture.get("arch_kwargs", {})
        named = [arguments.get(key) for key in architecture.get("_kw_requires_import", ())]
        yield from (str(name) for name in (architecture.get("network_class_name"), *named) if name is not None)
