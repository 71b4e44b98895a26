// OpenAI's JavaScript client, unmodified: LATENTD_URL=http://… node --test openai.test.mjs
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

const { OpenAI, toFile } = createRequire(process.env.CLIENTS_HOME + "/")("openai");
const client = new OpenAI({ baseURL: process.env.LATENTD_URL + "/v1", apiKey: "none", maxRetries: 0 });
const magic = (text) => Buffer.from(text, "base64").subarray(1, 4).toString();

async function picture() {
  const answer = await client.images.generate({ prompt: "a red circle", num_inference_steps: 4, seed: 1 });
  return Buffer.from(answer.data[0].b64_json, "base64");
}

test("generate", async () => {
  const answer = await client.images.generate({ prompt: "a red circle", n: 2, size: "64x64", num_inference_steps: 4 });
  assert.equal(answer.data.length, 2);
  assert.equal(magic(answer.data[1].b64_json), "PNG");
  assert.ok(answer.usage.total_tokens > 0);
});

test("edit", async () => {
  const image = await toFile(await picture(), "image.png", { type: "image/png" });
  const answer = await client.images.edit({ image: [image], prompt: "a blue circle", n: 1 });
  assert.equal(magic(answer.data[0].b64_json), "PNG");
});

test("stream", async () => {
  const stream = await client.images.generate({ prompt: "a star", stream: true, partial_images: 1, num_inference_steps: 10 });
  const types = [];
  for await (const event of stream) types.push(event.type);
  assert.equal(types.at(-1), "image_generation.completed");
  assert.ok(types.slice(0, -1).every((type) => type === "image_generation.partial_image"));
});

test("errors", async () => {
  await assert.rejects(client.images.generate({ prompt: "x", n: 0 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "n");
    return true;
  });
  await assert.rejects(client.models.retrieve("none"), OpenAI.NotFoundError);
});
