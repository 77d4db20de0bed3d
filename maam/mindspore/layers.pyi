"""Signatures of the layer classes; written by tools/stubs.py."""

from collections.abc import Sequence
from typing import Literal

from mindspore import nn

from maam.mindspore.cells import Layer as Layer

__all__ = ["CBAM", "MAAM", "MAF", "MAFB", "MAFC", "SE", "Layer"]

class MAAM(Layer):
    """MAAM layer (Multi-Agent Aggregation Module): branches, their weighted sum and a 1x1 convolution.

    F = ReLU(BN(Conv1x1(sum_i softmax(alpha)_i AgentBlock_i(X)))), equations 1 to 3 of the paper (arXiv 2504.13574,
    section 3.1). `agent_block` returns one branch, and `reduce_layer` returns the 1x1 convolution.

    Shape:
        (N, in_channels, H, W) to (N, out_channels, H', W'), where H' = H // product of `pool` and the same for W'.

    Args:
        in_channels: the number of channels of the input.
        out_channels: the number of channels of the output. Default: `in_channels`.
        hidden_channels: the number of channels between the two convolutions of a branch. Default:
            max(out_channels // 2, 1).
        num_agents: the number of parallel branches, 1 to 256. Default: 3.
        kernel_sizes: the kernel size of the convolutions, odd; one value for all branches or a list with one for each.
            Default: 3.
        scales: the window of the average pooling in front of a branch; one value or one for each branch. 1 means no
            pooling. The output of a branch with a scale above 1 is resized (nearest) to the size of the others.
            Default: 1.
        pool: the window of max pooling after the last convolution of a branch, or a list with one value for each of the
            two convolutions. 1 means no pooling. Default: 1.
        pool_before_norm: whether the max pooling directly follows its convolution, in front of normalisation and
            activation, which then have less to compute. Default: False.
        fusion: how the branches are weighted. "softmax": softmax of one learnable scalar per branch (equation 2).
            "mean": equal weights. "dynamic": softmax of a linear layer on the globally average-pooled input. Default:
            "softmax".
        reduce: whether a 1x1 convolution, normalisation and activation follow the sum (equation 3). Default: True.
        depthwise: whether to replace each convolution of a branch with a depthwise and a 1x1 convolution. Default:
            False.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default: "relu".
        norm_layer: "batch_norm", or "identity" for no normalisation and convolutions with bias. Default: "batch_norm".

    Raises:
        SpecError: an argument is invalid or contradicts another one.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import MAAM
        >>> layer = MAAM(4, 8, num_agents=2, pool=2)
        >>> layer(ops.ones((2, 4, 8, 8))).shape
        (2, 8, 4, 4)
        >>> layer.agents.alpha.asnumpy()  # one learnable weight for each branch
        array([0., 0.], dtype=float32)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        hidden_channels: int | None = None,
        num_agents: int = 3,
        kernel_sizes: int | Sequence[int] = 3,
        scales: int | Sequence[int] = 1,
        pool: int | Sequence[int] = 1,
        pool_before_norm: bool = False,
        fusion: Literal["softmax", "mean", "dynamic"] = "softmax",
        reduce: bool = True,
        depthwise: bool = False,
        act_layer: Literal[
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "gelu",
            "silu",
            "hard_swish",
            "sigmoid",
            "hard_sigmoid",
            "tanh",
            "identity",
        ]
        | type[nn.Cell] = "relu",
        norm_layer: Literal["batch_norm", "identity"] | type[nn.Cell] = "batch_norm",
    ) -> None: ...

class MAF(Layer):
    """MAF layer: channel attention from accumulated features.

    y = x * sigmoid(W2 ReLU(W1 [avg(x), std(x)] + b1) + b2), where avg and std are the mean and the standard deviation
    of each channel. Source: the MAF paper and its published code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        pool_types: the statistics of each channel over height and width: "avg", "std" (unbiased standard deviation),
            "max", or a list of them without repetition. Default: ("avg", "std").
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or a statistic is repeated.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import MAF
        >>> layer = MAF(64, rd_ratio=1 / 8)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        pool_types: Literal["avg", "std", "max"] | Sequence[Literal["avg", "std", "max"]] = ("avg", "std"),
        *,
        act_layer: Literal[
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "gelu",
            "silu",
            "hard_swish",
            "sigmoid",
            "hard_sigmoid",
            "tanh",
            "identity",
        ]
        | type[nn.Cell] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Cell] = "sigmoid",
    ) -> None: ...

class MAFC(Layer):
    """MAF_C layer: the channel gate MAF followed by a spatial gate, in the order of CBAM.

    y = z * sigmoid(BN(Conv7x7([avg(z), std(z)]))), where z = MAF(x), and avg and std are taken over the channels.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        pool_types: the statistics: "avg", "std" (unbiased standard deviation), "max", or a list of them without
            repetition. The channel gate takes them over height and width, the spatial gate over the channels. Default:
            ("avg", "std").
        spatial: whether to add the spatial gate. Default: True.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds both gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or a statistic is repeated.

    Example:
        >>> from mindspore import nn, ops
        >>> from maam.mindspore import MAFC
        >>> block = nn.SequentialCell(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), MAFC(64), nn.ReLU())
        >>> block(ops.ones((2, 3, 8, 8))).shape
        (2, 64, 8, 8)
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        pool_types: Literal["avg", "std", "max"] | Sequence[Literal["avg", "std", "max"]] = ("avg", "std"),
        *,
        spatial: bool = True,
        act_layer: Literal[
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "gelu",
            "silu",
            "hard_swish",
            "sigmoid",
            "hard_sigmoid",
            "tanh",
            "identity",
        ]
        | type[nn.Cell] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Cell] = "sigmoid",
    ) -> None: ...

class MAFB(Layer):
    """MAF_B layer: channel and spatial attention added to the input, as in BAM.

    y = x * (1 + sigmoid(C(x) + S(x))), where C is the perceptron of MAF and S the dilated convolutions of BAM (arXiv
    1807.06514; reduction 16, dilation 4). The authors published no code for MAF_B; this follows the text of the paper.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        pool_types: the statistics of each channel over height and width: "avg", "std" (unbiased standard deviation),
            "max", or a list of them without repetition. Default: ("avg", "std").
        act_layer: the activation of the perceptron and the dilated branch: "relu", "relu6", "leaky_relu", "elu",
            "gelu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a
            class such as nn.ReLU. Default: "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or a statistic is repeated.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import MAFB
        >>> layer = MAFB(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        pool_types: Literal["avg", "std", "max"] | Sequence[Literal["avg", "std", "max"]] = ("avg", "std"),
        *,
        act_layer: Literal[
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "gelu",
            "silu",
            "hard_swish",
            "sigmoid",
            "hard_sigmoid",
            "tanh",
            "identity",
        ]
        | type[nn.Cell] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Cell] = "sigmoid",
    ) -> None: ...

class SE(Layer):
    """SE layer (squeeze and excitation, arXiv 1709.01507).

    y = x * sigmoid(W2 ReLU(W1 avg(x) + b1) + b2), where avg is the mean of each channel.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from mindspore import nn, ops
        >>> from maam.mindspore import SE
        >>> layer = SE(64, act_layer=nn.SiLU)  # a class or the name "silu"
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        *,
        act_layer: Literal[
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "gelu",
            "silu",
            "hard_swish",
            "sigmoid",
            "hard_sigmoid",
            "tanh",
            "identity",
        ]
        | type[nn.Cell] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Cell] = "sigmoid",
    ) -> None: ...

class CBAM(Layer):
    """CBAM layer (arXiv 1807.06521): a channel gate followed by a spatial gate.

    y = z * sigmoid(BN(Conv7x7([max(z), avg(z)]))), where z = x * sigmoid(MLP(avg(x)) + MLP(max(x))). The two statistics
    share the perceptron MLP, which is two 1x1 convolutions.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        spatial: whether to add the spatial gate. Default: True.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds both gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import CBAM
        >>> layer = CBAM(64, spatial=False)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        *,
        spatial: bool = True,
        act_layer: Literal[
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "gelu",
            "silu",
            "hard_swish",
            "sigmoid",
            "hard_sigmoid",
            "tanh",
            "identity",
        ]
        | type[nn.Cell] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Cell] = "sigmoid",
    ) -> None: ...
