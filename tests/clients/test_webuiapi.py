"""webuiapi (sdwebuiapi), the web UI's Python client, unmodified."""

import concurrent.futures
import time
import urllib.parse

import pytest
import webuiapi
from PIL import Image, ImageDraw


@pytest.fixture
def api(url):
    at = urllib.parse.urlsplit(url)
    api = webuiapi.WebUIApi(host=at.hostname, port=at.port, sampler="Euler a", steps=6)
    api.util_set_model("demo")
    return api


def test_txt2img(api):
    answer = api.txt2img(prompt="a large blue square on a white background", seed=1003, width=64, height=64, cfg_scale=3, batch_size=2, steps=12)
    assert [image.size for image in answer.images] == [(64, 64)] * 2
    assert answer.info["all_seeds"] == [1003, 1004] and answer.info["sampler_name"] == "Euler a"
    assert answer.parameters["steps"] == 12
    red, green, blue = answer.image.convert("RGB").getpixel((32, 32))
    assert blue > 120 and red < 120
    assert answer.image.text["parameters"].startswith("a large blue square")


def test_high_resolution_fix(api):
    answer = api.txt2img(
        prompt="a red circle", width=64, height=64, enable_hr=True, hr_scale=2, hr_upscaler=webuiapi.HiResUpscaler.Latent,
        hr_second_pass_steps=4, denoising_strength=0.5, seed=1,
    )
    assert answer.image.size == (128, 128)


def test_img2img(api, picture):
    answer = api.img2img(images=[picture], prompt="a red square", seed=5, cfg_scale=3, denoising_strength=0.6, width=64, height=64)
    assert answer.image.size == (64, 64) and answer.info["denoising_strength"] == 0.6


def test_inpaint(api, picture):
    picture.paste("yellow", (0, 0, 64, 8))
    mask = Image.new("RGB", (64, 64), "black")
    ImageDraw.Draw(mask).ellipse((12, 12, 51, 51), fill="white")
    answer = api.img2img(
        images=[picture], mask_image=mask, inpainting_fill=1, prompt="a red circle", seed=104, denoising_strength=0.8, width=64, height=64,
        mask_blur=0, inpaint_full_res=False,
    )
    red, green, blue = answer.image.convert("RGB").getpixel((32, 2))
    assert red > 170 and green > 170 and blue < 110, "what the mask leaves out stays yellow"


def test_upscale(api, picture):
    answer = api.extra_single_image(image=picture, upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=1.5)
    assert answer.image.size == (96, 96)
    answer = api.extra_batch_images(images=[picture, picture], upscaler_1="Nearest", upscaling_resize=2)
    assert [image.size for image in answer.images] == [(128, 128)] * 2


def test_png_info(api):
    made = api.txt2img(prompt="a green star", seed=9, width=64, height=64).image
    told = api.png_info(made)
    assert told.info.startswith("a green star") and "Seed: 9" in told.info


def test_progress_and_interrupt(api):
    assert api.get_progress()["state"]["job_count"] == 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        call = pool.submit(api.txt2img, prompt="x", seed=1, width=256, height=256, steps=150, batch_size=4)
        deadline = time.monotonic() + 60
        while api.get_progress()["state"]["job_count"] == 0:
            assert time.monotonic() < deadline
        api.interrupt()
        answer = call.result(timeout=60)
    assert len(answer.images) < 4 and "all_seeds" in answer.info
    api.util_wait_for_ready(check_interval=0.1)


def test_options_and_lists(api):
    assert api.util_get_current_model().startswith("demo")
    options = api.get_options()
    options["sd_model_checkpoint"] = [title for title in api.util_get_model_names() if title.startswith("tiny")][0]
    api.set_options(options)
    assert api.util_get_current_model().startswith("tiny")
    assert api.txt2img(prompt="x", width=64, height=64, steps=2).info["sd_model_name"] == "tiny"
    api.util_set_model("demo")
    assert "Euler a" in api.util_get_sampler_names() and "karras" in api.util_get_scheduler_names()
    assert {"name": "Latent"} in api.get_latent_upscale_modes()
    for what in ["sd_vae", "upscalers", "loras", "hypernetworks", "face_restorers", "realesrgan_models", "prompt_styles", "scripts",
                 "embeddings", "memory", "cmd_flags", "sd_models", "schedulers"]:
        assert getattr(api, "get_" + what)() is not None
    api.refresh_checkpoints()


def test_errors(api):
    for wrong, status in [({"sampler_name": "none such"}, 404), ({"steps": 0}, 422), ({"cfg_scale": -3}, 422)]:
        with pytest.raises(RuntimeError) as raised:
            api.txt2img(prompt="x", width=64, height=64, **wrong)
        assert raised.value.args[0] == status
