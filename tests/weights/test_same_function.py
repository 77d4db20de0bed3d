import pytest

from maam import spec
from maam.errors import WeightsError
from maam.weights.match import check_same_function


def _chain(**children):
    return spec.Sequential(children=children)


def _model(name="a", **fields):
    children = {"conv": _conv(), "bn": spec.BatchNorm2d(num_features=2, **fields)}
    return spec.Model(name=name, input_shape=(1, 4, 4), children=children)


def _conv(**fields):
    return spec.Conv2d(in_channels=1, out_channels=2, kernel_size=3, **fields)


RELU, SILU = spec.Activation(function="relu"), spec.Activation(function="silu")
BRANCHES = {"a": _conv(), "b": _conv()}

DIFFERENT = {
    "slope": (
        spec.Activation(function="leaky_relu"),
        spec.Activation(function="leaky_relu", negative_slope=0.2),
        "negative_slope is 0.2 in the file and 0.01 in the model",
    ),
    "stride of a pooling": (
        _chain(p=spec.AvgPool2d(kernel_size=3)),
        _chain(p=spec.AvgPool2d(kernel_size=3, stride=2)),
        "p.stride is 2 in the file and 3 in the model",
    ),
    "activation": (
        _chain(conv=_conv(), act=RELU),
        _chain(conv=_conv(), act=SILU),
        "act.function is 'silu' in the file and 'relu' in the model",
    ),
    "eps": (_model(eps=1e-5), _model(eps=1e-3), "bn.eps is 0.001 in the file and 1e-05 in the model"),
    "stride": (_chain(a=_conv()), _chain(a=_conv(stride=2)), "a.stride is 2 in the file and 1 in the model"),
    "merge": (
        _chain(agents=spec.Parallel(children=BRANCHES)),
        _chain(agents=spec.Parallel(children=BRANCHES, merge="concat")),
        "agents.merge is 'concat' in the file and 'sum' in the model",
    ),
    "branch weights": (
        spec.Parallel(children=BRANCHES, merge="weighted", weights=(0.5, 0.5)),
        spec.Parallel(children=BRANCHES, merge="weighted", weights=(0.25, 0.75)),
        "weights is (0.25, 0.75) in the file and (0.5, 0.5) in the model",
    ),
    "order": (
        _chain(conv=_conv(), act=RELU, pool=spec.GlobalPool()),
        _chain(conv=_conv(), pool=spec.GlobalPool(), act=RELU),
        "layer 1 of the model is pool in the file and act in the model",
    ),
    "kind": (_chain(conv=_conv()), spec.Residual(children={"conv": _conv()}), "the outermost layer is a residual in the file"),
    "layer more": (_chain(conv=_conv(), act=RELU), _chain(conv=_conv()), "act is absent in the file and a activation"),
    "nothing": (_chain(conv=_conv()), _chain(), "conv is absent in the file and a conv2d in the model"),
}
TRAINING_NAMES = ["init", "name", "momentum", "p"]


@pytest.mark.parametrize("case", DIFFERENT)
def test_another_function_is_refused_with_the_first_difference(case):
    own, saved, expected = DIFFERENT[case]
    with pytest.raises(WeightsError, match=r"^file: saved with another spec: ") as caught:
        check_same_function(own, saved, source="file")
    assert expected in str(caught.value)
    assert str(caught.value).endswith("build the model from the file's own spec with load(), or pass strict=False")


@pytest.mark.parametrize("name", TRAINING_NAMES)
def test_a_layer_called_like_a_training_field_counts(name):
    with_layer, without = _chain(conv=_conv(), **{name: RELU}), _chain(conv=_conv())
    for own, saved in ((with_layer, without), (without, with_layer)):
        with pytest.raises(WeightsError, match=f": {name} is a"):
            check_same_function(own, saved, source="file")


def test_the_weighting_branch_has_its_path_in_the_message():
    own = spec.maam(2, fusion="dynamic")
    agents = own.children["agents"]
    weighting = agents.weighting.replace(children={**agents.weighting.children, "softmax": SILU})
    saved = own.replace(children={**own.children, "agents": agents.replace(weighting=weighting)})
    with pytest.raises(WeightsError, match=r": agents\.weighting\.softmax\.function is 'silu' in the file"):
        check_same_function(own, saved, source="file")


SAME = {
    "stride of a window": (_chain(p=spec.MaxPool2d(kernel_size=2)), _chain(p=spec.MaxPool2d(kernel_size=2, stride=2))),
    "slope of another activation": (RELU, RELU.replace(negative_slope=0.5)),
    "momentum": (_model(momentum=0.1), _model(momentum=0.01)),
    "name": (_model("a"), _model("b")),
    "initialisation": (_chain(conv=_conv()), _chain(conv=_conv(init="xavier_normal"))),
    "dropout probability": (
        _chain(drop=spec.Dropout(p=0.5), act=RELU),
        _chain(drop=spec.Dropout(p=0.1), act=RELU),
    ),
    "dropout alone": (spec.Dropout(p=0.5), spec.Dropout(p=0.1)),
    "dropout on one side": (_chain(drop=spec.Dropout(p=0.5), act=RELU), _chain(act=RELU)),
    "dropout of a preset": (spec.preset("maam_digits", dropout=0.3), spec.preset("maam_digits")),
    "all at once": (
        _chain(drop=spec.Dropout(p=0.5), body=_model("a", momentum=0.5)),
        _chain(body=_model("b", momentum=0.2)),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_what_makes_no_difference_in_inference_may_differ(case):
    own, saved = SAME[case]
    check_same_function(own, saved, source="file")
    check_same_function(saved, own, source="file")


def test_every_room_checks_the_spec_when_strict(room, tmp_path):
    path = tmp_path / "weights.safetensors"
    room.save_weights(room.build(spec.maam(4, act_layer="silu")), path)
    model = room.build(spec.maam(4))
    with pytest.raises(WeightsError) as caught:
        room.load_weights(model, path)
    assert str(caught.value) == (
        f"{path}: saved with another spec: agents.0.act1.function is 'silu' in the file and 'relu' in the model; "
        "build the model from the file's own spec with load(), or pass strict=False"
    )
    assert room.load_weights(model, path, strict=False) == ((), ())


def test_weights_trained_with_dropout_load_without(room, tmp_path):
    room.save_weights(room.build(spec.preset("maam_digits", dropout=0.3)), tmp_path / "weights.safetensors")
    model = room.build("maam_digits", seed=1)
    assert room.load_weights(model, tmp_path / "weights.safetensors") == ((), ())
