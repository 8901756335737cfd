#!/usr/bin/env python3
"""Writes data/gate.safetensors and data/weights.safetensors: a small random expert for layer 5.

Replace it by what writes your trained tensors. The gate row scores every token; the host multiplies
the expert's output by the gate's weight and adds it to what the other experts give. A negative bias
keeps the untrained example out of the way.
"""
import json
import os
import random
import struct

HIDDEN, WIDTH, LAYER = 256, 8, 5


def write(path, tensors):
    header, data = {}, b""
    for name, shape, values in tensors:
        raw = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main():
    rng = random.Random(1)
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
    os.makedirs(here, exist_ok=True)
    matrix = lambda rows, cols: [rng.gauss(0.0, 0.02) for _ in range(rows * cols)]
    write(os.path.join(here, "gate.safetensors"), [
        (f"layers.{LAYER}.gate.weight", [1, HIDDEN], matrix(1, HIDDEN)),
        (f"layers.{LAYER}.gate.bias", [1], [-4.0])])
    write(os.path.join(here, "weights.safetensors"), [
        ("gate_proj", [WIDTH, HIDDEN], matrix(WIDTH, HIDDEN)),
        ("up_proj", [WIDTH, HIDDEN], matrix(WIDTH, HIDDEN)),
        ("down_proj", [HIDDEN, WIDTH], matrix(HIDDEN, WIDTH))])


if __name__ == "__main__":
    main()
