"""Attention maps: which layers are gates, and the share that a gate keeps of each position."""

import numpy as np
import pytest

from maam import spec
from maam.reference import ReferenceModel
from maam.spec import Graph
from maam.training.gates import gate_paths, share_kept

SHAPE = (32, 6, 5)
WHOLE = ("bam", "coord", "eca", "ema", "ese", "gc", "gct", "ge", "lka", "maf", "mafb", "scse", "se", "sge", "shuffle")
WHOLE += ("simam", "triplet")
PARTS = {"cbam": ["ChannelGate", "SpatialGate"], "mafc": ["ChannelGate", "SpatialGate"], "mrap": ["ChannelGate"]}
PARTS |= {"van": ["spatial_gating_unit"], "agent": [], "maam": [], "mhsa": [], "sk": []}
SE, MEAN, CONV = spec.se(32), spec.GlobalPool(), spec.Conv2d(in_channels=32, out_channels=32, kernel_size=1)
TURN = spec.Rearrange(pattern="c h w -> c w h")


def graph(formula, **children):
    arrays = {"gamma": ((1, 1, 1), 0.0)} if "gamma" in formula else {}
    return Graph(children=children, formula=formula, arrays=arrays)


CASES = [
    *((getattr(spec, name)(32), [""]) for name in WHOLE),
    *((getattr(spec, name)(32), paths) for name, paths in PARTS.items()),
    (spec.scse(32, merge="add"), [""]),
    (spec.gc(32, fuse_add=True), []),
    (spec.Residual(children={"gate": SE}), [""]),
    (spec.Residual(children={"conv": CONV, "gate": SE}), ["gate"]),
    (graph("x + gamma * (layer(x) - x)", layer=SE), [""]),  # as insert_attention adds it
    (graph("conv(gate(x))", conv=CONV, gate=SE), ["gate"]),
    (graph("x * mean(x) + x", mean=MEAN), [""]),
    (graph("x * mean(x) + mean2(x)", mean=MEAN, mean2=MEAN), []),
    (graph("mean(x) / x", mean=MEAN), []),
    (graph("x * 2 + gamma * x"), []),  # a constant factor is no attention
    (graph("concat(x[16:32] * mean(x)[0:16], x[0:16])", mean=MEAN), [""]),
    (graph("turn(x) * mean(x)", turn=TURN, mean=MEAN), []),
    (graph("turn(turn2(x) * mean(x))", turn=TURN, turn2=TURN, mean=MEAN), [""]),
]


@pytest.mark.parametrize(("node", "paths"), CASES, ids=lambda one: one.kind if isinstance(one, spec.Node) else str(one))
def test_gates_multiply_each_value_by_a_weight(node, paths):
    assert list(gate_paths(node, SHAPE)) == paths
    if paths == [""]:  # numerically: what is 0 stays 0, and moves between channels only
        x = np.random.default_rng(0).standard_normal((1, *SHAPE))
        x[:, :, 2, 3] = 0
        y = ReferenceModel(node, spec.draw(node.parameters(), 0))(x)
        assert np.abs(y[0, :, 2, 3]).max() == 0


def test_share_kept_where_the_input_is_zero():
    """GCT starts as the identity; a position without any value gets the share of the whole map."""
    x = np.maximum(np.random.default_rng(0).standard_normal((1, *SHAPE)), 0)
    x[:, :, :2] = 0
    gct = spec.gct(32)
    y = ReferenceModel(gct, spec.draw(gct.parameters(), 0))(x)
    np.testing.assert_array_equal(share_kept(x[0], y[0]), np.ones(SHAPE[1:]))
    np.testing.assert_allclose(share_kept(1e-200 * x[0], 5e-201 * x[0]), 0.5)
    np.testing.assert_array_equal(share_kept(np.zeros(SHAPE), np.zeros(SHAPE)), 1)
