"""Face networks with seeded random weights: timing needs the architectures, not the accuracy.

`NETWORKS` maps a name to a function that returns its ONNX model. The batch axis is symbolic.
Batch normalisation is folded into the convolutions, as real exports do. They cannot fold it before
a padded convolution, nor before the last fully connected layer of an IResNet.
"""

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

BATCH = "N"


class Builder:
    """A network under construction. Layer methods take and return the names of values."""

    def __init__(self, name, channels, side, seed=0):
        self.name = name
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []
        self.shapes = {"input": (channels, side, side)}

    def channels(self, x):
        return self.shapes[x][0]

    def weight(self, values):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))
        return name

    def normal(self, *shape, mean=0.0, deviation=1.0):
        return self.weight(mean + deviation * self.random.standard_normal(shape))

    def node(self, op, inputs, shape, **attributes):
        output = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        self.shapes[output] = tuple(shape)
        return output

    def conv(self, x, channels, kernel, stride=1, pad=None, groups=1):
        """Adds a square convolution with bias. Without `pad`, the padding keeps the size."""
        pad = kernel // 2 if pad is None else pad
        inputs, height, width = self.shapes[x]
        size = lambda side: (side + 2 * pad - kernel) // stride + 1
        fan_in = inputs // groups * kernel * kernel
        # A little less than He's rule gives, so that the sums of an IResNet-100's 49 units stay far
        # from the limits of f32.
        weight = self.normal(
            channels, inputs // groups, kernel, kernel, deviation=0.8 * (2 / fan_in) ** 0.5
        )
        bias = self.normal(channels, deviation=0.05)
        return self.node(
            "Conv",
            [x, weight, bias],
            (channels, size(height), size(width)),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            group=groups,
        )

    def depthwise(self, x, kernel, stride=1, pad=None):
        return self.conv(x, self.channels(x), kernel, stride, pad, groups=self.channels(x))

    def prelu(self, x):
        slope = self.normal(self.channels(x), 1, 1, mean=0.25, deviation=0.05)
        return self.node("PRelu", [x, slope], self.shapes[x])

    def relu(self, x):
        return self.node("Relu", [x], self.shapes[x])

    def add(self, x, y):
        return self.node("Add", [x, y], self.shapes[x])

    def batch_norm(self, x):
        c = self.channels(x)
        scale = self.normal(c, mean=1.0, deviation=0.1)
        shift = self.normal(c, deviation=0.05)
        mean = self.normal(c, deviation=0.05)
        variance = self.weight(1 + 0.1 * self.random.random(c))
        return self.node(
            "BatchNormalization", [x, scale, shift, mean, variance], self.shapes[x], epsilon=1e-5
        )

    def max_pool(self, x, kernel, stride):
        c, height, width = self.shapes[x]
        size = lambda side: (side - kernel) // stride + 1
        return self.node(
            "MaxPool",
            [x],
            (c, size(height), size(width)),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
        )

    def global_average(self, x):
        return self.node("GlobalAveragePool", [x], (self.channels(x), 1, 1))

    def flatten(self, x):
        return self.node("Flatten", [x], (int(np.prod(self.shapes[x])),), axis=1)

    def fully_connected(self, x, outputs, bias=True):
        (inputs,) = self.shapes[x]
        operands = [x, self.normal(outputs, inputs, deviation=inputs**-0.5)]
        if bias:
            operands.append(self.normal(outputs, deviation=0.05))
        return self.node("Gemm", operands, (outputs,), transB=1)

    def model(self, output) -> ModelProto:
        value = lambda name, shape: helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [BATCH, *shape]
        )
        inputs = [value("input", self.shapes["input"])]
        outputs = [value("output", self.shapes[output])]
        self.nodes[-1].output[0] = "output"
        graph = helper.make_graph(self.nodes, self.name, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        checker.check_model(model)
        return model


def iresnet(name, units):
    """ArcFace's residual network: units of BN, 3x3, PReLU, 3x3. The first BN is not folded."""
    net = Builder(name, 3, 112)
    x = net.prelu(net.conv("input", 64, 3))
    for channels, count in zip((64, 128, 256, 512), units):
        for unit in range(count):
            stride = 2 if unit == 0 else 1
            y = net.prelu(net.conv(net.batch_norm(x), channels, 3))
            y = net.conv(y, channels, 3, stride)
            x = net.add(y, net.conv(x, channels, 1, stride) if unit == 0 else x)
    x = net.flatten(net.batch_norm(x))
    return net.model(net.fully_connected(x, 512))


def bottleneck(net, x, widths, outputs, stride=1):
    """Adds 1x1 expand, depthwise 3x3 and 1x1 project, with a residual if the stride is 1."""
    y = net.prelu(net.conv(x, widths, 1))
    y = net.prelu(net.depthwise(y, 3, stride))
    y = net.conv(y, outputs, 1)
    return net.add(y, x) if stride == 1 else y


def mobilefacenet(name):
    """MobileFaceNet, 112x112: inverted residuals and a global depthwise convolution."""
    net = Builder(name, 3, 112)
    x = net.prelu(net.conv("input", 64, 3, 2))
    x = net.prelu(net.depthwise(x, 3))
    stages = ((128, 64, 128, 4), (256, 128, 256, 6), (512, 128, 256, 2))
    for first, outputs, rest, count in stages:
        x = bottleneck(net, x, first, outputs, stride=2)
        for _ in range(count):
            x = bottleneck(net, x, rest, outputs)
    x = net.prelu(net.conv(x, 512, 1))
    x = net.depthwise(x, 7, pad=0)
    return net.model(net.flatten(net.conv(x, 512, 1)))


def minifasnet(name):
    """Like MiniFASNetV2, 80x80: MobileFaceNet pruned to odd widths, for anti-spoofing."""
    net = Builder(name, 3, 80)
    x = net.prelu(net.conv("input", 32, 3, 2))
    x = net.prelu(net.depthwise(x, 3))
    stages = (
        (64, 103, (13, 13, 13, 13)),
        (128, 231, (231, 52, 26, 77, 26, 26)),
        (128, 308, (26, 26)),
    )
    for outputs, first, rest in stages:
        x = bottleneck(net, x, first, outputs, stride=2)
        for widths in rest:
            x = bottleneck(net, x, widths, outputs)
    x = net.prelu(net.conv(x, 512, 1))
    x = net.flatten(net.depthwise(x, 5, pad=0))
    x = net.fully_connected(x, 128)
    return net.model(net.fully_connected(x, 3, bias=False))


def dlib_resnet(name):
    """Like dlib's face recognition network, 150x150; 1x1 shortcuts where dlib pools and pads."""
    net = Builder(name, 3, 150)
    x = net.relu(net.conv("input", 32, 7, 2, pad=0))
    x = net.max_pool(x, 3, 2)
    for channels, count in ((32, 3), (64, 4), (128, 4), (256, 5)):
        for unit in range(count):
            stride = 2 if unit == 0 and channels != 32 else 1
            y = net.relu(net.conv(x, channels, 3, stride))
            y = net.conv(y, channels, 3)
            shortcut = x if stride == 1 else net.conv(x, channels, 1, stride)
            x = net.relu(net.add(y, shortcut))
    x = net.flatten(net.global_average(x))
    return net.model(net.fully_connected(x, 128))


NETWORKS = {
    "iresnet18": lambda: iresnet("iresnet18", (2, 2, 2, 2)),
    "iresnet50": lambda: iresnet("iresnet50", (3, 4, 14, 3)),
    "iresnet100": lambda: iresnet("iresnet100", (3, 13, 30, 3)),
    "mobilefacenet": lambda: mobilefacenet("mobilefacenet"),
    "minifasnet": lambda: minifasnet("minifasnet"),
    "dlibresnet": lambda: dlib_resnet("dlibresnet"),
}
