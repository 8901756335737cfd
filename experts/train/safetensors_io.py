"""Reading and writing safetensors files with numpy and torch only (F32, F16, BF16, I64, I32)."""
from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch

_NUMPY = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}


def read(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file; BF16 is widened to float32."""
    raw = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    out: dict[str, torch.Tensor] = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + o for o in info["data_offsets"])
        if info["dtype"] == "BF16":
            wide = np.frombuffer(raw[begin:end], np.uint16).astype(np.uint32) << 16
            array = wide.view(np.float32)
        else:
            array = np.frombuffer(raw[begin:end], _NUMPY[info["dtype"]]).copy()
        out[name] = torch.from_numpy(array.reshape(info["shape"]))
    return out


def bf16_bits(tensor: torch.Tensor) -> np.ndarray:
    """uint16 bit patterns of float32 values rounded to BF16, ties to even."""
    bits = tensor.detach().float().contiguous().numpy().view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def write(path: Path, tensors: dict[str, torch.Tensor], keep_f32: tuple[str, ...] = ()) -> None:
    """Write tensors as BF16, those whose name ends with an entry of `keep_f32` as F32."""
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    order = sorted(tensors, key=lambda n: (not n.endswith(keep_f32) if keep_f32 else True, n))
    for name in order:
        wide = bool(keep_f32) and name.endswith(keep_f32)
        tensor = tensors[name].detach().float().contiguous()
        blob = tensor.numpy().tobytes() if wide else bf16_bits(tensor).tobytes()
        header[name] = {"dtype": "F32" if wide else "BF16", "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blobs)
