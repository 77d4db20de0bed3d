"""Signatures of the layer classes; written by tools/stubs.py."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from maam.torch.modules import Layer as Layer

__all__ = [
    "BAM",
    "CBAM",
    "ECA",
    "EMA",
    "ESE",
    "GC",
    "GCT",
    "GE",
    "LKA",
    "MAAM",
    "MAF",
    "MAFB",
    "MAFC",
    "MRAP",
    "SE",
    "SGE",
    "SK",
    "AgentAttention",
    "CoordAttention",
    "Layer",
    "ScSE",
    "ShuffleAttention",
    "SimAM",
    "SoftmaxAttention",
    "TripletAttention",
    "VANAttention",
]

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
        pool_before_norm: whether the max pooling directly follows its convolution, in front of normalization and
            activation, which then have less to compute. Default: False.
        fusion: how the branches are weighted. "softmax": softmax of one learnable scalar per branch (equation 2).
            "mean": equal weights. "dynamic": softmax of a linear layer on the globally average-pooled input. Default:
            "softmax".
        reduce: whether a 1x1 convolution, normalization and activation follow the sum (equation 3). Default: True.
        depthwise: whether to replace each convolution of a branch with a depthwise and a 1x1 convolution. Default:
            False.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default: "relu".
        norm_layer: "batch_norm", or "identity" for no normalization and convolutions with bias. Default: "batch_norm".

    Raises:
        SpecError: an argument is invalid or contradicts another one.

    Example:
        >>> import torch
        >>> from maam.torch import MAAM
        >>> layer = MAAM(16, 32, num_agents=3, pool=2)
        >>> layer(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
        >>> layer.agents.alpha  # one learnable weight for each branch
        Parameter containing:
        tensor([0., 0., 0.], requires_grad=True)
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
        | type[nn.Module] = "relu",
        norm_layer: Literal["batch_norm", "identity"] | type[nn.Module] = "batch_norm",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
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
        >>> import torch
        >>> from maam.torch import MAF
        >>> layer = MAF(64, rd_ratio=1 / 8)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
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
        >>> import torch
        >>> from torch import nn
        >>> from maam.torch import MAFC
        >>> block = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), MAFC(64), nn.ReLU())
        >>> block(torch.rand(2, 3, 10, 10)).shape
        torch.Size([2, 64, 8, 8])
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
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
        >>> import torch
        >>> from maam.torch import MAFB
        >>> layer = MAFB(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
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
        >>> import torch
        >>> from torch import nn
        >>> from maam.torch import SE
        >>> layer = SE(64, act_layer=nn.SiLU)  # a class or the name "silu"
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
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
        >>> import torch
        >>> from maam.torch import CBAM
        >>> layer = CBAM(64, spatial=False)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class ESE(Layer):
    """Effective SE layer (arXiv 1911.06667): squeeze and excitation with one full matrix.

    y = x * gate(W avg(x) + b), where avg is the mean of each channel. Parameter names are those of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "hard_sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import ESE
        >>> layer = ESE(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "hard_sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class ECA(Layer):
    """ECA layer (efficient channel attention, arXiv 1910.03151).

    y = x * gate(Conv1d(avg(x))), where the convolution, without bias, runs over the channels. Parameter names are those
    of the authors' code and of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        kernel_size: the kernel size of the convolution, odd. Default: int(|log2(channels) + beta| / gamma), or the next
            odd number, but at least 3.
        gamma: see `kernel_size`. Default: 2.0.
        beta: see `kernel_size`. Default: 1.0.
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import ECA
        >>> layer = ECA(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | None = None,
        gamma: float = 2.0,
        beta: float = 1.0,
        *,
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class GC(Layer):
    """GC layer (global context, arXiv 1904.11492).

    y = x * gate(P(c)), or x + P(c) with `fuse_add`. The context c is the mean of x over the positions, weighted by
    softmax(Conv1x1(x)); P is a perceptron with layer normalization. Parameter names and defaults are those of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Default: 1 / 8.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        fuse_add: whether to add P(c) to the map. Its last weight starts at 0. Default: False.
        fuse_scale: whether to multiply the map by gate(P(c)). Default: True.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or neither `fuse_add` nor `fuse_scale` is set.

    Example:
        >>> import torch
        >>> from maam.torch import GC
        >>> layer = GC(64, fuse_add=True)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.125,
        rd_channels: int | None = None,
        *,
        fuse_add: bool = False,
        fuse_scale: bool = True,
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class GE(Layer):
    """GE layer (gather and excite, arXiv 1810.12348).

    y = x * gate(resize(P(gather(x)))): means of neighborhoods, a perceptron of 1x1 convolutions, nearest resize to the
    size of x. Parameter names are those of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        extent: the size of the neighborhoods: 2, 4 or 8, or 0 for the whole map. Default: 0.
        extra_params: whether depthwise convolutions with stride 2 gather, in place of average pooling; `extent` must
            not be 0. Default: False.
        use_mlp: whether there is a perceptron. Default: True.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or `extra_params` is set with `extent` 0.

    Example:
        >>> import torch
        >>> from maam.torch import GE
        >>> layer = GE(64, extent=4)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        *,
        extent: Literal[0, 2, 4, 8] = 0,
        extra_params: bool = False,
        use_mlp: bool = True,
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class GCT(Layer):
    """GCT layer (gated channel transformation, arXiv 1909.11519).

    y = x * (1 + tanh(gamma * e / |e| + beta)), where e = alpha * |x| is the scaled norm of each channel, and |e| the
    norm over the channels. A new layer changes nothing, because gamma and beta start at 0. Parameter names are those of
    the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        epsilon: the number that is added under roots and to denominators. Default: 1e-5.
        mode: the norm, "l2" or "l1". Default: "l2".
        gate_layer: "tanh", or "sigmoid". Default: "tanh".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import GCT
        >>> layer = GCT(64, mode="l1")
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        epsilon: float = 1e-05,
        *,
        mode: Literal["l2", "l1"] = "l2",
        gate_layer: Literal["tanh", "sigmoid"] | type[nn.Module] = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class SK(Layer):
    """SK layer (selective kernel, arXiv 1903.06586): branches with different kernels.

    y = sum_i a_i * B_i(x), where B_i is a convolution, batch norm and activation, and a the softmax of a perceptron of
    the mean of sum_i B_i(x). Parameter names are those of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 32. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        kernel_sizes: the kernel size of each branch, odd, or one for both of two branches. Default: (3, 5).
        keep_3x3: whether larger kernels are 3x3 with dilation. Default: True.
        groups: the groups of the convolutions. Default: 1.
        split_input: whether each branch gets its share of the channels, as timm's networks have it. Default: False.
        act_layer: the activation of the branches and the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu",
            "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class
            such as nn.ReLU. Default: "relu".

    Raises:
        SpecError: an argument is invalid, or `groups`, or the number of branches with `split_input`, does not divide
            `channels`.

    Example:
        >>> import torch
        >>> from maam.torch import SK
        >>> layer = SK(64, groups=8)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        *,
        kernel_sizes: int | Sequence[int] = (3, 5),
        keep_3x3: bool = True,
        groups: int = 1,
        split_input: bool = False,
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
        | type[nn.Module] = "relu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class BAM(Layer):
    """BAM layer (bottleneck attention module, arXiv 1807.06514), as the authors' code computes it.

    y = x * (1 + gate(C(x) * S(x))), where C is a perceptron of the mean of each channel, and S a chain of dilated
    convolutions. The paper adds C and S; the code multiplies them. Parameter names are those of the code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron and of the convolutions as a fraction of `channels`, above 0 and at most
            1. The width is rounded down and at least 1. Default: 1 / 16.
        rd_channels: the width of the perceptron and of the convolutions; replaces `rd_ratio`.
        dilation: the dilation of the two 3x3 convolutions. Default: 4.
        act_layer: the activation of the perceptron and of the convolutions: "relu", "relu6", "leaky_relu", "elu",
            "gelu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a
            class such as nn.ReLU. Default: "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import BAM
        >>> layer = BAM(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        *,
        dilation: int = 4,
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class ScSE(Layer):
    """ScSE layer (concurrent spatial and channel squeeze and excitation, arXiv 1803.02579).

    y = max(x * gate(P(avg(x))), x * gate(Conv1x1(x))), or their sum. The authors' code takes the maximum. Parameter
    names are those of the code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Default: 1 / 2.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        merge: how to combine both maps: "max" or "add". Default: "max".
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import ScSE
        >>> layer = ScSE(64, merge="add")
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.5,
        rd_channels: int | None = None,
        *,
        merge: Literal["max", "add"] = "max",
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class CoordAttention(Layer):
    """Coordinate attention layer (arXiv 2103.02907).

    y = x * gate(Conv_h(h)) * gate(Conv_w(w)), where h and w are the means of the rows and of the columns, after a
    shared 1x1 convolution, batch norm and activation. Parameter names and defaults are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the shared convolution as a fraction of `channels`, above 0 and at most 1. The width is
            rounded down and at least 8. Default: 1 / 32.
        rd_channels: the width of the shared convolution; replaces `rd_ratio`.
        bias: whether the convolutions have a bias. Default: True.
        act_layer: the activation of the shared convolution: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu",
            "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as
            nn.ReLU. Default: "hard_swish".
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import CoordAttention
        >>> layer = CoordAttention(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.03125,
        rd_channels: int | None = None,
        *,
        bias: bool = True,
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
        | type[nn.Module] = "hard_swish",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class SimAM(Layer):
    """SimAM layer (ICML 2021), which has no parameters.

    y = x * gate(d / (4 (v + e_lambda)) + 1/2), where d is the squared distance of each value to the mean of its
    channel, and v the unbiased variance of the channel.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input; None for any. Default: None.
        e_lambda: the regularization of the variance. Default: 1e-4.
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import SimAM
        >>> layer = SimAM(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int | None = None,
        e_lambda: float = 0.0001,
        *,
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class TripletAttention(Layer):
    """Triplet attention layer (arXiv 2010.03045).

    The mean of two or three gates x * gate(BN(Conv([max(x), avg(x)]))). The first treats the rows as channels, the
    second the columns, the third the channels as they are. Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input; None for any. Default: None.
        spatial: whether there is the third gate. Default: True.
        kernel_size: the kernel size of the convolutions, odd. Default: 7.
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import TripletAttention
        >>> layer = TripletAttention(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        spatial: bool = True,
        kernel_size: int = 7,
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class LKA(Layer):
    """LKA layer (large kernel attention, arXiv 2202.09741).

    y = x * Conv1x1(Conv7x7(Conv5x5(x))), with depthwise convolutions, of which the second has dilation 3: together they
    reach as far as a kernel of 21x21. Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import LKA
        >>> layer = LKA(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class VANAttention(Layer):
    """Attention of VAN (visual attention network, arXiv 2202.09741), which is built around LKA.

    y = x + Conv1x1(LKA(act(Conv1x1(x)))). Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        act_layer: the activation of the first convolution: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu",
            "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as
            nn.ReLU. Default: "gelu".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> import torch
        >>> from maam.torch import VANAttention
        >>> layer = VANAttention(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
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
        | type[nn.Module] = "gelu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class SGE(Layer):
    """SGE layer (spatial group-wise enhance, arXiv 1905.09646).

    In each group of channels, the similarity of every position with the mean of the map is normalized over the
    positions, scaled by two learnable numbers, and bounded by the gate, which multiplies the group. Parameter names are
    those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        groups: the number of groups of channels. Default: the largest power of two up to 64 that divides `channels`.
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or `groups` does not divide `channels`.

    Example:
        >>> import torch
        >>> from maam.torch import SGE
        >>> layer = SGE(64, groups=8)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        groups: int | None = None,
        *,
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class ShuffleAttention(Layer):
    """Shuffle attention layer (SA-Net, arXiv 2102.00240).

    Half of each group of channels gets channel attention, x * gate(a avg(x) + b), the other half spatial attention, x *
    gate(a GroupNorm(x) + b); then the channels are shuffled. Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        groups: the number of groups of channels. Default: the largest power of two up to 64 that divides half of
            `channels`.
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or twice `groups` does not divide `channels`.

    Example:
        >>> import torch
        >>> from maam.torch import ShuffleAttention
        >>> layer = ShuffleAttention(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        groups: int | None = None,
        *,
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class EMA(Layer):
    """EMA layer (efficient multi-scale attention, arXiv 2305.13563).

    Each group of channels gets the gates of coordinate attention in one branch and a 3x3 convolution in the other; the
    softmax of the channel means of each branch weights the map of the other one, and the sum of both maps is the gate.
    Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        groups: the number of groups of channels. Default: the largest power of two up to 8 that divides `channels`.
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or `groups` does not divide `channels`.

    Example:
        >>> import torch
        >>> from maam.torch import EMA
        >>> layer = EMA(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        groups: int | None = None,
        *,
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class MRAP(Layer):
    """MRAP layer (multiple residual attentive patterns), by the authors of MAF. SRAP is the same module.

    y = x * (1 + gate(relu(P(m) + gate(c)) * (S(x) + gate(s)))), where c and s are the products of the statistics of
    each channel and of each position, P is a perceptron, and S a 7x7 convolution with batch norm of the statistics of
    each position. m mixes the largest channel statistics of each kind, in descending order. Parameter names are those
    of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        pool_types: two or three of the statistics "avg", "std" (unbiased standard deviation) and "max". Default:
            ("avg", "std").
        rates: the share of `channels` that m takes of each statistic, with a sum of 1; shares are rounded down, and the
            last statistic fills the rest. Default: equal shares.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or `pool_types` has not two or three statistics, or `rates` do not fit them.

    Example:
        >>> import torch
        >>> from maam.torch import MRAP
        >>> layer = MRAP(64, pool_types=("avg", "std", "max"))
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 0.0625,
        rd_channels: int | None = None,
        pool_types: Literal["avg", "std", "max"] | Sequence[Literal["avg", "std", "max"]] = ("avg", "std"),
        rates: Sequence[float] | None = None,
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
        | type[nn.Module] = "relu",
        gate_layer: Literal["sigmoid", "hard_sigmoid", "tanh"] | type[nn.Module] = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class SoftmaxAttention(Layer):
    """Softmax attention over the positions of a map (multi-head self-attention, arXiv 1706.03762).

    y = Conv1x1(softmax(q k^T / sqrt(d)) v) for each head, where q, k and v are 1x1 convolutions of x. The cost grows
    with the square of the number of positions. Parameter names are those of timm's Attention2d.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        num_heads: the number of heads. Default: the largest power of two up to 8 that divides `channels`.
        bias: whether the convolutions have a bias. Default: True.

    Raises:
        SpecError: an argument is invalid, or `num_heads` does not divide `channels`.

    Example:
        >>> import torch
        >>> from maam.torch import SoftmaxAttention
        >>> layer = SoftmaxAttention(64, num_heads=4)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        num_heads: int | None = None,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...

class AgentAttention(Layer):
    """Agent attention layer (arXiv 2312.08874).

    y = W (softmax(q a^T) softmax(a k^T) v + Conv3x3(v)) for each head: the agents a, which are means of the queries
    over regions, read the map, and the positions read the agents. The cost grows linearly with the number of positions.
    Parameter names are those of the authors' code, without its position biases, which need maps of one size.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        num_heads: the number of heads. Default: the largest power of two up to 8 that divides `channels`.
        agent_num: the number of agents, a square. Default: 49.
        qkv_bias: whether the map to queries, keys and values has a bias. Default: False.

    Raises:
        SpecError: an argument is invalid, or `num_heads` does not divide `channels`, or `agent_num` is not a square.

    Example:
        >>> import torch
        >>> from maam.torch import AgentAttention
        >>> layer = AgentAttention(64, agent_num=9)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        num_heads: int | None = None,
        agent_num: int = 49,
        *,
        qkv_bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
