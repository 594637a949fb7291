"""Small neural networks in plain numpy: layers, training, and export to ONNX nodes.

Every layer knows three things: its forward pass, its backward pass and the ONNX node that computes the same.
Images are [rows, channels, height, width]. This file knows nothing about data sets or files.
"""

import numpy as np
from onnx import helper, numpy_helper


class Dense:
    """y = x W + b on [rows, features]. The weights start as He's normal distribution."""

    def __init__(self, rng, inputs, outputs):
        weight = rng.standard_normal((inputs, outputs)) * np.sqrt(2.0 / inputs)
        self.parameters = [weight.astype(np.float32), np.zeros(outputs, np.float32)]

    def forward(self, x):
        self.x = x
        return x @ self.parameters[0] + self.parameters[1]

    def backward(self, gradient):
        self.gradients = [self.x.T @ gradient, gradient.sum(axis=0)]
        return gradient @ self.parameters[0].T

    def node(self, name, x, y):
        return helper.make_node("Gemm", [x, f"{name}.weight", f"{name}.bias"], [y], name=name)


class Conv:
    """A 3x3 convolution with padding 1, so height and width stay. It runs as one matrix product over patches."""

    def __init__(self, rng, inputs, outputs):
        weight = rng.standard_normal((outputs, inputs, 3, 3)) * np.sqrt(2.0 / (9 * inputs))
        self.parameters = [weight.astype(np.float32), np.zeros(outputs, np.float32)]

    def forward(self, x):
        rows, channels, height, width = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        self.patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(rows * height * width, channels * 9)
        self.shape = x.shape
        weight, bias = self.parameters
        y = self.patches @ weight.reshape(len(weight), -1).T + bias
        return y.reshape(rows, height, width, -1).transpose(0, 3, 1, 2)

    def backward(self, gradient):
        rows, channels, height, width = self.shape
        weight = self.parameters[0]
        flat = gradient.transpose(0, 2, 3, 1).reshape(-1, len(weight))
        self.gradients = [(flat.T @ self.patches).reshape(weight.shape), flat.sum(axis=0)]
        patches = (flat @ weight.reshape(len(weight), -1)).reshape(rows, height, width, channels, 3, 3)
        padded = np.zeros((rows, channels, height + 2, width + 2), np.float32)
        for i in range(3):
            for j in range(3):
                padded[:, :, i : i + height, j : j + width] += patches[..., i, j].transpose(0, 3, 1, 2)
        return padded[:, :, 1:-1, 1:-1]

    def node(self, name, x, y):
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        return helper.make_node("Conv", inputs, [y], name=name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


class Relu:
    parameters = []

    def forward(self, x):
        self.positive = x > 0
        return x * self.positive

    def backward(self, gradient):
        return gradient * self.positive

    def node(self, name, x, y):
        return helper.make_node("Relu", [x], [y], name=name)


class MaxPool:
    """The largest of each 2x2 square. Where several are equal, all of them receive the gradient."""

    parameters = []

    def forward(self, x):
        rows, channels, height, width = x.shape
        squares = x.reshape(rows, channels, height // 2, 2, width // 2, 2)
        y = squares.max(axis=(3, 5), keepdims=True)
        self.largest = squares == y
        return y.reshape(rows, channels, height // 2, width // 2)

    def backward(self, gradient):
        rows, channels, height, width = gradient.shape
        spread = self.largest * gradient[:, :, :, None, :, None]
        return spread.reshape(rows, channels, height * 2, width * 2)

    def node(self, name, x, y):
        return helper.make_node("MaxPool", [x], [y], name=name, kernel_shape=[2, 2], strides=[2, 2])


class Flatten:
    parameters = []

    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, gradient):
        return gradient.reshape(self.shape)

    def node(self, name, x, y):
        return helper.make_node("Flatten", [x], [y], name=name, axis=1)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def shift_images(rng, images):
    """Moves each image by -1, 0 or 1 pixels along both axes; what comes in from outside is zero."""
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    offsets = rng.integers(0, 3, (len(images), 2))
    return np.stack([p[:, i : i + height, j : j + width] for p, (i, j) in zip(padded, offsets)])


def train(layers, x, classes, rng, epochs, rate, rows_per_step=32, decay=1e-4, augment=None):
    """Minimises softmax cross-entropy with Adam (Kingma and Ba, 2015) and decoupled weight decay.

    The learning rate falls from `rate` to zero along half a cosine. `augment(rng, rows)` changes each mini-batch.
    """
    owned = [(layer, i) for layer in layers for i in range(len(layer.parameters))]
    mean = [np.zeros_like(layer.parameters[i]) for layer, i in owned]
    square = [np.zeros_like(layer.parameters[i]) for layer, i in owned]
    steps_per_epoch = -(-len(x) // rows_per_step)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), rows_per_step):
            step += 1
            rows = order[start : start + rows_per_step]
            y = augment(rng, x[rows]) if augment else x[rows]
            for layer in layers:
                y = layer.forward(y)
            gradient = softmax(y)
            gradient[np.arange(len(rows)), classes[rows]] -= 1
            gradient /= np.float32(len(rows))
            for layer in reversed(layers):
                gradient = layer.backward(gradient)
            now = rate * 0.5 * (1 + np.cos(np.pi * step / (epochs * steps_per_epoch)))
            for k, (layer, i) in enumerate(owned):
                g = layer.gradients[i]
                mean[k] += np.float32(0.1) * (g - mean[k])
                square[k] += np.float32(0.001) * (g * g - square[k])
                scale = np.float32(now * np.sqrt(1 - 0.999**step) / (1 - 0.9**step))
                parameter = layer.parameters[i]
                parameter -= scale * mean[k] / (np.sqrt(square[k]) + np.float32(1e-8))
                parameter -= np.float32(now * decay) * parameter


def predict(layers, x):
    """Class probabilities, as numpy computes them: the reference for what the exported graph must give."""
    for layer in layers:
        x = layer.forward(x)
    return softmax(x)


def to_onnx(layers, x, y):
    """The nodes and initializers that turn the tensor named `x` into softmax probabilities named `y`."""
    nodes, initializers = [], []
    for k, layer in enumerate(layers):
        name = f"{type(layer).__name__.lower()}_{k}"
        nodes.append(layer.node(name, x, f"{name}.out"))
        x = f"{name}.out"
        for suffix, value in zip(("weight", "bias"), layer.parameters):
            initializers.append(numpy_helper.from_array(value, f"{name}.{suffix}"))
    nodes.append(helper.make_node("Softmax", [x], [y], name="softmax", axis=1))
    return nodes, initializers
