"""`maam.torch.insert_attention` in networks of one's own: where a layer goes, and where none can go."""

from re import escape

import pytest

from maam import SpecError
from maam.torch import build, insert_attention
from maam.torch.layers import CBAM, ECA, GCT, MAAM, MAFC, SE, SimAM

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

X = torch.rand(2, 3, 8, 8)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.attention = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.items = nn.ModuleList([nn.Conv2d(3, 3, 1)])

    def forward(self, x):
        return self.conv(x) * self.attention(x)


def chain(*layers):
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), *layers), nn.ReLU()).eval()


@pytest.mark.parametrize("where", ["0", ["0", "0.1"]])
def test_a_chain_is_attended_once(where):
    """The new layer does not become a link of the chain, which would call it again."""
    network = chain(nn.BatchNorm2d(8))
    before = network[0](X)
    insert_attention(network, "se", where=where)
    torch.testing.assert_close(network[0](X), network[0][1].attention(before))
    assert [len(network[0]), sum(isinstance(module, SE) for module in network.modules())] == [2, 1]
    insert_attention(network, "eca", where="0")
    assert isinstance(network[0][1].attention, ECA)


@pytest.mark.parametrize("layer", [CBAM(8), MAFC(8), SimAM(), MAAM(8, 5)], ids=lambda layer: type(layer).__name__)
def test_channels_after_layers_of_maam(layer):
    """They are those of the output, not of the last convolution inside."""
    network = insert_attention(chain(layer, nn.ReLU()), "se", where="0")
    assert network(X).shape[1] == (5 if isinstance(layer, MAAM) else 8)


def test_channels_are_not_those_of_inserted_gates():
    network = insert_attention(chain(nn.BatchNorm2d(8)), "mafc", where="0.1")
    assert insert_attention(network, "se", where="0.0")(X).shape == (2, 8, 6, 6)


def test_a_layer_that_starts_as_the_identity_is_not_blended():
    network = insert_attention(chain(), "gct", where="0", identity_init=True)
    network(X).square().mean().backward()
    assert isinstance(network[0][0].attention, GCT)
    assert network[0][0].attention.gamma.grad.abs().max() > 0


def test_frozen_norms_and_shared_layers():
    frozen = nn.Sequential()
    frozen.norm = pytest.importorskip("torchvision").ops.FrozenBatchNorm2d(3)
    frozen.again = frozen.norm
    assert insert_attention(frozen, "simam", where="again")(X).shape == X.shape


SHARED = nn.Sequential(*(chain(layer)[0] for layer in [nn.ReLU()] * 2))
REFUSED = [
    ("resnet18", "eca", "x", "insert_attention: expected a torch.nn.Module, got an object of type str"),
    (chain(), "eca", None, "where: expected a pattern such as"),
    (nn.Sequential(Block()), "eca", "0", "where: '0' has an attribute attention of its own; match a layer inside it"),
    (nn.Sequential(Block()), "eca", "0.items", "where: '0.items' is a list of layers"),
    (nn.Sequential(nn.Sequential()), "eca", "0", "where: '0' is empty"),
    (SHARED, "eca", "0", "where: the last layer of '0' is used in several places"),
    (build("maam_digits"), "eca", "*.conv*", "belongs to a layer or model of maam"),
    (chain(CBAM(8)), "eca", "0.1.*.fc1", "where: '0.1.ChannelGate.fc1' belongs to a layer or model of maam"),
    (torch.compile(chain(), backend="eager"), "se", "0", "expected a network that is not compiled"),
    (chain(), lambda c: nn.Conv2d(c, 2 * c, 1), "0", "Conv2d turns (2, 8, 8, 8) into (2, 16, 8, 8)"),
    (chain(), lambda c: nn.Linear(5, 5), "0", "Linear cannot compute a map (2, 8, 8, 8): RuntimeError"),
]


@pytest.mark.parametrize(("network", "attention", "where", "message"), REFUSED)
def test_places_without_room(network, attention, where, message):
    before = list(network.state_dict()) if isinstance(network, nn.Module) else []
    with pytest.raises(SpecError, match=escape(message)):
        insert_attention(network, attention, where)
    assert before == (list(network.state_dict()) if isinstance(network, nn.Module) else [])
