"""Request sequences as two front ends send them, by what their sources document: Open WebUI's `routers/images.py` and SillyTavern's
`stable-diffusion.js`."""

import base64
import io

import httpx
import pytest
from PIL import Image


@pytest.fixture
def http(url):
    with httpx.Client(base_url=url, timeout=120) as client:
        yield client


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text.split(",", 1)[-1])))


def test_open_webui_on_the_web_uis_api(http):
    # Without a password its authorization header is there, and empty.
    headers = {"authorization": ""}
    options = http.get("/sdapi/v1/options", headers=headers)
    assert options.status_code == 200 and options.json()["sd_model_checkpoint"]
    models = http.get("/sdapi/v1/sd-models", headers=headers).json()
    assert {"title", "model_name"} <= set(models[0])
    # It sends the whole object back with another checkpoint.
    body = options.json() | {"sd_model_checkpoint": models[0]["title"]}
    assert http.post("/sdapi/v1/options", json=body, headers=headers).status_code == 200
    answer = http.post(
        "/sdapi/v1/txt2img",
        headers=headers,
        json={"prompt": "a red circle", "batch_size": 1, "width": 64, "height": 64, "steps": 4, "negative_prompt": "", "sampler_name": "Euler",
              "scheduler": "Automatic", "cfg_scale": 3.0},
    )
    assert answer.status_code == 200
    assert opened(answer.json()["images"][0]).size == (64, 64) and isinstance(answer.json()["info"], str)


def test_open_webui_on_openais_api(http):
    body = {"model": "demo", "prompt": "a red circle", "n": 1, "size": "64x64", "response_format": "b64_json"}
    answer = http.post("/v1/images/generations", json=body, headers={"authorization": ""})
    assert answer.status_code == 200
    assert opened(answer.json()["data"][0]["b64_json"]).size == (64, 64)


def test_sillytavern(http):
    # Its ping; a key of another server in it would make it speak otherwise.
    options = http.get("/sdapi/v1/options").json()
    assert "forge_preset" not in options
    for what, key in [("samplers", "name"), ("schedulers", "name"), ("sd-models", "title"), ("upscalers", "name"), ("latent-upscale-modes", "name")]:
        assert all(key in one for one in http.get("/sdapi/v1/" + what).json()), what
    assert http.get("/sdapi/v1/sd-vae").json() == []
    # It sets the model, then asks how far the server is until that says "idle".
    title = http.get("/sdapi/v1/sd-models").json()[0]["title"]
    assert http.post("/sdapi/v1/options", json={"sd_model_checkpoint": title}).status_code == 200
    for _ in range(10):
        progress = http.get("/sdapi/v1/progress").json()
        if progress["progress"] == 0 and progress["state"]["job_count"] == 0:
            break
    assert progress["progress"] == 0 and progress["state"]["job_count"] == 0
    answer = http.post(
        "/sdapi/v1/txt2img",
        json={
            "prompt": "a blue ring", "negative_prompt": "", "sampler_name": "DPM++ 2M Karras", "scheduler": "Karras", "steps": 4, "cfg_scale": 3,
            "width": 64, "height": 64, "restore_faces": False, "enable_hr": True, "hr_upscaler": "Latent", "hr_scale": 2, "hr_additional_steps": 0,
            "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": None, "override_settings": {"CLIP_stop_at_last_layers": 1, "forge_additional_modules": []},
            "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True, "send_images": True, "do_not_save_grid": False,
            "do_not_save_samples": False,
        },
    )
    assert answer.status_code == 200, answer.text
    assert opened(answer.json()["images"][0]).size == (128, 128)
    # When its browser goes, it interrupts.
    assert http.post("/sdapi/v1/interrupt").json() == {}
