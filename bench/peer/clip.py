"""Compares the directional CLIP similarity of `sdft evaluate` and of transformers, on the same seeded weights.

    pip install torch transformers open_clip_torch ftfy regex torchvision safetensors
    python bench/peer/clip.py target/release/sdft

The vocabulary is that of the published model, as open_clip ships it.
"""
import gzip, json, os, subprocess, sys, tempfile
import numpy as np, open_clip, torch
from PIL import Image
from torchvision import transforms as T
from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast

FROM, TO = "face", "a smiling, happy face!"


def templates(x):
    pictures = "a bad photo;a sculpture;a low resolution photo;a rendering;graffiti;a cropped photo;a tattoo;a bright photo;a dark photo;a drawing;a photo;a close-up photo;a black and white photo;a painting;a pixelated photo;a jpeg corrupted photo;a blurry photo;a good photo;a doodle;a sketch;a rendition;art;itap".split(";")
    out = [f"{p} of {a} {x}." for p in pictures for a in ("a", "the")]
    out += [f"a photo of {a} {q} {x}." for q in "hard to see;clean;dirty;cool;nice;weird;large;small".split(";") for a in ("a", "the")]
    out += [f"{a} {m} {x}." for m in "embroidered;plastic;origami;toy;plushie;cartoon".split(";") for a in ("a", "the")]
    return out + [f"{a} {x} in a video game." for a in ("a", "the")] + [f"a photo of {a} {x}." for a in ("my", "one")] + [f"itap of my {x}."]


with tempfile.TemporaryDirectory() as work, torch.inference_mode():
    vocabulary = os.path.join(os.path.dirname(open_clip.__file__), "bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.open(vocabulary).read().decode().split("\n")[1:49152 - 256 - 2 + 1]
    units = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = units + [u + "</w>" for u in units] + ["".join(m.split()) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    with open(f"{work}/vocab.json", "w") as f:
        json.dump({w: i for i, w in enumerate(words)}, f)
    with open(f"{work}/merges.txt", "w") as f:
        f.write("#version: 0.2\n" + "\n".join(merges))
    tokenizer = CLIPTokenizerFast(vocab=f"{work}/vocab.json", merges=f"{work}/merges.txt")
    tokenizer.backend_tokenizer.save(f"{work}/tokenizer.json")
    for patch in (32, 16):
        torch.manual_seed(patch)
        model = CLIPModel(CLIPConfig(vision_config=dict(patch_size=patch))).eval()
        for name, p in model.named_parameters():
            if p.ndim >= 2:
                p.copy_(torch.randn(p.shape) * (1.0 / p[0].numel()) ** 0.5)
        model.save_pretrained(f"{work}/model{patch}", safe_serialization=True)
        rng = np.random.default_rng(0)
        for folder in ("a", "b"):
            os.makedirs(f"{work}/{folder}", exist_ok=True)
            for i in range(4):
                noise = rng.integers(0, 255, (7, 9, 3)).astype(np.uint8)
                Image.fromarray(noise).resize((300, 260), Image.BICUBIC).save(f"{work}/{folder}/{i}.png")
        text = open_clip.tokenizer.SimpleTokenizer()
        unit = lambda v: v / v.norm(dim=-1, keepdim=True)
        pooled = lambda o: o if isinstance(o, torch.Tensor) else o.pooler_output
        encode = lambda s: unit(pooled(model.get_text_features(text(templates(s)).long())))
        direction = unit((encode(TO) - encode(FROM)).mean(0))
        prepare = T.Compose([T.Resize(224, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(), T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])
        image = lambda f: unit(pooled(model.get_image_features(torch.stack([prepare(Image.open(f"{work}/{f}/{i}.png")) for i in range(4)]))))
        d = image("b") - image("a")
        theirs = ((d / (d.norm(dim=-1, keepdim=True) + 1e-7)) @ direction).numpy()
        w = [f"--weights=clip-b{patch}={f}" for f in (f"{work}/model{patch}/model.safetensors", f"{work}/tokenizer.json")]
        out = subprocess.run([sys.argv[1], "evaluate", "--json", "--pairs", f"{work}/a", f"{work}/b", "--without", "lpips,identity", "--text", FROM, TO, "--clip", f"b{patch}", *w], capture_output=True, text=True)
        if out.returncode:
            sys.exit(out.stderr)
        ours = np.array([row["S_dir"] for row in json.loads(out.stdout)["pairs"]])
        print(f"ViT-B/{patch}: ours {ours}, transformers {theirs}, largest difference {np.abs(ours - theirs).max():.1e}")
