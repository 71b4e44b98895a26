"""Writes tests/goldens/pictures: small files in the shapes that pictures come in, and what Pillow reads in them.

    python tools/goldens/pictures.py

Needs Pillow 13.0 alone. expected.json has of every file the size, the colours and the alpha channel (upright, the first frame, before
anything stands on white) in hexadecimal, and its infotext if it has one. Lossy files may differ by what decoders round differently.
"""
import io
import json
import pathlib
import struct
import zlib

from PIL import Image, ImageOps, PngImagePlugin

OUT = pathlib.Path(__file__).parents[2] / "tests/goldens/pictures"
WIDTH, HEIGHT = 13, 7
INFOTEXT = "a cat, кошка 猫 🐈\nNegative prompt: dogs\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 1, Size: 13x7"
ORIENTATION, USER_COMMENT, EXIF_IFD = 0x0112, 0x9286, 0x8769


def rgb():
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    picture.putdata([(x * 19, y * 36, 255 - 9 * (x + y)) for y in range(HEIGHT) for x in range(WIDTH)])
    return picture


def rgba():
    picture = rgb()
    alpha = Image.new("L", picture.size)
    alpha.putdata([min(255, x * 24) for _ in range(HEIGHT) for x in range(WIDTH)])
    picture.putalpha(alpha)
    return picture


def exif(orientation=None, comment=None):
    block = Image.Exif()
    if orientation:
        block[ORIENTATION] = orientation
    if comment:
        block.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    return block


def saved(picture, kind, **how):
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def jpeg(picture, **how):
    return saved(picture, "JPEG", quality=95, subsampling=0, **how)


def ycck():
    """A CMYK picture in YCCK: Pillow writes four channels as they are; the Adobe marker then says what they mean."""
    cmyk = rgb().convert("CMYK")
    ycc = Image.merge("RGB", cmyk.split()[:3]).convert("YCbCr").split()
    # Pillow writes 255 - value, and so has Adobe's K.
    inverted = [channel.point(lambda value: 255 - value) for channel in ycc]
    file = jpeg(Image.merge("CMYK", [*inverted, cmyk.split()[3]]))
    at = file.index(b"Adobe")
    assert file[at + 11] == 0
    return file[: at + 11] + b"\x02" + file[at + 12 :]


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def interlaced():
    """Adam7, which Pillow does not write."""
    picture, rows = rgb(), b""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for x0, y0, dx, dy in passes:
        for y in range(y0, HEIGHT, dy):
            row = b"".join(bytes(picture.getpixel((x, y))) for x in range(x0, WIDTH, dx))
            rows += b"\0" + row if row else b""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def frames():
    return [rgb(), ImageOps.invert(rgb()), rgb().transpose(Image.Transpose.FLIP_TOP_BOTTOM)]


def texts():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("parameters", INFOTEXT)
    info.add_text("prompt", '{"1": {}}', zip=True)
    info.add_text("Software", "another program")
    return info


def main():
    first, *others = frames()
    comment = b"UNICODE\0" + INFOTEXT.encode("utf-16-be")
    little = b"UNICODE\0" + INFOTEXT.encode("utf-16-le")
    files = {
        "grey.jpg": jpeg(rgb().convert("L")),
        "progressive.jpg": jpeg(rgb(), progressive=True),
        "cmyk.jpg": jpeg(rgb().convert("CMYK")),
        "ycck.jpg": ycck(),
        "turned.jpg": jpeg(rgb(), exif=exif(orientation=6)),
        "turned.png": saved(rgb(), "PNG", exif=exif(orientation=8)),
        "turned.webp": saved(rgb(), "WEBP", lossless=True, exif=exif(orientation=3)),
        "mirrored.jpg": jpeg(rgb(), exif=exif(orientation=5)),
        "lossy.webp": saved(rgb(), "WEBP", quality=95),
        "lossless.webp": saved(rgba(), "WEBP", lossless=True, exact=True),
        "alpha.webp": saved(rgba(), "WEBP", quality=95, alpha_quality=100, exact=True),
        "animated.webp": saved(first, "WEBP", save_all=True, append_images=others, duration=40, lossless=True),
        "animated.png": saved(first, "PNG", save_all=True, append_images=others, duration=40),
        "interlaced.png": interlaced(),
        "palette.png": saved(rgb().quantize(16), "PNG", transparency=bytes([0, 100]), bits=4),
        "alpha.png": saved(rgba(), "PNG"),
        "grey-alpha.png": saved(rgba().convert("LA"), "PNG"),
        "said.png": saved(rgb(), "PNG", pnginfo=texts()),
        "said.jpg": jpeg(rgb(), exif=exif(comment=comment)),
        "said.webp": saved(rgb(), "WEBP", lossless=True, exif=exif(comment=comment)),
        "said-little.jpg": jpeg(rgb(), exif=exif(comment=little)),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, file in files.items():
        (OUT / name).write_bytes(file)
        picture = Image.open(io.BytesIO(file))
        assert picture.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name.split(".")[1]]
        upright = ImageOps.exif_transpose(picture)
        transparent = "A" in upright.mode or "transparency" in upright.info
        upright = upright.convert("RGBA" if transparent else "RGB")
        expected[name] = {
            "size": upright.size,
            "colours": upright.convert("RGB").tobytes().hex(),
            "alpha": upright.getchannel("A").tobytes().hex() if transparent else None,
            "infotext": INFOTEXT if name.startswith("said") else None,
        }
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    # The marker was understood: YCCK shows what CMYK does.
    shown = [bytes.fromhex(expected[name]["colours"]) for name in ("cmyk.jpg", "ycck.jpg")]
    assert max(abs(a - b) for a, b in zip(*shown)) <= 6, "ycck.jpg"


if __name__ == "__main__":
    main()
