"""Writes tests/goldens/conditioners: small text encoders, tokenizers and other conditioners with random weights, and what their
references make of them.

Run with torch 2.11, diffusers 0.42.1, transformers 5.23, einops, more_itertools, after nn.py (whose tiny-sd it reads):
    OMP_NUM_THREADS=1 python tools/goldens/conditioners.py LATENT_DIFFUSION TAMING_TRANSFORMERS
The arguments are checkouts of github.com/CompVis/latent-diffusion at a506df57 and github.com/CompVis/taming-transformers at
3ba01b24. OpenCLIP's text tower is rebuilt here from torch.nn.MultiheadAttention, with its parameters' names.
Weights as in nn.py: rounded to float16, references in float32.
"""
import json
import pathlib
import random
import shutil
import sys
import types

import torch
import transformers
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import LatentConsistencyModelPipeline
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from nn import randomise, write_json  # noqa: E402

GOLDENS = pathlib.Path(__file__).parents[2] / "tests/goldens"
OUT = GOLDENS / "conditioners"
TENSORS = {}


def save(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}, path, {"format": "pt"})


def record(name, **tensors):
    TENSORS.update({f"{name}.{key}": tensor.detach().clone().contiguous() for key, tensor in tensors.items()})


def ids_with(rows, vocabulary, seed):
    """Random ids, then these at the given places."""
    ids = torch.randint(3, vocabulary - 2, (len(rows), 16), generator=torch.Generator().manual_seed(seed))
    for row, places in zip(ids, rows):
        for place, value in places.items():
            row[place] = value
    return ids


def original_modules(latent_diffusion):
    for name in ("clip", "kornia"):
        sys.modules[name] = types.ModuleType(name)
    sys.path.insert(0, latent_diffusion)
    from ldm.modules.encoders import modules
    return modules


@torch.no_grad()
def bert(modules):
    """diffusers' own names with its own heads, and the original class with a whole checkpoint's names."""
    config = LDMBertConfig(
        vocab_size=100, max_position_embeddings=9, encoder_layers=3, encoder_ffn_dim=40, encoder_attention_heads=3,
        head_dim=16, d_model=24,
    )
    model = randomise(LDMBertModel(config), 1)
    ids = torch.randint(0, 100, (2, 9), generator=torch.Generator().manual_seed(2))
    keys = ("vocab_size", "max_position_embeddings", "encoder_layers", "encoder_ffn_dim", "encoder_attention_heads", "head_dim",
            "activation_function", "d_model", "scale_embedding", "pad_token_id", "model_type")
    write_json(OUT / "bert" / "config.json", {key: getattr(config, key) for key in keys})
    save(model.state_dict(), OUT / "bert" / "model.safetensors")
    record("bert", ids=ids, output=model(ids).last_hidden_state, short=model(ids[:, :4]).last_hidden_state)

    params = {"n_embed": 24, "n_layer": 2, "vocab_size": 100, "max_seq_len": 9, "use_tokenizer": False}
    model = randomise(modules.BERTEmbedder(**params, device="cpu"), 3)
    state = {f"cond_stage_model.{name}": tensor for name, tensor in model.state_dict().items()}
    state["model.diffusion_model.out.0.weight"] = torch.ones(4)
    save(state, OUT / "original-bert.safetensors")
    write_json(OUT / "original-bert.json", params)
    record("original-bert", ids=ids, output=model(ids))


@torch.no_grad()
def small(modules):
    """Classes, rescaled maps, sinusoids."""
    model = randomise(modules.ClassEmbedder(24, n_classes=11), 4)
    save({f"cond_stage_model.{name}": tensor for name, tensor in model.state_dict().items()}, OUT / "class.safetensors")
    classes = torch.tensor([3, 10, 0])
    record("class", ids=classes, output=model({"class": classes}))

    model = randomise(modules.SpatialRescaler(n_stages=2, in_channels=7, out_channels=3), 5)
    save({f"cond_stage_model.{name}": tensor for name, tensor in model.state_dict().items()}, OUT / "rescaler.safetensors")
    for name, size in {"even": (16, 24), "odd": (13, 22)}.items():
        labels = torch.randint(0, 7, (2, *size), generator=torch.Generator().manual_seed(6))
        planes = nn.functional.one_hot(labels, 7).permute(0, 3, 1, 2).float()
        record(f"rescaler.{name}", labels=labels, output=model(planes))
    plain = modules.SpatialRescaler(n_stages=1)
    x = torch.randn(1, 3, 10, 6, generator=torch.Generator().manual_seed(7))
    record("rescaler.plain", x=x, output=plain(x))

    scales = torch.tensor([8.5, 1.0, 7.77, 14.0])
    for width in (256, 9):
        vectors = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scales - 1, embedding_dim=width)
        record(f"guidance.{width}", scales=scales, output=vectors)
    numbers = torch.tensor([1024.0, 768.0, 0.0, 13.0, 1536.0, 640.0, 2.5])
    record("sinusoids", numbers=numbers, output=get_timestep_embedding(numbers, 256, flip_sin_to_cos=True, downscale_freq_shift=0))
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(8))
    record("normalised", x=x, output=x / torch.linalg.norm(x, dim=-1, keepdim=True))


def clip_config(**config):
    base = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 16,
            "projection_dim": 24, "bos_token_id": 98, "pad_token_id": 99}
    return CLIPTextConfig(**(base | config))


def clip_outputs(name, model, ids):
    out = model(ids, output_hidden_states=True)
    norm = model.final_layer_norm if hasattr(model, "final_layer_norm") else model.text_model.final_layer_norm
    states = out.hidden_states
    assert (norm(states[-1]) - out.last_hidden_state).abs().max() == 0
    record(
        name, ids=ids, last=out.last_hidden_state, penultimate=states[-2], penultimate_normed=norm(states[-2]),
        third=states[-3], pooled=out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output,
    )


@torch.no_grad()
def clip():
    """Both activations, both rules for the place of the pooled output, with and without projection."""
    # The largest id stands before and after the first end mark 60, so that the rules differ.
    rows = [{0: 98, 5: 60, 9: 99}, {0: 98, 3: 99, 7: 60, 11: 99}, {0: 98, 6: 60, 8: 60, 15: 99}]
    kinds = {
        "clip-quick": (CLIPTextModel, {"hidden_act": "quick_gelu", "eos_token_id": 2, "num_hidden_layers": 3}),
        "clip-gelu": (CLIPTextModel, {"hidden_act": "gelu", "eos_token_id": 60, "num_hidden_layers": 4}),
        "clip-projected": (CLIPTextModelWithProjection, {"hidden_act": "gelu", "eos_token_id": 2, "num_hidden_layers": 3}),
        "clip-projected-first": (
            CLIPTextModelWithProjection, {"hidden_act": "quick_gelu", "eos_token_id": 60, "num_hidden_layers": 3},
        ),
    }
    for seed, (name, (kind, settings)) in enumerate(kinds.items()):
        model = randomise(kind(clip_config(**settings)), 20 + seed)
        model.config.architectures = [kind.__name__]
        model.config.save_pretrained(OUT / name)
        # transformers 5 leaves the prefix out of one of the two; published files have it.
        bare = kind is CLIPTextModel
        state = {f"text_model.{key}" if bare else key: tensor for key, tensor in model.state_dict().items()}
        assert any(key.startswith("text_model.encoder.layers.2.") for key in state)
        save(state, OUT / name / "model.safetensors")
        clip_outputs(name, model, ids_with(rows, 60, 30 + seed))


class Block(nn.Module):
    """open_clip/transformer.py's ResidualAttentionBlock, as its parameters show it."""

    def __init__(self, width, heads, inner):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, inner), "c_proj": nn.Linear(inner, width)})

    def forward(self, x, attn_mask):
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=attn_mask)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


class OpenClipText(nn.Module):
    def __init__(self, vocabulary, width, heads, inner, layers, tokens, output):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.text_projection = nn.Parameter(torch.empty(width, output))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList([Block(width, heads, inner) for _ in range(layers)])
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.ln_final = nn.LayerNorm(width)
        self.register_buffer("attn_mask", torch.full((tokens, tokens), float("-inf")).triu(1))

    def start(self, seed):
        scale, self.logit_scale = self.logit_scale, None
        randomise(self, seed)
        positions = self.positional_embedding
        positions.copy_((0.5 * positions * positions.shape[1] ** 0.5).half().float())
        self.logit_scale = nn.Parameter(torch.full_like(scale, 4.5), requires_grad=False)
        return self

    def states(self, ids):
        """What goes into each block, and what comes out of the last."""
        x = (self.token_embedding(ids) + self.positional_embedding).permute(1, 0, 2)
        states = [x]
        for block in self.transformer.resblocks:
            states.append(block(states[-1], self.attn_mask))
        return [x.permute(1, 0, 2) for x in states]

    def pool(self, x, ids):
        return x[torch.arange(len(ids)), ids.argmax(-1)] @ self.text_projection


@torch.no_grad()
def open_clip():
    """Stable Diffusion 2's and SDXL's single files."""
    rows = [{0: 98, 5: 99}, {0: 98, 9: 99, 10: 0, 11: 0}]
    ids = ids_with(rows, 100, 40)
    tower = OpenClipText(100, 32, 4, 48, 4, 16, 24).start(41)
    # Four layers in the file, of which Stable Diffusion 2 runs three, then normalises.
    record("sd2", ids=ids, output=tower.ln_final(tower.states(ids)[-2]))
    state = {f"cond_stage_model.model.{name}": tensor for name, tensor in tower.state_dict().items()}
    state["model.diffusion_model.out.0.weight"] = torch.ones(4)
    save(state, OUT / "sd2.safetensors")

    tower = OpenClipText(100, 32, 4, 48, 4, 16, 24).start(42)
    last = tower.states(ids)
    record("sdxl", ids=ids, penultimate=last[-2], pooled=tower.pool(tower.ln_final(last[-1]), ids))
    state = {f"conditioner.embedders.1.model.{name}": tensor for name, tensor in tower.state_dict().items()}
    first = randomise(CLIPTextModel(clip_config(hidden_act="quick_gelu", eos_token_id=2, num_hidden_layers=3)), 43)
    record("sdxl", first=first(ids, output_hidden_states=True).hidden_states[-2])
    state |= {f"conditioner.embedders.0.transformer.text_model.{name}": tensor for name, tensor in first.state_dict().items()}
    state["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save(state, OUT / "sdxl.safetensors")


@torch.no_grad()
def chunks():
    """Two chunks with weights and learnt words through nn.py's tiny CLIP; token by token, by hand."""
    at = GOLDENS / "tiny-sd"
    tokenizer = CLIPTokenizer.from_pretrained(at / "tokenizer")
    model = CLIPTextModel(CLIPTextConfig.from_pretrained(at / "text_encoder"))
    state = load_file(at / "text_encoder" / "model.safetensors")
    model.load_state_dict({name.removeprefix("text_model."): tensor.float() for name, tensor in state.items()})
    model.eval()
    generator = torch.Generator().manual_seed(50)
    style, toy = torch.randn(2, 32, generator=generator).half(), torch.randn(32, generator=generator).half()
    save({"emb_params": style}, OUT / "embeddings" / "my-style.safetensors")
    save({"<cat-toy>": toy}, OUT / "embeddings" / "learned_embeds.safetensors")
    wide = torch.randn(2, 32, generator=generator), torch.randn(2, 24, generator=generator)
    save({"clip_l": wide[0], "clip_g": wide[1]}, OUT / "embeddings" / "pair.safetensors")

    def words(text, weight=1.0):
        return [(token, weight, None) for token in tokenizer(text, add_special_tokens=False).input_ids]

    def learnt(vectors, weight=1.0):
        return [(0, weight, vector) for vector in vectors.float()]

    # a (cat:1.3) by My-Style, [[the] table BREAK (<cat-toy>), in the (((morning)) light
    # One square and one round bracket stay open to the end.
    low = 1 / 1.1
    first = words("a ") + words("cat", 1.3) + words(" by ") + learnt(style) + words(", ")
    first += words("the", low * low) + words(" table", low)
    second = learnt(toy[None], 1.1 * low) + words(", in the ", low) + words("morning", 1.1**3 * low) + words(" light", 1.1 * low)
    ids, weights, vectors = [], [], []
    for row, chunk in enumerate((first, second)):
        padding = 77 - 2 - len(chunk)
        ids.append([tokenizer.bos_token_id, *(token for token, _, _ in chunk), *[tokenizer.eos_token_id] * (padding + 1)])
        weights.append([1.0, *(weight for _, weight, _ in chunk), *[1.0] * (padding + 1)])
        vectors += [(row, i + 1, vector) for i, (_, _, vector) in enumerate(chunk) if vector is not None]
    ids, weights = torch.tensor(ids), torch.tensor(weights)

    def put(module, inputs, output):
        for row, place, vector in vectors:
            output[row, place] = vector
        return output

    hook = model.embeddings.token_embedding.register_forward_hook(put)
    out = model(ids, output_hidden_states=True)
    hook.remove()
    plain = out.last_hidden_state * weights[..., None]
    mean = lambda x: x.mean(dim=(1, 2), keepdim=True)
    kept = plain * (mean(out.last_hidden_state) / mean(plain))
    join = lambda x: x.reshape(1, 2 * 77, 32)
    skipped = model.final_layer_norm(out.hidden_states[-2]) * weights[..., None]
    outputs = {"plain": join(plain), "kept": join(kept), "skipped": join(skipped), "pooled": out.pooler_output[:1]}
    record("chunks", ids=ids, weights=weights, **outputs)


WORDS = """the a of and in on cat dog photo paint ##ing ##ed ##s horse rid ##er astronaut moon red blue circle square cafe na
##ive ##i ##ve zurich ##1 1 2 0 , . ! ? ' " - ( ) [ ] : ; / \\ # @ & % $ * + = < > | ~ ` _ ^ { } don t it s 日 本 語 ο δ ##υσσευσ
##a ##b ##c ##d ##e ##f ##g b c d e f g straße strasse i̇stanbul istanbul""".split()

TEXTS = [
    "", "a photo of a cat", "A Painting of an ASTRONAUT, riding the horse on the moon!", "café naïve Zürich", "cafe\u0301",
    "don't it's", "tabs\tand\nnewlines\r\n and \u00a0 spaces", "日本語 a日b", "[CLS] a [SEP] cat [PAD] [MASK] [UNK]", "[sep] glued[SEP]cat",
    "[ SEP ]", "unknownword cat", "x" * 101, "abcdefg", "a" * 100, "ΟΔΥΣΣΕΥΣ İstanbul straße STRASSE", "control \x01\x7f and \x00 nul \ufffd",
    "zero\u200bwidth \ufeffmark soft\u00adhyphen", "emoji 🐱 cat", "a, " * 60, "the cat " * 80, "“quotes” — dash … 10.2", "   ",
    "painting paints painted riders",
]


def bert_tokenizer():
    at = OUT / "bert-tokenizer"
    at.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    assert len(set(words)) == len(words), [word for word in words if words.count(word) > 1]
    (at / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    write_json(at / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"})
    tokenizer = BertTokenizer.from_pretrained(at)
    records = []
    for text in TEXTS:
        whole = tokenizer(text).input_ids
        ids = tokenizer(text, truncation=True, max_length=77, padding="max_length").input_ids
        assert len(ids) == 77
        records.append({"text": text, "ids": ids, "cut": max(len(whole) - 77, 0)})
    lines = ",\n".join(json.dumps(r, ensure_ascii=True, separators=(",", ":")) for r in records)
    (OUT / "bert-tokens.json").write_text(f"[\n{lines}\n]\n")
    # Another form of the same, with padding and truncation of its own.
    tokenizer(TEXTS[1], truncation=True, max_length=20, padding="max_length")
    other = OUT / "bert-tokenizer-json"
    other.mkdir(exist_ok=True)
    tokenizer.backend_tokenizer.save(str(other / "tokenizer.json"))


def layouts(taming):
    stub = types.ModuleType("taming.data.image_transforms")
    stub.convert_pil_to_tensor = None
    sys.modules[stub.__name__] = stub
    sys.path.insert(0, taming)
    from taming.data.conditional_builder import objects_bbox, objects_center_points
    from taming.data.helper_types import Annotation
    # Kept in order: the original shuffles.
    objects_center_points.random = types.SimpleNamespace(shuffle=lambda x: None)
    rng = random.Random(60)

    def box():
        x, y = rng.uniform(0, 0.8), rng.uniform(0, 0.8)
        return [x, y, rng.uniform(0.01, 1 - x), rng.uniform(0.01, 1 - y)]

    def thing(bbox, category=None, attributes=None):
        flags = attributes if attributes is not None else [rng.random() < 0.4 for _ in range(4)]
        category = rng.randrange(352) if category is None else category
        return dict(zip(("is_group", "is_occluded", "is_depiction", "is_inside"), flags), category=category, bbox=bbox)

    # Every half between two of the 89 steps, as far as doubles have them.
    halves = [thing([i / 178, 0.0, 0.25, (2 * i + 1) / 178], 5) for i in range(1, 60, 2)]
    published = dict(no_object_classes=352, no_max_objects=30, no_tokens=8192, encode_crop=True, use_group_parameter=True,
                     use_additional_parameters=True)
    cases = [
        (published, [], None),
        (published, [thing([0.0, 0.0, 1.0, 1.0], 0, [False] * 4)], None),
        (published, [thing(box(), 351, [True] * 4) for _ in range(30)], None),
        (published, [thing(box()) for _ in range(12)], [0.1, 0.2, 0.5, 0.6]),
        (published, halves, None),
        (published, [thing([0.7, 0.9, 0.3, 0.1]), thing([0.1, 0.6, 0.9, 0.4])], None),
        ({**published, "encode_crop": False, "use_group_parameter": False}, [thing(box()) for _ in range(9)], [0.3, 0.1, 0.4, 0.5]),
        ({**published, "use_additional_parameters": False, "no_max_objects": 4, "no_tokens": 1024, "no_object_classes": 100},
         [thing(box(), i) for i in range(4)], None),
    ]
    records = []
    for config, objects, crop in cases:
        builder = objects_bbox.ObjectsBoundingBoxConditionalBuilder(**config)
        annotations = [
            Annotation(area=0.0, image_id="", bbox=tuple(o["bbox"]), category_no=o["category"], category_id="",
                       is_group_of=o["is_group"], is_occluded=o["is_occluded"], is_depiction=o["is_depiction"],
                       is_inside=o["is_inside"])
            for o in objects
        ]
        tokens = builder.build(annotations, tuple(crop) if crop else None).tolist()
        records.append({"config": config, "objects": objects, "crop": crop, "tokens": tokens})
    (OUT / "layouts.json").write_text("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in records) + "\n]\n")


def main(latent_diffusion, taming):
    torch.manual_seed(0)
    shutil.rmtree(OUT, ignore_errors=True)
    modules = original_modules(latent_diffusion)
    bert(modules)
    small(modules)
    clip()
    open_clip()
    chunks()
    bert_tokenizer()
    layouts(taming)
    save_file(TENSORS, OUT / "outputs.safetensors")


if __name__ == "__main__":
    print("torch", torch.__version__, "transformers", transformers.__version__)
    main(*sys.argv[1:3])
