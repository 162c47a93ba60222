"""A reader and a writer of safetensors files that hold BF16 tensors.

The format: a little-endian u64 with the length of the header, the header in JSON
(name -> dtype, shape, byte offsets), the data.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch


def save_bf16(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        # numpy knows no bfloat16: pass the bits through int16.
        blob = tensor.detach().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)   # keeps the data aligned to 8 bytes
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            out.write(blob)


def load_bf16(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of the file, as float32."""
    data = path.read_bytes()
    (n_header,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + n_header])
    base = 8 + n_header
    tensors: dict[str, torch.Tensor] = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        if info["dtype"] != "BF16":
            raise ValueError(f"{path}: {name} is {info['dtype']}, expected BF16")
        begin, end = info["data_offsets"]
        bits = np.frombuffer(data[base + begin:base + end], dtype=np.uint16).astype(np.uint32) << 16
        tensors[name] = torch.from_numpy(bits.view(np.float32).reshape(info["shape"]).copy())
    return tensors
