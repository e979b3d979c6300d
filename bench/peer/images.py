"""What this project reads, resizes, pads and writes, compared pixel by pixel with Pillow, tifffile and numpy.

    cargo build --release -p sdft-imaging --example read
    python bench/peer/images.py target/release/examples/read            compares; exits with 1 if anything differs

Needs numpy, Pillow 13, tifffile and imagecodecs. It is not part of the tests. Every case must be exact, unless it states how many levels a
decoder or a colour management may differ.
"""

import io
import json
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageOps

H, W = 52, 70
RNG = np.random.default_rng(7)


def smooth(channels, top, dtype):
    """A picture without sharp edges, from 0 to `top`, so that JPEG and bicubic filters do not overshoot."""
    y, x = np.mgrid[:H, :W]
    planes = [np.sin(x / (9 + c) + c) * np.cos(y / (7 + c)) * 0.45 + 0.5 for c in range(channels)]
    return (np.stack(planes, -1) * top).astype(dtype)


def noise(channels, top, dtype):
    return RNG.integers(0, top + 1, (H, W, channels)).astype(dtype)


GREY8, RGB8, RGBA8 = noise(1, 255, np.uint8), noise(3, 255, np.uint8), noise(4, 255, np.uint8)
GREY16, RGB16, RGBA16 = noise(1, 65535, np.uint16), noise(3, 65535, np.uint16), noise(4, 65535, np.uint16)
GREY32, RGB32, RGBA32 = (RNG.random((H, W, c), np.float32) for c in (1, 3, 4))


class Cases:
    def __init__(self, folder):
        self.folder, self.cases, self.refusals = folder, [], []

    def add(self, name, path, expected, most=0, **task):
        """A file, and the array that must come out of it within `most` levels."""
        expected = np.asarray(expected)
        expected = expected[..., None] if expected.ndim == 2 else expected
        out = self.folder / f"{len(self.cases)}.npy"
        self.cases.append((name, dict(task, path=str(path), out=str(out)), expected, most))

    def refuse(self, name, path, text, **task):
        self.refusals.append((name, dict(task, path=str(path), out=str(self.folder / "none")), text))

    def png(self, name, image, **save):
        path = self.folder / name
        image.save(path, **save)
        return path

    def tiff(self, name, array, **options):
        path = self.folder / name
        tifffile.imwrite(path, array, **options)
        return path

    def run(self, exe):
        tasks = [task for _, task, *_ in self.cases + self.refusals]
        text = "".join(json.dumps(task) + "\n" for task in tasks)
        lines = subprocess.run([exe], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
        wrong = 0
        for (name, task, expected, most), line in zip(self.cases, lines):
            out = Path(task["out"])
            if not out.exists():
                verdict = f"NOT READ: {line}"
            elif task.get("encode"):
                verdict = "ok"
            else:
                verdict = compare(np.load(out), expected, most)
            wrong += verdict.isupper() or verdict[0].isupper()
            print(f"{name:<46} {verdict}")
        for (name, _, text), line in zip(self.refusals, lines[len(self.cases) :]):
            wrong += text not in line
            print(f"{name:<46} {'refused' if text in line else 'NOT REFUSED'}: {line.split(': ', 1)[-1]}")
        return wrong


def compare(found, expected, most):
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"DIFFERENT FORM: {found.shape} {found.dtype}, expected {expected.shape} {expected.dtype}"
    worst = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
    if worst > most:
        share = (found != expected).mean()
        return f"DIFFERENT: by up to {worst:g} in {share:.1%}, allowed {most}"
    return "exact" if worst == 0 else f"within {worst:g}, allowed {most}"


def over(rgba, background, top):
    """Alpha over a background, rounded: integers."""
    rgba = rgba.astype(np.int64)
    colour, alpha = rgba[..., :-1], rgba[..., -1:]
    return (colour * alpha + np.array(background) * (top - alpha) + top // 2) // top


def grey(rgb):
    """Pillow's weights in 32 bits, for 16-bit samples too."""
    r, g, b = np.moveaxis(rgb.astype(np.int64), -1, 0)
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(rgb.dtype)


def icc(name):
    """Profiles made from primaries, because systems differ in those they have."""
    primaries = {
        "P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
        "Adobe": ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060)),
    }[name]
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    matrix = xyz * np.linalg.solve(xyz, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50 = np.array([0.9642, 1, 0.8249])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ white)) @ bradford
    matrix = adapt @ matrix
    fixed = lambda v: int(round(v * 65536)).to_bytes(4, "big", signed=True)
    text = name.encode() + b"\0"
    tags = {b"desc": b"desc" + bytes(4) + len(text).to_bytes(4, "big") + text + bytes(78), b"wtpt": b"XYZ " + bytes(4) + b"".join(map(fixed, d50))}
    for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T):
        tags[tag] = b"XYZ " + bytes(4) + b"".join(map(fixed, column))
    curve = b"para" + bytes(4)
    if name == "P3":
        curve += (3).to_bytes(2, "big") + bytes(2) + b"".join(map(fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
    else:
        curve += (0).to_bytes(2, "big") + bytes(2) + fixed(563 / 256)
    for tag in (b"rTRC", b"gTRC", b"bTRC"):
        tags[tag] = curve
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    table, data, at = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        value += bytes(-len(value) % 4)
        table += tag + (at + len(data)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        data += value
    body = len(tags).to_bytes(4, "big") + table + data
    header = (128 + len(body)).to_bytes(4, "big") + bytes(4) + bytes([2, 0x40, 0, 0]) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    header += b"".join(map(fixed, d50))
    return header.ljust(128, b"\0") + body


def to_srgb(image, profile):
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), renderingIntent=1)


def reading(c):
    """Every kind of file."""
    L = lambda a: Image.fromarray(a[..., 0])
    RGB, RGBA = Image.fromarray(RGB8), Image.fromarray(RGBA8)

    # PNG and other formats of Pillow.
    path = c.png("grey8.png", L(GREY8))
    c.add("png, grey 8", path, GREY8)
    c.add("png, grey 8, as RGB", path, np.repeat(GREY8, 3, -1), channels=3)
    c.add("png, grey 8, as RGBA of 16 bits", path, np.concatenate([GREY8.astype(np.uint16)] * 3 + [np.full_like(GREY8, 255)], -1) * np.uint16(257), channels=4, depth=16)
    path = c.png("grey16.png", Image.fromarray(GREY16[..., 0]))
    c.add("png, grey 16", path, GREY16)
    c.add("png, grey 16, as 8 bits", path, (GREY16 >> 8).astype(np.uint8), depth=8)
    bits = Image.fromarray(GREY8[..., 0] > 127)
    c.add("png, 1 bit", c.png("bits.png", bits), np.asarray(bits.convert("L")))
    palette = RGB.quantize(37)
    c.add("png, palette", c.png("palette.png", palette), np.asarray(palette.convert("RGB")))
    path = c.png("clear.png", palette, transparency=bytes(range(0, 37 * 7, 7)))
    c.add("png, palette with transparency", path, np.asarray(Image.open(path).convert("RGBA")))
    c.add("png, palette with transparency, on red", path, over(np.asarray(Image.open(path).convert("RGBA")), [200, 9, 0], 255).astype(np.uint8), channels=3, background=[200, 9, 0])
    LA = Image.fromarray(RGBA8[..., [0, 3]], "LA")
    path = c.png("la.png", LA)
    c.add("png, grey and alpha", path, RGBA8[..., [0, 3]])
    c.add("png, grey and alpha, on white", path, over(RGBA8[..., [0, 3]], [255], 255).astype(np.uint8), channels=1)
    path = c.png("rgba.png", RGBA)
    c.add("png, RGBA", path, RGBA8)
    c.add("png, RGBA, as Pillow's L", c.png("rgb.png", RGB), np.asarray(RGB.convert("L")), channels=1)
    import imagecodecs

    path = c.folder / "rgb16.png"
    path.write_bytes(imagecodecs.png_encode(RGB16))
    c.add("png, RGB 16", path, RGB16)
    c.add("png, RGB 16, as grey", path, grey(RGB16), channels=1)
    path = c.folder / "rgba16.png"
    path.write_bytes(imagecodecs.png_encode(RGBA16))
    c.add("png, RGBA 16", path, RGBA16)
    c.add("png, RGBA 16, on white", path, over(RGBA16, [65535], 65535).astype(np.uint16), channels=3)
    c.add("png, grey 16, of other name", c.png("UPPER.PNG", Image.fromarray(GREY16[..., 0])), GREY16)
    c.add("webp, RGBA", c.png("a.webp", RGBA, lossless=True, exact=True), RGBA8)
    c.add("bmp, RGB", c.png("a.bmp", RGB), RGB8)
    c.add("gif, palette", c.png("a.gif", palette), np.asarray(palette.convert("RGB")))
    photo = Image.fromarray(smooth(3, 255, np.uint8))
    path = c.folder / "a.jfif"
    photo.save(path, "JPEG", quality=95, subsampling=0)
    c.add("jpeg named jfif", path, np.asarray(Image.open(path)), most=2)
    path = c.folder / "grey.jpe"
    photo.convert("L").save(path, "JPEG", quality=95)
    c.add("jpeg, grey", path, np.asarray(Image.open(path)), most=1)
    path = c.png("cmyk.jpg", photo.convert("CMYK"), quality=95)
    c.add("jpeg, CMYK", path, np.asarray(Image.open(path).convert("RGB")), most=3)
    exif = Image.Exif()
    for turn in range(2, 9):
        exif[0x0112] = turn
        path = c.png(f"turn{turn}.png", L(GREY8), exif=exif.tobytes())
        c.add(f"png, turned {turn}", path, np.asarray(ImageOps.exif_transpose(Image.open(path))))

    # TIFF.
    c.add("tiff, grey 8", c.tiff("g8.tif", GREY8[..., 0]), GREY8)
    c.add("tiff, grey 16, big-endian", c.tiff("g16.tif", GREY16[..., 0], byteorder=">"), GREY16)
    c.add("tiff, floats 32", c.tiff("f32.tif", GREY32[..., 0]), GREY32)
    c.add("tiff, floats 16", c.tiff("f16.tif", GREY32[..., 0].astype(np.float16)), GREY32.astype(np.float16).astype(np.float32))
    c.add("tiff, floats 64, big-endian", c.tiff("f64.tif", GREY32[..., 0].astype(np.float64), byteorder=">"), GREY32)
    c.add("tiff, floats 32, RGB, predictor", c.tiff("f32p.tif", RGB32, photometric="rgb", predictor=3, compression="zlib"), RGB32)
    c.add("tiff, unsigned 32", c.tiff("u32.tif", GREY16[..., 0].astype(np.uint32) * 65537), (GREY16.astype(np.uint32) * 65537).astype(np.float32))
    c.add("tiff, signed 16", c.tiff("i16.tif", (GREY16[..., 0].astype(int) - 32768).astype(np.int16)), GREY16.astype(np.float32) - 32768)
    c.add("tiff, signed 8", c.tiff("i8.tif", GREY8[..., 0].view(np.int8)), GREY8.view(np.int8).astype(np.float32))
    c.add("tiff, RGB 8, LZW", c.tiff("lzw.tif", RGB8, photometric="rgb", compression="lzw", predictor=2), RGB8)
    c.add("tiff, RGB 16, Deflate, predictor", c.tiff("zip.tif", RGB16, photometric="rgb", compression="zlib", predictor=2), RGB16)
    c.add("tiff, RGB 8, PackBits", c.tiff("pack.tif", RGB8, photometric="rgb", compression="packbits"), RGB8)
    c.add("tiff, RGB 8, planes", c.tiff("planes.tif", np.moveaxis(RGB8, -1, 0), photometric="rgb", planarconfig="separate"), RGB8)
    c.add("tiff, RGB 16, tiles", c.tiff("tiles.tif", RGB16, photometric="rgb", tile=(16, 32)), RGB16)
    c.add("tiff, RGB 16, tiles of planes, LZW", c.tiff("tileplanes.tif", np.moveaxis(RGB16, -1, 0), photometric="rgb", planarconfig="separate", tile=(16, 16), compression="lzw"), RGB16)
    c.add("tiff, strips of 7 rows", c.tiff("strips.tif", RGB8, photometric="rgb", rowsperstrip=7, compression="zlib"), RGB8)
    c.add("tiff, BigTIFF", c.tiff("big.tif", GREY16[..., 0], bigtiff=True), GREY16)
    c.add("tiff, BigTIFF, big-endian, tiles", c.tiff("big2.tif", RGB8, bigtiff=True, byteorder=">", photometric="rgb", tile=(32, 16)), RGB8)
    c.add("tiff, white is 0, 8 bits", c.tiff("white.tif", GREY8[..., 0], photometric="miniswhite"), 255 - GREY8)
    c.add("tiff, white is 0, 16 bits", c.tiff("white16.tif", GREY16[..., 0], photometric="miniswhite"), 65535 - GREY16)
    c.add("tiff, 1 bit", c.png("bits.tif", bits), np.asarray(bits.convert("L")))
    c.add("tiff, 1 bit, white is 0", c.png("bits2.tif", bits, tiffinfo={262: 0}), np.asarray(Image.open(c.folder / "bits2.tif").convert("L")))
    c.add("tiff, palette", c.png("palette.tif", palette), np.asarray(palette.convert("RGB")))
    c.add("tiff, RGB and alpha", c.tiff("alpha.tif", RGBA8, photometric="rgb", extrasamples=["unassalpha"]), RGBA8)
    path = c.tiff("premultiplied.tif", np.concatenate([np.minimum(RGBA8[..., :3], RGBA8[..., 3:]), RGBA8[..., 3:]], -1), photometric="rgb", extrasamples=["assocalpha"])
    c.add("tiff, RGB and associated alpha, on white", path, over(np.asarray(Image.open(path)), [255], 255).astype(np.uint8), channels=3)
    path = c.tiff("four.tif", RGBA8, photometric="rgb", extrasamples=["unspecified"])
    c.add("tiff, RGB and another channel", path, RGBA8)
    c.add("tiff, RGB and another channel, as RGB", path, RGBA8[..., :3], channels=3)
    bands = noise(7, 65535, np.uint16)
    c.add("tiff, 7 bands", c.tiff("bands.tif", bands, photometric="minisblack", planarconfig="contig"), bands)
    c.add("tiff, 7 bands in planes", c.tiff("bands2.tif", np.moveaxis(bands, -1, 0), photometric="minisblack", planarconfig="separate"), bands)
    stack = np.stack([GREY16[..., 0], 65535 - GREY16[..., 0], GREY16[::-1, :, 0]])
    path = c.tiff("stack.tif", stack, photometric="minisblack")
    for k in range(3):
        c.add(f"tiff, page {k} of 3", path, stack[k], page=k)
    c.refuse("tiff, page 3 of 3", path, "page 3 does not exist", page=3)
    path = c.tiff("imagej.tif", stack, imagej=True, truncate=True)
    c.add("tiff, ImageJ stack with one directory", path, stack[2], page=2)
    path = c.tiff("hyper.tif", np.stack([stack, stack[::-1]]), imagej=True, metadata={"axes": "TZYX"})
    c.add("tiff, ImageJ hyperstack", path, stack[1], page=4)
    path = c.tiff("a.ome.tif", stack, ome=True, photometric="minisblack")
    c.add("tiff, OME", path, stack[1], page=1)
    path = c.png("turn.tif", RGB, tiffinfo={274: 6})
    c.add("tiff, turned 6", path, np.asarray(RGB.transpose(Image.Transpose.ROTATE_270)))
    cmyk = noise(4, 255, np.uint8)
    path = c.tiff("cmyk.tif", cmyk, photometric="separated")
    c.add("tiff, CMYK", path, np.asarray(Image.open(path).convert("RGB")))
    path = c.tiff("jpeg.tif", smooth(3, 255, np.uint8), photometric="ycbcr", compression="jpeg", compressionargs={"level": 95}, subsampling=(1, 1))
    c.add("tiff, JPEG in strips", path, tifffile.imread(path), most=2)
    path = c.tiff("jpegtiles.tif", smooth(3, 255, np.uint8), photometric="ycbcr", compression="jpeg", tile=(32, 32), subsampling=(2, 2))
    c.add("tiff, JPEG in tiles, subsampled", path, tifffile.imread(path), most=4)
    ranged = c.tiff("range.tif", GREY32[..., 0] * 4095, extratags=[(340, 12, 1, 0.0, True), (341, 12, 1, 4095.0, True)])
    c.add("tiff, floats with their own range, as 8 bits", ranged, np.floor(GREY32 * np.float32(4095) / np.float64(4095) * 255 + 0.5).astype(np.uint8), depth=8)
    c.refuse("tiff, floats outside 0 to 1", c.tiff("wide.tif", GREY32[..., 0] * 9), "expected values from 0 to 1", depth="float")
    c.refuse("tiff, Zstandard", c.tiff("zstd.tif", RGB8, photometric="rgb", compression="zstd"), "Zstandard")
    c.refuse("tiff, complex", c.tiff("complex.tif", GREY32[..., 0].astype(np.complex64)), "complex numbers")
    whole = (c.folder / "lzw.tif").read_bytes()
    (c.folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    c.refuse("tiff, truncated", c.folder / "cut.tif", "truncated")

    # NumPy.
    def npy(name, array):
        path = c.folder / name
        np.save(path, array) if name.endswith("npy") else np.savez_compressed(path, array)
        return path

    five = noise(5, 65535, np.uint16)
    c.add("npy, 5 channels of 16 bits", npy("five.npy", five), five)
    c.add("npy, grey floats in Fortran order", npy("f.npy", np.asfortranarray(GREY32[..., 0])), GREY32)
    c.add("npy, half floats", npy("h.npy", RGB32.astype(np.float16)), RGB32.astype(np.float16).astype(np.float32))
    c.add("npy, doubles, big-endian", npy("d.npy", RGB32.astype(">f8")), RGB32)
    c.add("npy, signed 16", npy("i.npy", GREY16[..., 0].view(np.int16)), GREY16.view(np.int16).astype(np.float32))
    many = RNG.integers(0, 256, (3, H, W, 2)).astype(np.uint8)
    c.add("npy, page 2 of 3", npy("many.npy", many), many[2], page=2)
    c.add("npz, page 1 of 3", npy("many.npz", many), many[1], page=1)
    c.refuse("npy, channels first", npy("first.npy", np.moveaxis(RGB8, -1, 0)), "numpy.moveaxis(a, 0, -1)")
    c.refuse("npy, truth values", npy("bool.npy", GREY8[..., 0] > 9), "|b1")

    # Colour profiles: two colour managements may differ by rounding. Levels of JPEG differ by 2 before, which is more in dark colours after.
    for name in ("P3", "Adobe"):
        profile = icc(name)
        expected = np.asarray(to_srgb(RGB, profile))
        c.add(f"png with the profile {name}", c.png(f"{name}.png", RGB, icc_profile=profile), expected, most=1)
        c.add(f"webp with the profile {name}", c.png(f"{name}.webp", RGB, icc_profile=profile, lossless=True), expected, most=1)
        c.add(f"tiff with the profile {name}", c.png(f"{name}.tif", RGB, icc_profile=profile), expected, most=1)
        path = c.png(f"{name}.jpg", photo, icc_profile=profile, quality=95, subsampling=0)
        c.add(f"jpeg with the profile {name}", path, np.asarray(to_srgb(Image.open(path), profile)), most=6)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    c.add("png with the profile sRGB", c.png("srgb.png", RGB, icc_profile=srgb), RGB8)
    c.add("png with a damaged profile", c.png("damaged.png", RGB, icc_profile=b"no profile" * 30), RGB8)


def resizing(c):
    """Pillow's modes L, RGB, RGBA, I;16 and F, smaller, larger and padded."""
    files = {
        "L": (c.png("size-l.png", Image.fromarray(GREY8[..., 0])), GREY8[..., 0]),
        "RGB": (c.png("size-rgb.png", Image.fromarray(RGB8)), RGB8),
        "RGBA": (c.png("size-rgba.png", Image.fromarray(RGBA8)), RGBA8),
        "I;16": (c.png("size-16.png", Image.fromarray(smooth(1, 65535, np.uint16)[..., 0])), smooth(1, 65535, np.uint16)[..., 0]),
        "I;16, noise": (c.png("size-16n.png", Image.fromarray(GREY16[..., 0])), GREY16[..., 0]),
        "F": (c.tiff("size-f.tif", GREY32[..., 0]), GREY32[..., 0]),
    }
    for mode, (path, array) in files.items():
        image = Image.fromarray(array)
        for height, width in ((48, 64), (20, 90), (130, 33), (9, 70)):
            expected = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
            c.add(f"resize {mode} to {height}x{width}", path, expected, resize=[height, width])
        if mode != "RGBA":
            white = {"L": 255, "RGB": (255, 255, 255), "F": 1.0}.get(mode, 65535)
            for height, width in ((48, 48), (33, 90)):
                expected = ImageOps.pad(image, (width, height), Image.Resampling.BICUBIC, color=white)
                c.add(f"pad {mode} to {height}x{width}", path, np.asarray(expected), pad=[height, width])


def writing(c, exe):
    """Files that this project writes, read by Pillow, tifffile and numpy."""
    wrong = 0
    for array in (GREY8, RGB8, RGBA8, GREY16, RGB16, RGBA16, GREY32, RGB32, RGBA32, noise(2, 255, np.uint8), noise(5, 65535, np.uint16), noise(6, 9, np.float32)):
        path, out = c.folder / "written.npy", c.folder / "written"
        np.save(path, array)
        subprocess.run([exe], input=json.dumps(dict(path=str(path), out=str(out), encode=True)), text=True, check=True, capture_output=True)
        start = out.read_bytes()[:6]
        if start == b"\x93NUMPY":
            read, by = np.load(out), "numpy"
        elif start.startswith(b"II"):
            read, by = tifffile.imread(out), "tifffile"
            if array.shape[-1] == 1:
                wrong += not np.array_equal(np.asarray(Image.open(out)), array[..., 0])
        else:
            import imagecodecs

            read, by = imagecodecs.png_decode(out.read_bytes()), "imagecodecs"
            if array.dtype == np.uint8 or array.shape[-1] == 1:
                wrong += not np.array_equal(np.asarray(Image.open(out)).reshape(array.shape), array)
        verdict = compare(read.reshape(array.shape), array, 0)
        wrong += verdict != "exact"
        print(f"written {array.shape[-1]} x {array.dtype}, read by {by:<15} {verdict}")
    return wrong


def main():
    exe = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(Path(folder))
        reading(cases)
        resizing(cases)
        wrong = cases.run(exe) + writing(cases, exe)
    print(f"{len(cases.cases) + len(cases.refusals)} cases, {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
