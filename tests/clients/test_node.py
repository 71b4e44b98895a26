"""OpenAI's JavaScript client, by Node.js' own test runner."""

import os
import subprocess

from conftest import ROOT


def test_openai_from_javascript(url):
    home = ROOT / "target/clients"
    environment = os.environ | {"LATENTD_URL": url, "CLIENTS_HOME": str(home)}
    command = ["node", "--test", str(ROOT / "tests/clients/openai.test.mjs")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "# pass 4" in ended.stdout, ended.stdout
