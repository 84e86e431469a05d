"""Deltas, cosines and conflicts against what they are defined as, on whole tensors."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.checkpoints.checkpoint import Checkpoint
from merging.tensor_statistics.model_similarity import kind_of, survey

TinyModel = Callable[..., Path]


def opened(**folders: Path) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(str(folder), name=name) for name, folder in folders.items()}


def flat(folder: Path) -> torch.Tensor:
    tensors = load_file(folder / "model.safetensors")
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def test_sums_over_everything_are_exact(tiny_family: dict[str, Path]) -> None:
    found = survey(opened(**tiny_family), "base")
    base, math_, code = (flat(tiny_family[name]) for name in ("base", "math", "code"))
    one, other = math_ - base, code - base
    whole = found.whole
    assert found.parents == ("math", "code", "text")
    assert found.covered == 1.0
    assert whole.elements == base.numel()
    assert whole.size(0) == pytest.approx(float(one.norm() / base.norm()))
    cosine = float(one @ other / one.norm() / other.norm())
    assert whole.cosine(0, 1) == pytest.approx(cosine)
    assert whole.conflict(0, 1) == pytest.approx(float((one * other < 0).double().mean()))
    likeness = float(math_ @ base / math_.norm() / base.norm())
    assert whole.likeness(0) == pytest.approx(likeness)
    assert whole.distance(0, 1) == pytest.approx(float((math_ - code).norm() / base.norm()))


def test_groups_are_places_in_the_model(tiny_family: dict[str, Path]) -> None:
    found = survey(opened(**tiny_family), "base")
    assert found.kinds == ("attention", "mlp", "norm", "embeddings", "head")
    assert found.depths == (-1, 0, 1, 2, 3, 4)
    assert found.layers == 4
    tensors = {name: load_file(tiny_family[name] / "model.safetensors") for name in tiny_family}
    mlp = [name for name in tensors["base"] if name.startswith("model.layers.2.mlp.")]
    delta = sum(float((tensors["text"][n] - tensors["base"][n]).square().sum()) for n in mlp)
    base = sum(float(tensors["base"][n].square().sum()) for n in mlp)
    size = found.groups[2, "mlp"].size(2)
    assert size == pytest.approx(math.sqrt(delta / base), rel=1e-5)
    total = math.fsum(sums.products[0][1] for sums in found.groups.values())
    assert found.whole.products[0][1] == pytest.approx(total)


def test_large_tensors_are_sampled_to_two_digits(tiny_model: TinyModel) -> None:
    base = tiny_model(layers=1, hidden=768)
    tuned = tiny_model(base=base, seed=1), tiny_model(base=base, seed=2)
    found = survey(opened(base=base, a=tuned[0], b=tuned[1]), "base").whole
    whole = flat(base)
    one, other = (flat(folder) - whole for folder in tuned)
    assert found.size(0) == pytest.approx(float(one.norm() / whole.norm()), rel=0.01)
    cosine = float(one @ other / one.norm() / other.norm())
    assert found.cosine(0, 1) == pytest.approx(cosine, abs=0.01)
    assert found.conflict(0, 1) == pytest.approx(0.5, abs=0.01)


def test_opposite_models(tiny_model: TinyModel, tmp_path: Path) -> None:
    base = tiny_model()
    left = tiny_model(base=base, seed=1)
    right = tiny_model(base=base, seed=1)
    start = load_file(base / "model.safetensors")
    mirrored = {n: 2 * start[n] - t for n, t in load_file(left / "model.safetensors").items()}
    save_file(mirrored, right / "model.safetensors", metadata={"format": "pt"})
    whole = survey(opened(base=base, left=left, right=right), "base").whole
    assert whole.cosine(0, 1) == pytest.approx(-1.0, abs=1e-4)
    assert whole.conflict(0, 1) == pytest.approx(1.0, abs=1e-3)


def test_without_a_base_distances_are_left(tiny_family: dict[str, Path]) -> None:
    parents = {name: tiny_family[name] for name in ("math", "code")}
    found = survey(opened(**parents), None)
    one, other = (flat(folder) for folder in parents.values())
    assert not found.based
    expected = float((one - other).norm() / ((one + other) / 2).norm())
    assert found.whole.distance(0, 1) == pytest.approx(expected)


def test_what_does_not_fit_is_named_and_nan_is_found(
    tiny_model: TinyModel, tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    broken = tiny_model(base=tiny_family["base"], seed=5)
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "layers.1.mlp" in name)
    weights[name][0, 0] = math.nan
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-1].clone()
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    found = survey(opened(base=tiny_family["base"], bad=broken), "base")
    assert found.broken == ("bad",)
    assert found.skipped == ("model.embed_tokens.weight",)
    assert math.isfinite(found.whole.size(0))


def test_time_is_bounded(tiny_family: dict[str, Path]) -> None:
    seen: list[tuple[int, int]] = []
    found = survey(opened(**tiny_family), "base", seconds=0.0, progress=lambda *at: seen.append(at))
    assert len(seen) == 1
    assert found.covered == pytest.approx(1 / seen[0][1])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("self_attn.q_proj.weight", "attention"),
        ("self_attn.q_norm.weight", "norm"),
        ("post_attention_layernorm.weight", "norm"),
        ("mlp.experts.3.down_proj.weight", "mlp"),
        ("attn.c_attn.weight", "attention"),
        ("ln_1.weight", "norm"),
        ("mixer.A_log", "other"),
    ],
)
def test_kinds_by_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind
