# SPDX-License-Identifier: Apache-2.0
"""ACmix written down literally in NumPy: padded copies, loops over windows, one query at a time. Slow and obvious."""

import numpy as np


def sliding_window_attention(query, key, value, position, heads, kernel, stride, dilation):
    """Self-attention over reflect-padded windows; maps (B, C, H, W), position (d, 2) -> (B, C, H', W')."""
    batch, channels, height, width = query.shape
    d, pad = channels // heads, dilation * (kernel // 2)
    location = np.stack(np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height)))
    encoding = np.einsum("dc,chw->dhw", position, location)

    def padded(maps):
        return np.pad(maps, [(0, 0)] * (maps.ndim - 2) + [(pad, pad), (pad, pad)], mode="reflect")

    keys, values, encodings = padded(key), padded(value), padded(encoding)
    out = np.zeros((batch, channels, -(-height // stride), -(-width // stride)), query.dtype)
    span = dilation * (kernel - 1) + 1
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            y, x = row * stride, column * stride
            window = np.s_[..., y : y + span : dilation, x : x + span : dilation]
            for head in range(heads):
                part = slice(head * d, (head + 1) * d)
                relative = encoding[:, y, x, None, None] - encodings[window]
                logits = np.einsum("bd,bdij->bij", query[:, part, y, x], keys[:, part][window] + relative) / np.sqrt(d)
                weights = np.exp(logits - logits.max(axis=(1, 2), keepdims=True))
                weights /= weights.sum(axis=(1, 2), keepdims=True)
                out[:, part, row, column] = np.einsum("bij,bdij->bd", weights, values[:, part][window])
    return out


def convolve(x, weight, stride, dilation, groups):
    """Convolution with zero padding that keeps the size, tap by tap."""
    out_channels, group_channels, kernel, _ = weight.shape
    height, width = x.shape[2:]
    pad = dilation * (kernel // 2)
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = 0
    for t in range(kernel * kernel):
        top, left = t // kernel * dilation, t % kernel * dilation
        shifted = x[:, :, top : top + height : stride, left : left + width : stride]
        shifted = shifted.reshape(x.shape[0], groups, group_channels, *shifted.shape[2:])
        taps = weight[:, :, t // kernel, t % kernel].reshape(groups, out_channels // groups, group_channels)
        out = out + np.einsum("goc,bgchw->bgohw", taps, shifted).reshape(x.shape[0], out_channels, *shifted.shape[3:])
    return out


def acmix(x, weights, heads, kernel_att, kernel_conv, stride, dilation):
    """The whole operator; `weights` as our Cell names them."""
    channels = weights["qkv.weight"].shape[0] // 3
    qkv = np.einsum("oc,bchw->bohw", weights["qkv.weight"][:, :, 0, 0], x) + weights["qkv.bias"][:, None, None]
    query, key, value = np.split(qkv, 3, axis=1)
    attention = sliding_window_attention(
        query, key, value, weights["attention.position.weight"], heads, kernel_att, stride, dilation
    )
    batch, _, height, width = qkv.shape
    d = channels // heads
    maps = np.einsum(
        "tp,bpdhw->bdthw", weights["convolution.fc.weight"][:, :, 0, 0], qkv.reshape(batch, -1, d, height, width)
    )
    maps = maps.reshape(batch, -1, height, width)
    convolution = convolve(maps, weights["convolution.shift.weight"], stride, dilation, d)
    return weights["alpha"] * attention + weights["beta"] * convolution
