"""docs/add-a-sam.md: every block of the page is put where it says and run, and there is no other place to touch."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from docs import settings_page
from nnunet_sfr import sam_models
from nnunet_sfr.entry_points.plan_and_preprocess import parser
from nnunet_sfr.errors import UserError
from nnunet_sfr.planning.mosaic import choose_stitching
from nnunet_sfr.sam_models import MODELS, SAMModel
from nnunet_sfr.sam_stage import adaptations, backbones
from nnunet_sfr.sam_stage.adaptation import adapt, adapter_state, encoder_is_frozen, load_adapter_state
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS
from nnunet_sfr.sam_stage.checkpoints import load_weights
from nnunet_sfr.sam_stage.sam import SegmentationSAM, build_sam
from nnunet_sfr.sam_stage.weights import find_weights
from nnunet_sfr.settings import SAMSettings
from tests.sam_stage.small_models import SMALL_TINY_VIT, SMALL_VIT

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "add-a-sam.md"
TABLE_OF_MODELS = "nnunet_sfr/sam_models.py"
TABLE_OF_ADAPTATIONS = "nnunet_sfr/sam_stage/adaptations/__init__.py"
MODEL, ADAPTATION = "plain_sam", "last_blocks"


def blocks(marker: str) -> list[str]:
    """The Python blocks of the page below a marker such as ``into <file>``."""
    return re.findall(
        rf"<!-- {re.escape(marker)} -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SAMModel]:
    """The page's model and strategy as if they were in the package; gives the model's record."""
    for package, module in ((backbones, "plain_vit"), (adaptations, "last_blocks")):
        folder = tmp_path / package.__name__.rsplit(".", 1)[-1]
        folder.mkdir()
        code = "\n\n".join(blocks(f"file {package.__name__.replace('.', '/')}/{module}.py"))
        (folder / f"{module}.py").write_text(code)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{module}", raising=False)

    line, sizes = blocks(f"into {TABLE_OF_MODELS}")
    namespace = dict(vars(sam_models))
    exec(sizes, namespace)
    monkeypatch.setattr(sam_models, "PlainViTSizes", namespace["PlainViTSizes"], raising=False)
    (model,) = eval(f"({line.strip()})", namespace)
    monkeypatch.setitem(MODELS, model.name, model)

    imported, entries = blocks(f"into {TABLE_OF_ADAPTATIONS}")
    namespace = dict(vars(adaptations))
    exec(imported, namespace)
    for name, adaptation in eval(f"{{{entries.strip()}}}", namespace).items():
        monkeypatch.setitem(ADAPTATIONS, name, adaptation)
    yield model
    for package, module in ((backbones, "plain_vit"), (adaptations, "last_blocks")):
        sys.modules.pop(f"{package.__name__}.{module}", None)


def build(model: SAMModel | str = MODEL, *, in_channels: int = 1, seed: int = 0) -> SegmentationSAM:
    torch.manual_seed(seed)
    return build_sam(model, input_size=64, in_channels=in_channels, num_classes=3)


def settings(adaptation: str, **own: int) -> SAMSettings:
    return SAMSettings(model=MODEL, adaptation=adaptation, adaptation_settings=own)


def trained_in_encoder(sam: SegmentationSAM) -> set[str]:
    return {name for name, parameter in sam.image_encoder.named_parameters() if parameter.requires_grad}


def names_below(prefix: str, module: nn.Module) -> set[str]:
    return {f"{prefix}.{name}" for name, _ in module.named_parameters()}


# --- the page ---


def test_every_python_block_has_a_place() -> None:
    markers = re.findall(r"(<!-- .*? -->\n)?```python\n", PAGE.read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"<!-- (file \S+|into \S+|run) -->\n", marker) for marker in markers)
    assert len(markers) == 5 + 2 + 1 + 2 + 1


def test_the_line_of_the_table_is_the_present_one_with_one_name_more() -> None:
    _, entries = blocks(f"into {TABLE_OF_ADAPTATIONS}")
    assert entries.replace(", LAST_BLOCKS", "") in (REPOSITORY / TABLE_OF_ADAPTATIONS).read_text(encoding="utf-8")


@pytest.mark.usefixtures("record")
def test_the_code_that_the_page_ends_with_runs() -> None:
    [code] = blocks("run")
    exec(code, {})


# --- the model ---


def test_planning_and_commands_know_the_model(record: SAMModel) -> None:
    assert record is MODELS[MODEL]
    help_of_planning = " ".join(parser().format_help().split())
    assert f"{MODEL}: {record.summary}" in help_of_planning
    assert f"{ADAPTATION}: {ADAPTATIONS[ADAPTATION].summary}" in help_of_planning
    # 20 slices of 30 x 30 need five columns and four rows, 150 pixels: the third canvas
    assert choose_stitching(record, (20, 30, 30), (20, 30, 30)).canvas_size == 192
    with pytest.raises(
        UserError, match=rf"{MODEL} needs the file plain_sam\.pth: download it from https://example\.org"
    ):
        find_weights(record, None)
    page = settings_page.render()
    assert f"| `{MODEL}` | {record.summary} | `decoder` |" in page
    assert f"| `{ADAPTATION}` | `count` | `1` | How many blocks are trained, counted from the end. |" in page


@pytest.mark.usefixtures("record")
def test_the_encoder_has_the_shape_that_the_record_states() -> None:
    sam = build(in_channels=3)
    embeddings = sam.encode(torch.randn(2, 3, 64, 64))
    assert embeddings.shape == (2, 256, 4, 4)
    assert sam.decode(embeddings).shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match="multiple of plain_sam's stride, 16; got 72"):
        build_sam(MODEL, input_size=72, in_channels=1, num_classes=2)


@pytest.mark.usefixtures("record")
def test_a_published_file_is_loaded_for_another_canvas_and_other_channels(tmp_path: Path) -> None:
    """Names as PlainSAM's authors would have them, and a classifier that is dropped."""
    published = build(in_channels=3, seed=1)
    state = {
        name.replace("encoder.blocks.", "encoder.layers."): value for name, value in published.state_dict().items()
    }
    state["image_encoder.head.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "plain_sam.pth")

    sam = build_sam(MODEL, input_size=128, in_channels=2, num_classes=3)
    load_weights(sam, tmp_path / "plain_sam.pth")
    ours, theirs = sam.image_encoder.state_dict(), published.image_encoder.state_dict()
    assert ours["pos_embed"].shape[2:] == (8, 8)
    # at the border the first of twice as many positions lies outside the centre of the first
    assert torch.equal(ours["pos_embed"][:, :, 0, 0], theirs["pos_embed"][:, :, 0, 0])
    torch.testing.assert_close(ours["patch_embed.weight"].sum(dim=1), theirs["patch_embed.weight"].sum(dim=1))
    same = set(ours) - {"pos_embed", "patch_embed.weight"}
    assert all(torch.equal(ours[name], theirs[name]) for name in same)

    with pytest.raises(UserError, match=f"has the shape of {MODEL}, but the plan says vit_tiny"):
        load_weights(build("vit_tiny"), tmp_path / "plain_sam.pth")


# --- strategies on the model ---


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("adaptation", [*ADAPTATIONS, ADAPTATION])
def test_every_strategy_fits_the_model(adaptation: str) -> None:
    """Fresh it changes nothing; saved and loaded it is itself; the fast encoder computes the same."""
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = build()(images)
        sam = adapt(build(), settings(adaptation))
        torch.testing.assert_close(sam(images), before, rtol=1e-5, atol=1e-5)
        assert encoder_is_frozen(sam) == ADAPTATIONS[adaptation].frozen_encoder
        for parameter in sam.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
        changed = sam(images)
        assert not torch.allclose(changed, before, atol=1e-3)
        fresh = adapt(build(), settings(adaptation))
        load_adapter_state(fresh, adapter_state(sam))
        torch.testing.assert_close(fresh(images), changed)
        fast, exact = sam.backbone.for_inference(sam.image_encoder)(images.expand(-1, 3, -1, -1)), sam.encode(images)
    assert not fast.requires_grad
    assert (fast - exact).std() < 0.05 * exact.std()  # bfloat16, where the processor has it


# --- the strategy on every family ---


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("model", [SMALL_VIT, SMALL_TINY_VIT, MODEL], ids=["vit", "tiny_vit", "plain_vit"])
@pytest.mark.parametrize("count", [1, 2])
def test_the_strategy_trains_the_last_blocks(model: SAMModel | str, count: int) -> None:
    sam = adapt(build(model), settings(ADAPTATION, count=count))
    last = list(sam.backbone.blocks(sam.image_encoder))[-count:]
    parameters = {id(parameter) for block in last for parameter in block.parameters()}
    trained = {id(parameter) for parameter in sam.image_encoder.parameters() if parameter.requires_grad}
    assert trained == parameters
    assert len(trained_in_encoder(sam)) == len(parameters) > 0
    saved = set(adapter_state(sam))
    assert {f"image_encoder.{name}" for name in trained_in_encoder(sam)} < saved
    assert names_below("mask_decoder.transformer", sam.mask_decoder.transformer) < saved


@pytest.mark.usefixtures("record")
def test_settings_of_the_strategy_are_checked() -> None:
    assert settings(ADAPTATION).adaptation_settings == {"count": 1}
    with pytest.raises(ValueError, match="adaptation_settings of last_blocks: count must be at least 1, got 0"):
        settings(ADAPTATION, count=0)
    with pytest.raises(ValueError, match="unknown setting rank"):
        settings(ADAPTATION, rank=4)


# --- no other place ---

TABLES = (TABLE_OF_MODELS, "nnunet_sfr/sam_stage/backbones/", "nnunet_sfr/sam_stage/adaptations/")
NAMES = {*MODELS, *ADAPTATIONS}
ALLOWED = {
    # plans of version 0.1 had the rank of LoRA among the settings of SAM
    ("nnunet_sfr/plans.py", "lora"),
    # the halves of nnU-Net's network
    ("nnunet_sfr/trainers/feature_dropout.py", "decoder"),
}


def names_in(node: ast.AST) -> set[str]:
    """Names of models and adaptations that a piece of code compares with, or holds in a list, set, tuple or dict."""
    if isinstance(node, (ast.List, ast.Set, ast.Tuple)):
        texts = strings(node.elts)  # one alone is a choice, or a label beside other things
        return texts & NAMES if len(texts) > 1 else set()
    if isinstance(node, ast.Dict):
        # words such as "adapter" are keys of other things too
        return strings(node.keys) & set(MODELS)
    if isinstance(node, (ast.Compare, ast.MatchValue)):
        return strings(ast.walk(node)) & NAMES
    return set()


def strings(nodes: Iterable[ast.AST | None]) -> set[str]:
    """Those of some pieces of code that are strings."""
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_lists_and_special_cases_of_names_are_found() -> None:
    code = """
a = ("vit_b", "vit_l")
b = {"lite_medsam": 4}
c = x == "lora"
d = find("vit_tiny"), ("decoder",), {"adapter": 1}
"""
    found = [name for node in ast.walk(ast.parse(code)) for name in names_in(node)]
    assert sorted(found) == ["lite_medsam", "lora", "vit_b", "vit_l"]


def test_no_other_file_lists_models_or_adaptations() -> None:
    files = [
        file
        for folder in ("nnunet_sfr", "entry_points", "benchmarks", "demo")
        for file in sorted((REPOSITORY / folder).rglob("*.py"))
    ]
    assert len(files) > 100
    found = {
        (file.relative_to(REPOSITORY).as_posix(), name)
        for file in files
        if not file.relative_to(REPOSITORY).as_posix().startswith(TABLES)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in names_in(node)
    }
    assert found - ALLOWED == set()
