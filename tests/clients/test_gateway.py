"""A gateway that waits for two seconds only: nginx in front of the server. The client is cut off; the picture is not lost."""

import io
import shutil
import socket
import subprocess
import time

import httpx
import pytest
from PIL import Image

TIMEOUT = 2
CONFIGURATION = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {url}; proxy_http_version 1.1; proxy_read_timeout {timeout}s; proxy_buffering off;
    }}
  }}
}}
"""
# Some ten seconds of one core: far beyond what the gateway waits for.
LONG = {"prompt": "a large red circle on a white background", "width": 128, "height": 128, "steps": 150, "guidance": 3, "images": 4, "seed": 7}


@pytest.fixture(scope="module")
def gateway(url, tmp_path_factory):
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    home = tmp_path_factory.mktemp("nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (home / "nginx.conf").write_text(CONFIGURATION.format(home=home, port=port, url=url, timeout=TIMEOUT))
    process = subprocess.Popen([nginx, "-e", home / "error.log", "-c", home / "nginx.conf"])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                if httpx.get(address + "/livez").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        else:
            raise AssertionError("nginx does not answer: " + (home / "error.log").read_text())
        yield address
    finally:
        process.terminate()
        process.wait(10)


def ended(http, job):
    """What has become of a job, when it has ended."""
    for _ in range(600):
        answer = http.get(f"/v1/jobs/{job}")
        assert answer.status_code == 200, answer.text
        told = answer.json()
        if told["state"] not in ("queued", "running"):
            return told
        time.sleep(0.2)
    raise AssertionError(f"job {job} has not ended: {told}")


def test_who_is_cut_off_fetches_the_pictures_by_the_jobs_id(gateway):
    with httpx.Client(base_url=gateway, timeout=60) as http:
        began = time.monotonic()
        with pytest.raises(httpx.RemoteProtocolError):
            with http.stream("POST", "/v1/txt2img", json=LONG, headers={"x-on-disconnect": "continue"}) as answer:
                assert answer.status_code == 200
                job = answer.headers["x-job-id"]
                answer.read()
        took = time.monotonic() - began
        assert TIMEOUT - 0.5 < took < 3 * TIMEOUT, f"the gateway gave up after {took} s"
        told = ended(http, job)
        assert told["state"] == "succeeded", told
        for index in range(LONG["images"]):
            picture = http.get(f"/v1/jobs/{job}/images/{index}")
            assert picture.status_code == 200 and picture.headers["content-type"] == "image/png"
            assert Image.open(io.BytesIO(picture.content)).size == (128, 128)


def test_who_does_not_say_so_is_cut_off_and_the_work_ends(gateway):
    with httpx.Client(base_url=gateway, timeout=60) as http:
        answer = http.post("/v1/txt2img", json=LONG | {"seed": 8})
        assert answer.status_code == 504, "the gateway's own answer"
        # The server has seen the gateway go: nothing is left to do.
        for _ in range(100):
            metrics = http.get("/metrics").text
            unfinished = [line for line in metrics.splitlines() if line.startswith("latentd_jobs_unfinished{")]
            if all(float(line.split()[-1]) == 0 for line in unfinished):
                return
            time.sleep(0.1)
        raise AssertionError(unfinished)


def test_a_named_job_needs_no_connection_at_all(gateway):
    with httpx.Client(base_url=gateway, timeout=60) as http:
        answer = http.post("/v1/jobs", json=LONG | {"task": "txt2img", "seed": 9, "images": 1})
        assert answer.status_code == 202
        told = ended(http, answer.headers["location"].rsplit("/", 1)[-1])
        assert told["state"] == "succeeded", told
