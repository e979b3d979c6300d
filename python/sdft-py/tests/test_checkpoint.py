"""Reading checkpoints: files made by hand, and by PyTorch and safetensors where installed."""

import json
import pickle
import struct

import numpy as np
import pytest
import sdft_py


def write_safetensors(path, tensors):
    """Writes `{name: (dtype, shape, bytes)}` as safetensors."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += values
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


def test_types_become_those_of_numpy(tmp_path):
    values = np.array([1.5, -2.0, 0.25], np.float32)
    # The upper half of an f32 is a bfloat16.
    bf16 = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    path = write_safetensors(
        tmp_path / "all.safetensors",
        {
            "z.f32": ("F32", [3], values.tobytes()),
            "bf16": ("BF16", [3, 1], bf16),
            "f16": ("F16", [3], values.astype("<f2").tobytes()),
            "f64": ("F64", [3], values.astype("<f8").tobytes()),
            "i16": ("I16", [2], np.array([-3, 4], "<i2").tobytes()),
            "u8": ("U8", [2], bytes([0, 255])),
            "bool": ("BOOL", [2], bytes([0, 1])),
            "scalar": ("I64", [], struct.pack("<q", 2**40)),
            "empty": ("F32", [0, 4], b""),
        },
    )
    got = sdft_py.read_checkpoint(path)
    assert set(got) == {"z.f32", "bf16", "f16", "f64", "i16", "u8", "bool", "scalar", "empty"}
    dtypes = {name: str(array.dtype) for name, array in got.items()}
    assert dtypes == {
        "z.f32": "float32",
        "bf16": "float32",
        "f16": "float16",
        "f64": "float64",
        "i16": "int64",
        "u8": "uint8",
        "bool": "uint8",
        "scalar": "int64",
        "empty": "float32",
    }
    for name in ("z.f32", "bf16", "f16", "f64"):
        assert np.array_equal(got[name].ravel(), values), name
    assert got["bf16"].shape == (3, 1)
    assert got["i16"].tolist() == [-3, 4]
    assert got["u8"].tolist() == [0, 255]
    assert got["scalar"].shape == () and got["scalar"] == 2**40
    assert got["empty"].shape == (0, 4)


def test_not_finite_values_are_an_error_unless_allowed(tmp_path):
    values = np.array([1.0, np.nan], np.float32)
    path = write_safetensors(tmp_path / "nan.safetensors", {"w": ("F32", [2], values.tobytes())})
    with pytest.raises(ValueError, match="w: 1 of 2 values is NaN"):
        sdft_py.read_checkpoint(path)
    got = sdft_py.read_checkpoint(path, allow_non_finite=True)
    assert np.isnan(got["w"][1])


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        sdft_py.read_checkpoint(tmp_path / "none.pt")
    path = tmp_path / "text.pt"
    path.write_text("no weights\n" * 10)
    with pytest.raises(ValueError, match="text.pt"):
        sdft_py.read_checkpoint(str(path))
    huge = struct.pack("<Q", 2**60) + b"{}"
    (tmp_path / "huge.safetensors").write_bytes(huge)
    with pytest.raises(ValueError, match="huge.safetensors"):
        sdft_py.read_checkpoint(tmp_path / "huge.safetensors")
    with pytest.raises(ValueError, match='prefer "best": expected ema or raw'):
        sdft_py.read_checkpoint(path, prefer="best")


class Executed:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_is_never_executed(tmp_path):
    trap = tmp_path / "trap"
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"w": Executed(str(trap))}, protocol=2))
    with pytest.raises(ValueError, match="evil.pt"):
        sdft_py.read_checkpoint(path)
    assert not trap.exists()


def test_files_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    weights = {"conv.weight": torch.randn(4, 3, 3, 3), "bias": torch.randn(7).bfloat16()}
    ema = {name: 2 * value for name, value in weights.items()}
    trap = Executed(str(tmp_path / "trap"))
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.pt"
        state = {"model": weights, "ema": ema, "step": 3, "extra": trap}
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
        for expected, options in [(ema, {}), (weights, {"prefer": "raw"}), (weights, {"key": "model"})]:
            got = sdft_py.read_checkpoint(path, **options)
            assert list(got) == list(expected)
            for name, value in expected.items():
                array = torch.from_numpy(got[name])
                assert torch.equal(array, value.float()), name
        with pytest.raises(ValueError, match='no weights under "other"'):
            sdft_py.read_checkpoint(path, key="other")
    assert not (tmp_path / "trap").exists()


def test_the_selection_is_logged(tmp_path, caplog):
    torch = pytest.importorskip("torch")
    path = tmp_path / "both.pt"
    torch.save({"model": {"w": torch.ones(3)}, "ema": {"w": torch.zeros(3)}}, path)
    with caplog.at_level("INFO", logger="sdft_py"):
        sdft_py.read_checkpoint(path)
    assert "ema" in caplog.text
