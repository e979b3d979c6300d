"""Compares `sdft evaluate` with the reference tools on the same images and weights.

    pip install torch torchvision pytorch-fid torch-fidelity clean-fid lpips scikit-image safetensors scipy
    cargo build --release -p sdft-cli
    python bench/peer/metrics.py target/release/sdft [--n 300] [--side 96] [--real-weights pt_inception-2015-12-05-6726825d.pth]

Without --real-weights both sides get the same seeded weights: the comparison is about the tools, not the images.
"""
import argparse, json, os, subprocess, sys, tempfile, time
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file

parser = argparse.ArgumentParser()
parser.add_argument("sdft")
parser.add_argument("--n", type=int, default=300)
parser.add_argument("--side", type=int, default=96)
parser.add_argument("--real-weights")
parser.add_argument("--threads", type=int, default=os.cpu_count())
args = parser.parse_args()
torch.set_num_threads(args.threads)


def pictures(folder, n, seed, contrast):
    """Smooth random pictures: enlarged noise at three scales."""
    rng = np.random.default_rng(seed)
    os.makedirs(folder)
    for i in range(n):
        layers = [rng.normal(0, contrast / (k + 1), (s, s, 3)) for k, s in enumerate((3, 9, 31))]
        big = [np.asarray([np.asarray(Image.fromarray(l[..., c].astype(np.float32)).resize((args.side, args.side), Image.BICUBIC)) for c in range(3)]) for l in layers]
        image = np.clip(128 + 60 * np.sum(big, 0), 0, 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(image).save(f"{folder}/{i:05d}.png")


def seeded(module, seed):
    """Random weights that keep activations in range through many layers."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.ndim >= 2:
            fan_in = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2.0 / fan_in) ** 0.5)
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.endswith("weight"):
            tensor.copy_(0.8 + 0.4 * torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))


def run(*arguments):
    start = time.time()
    out = subprocess.run([args.sdft, "--threads", str(args.threads), "evaluate", "--json", "--no-cache", *arguments], capture_output=True, text=True)
    if out.returncode:
        sys.exit(out.stderr)
    return json.loads(out.stdout), time.time() - start


def measure(report, name):
    return next(m["value"] for m in report["measures"] if m["name"] == name)


def row(what, ours, theirs):
    print(f"{what:<44} {ours:>16.9g} {theirs:>16.9g}   relative difference {abs(ours - theirs) / max(abs(theirs), 1e-12):.1e}")


def frechet(a, b):
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    s = [dict(mu=x.mean(0), sigma=np.cov(x, rowvar=False)) for x in (a, b)]
    # With fewer images than features, pytorch-fid's square root of a singular product is unreliable, so use torch-fidelity's eigenvalues.
    if min(len(a), len(b)) > a.shape[1]:
        return calculate_frechet_distance(s[0]["mu"], s[0]["sigma"], s[1]["mu"], s[1]["sigma"])
    return fid_statistics_to_metric(s[0], s[1], verbose=False)["frechet_inception_distance"]


with tempfile.TemporaryDirectory() as work, torch.inference_mode():
    real, fake = f"{work}/real", f"{work}/fake"
    pictures(real, args.n, 1, 1.0)
    pictures(fake, args.n, 2, 0.8)
    load = lambda folder: np.stack([np.asarray(Image.open(f"{folder}/{f}")) for f in sorted(os.listdir(folder))])
    images = [load(real), load(fake)]

    # Inception like in pytorch-fid.
    import pytorch_fid.inception as pf
    weights = f"{work}/inception.pth"
    if args.real_weights:
        state = torch.load(args.real_weights)
    else:
        pf.load_state_dict_from_url = lambda *a, **k: None
        keep = torch.nn.Module.load_state_dict
        torch.nn.Module.load_state_dict = lambda self, state, **k: None if state is None else keep(self, state, **k)
        blank = pf.fid_inception_v3()
        torch.nn.Module.load_state_dict = keep
        seeded(blank, 3)
        state = blank.state_dict()
    torch.save(state, weights)
    pf.load_state_dict_from_url = lambda *a, **k: state
    net = pf.InceptionV3([3]).eval()

    def features(prepare, chunk=32):
        out = []
        for x in images:
            parts = [net(prepare(torch.from_numpy(x[i:i + chunk]).permute(0, 3, 1, 2).float()))[0].flatten(1) for i in range(0, len(x), chunk)]
            out.append(torch.cat(parts).double().numpy())
        return out

    # pytorch-fid: the network itself resizes and scales.
    start = time.time()
    a, b = features(lambda x: x / 255)
    theirs = time.time() - start
    report, ours = run("--real", real, "--fake", fake, "--weights", f"inception={weights}")
    row("FID, pytorch-fid's network and resize", measure(report, "FID"), frechet(a, b))
    print(f"  formula: {'pytorch-fid' if args.n > 2048 else 'torch-fidelity'}; whole run {ours:.1f} s (with KID and the rest), features alone in PyTorch {theirs:.1f} s")

    # KID on torch-fidelity's own subsets.
    from torch_fidelity.metric_kid import kid_features_to_metric
    size = min(args.n, 1000) // 2
    report, _ = run("--real", real, "--fake", fake, "--weights", f"inception={weights}", "--kid-size", str(size))
    kid = kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), kid_subset_size=size, verbose=False)
    row(f"KID, torch-fidelity's subsets of {size}", measure(report, "KID x1000"), 1e3 * kid["kernel_inception_distance_mean"])

    # torch-fidelity's own extractor with its resize.
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=weights).eval()
    tf = [torch.cat([extractor(torch.from_numpy(x[i:i + 32]).permute(0, 3, 1, 2))[0] for i in range(0, len(x), 32)]).double().numpy() for x in images]
    report, _ = run("--real", real, "--fake", fake, "--weights", f"inception={weights}", "--resize", "torch-fidelity")
    row("FID, torch-fidelity's network and resize", measure(report, "FID"), frechet(*tf))

    # clean-fid's resize, its scale, the same network.
    from cleanfid.resize import build_resizer
    resizer = build_resizer("clean")
    net.resize_input = net.normalize_input = False
    def clean(x):
        resized = [resizer(image.permute(1, 2, 0).byte().numpy()) for image in x]
        return (torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2) - 128) / 128
    report, _ = run("--real", real, "--fake", fake, "--weights", f"inception={weights}", "--resize", "clean-fid")
    row("FID, clean-fid's resize, same network", measure(report, "FID"), frechet(*features(clean)))

    # Pairs.
    import lpips
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    for name in ("alex", "vgg"):
        perceptual = lpips.LPIPS(net=name, pnet_rand=True, verbose=False).eval()
        seeded(perceptual.net, 4)
        file = f"{work}/{name}.safetensors"
        own = {k: v.clone().contiguous() for k, v in perceptual.state_dict().items() if not k.startswith("lins.")}
        save_file(own, file)
        report, _ = run("--pairs", real, fake, "--without", "identity", "--lpips", name, "--weights", f"lpips-{name}={file}")
        unit = [torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in images]
        values = [perceptual(unit[0][i:i + 16], unit[1][i:i + 16]).flatten() for i in range(0, args.n, 16)]
        row(f"LPIPS {name}", measure(report, "LPIPS"), torch.cat(values).double().mean().item())
    pairs = list(zip(*images))
    row("PSNR, scikit-image", measure(report, "PSNR"), np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs]))
    gauss = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2, data_range=255)
    row("SSIM, scikit-image, Gaussian", measure(report, "SSIM"), np.mean([structural_similarity(a, b, **gauss) for a, b in pairs]))
    row("SSIM, scikit-image, 7x7", measure(report, "SSIM, 7x7"), np.mean([structural_similarity(a, b, channel_axis=2, data_range=255) for a, b in pairs]))
