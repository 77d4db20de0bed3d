"""The baselines CNN, MLP and RNN: layers and canonical names."""

from maam.spec import RNN, cnn, mlp, preset, rnn


def table(model):
    return {parameter.name: parameter.shape for parameter in model.parameters()}


def test_cnn():
    assert table(cnn()) == {
        "conv1.weight": (32, 3, 3, 3),
        "conv1.bias": (32,),
        "conv2.weight": (64, 32, 3, 3),
        "conv2.bias": (64,),
        "fc1.weight": (128, 4096),
        "fc1.bias": (128,),
        "fc2.weight": (10, 128),
        "fc2.bias": (10,),
    }
    assert cnn().stages()["pool2"] == (64, 8, 8)
    assert [node.kind for node in cnn().nodes.values()].count("activation") == 3


def test_cnn_of_an_odd_image():
    assert cnn(image_size=31).stages()["pool2"] == (64, 7, 7)
    assert cnn(image_size=31).at("fc1").in_features == 64 * 49


def test_mlp():
    assert table(mlp(100, 1, image_size=28)) == {
        "fc1.weight": (512, 784),
        "fc1.bias": (512,),
        "fc2.weight": (256, 512),
        "fc2.bias": (256,),
        "fc3.weight": (100, 256),
        "fc3.bias": (100,),
    }


def test_rnn_reads_rows():
    model = rnn()
    assert model.at("rnn") == RNN(input_size=96, hidden_size=128)
    assert table(model) == {
        "rnn.weight_ih_l0": (128, 96),
        "rnn.weight_hh_l0": (128, 128),
        "rnn.bias_ih_l0": (128,),
        "rnn.bias_hh_l0": (128,),
        "fc.weight": (10, 128),
        "fc.bias": (10,),
    }


def test_presets_are_the_functions():
    assert preset("cnn", num_classes=4) == cnn(4)
    assert preset("mlp", in_channels=1) == mlp(in_channels=1)
    assert preset("rnn", image_size=8) == rnn(image_size=8)
