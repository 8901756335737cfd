#!/usr/bin/python3
"""Writes the seed files of backbone/checkpoint/safetensors_fuzz.cc into tests/fuzz/corpus/safetensors."""

import json
import pathlib

OUT = pathlib.Path(__file__).parent / "corpus" / "safetensors"


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def save(name, header, data=b"", alignment=1):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % alignment)
    (OUT / name).write_bytes(len(text).to_bytes(8, "little") + text + data)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    ramp = bytes(range(64))
    dtypes = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2,
              "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
    save("no_tensors", {})
    save("no_tensors_spaces", b" \n\t{ } \r\n")
    save("scalar", {"s": entry("F32", [], 0, 4)}, ramp[:4])
    save("empty_tensor", {"e": entry("F32", [0, 5], 0, 0), "f": entry("U8", [3], 0, 3)}, ramp[:3])
    save("rank_eight", {"r": entry("U8", [1, 1, 2, 1, 1, 2, 1, 1], 0, 4)}, ramp[:4])
    save("metadata", {"__metadata__": {"format": "pt", "note": "x\u00e9\u4e2d"},
                      "a": entry("BF16", [2, 3], 0, 12)}, ramp[:12])
    save("unordered", {"b": entry("F32", [2, 2], 8, 24), "a": entry("F16", [4], 0, 8)}, ramp[:24])
    save("stack", {"experts": entry("F16", [2, 3, 2], 0, 24)}, ramp[:24])
    save("odd_alignment", {"a": entry("U8", [1], 0, 1), "b": entry("F32", [2, 2], 1, 17)}, ramp[:17])
    save("escapes", b'{"t\\u0041\\n\\ud83d\\ude00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    at, every = 0, {}
    for name, size in dtypes.items():
        every[name.lower()] = entry(name, [1], at, at + size)
        at += size
    save("every_dtype", every, ramp[:at])
    # Packed matrices (backbone/checkpoint/packed_entry.h): 2 outputs of 3 inputs are one block of 16 x 32.
    def packed(layout=1, size=320, **matrix):
        entries = {"w": {"format": "q4", "shape": [2, 3], "exponent": -9, **matrix}}
        text = json.dumps({"layout": layout, "matrices": entries}, separators=(",", ":"))
        return {"__metadata__": {"chimera.packed": text}, "w": entry("U8", [size], 0, size)}
    save("packed", packed(), ramp * 5, 64)
    save("packed_unaligned", packed(), ramp * 5, 63)
    save("packed_other_layout", packed(layout=2), ramp * 5, 64)
    save("packed_other_bytes", packed(format="q8"), ramp * 5, 64)
    save("packed_huge", packed(shape=[1 << 62, 1 << 62]), ramp * 5, 64)
    save("packed_half_blocks", packed(format="q4_k"), ramp * 5, 64)
    save("packed_q8", packed(format="q8", size=576), ramp * 9, 64)
    # One block of a K type is 16 outputs of 256 inputs; that of q6_k is filled up to 53 lines of 64 bytes.
    save("packed_q4_k", packed(format="q4_k", shape=[16, 256], size=2368), ramp * 37, 64)
    save("packed_q6_k", packed(format="q6_k", shape=[16, 256], size=3392), ramp * 53, 64)
    # Scales, and the minima of q4_k, that are no numbers: infinity, a NaN.
    save("packed_infinite_scale", packed(), b"\x00\x7c" + (ramp * 5)[2:], 64)
    save("packed_nan_minimum", packed(format="q4_k", shape=[16, 256], size=2368),
         (ramp * 37)[:40] + b"\x01\xfe" + (ramp * 37)[42:], 64)
    save("hole", {"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, ramp[:3])
    save("overlap", {"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, ramp[:3])
    save("wrap", {"w": entry("F32", [1 << 62, 4], 0, 0)})
    save("duplicate", b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},'
                      b'"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"x")
    (OUT / "short_file").write_bytes(b"\x02\x00\x00")
    (OUT / "huge_length").write_bytes(b"\xff" * 8 + b"{}")


if __name__ == "__main__":
    main()
