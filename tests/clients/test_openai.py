"""OpenAI's Python client, unmodified."""

import base64
import io

import httpx
import openai
import pytest
from PIL import Image

from conftest import written


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def opened(image):
    return Image.open(io.BytesIO(base64.b64decode(image.b64_json)))


def test_generate(client):
    answer = client.images.generate(
        prompt="a large red circle on a white background",
        n=2,
        size="64x64",
        extra_body={"seed": 7, "num_inference_steps": 10, "guidance_scale": 3.0, "negative_prompt": "", "sampler": "DPM++ 2M Karras"},
    )
    assert len(answer.data) == 2 and answer.size == "64x64" and answer.output_format == "png"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    pictures = [opened(image) for image in answer.data]
    assert [picture.size for picture in pictures] == [(64, 64)] * 2
    # The demo model draws what it is asked for.
    red, green, blue = pictures[0].getpixel((32, 32))
    assert red > 150 and green < 110 and blue < 110
    assert min(pictures[0].getpixel((2, 2))) > 180


def test_the_same_seed_is_the_same_picture(client):
    ask = lambda: client.images.generate(prompt="a blue star", extra_body={"seed": 3, "num_inference_steps": 4}).data[0].b64_json
    first, second = opened_bytes(ask()), opened_bytes(ask())
    assert first == second


def opened_bytes(text):
    return Image.open(io.BytesIO(base64.b64decode(text))).tobytes()


def test_formats(client):
    for name, kind in [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")]:
        answer = client.images.generate(prompt="x", output_format=name, output_compression=80, extra_body={"num_inference_steps": 2})
        assert opened(answer.data[0]).format == kind


def test_stream_with_partial_pictures(client):
    events = list(
        client.images.generate(prompt="a green square", stream=True, partial_images=2, extra_body={"num_inference_steps": 20, "seed": 1})
    )
    assert [event.type for event in events[:-1]] == ["image_generation.partial_image"] * (len(events) - 1)
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1))
    assert 1 <= len(events) - 1 <= 2
    assert events[-1].type == "image_generation.completed" and events[-1].usage.output_tokens == 16
    assert opened(events[-1]).size == (64, 64)


def test_edit(client, png):
    answer = client.images.edit(image=("image.png", png), prompt="a red square on a white background", extra_body={"strength": 0.6, "seed": 2})
    assert opened(answer.data[0]).size == (64, 64)


def test_edit_with_a_mask_leaves_the_rest_alone(client, picture):
    picture.paste("yellow", (0, 0, 64, 8))
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (12, 12, 52, 52))
    answer = client.images.edit(
        image=[("image.png", written(picture))], mask=("mask.png", written(mask)), prompt="a red circle", extra_body={"seed": 2, "num_inference_steps": 10}
    )
    red, green, blue = opened(answer.data[0]).getpixel((32, 2))
    assert red > 170 and green > 170 and blue < 110, "what the mask covers stays yellow"


def test_stream_of_an_edit(client, png):
    events = list(client.images.edit(image=("i.png", png), prompt="x", stream=True, partial_images=0, extra_body={"num_inference_steps": 3}))
    assert [event.type for event in events] == ["image_edit.completed"]


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert names == ["demo", "tiny"]
    assert client.models.retrieve("tiny").owned_by == "latentd"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("none")
    assert raised.value.code == "model_not_found"


def test_errors_have_their_classes(client, png):
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(prompt="x", size="63x64")
    assert raised.value.param == "width" and raised.value.type == "invalid_request_error" and "63" in raised.value.message
    with pytest.raises(openai.NotFoundError) as raised:
        client.images.generate(prompt="x", model="dall-e-9")
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.edit(image=("i.png", png), mask=("m.png", png), prompt="x")
    assert raised.value.param == "mask"


def test_what_is_wrong_is_not_tried_again(url):
    """The client tries 409, 429 and 5xx again by itself, and nothing else."""
    seen = []
    transport = httpx.HTTPTransport()

    class Counting(httpx.BaseTransport):
        def handle_request(self, request):
            seen.append(request.url.path)
            return transport.handle_request(request)

    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=2, http_client=httpx.Client(transport=Counting()))
    with pytest.raises(openai.BadRequestError):
        client.images.generate(prompt="x", n=0)
    assert len(seen) == 1
