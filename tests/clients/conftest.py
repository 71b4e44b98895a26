"""A server with the demo model and a tiny one, as a user starts it, and pictures to send it."""

import io
import os
import pathlib
import re
import subprocess
import threading

import pytest
from PIL import Image, ImageDraw

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Server:
    """A process of `latentd serve` on a port of its own."""

    def __init__(self, *arguments, **environment):
        variables = {k: v for k, v in os.environ.items() if not k.startswith("LATENTD_")} | environment
        command = [str(ROOT / os.environ.get("LATENTD", "target/debug/latentd")), "serve", "--listen", "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)
        self.lines, ready = [], threading.Event()
        self.url = None

        def read():
            for line in self.process.stderr:
                self.lines.append(line)
                if "ready; try" in line and not ready.is_set():
                    self.url = re.search(r"http://[0-9.]+:\d+", line).group(0)
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        assert ready.wait(180) and self.url, "".join(self.lines)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="session")
def server():
    running = Server("--model", "demo=assets/demo", "--model", "tiny=tests/goldens/tiny-sd")
    yield running
    assert running.process.poll() is None, "the server ended by itself:\n" + "".join(running.lines[-50:])
    running.stop()


@pytest.fixture(scope="session")
def url(server):
    return server.url


@pytest.fixture
def picture():
    """A blue square on white."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).rectangle((16, 16, 47, 47), fill="blue")
    return image


@pytest.fixture
def png(picture):
    """The same as a file."""
    return written(picture)


def written(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
