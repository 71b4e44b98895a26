"""The curl lines of the README, as they stand there."""

import re
import subprocess

from PIL import Image

from conftest import ROOT


def blocks():
    text = (ROOT / "README.md").read_text()
    shells = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    return [shell for shell in shells if "curl " in shell]


def test_curl_lines(url, tmp_path):
    found = blocks()
    assert len(found) >= 5
    for block in found:
        script = "set -e\n" + block.replace("http://127.0.0.1:8080", url).replace("curl ", "curl -f ")
        # A job that was just handed in is looked at until it is done.
        script = script.replace(f"curl -f -sS {url}/v1/jobs/first\n", f"until curl -f -sS {url}/v1/jobs/first | grep succeeded; do sleep 0.1; done\n")
        ended = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, block + ended.stdout[-2000:] + ended.stderr
    pictures = list(tmp_path.glob("*.png"))
    assert len(pictures) >= 2
    for picture in pictures:
        assert Image.open(picture).size[0] >= 64, picture
