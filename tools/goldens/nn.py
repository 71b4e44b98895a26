"""Writes tests/goldens/{tiny-sd,variant,sd15,sd21} and nn.safetensors, tokens.json: small networks with random weights,
and what diffusers and transformers make of them.

Run with torch 2.11, diffusers 0.42.1, transformers 5.23:  OMP_NUM_THREADS=1 python tools/goldens/nn.py
Weights are normal with variance 1/fan_in, normalisations 1 ± 0.1 and biases 0.1·normal, not torch's default start, which
zeroes or shrinks what a wrong port would get wrong. All are rounded to float16 first; references run in float32.
"""
import collections
import json
import math
import pathlib
import shutil

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

OUT = pathlib.Path(__file__).parents[2] / "tests/goldens"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
POSITIONS = 77

# What the merges are learnt from; any text of prompts does.
CORPUS = """
a photo of a cat sitting on the table in the morning light, a photograph of an astronaut riding a horse on the moon,
a painting of a small house near the river with trees and flowers, the portrait of a young woman with red hair and blue eyes,
an oil painting of the ocean at sunset, highly detailed, sharp focus, digital art, concept art, trending, beautiful lighting,
a red square above a blue circle, a large green triangle to the left of a small yellow star, black and white background,
the castle on the hill under the stars at night, snow mountains in the distance, fog over the forest, rain on the street,
two dogs and three birds playing in the garden with a ball, a bowl of fruit with apples, oranges and grapes on a wooden table,
low quality, blurry, bad anatomy, deformed, ugly, watermark, text, signature, extra fingers, worst quality, jpeg artifacts,
the king's crown, it's raining, we're here, they've gone, i'm fine, you'll see, he'd go, don't stop
"""

TEXTS = [
    "",
    "a photo of a cat",
    "A Photograph of an ASTRONAUT riding a horse on the moon",
    "a red square above a blue circle",
    "low quality, blurry, bad anatomy",
    " leading and trailing spaces   ",
    "tabs\tand\nnewlines\r\n\r\nand \u00a0 no-break spaces\u2003em",
    "it's the king's crown, we're here, they've gone, i'm fine, you'll see, he'd go, don't stop",
    "IT'S UPPER CASE, DON'T",
    "typographic ’s and ‘quotes’ “here”",
    "1234567890 8k 4K 3.14 1,000,000",
    "½ ² Ⅷ ٣ 十二",
    "punctuation!!! ... ??? ;:-_ (round) [square] {curly} <angle> /slash\\back |pipe|",
    "a+b=c^2 @user #tag $5 100% & more ~ `code` *star*",
    "café naïve Zürich smörgåsbord",
    "cafe\u0301 nai\u0308ve decomposed",
    "ŁÓDŹ İstanbul ǅ ẞtraße ΟΔΥΣΣΕΥΣ",
    "日本語の絵",
    "привет, мир",
    "שלום עולם",
    "हिन्दी नमस्ते",
    "emoji 🐱 and 👩‍🚀 and 🇩🇪 and ❤️",
    "🎨🎨🎨",
    "math 𝒜𝓑 ∑∫ ≤ ∞",
    "<|endoftext|>",
    "before <|endoftext|> after",
    "glued<|endoftext|>together",
    "<|startoftext|>a cat<|endoftext|>",
    "<|ENDOFTEXT|> in upper case",
    "<|endoftext|",
    "</w> and a</w>b",
    "underscore_joined words-with-dashes",
    "x" * 200,
    "a " * 74 + "cat",
    "a " * 75 + "cat",
    "a " * 100,
    "a photo of a cat sitting on the table, " * 12,
    "🐱" * 40,
    "zero\u200bwidth and soft\u00adhyphen \ufeffmark",
    "control \x01\x7f characters and \x00 nul",
    "replacement \ufffd and private \ue000",
    "'s 't 're 've 'm 'll 'd 'S 'x ''s",
    "a   'quoted'   word",
    "MiXeD CaSe 12ab34CD",
    "ﬁne ligature Ａ fullwidth",
]


def byte_letters():
    """gpt-2's bytes_to_unicode, in CLIP's order: printable bytes first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def learn_merges(count):
    """Byte-pair encoding of the corpus; ties go to the pair that sorts first."""
    words = collections.Counter("".join(c if c.isalpha() else " " for c in CORPUS).split())
    words = {tuple(word[:-1]) + (word[-1] + "</w>",): n for word, n in words.items()}
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = {}
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i : i + 2] == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] = n
        words = merged
    return merges


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_tokenizer(at, pad=EOS):
    letters, merges = byte_letters(), learn_merges(260)
    tokens = letters + [f"{c}</w>" for c in letters] + ["".join(pair) for pair in merges] + [BOS, EOS]
    assert len(set(tokens)) == len(tokens)
    at.mkdir(parents=True, exist_ok=True)
    vocab = json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False, separators=(",", ":"))
    (at / "vocab.json").write_text(vocab)
    (at / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    record = {"content": BOS, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": record, "eos_token": {**record, "content": EOS}, "pad_token": pad, "unk_token": EOS}
    write_json(at / "special_tokens_map.json", special)
    settings = {"add_prefix_space": False, "do_lower_case": True, "model_max_length": POSITIONS}
    settings |= {"tokenizer_class": "CLIPTokenizer", "bos_token": BOS, "eos_token": EOS, "pad_token": pad, "unk_token": EOS}
    write_json(at / "tokenizer_config.json", settings)
    return len(tokens)


@torch.no_grad()
def randomise(model, seed, gain=1.0):
    """See the top of the file. `gain` scales what is added to the stream: where it is small, each ε of each norm shows."""
    sharp = ("to_q", "to_k", "q_proj", "k_proj", "query", "net.0.proj", "fc1", "time_embedding")
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        z = torch.randn(p.shape, generator=generator)
        if name.endswith("bias"):
            z = 0.1 * z
        elif "embedding.weight" in name:
            z = 0.5 * z
        elif p.dim() == 1:
            z = 1 + 0.1 * z
        else:
            z = z / math.sqrt(p[0].numel())
        if gain != 1 and not any(part in name for part in sharp) and not (p.dim() == 1 and name.endswith("weight")):
            z = gain * z
        p.copy_(z.half().float())
    return model.eval().requires_grad_(False)


def unet(**config):
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, cross_attention_dim=32, norm_num_groups=8, **config
    )


def clip(vocab, **config):
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab, hidden_size=32, intermediate_size=64, num_attention_heads=4, max_position_embeddings=POSITIONS,
            projection_dim=32, bos_token_id=vocab - 2, eos_token_id=vocab - 1, pad_token_id=vocab - 1, **config,
        )
    )


def vae(channels, **config):
    levels = len(channels)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=channels, latent_channels=4, norm_num_groups=8, **config,
    )


def tiny_sd():
    """A whole pipeline directory, as diffusers saves it in float16."""
    at = OUT / "tiny-sd"
    vocab = write_tokenizer(at / "tokenizer")
    models = {
        "unet": randomise(
            unet(
                block_out_channels=(32, 48), layers_per_block=2, attention_head_dim=4,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            ),
            1,
        ),
        "vae": randomise(vae((16, 32, 32), layers_per_block=1, sample_size=64, scaling_factor=0.18215), 2),
        "text_encoder": randomise(clip(vocab, num_hidden_layers=4, hidden_act="quick_gelu"), 3),
    }
    for name, model in models.items():
        model.half().save_pretrained(at / name)
        model.float()
    # transformers 5 leaves the prefix out; Stable Diffusion's own files have it.
    state = {f"text_model.{name}": t.half() for name, t in models["text_encoder"].state_dict().items()}
    save_file(state, at / "text_encoder" / "model.safetensors", {"format": "pt"})
    # Word for word as Stable Diffusion 1.5 has it: what it does not say, each scheduler class says otherwise.
    scheduler = {
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
        "steps_offset": 1, "trained_betas": None, "clip_sample": False,
    }
    write_json(at / "scheduler" / "scheduler_config.json", scheduler)
    index = {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None], "image_encoder": [None, None], "requires_safety_checker": False,
        "safety_checker": [None, None], "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(at / "model_index.json", index)
    return models


def variant():
    """The less usual settings, and files as older or other tools write them, in float32."""
    at = OUT / "variant"
    vocab = write_tokenizer(at / "tokenizer", pad="!")
    models = {
        "unet": randomise(
            unet(
                block_out_channels=(16, 24, 32), layers_per_block=1, attention_head_dim=[2, 3, 4],
                transformer_layers_per_block=[1, 2, 1], use_linear_projection=True, flip_sin_to_cos=False, freq_shift=1,
                norm_eps=1e-4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            4, gain=0.1,
        ),
        "vae": randomise(vae((8, 16), layers_per_block=2, sample_size=32, scaling_factor=0.13025), 5, gain=0.1),
        "text_encoder": randomise(clip(vocab, num_hidden_layers=3, hidden_act="gelu"), 6, gain=0.1),
    }
    for name in ("unet", "vae"):
        models[name].save_config(at / name)
    models["text_encoder"].config.save_pretrained(at / "text_encoder")

    # The UNet in two shards with an index.
    state = models["unet"].state_dict()
    stem = "diffusion_pytorch_model"
    shards = [{}, {}]
    for i, (name, tensor) in enumerate(sorted(state.items())):
        shards[i >= len(state) // 2][name] = tensor.contiguous()
    index = {"metadata": {"total_size": sum(t.numel() * 4 for t in state.values())}, "weight_map": {}}
    for i, shard in enumerate(shards):
        file = f"{stem}-{i + 1:05}-of-00002.safetensors"
        save_file(shard, at / "unet" / file, {"format": "pt"})
        index["weight_map"] |= dict.fromkeys(shard, file)
    write_json(at / "unet" / f"{stem}.safetensors.index.json", index)

    # The autoencoder with the attention's old names and 1×1 convolutions.
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = {}
    for name, tensor in models["vae"].state_dict().items():
        for new, was in old.items():
            if new in name:
                name = name.replace(new, was)
                tensor = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
        state[name] = tensor.contiguous()
    assert any(tensor.dim() == 4 and ".query." in name for name, tensor in state.items())
    save_file(state, at / "vae" / f"{stem}.safetensors", {"format": "pt"})

    # The text encoder without its prefix, with the buffer of positions.
    state = {name.removeprefix("text_model."): t.contiguous() for name, t in models["text_encoder"].state_dict().items()}
    state["embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    save_file(state, at / "text_encoder" / "model.safetensors", {"format": "pt"})
    return models


def tokens():
    """Ids of every text, padded with the end mark and (as SD 2.x does) with an exclamation mark."""
    records = []
    tokenizers = [CLIPTokenizer.from_pretrained(OUT / name / "tokenizer") for name in ("tiny-sd", "variant")]
    for text in TEXTS:
        record = {"text": text}
        for name, tokenizer in zip(("tiny-sd", "variant"), tokenizers):
            assert tokenizer.model_max_length == POSITIONS
            ids = tokenizer(text, padding="max_length", max_length=POSITIONS, truncation=True).input_ids
            whole = tokenizer(text, truncation=False).input_ids
            assert len(ids) == POSITIONS and ids[0] == whole[0] == tokenizer.bos_token_id
            record[name] = ids
            record["cut"] = max(len(whole) - POSITIONS, 0)
        records.append(record)
    lines = ",\n".join(json.dumps(r, ensure_ascii=True, separators=(",", ":")) for r in records)
    (OUT / "tokens.json").write_text(f"[\n{lines}\n]\n")
    return tokenizers


PROMPTS = ["a photo of a cat", "a red square above a blue circle, highly detailed", ""]
SIZES = [(16, 16), (9, 7)]


@torch.no_grad()
def outputs(name, models, tokenizer, seed):
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(shape, generator=generator)
    out = {}
    ids = torch.tensor(tokenizer(PROMPTS, padding="max_length", max_length=POSITIONS).input_ids)
    context = models["text_encoder"](ids).last_hidden_state
    out |= {"clip.ids": ids, "clip.output": context}
    timesteps = [[999.0, 500.25, 0.0], [1.0, 37.5, 812.0]]
    for i, (size, t) in enumerate(zip(SIZES, timesteps)):
        x, t = randn(3, 4, *size), torch.tensor(t)
        y = models["unet"](x, t, context).sample
        out |= {f"unet.{i}.x": x, f"unet.{i}.t": t, f"unet.{i}.output": y}
        report(f"{name} unet {size}", y, lambda: models["unet"].double()(x.double(), t.double(), context.double()).sample)
        models["unet"].float()
    factor = 2 ** (len(models["vae"].config.block_out_channels) - 1)
    for i, (height, width) in enumerate(SIZES):
        x = randn(2, 3, height * factor, width * factor).clamp(-1, 1)
        posterior = models["vae"].encode(x).latent_dist
        z = randn(2, 4, height, width) * 4
        y = models["vae"].decode(z).sample
        out |= {f"vae.{i}.x": x, f"vae.{i}.mean": posterior.mean, f"vae.{i}.std": posterior.std}
        out |= {f"vae.{i}.z": z, f"vae.{i}.output": y}
        out[f"vae.{i}.kl"] = posterior.kl().mean()
        report(f"{name} vae {(height, width)}", y, lambda: models["vae"].double().decode(z.double()).sample)
        models["vae"].float()
    return {f"{name}.{key}": value.contiguous() for key, value in out.items()}


def report(what, single, double):
    exact = double()
    error = (single - exact).abs().max() / exact.abs().max()
    print(f"{what}: std {single.std():.3f}, float32 against float64 {error:.1e}")


def attention():
    """softmax(q kᵀ / √d) v in float64, whole and causal; keys of another number, an odd size."""
    generator = torch.Generator().manual_seed(30)
    out = {}
    for i, (b, l, keys, heads, d) in enumerate([(2, 40, 40, 4, 8), (1, 33, 77, 3, 16), (2, 700, 300, 2, 8)]):
        q, k, v = (torch.randn(b, n, heads * d, generator=generator) for n in (l, keys, keys))
        split = lambda x: x.double().unflatten(-1, (heads, d)).transpose(1, 2)
        scores = split(q) @ split(k).mT / math.sqrt(d)
        join = lambda weights: (weights @ split(v)).transpose(1, 2).flatten(2).float().contiguous()
        out |= {f"attention.{i}.{n}": x for n, x in zip("qkv", (q, k, v))}
        out[f"attention.{i}.heads"] = torch.tensor(heads)
        out[f"attention.{i}.output"] = join(scores.softmax(-1))
        if l == keys:
            ahead = torch.ones(l, keys, dtype=torch.bool).triu(1)
            out[f"attention.{i}.causal"] = join(scores.masked_fill(ahead, -math.inf).softmax(-1))
    return out


def published():
    """The configurations of SD 1.5 and 2.1, and their numbers of parameters as the reference classes count them."""
    cross = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    base = {
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "center_input_sample": False,
        "block_out_channels": [320, 640, 1280, 1280], "down_block_types": cross[0], "up_block_types": cross[1],
        "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4,
    }
    unets = {
        "sd15": {**base, "attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64},
        "sd21": {
            **base, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "sample_size": 96,
            "dual_cross_attention": False, "num_class_embeds": None, "only_cross_attention": False,
            "upcast_attention": True, "use_linear_projection": True,
        },
    }
    kl = {
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3,
        "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    text = {
        "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2,
        "initializer_factor": 1.0, "initializer_range": 0.02, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
        "model_type": "clip_text_model", "pad_token_id": 1, "torch_dtype": "float32", "vocab_size": 49408,
    }
    texts = {
        "sd15": {**text, "hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072,
                 "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768},
        "sd21": {**text, "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096,
                 "num_attention_heads": 16, "num_hidden_layers": 23, "projection_dim": 512},
    }
    for name in ("sd15", "sd21"):
        with torch.device("meta"):
            models = {
                "unet": UNet2DConditionModel.from_config(unets[name]),
                "vae": AutoencoderKL.from_config(kl),
                "text_encoder": CLIPTextModel(CLIPTextConfig.from_dict(texts[name])),
            }
        counts = {part: sum(p.numel() for p in model.parameters()) for part, model in models.items()}
        print(name, counts)
        for part, config in {"unet": unets[name], "vae": kl, "text_encoder": texts[name]}.items():
            write_json(OUT / name / f"{part}.json", config)
        write_json(OUT / name / "parameters.json", counts)


def main():
    torch.manual_seed(0)
    for part in ("tiny-sd", "variant", "sd15", "sd21"):
        shutil.rmtree(OUT / part, ignore_errors=True)
    models = {"tiny-sd": tiny_sd(), "variant": variant()}
    tensors = attention()
    for i, (tokenizer, (name, modules)) in enumerate(zip(tokens(), models.items())):
        tensors |= outputs(name, modules, tokenizer, 10 + i)
    save_file(tensors, OUT / "nn.safetensors")
    published()


if __name__ == "__main__":
    print("torch", torch.__version__, "diffusers", diffusers.__version__, "transformers", transformers.__version__)
    main()
