"""The PyTorch side of `cargo xtask bench --peer`.

Reads one job as a line of JSON, prepares it, and runs it once for each line "go"; every answer is a line of JSON.
Needs only PyTorch, OpenVINO and ONNX Runtime for jobs of these, and diffusers for its autoencoder. `network.py` is the U-Net,
`transformer.py` the DiT, `training.py` the loss and the step.
"""

import json
import struct
import sys
import time

import torch
import torch.nn.functional as F

import runtimes
from network import AttentionBlock, ResBlock, UNet
from transformer import DiT
from training import Trainer

# Minimum duration of a repetition in seconds, so that the resolution of clocks does not matter.
MIN_SECONDS = 0.03


def formula(shape, salt):
    """Numbers in [-1, 1) by the same formula as in `inputs.rs`."""
    count = 1
    for size in shape:
        count *= size
    index = torch.arange(count, dtype=torch.int64) + salt * 7919
    hashed = (index * 2654435761) & 0xFFFFFFFF
    hashed = ((hashed ^ (hashed >> 15)) * 2246822519) & 0xFFFFFFFF
    return (hashed.double() / 2.0**31 - 1.0).float().reshape(shape)


def digest(y):
    """Mean absolute value, and a projection that changes by about as much as the values or their positions."""
    y = y.detach().cpu().double()
    f = formula(y.shape, 7).double()
    return [y.abs().mean().item(), (y * f).sum().item() / y.numel() ** 0.5]


def read_safetensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", f"{name}: expected F32, found {entry['dtype']}"
        start, end = entry["data_offsets"]
        flat = torch.frombuffer(memoryview(data)[start:end], dtype=torch.float32)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def fill(module):
    """Weights of a block by the formula, in the order of their names."""
    with torch.no_grad():
        for salt, (_, parameter) in enumerate(sorted(module.named_parameters())):
            fan = max(parameter[0].numel(), 1) if parameter.dim() > 1 else 1
            values = formula(parameter.shape, salt + 1) / fan**0.5
            parameter.copy_(values if parameter.dim() > 1 else 1 + 0.1 * values)


def layout(job):
    return torch.channels_last if job["runner"] == "channels_last" else torch.contiguous_format


def operation(job):
    """Returns (function of its leaves, inputs that may need a gradient, weights that may need one)."""
    case = job["case"]
    batch, c_in, side = case["batch"], case["c_in"], case["side"]
    x = formula((batch, c_in, side, side), 1).to(memory_format=layout(job))
    kind = case["kind"]
    if kind == "conv":
        k, stride = case["k"], case["stride"]
        w = formula((case["c_out"], c_in, k, k), 2).to(memory_format=layout(job)) / (c_in * k * k) ** 0.5
        bias = formula((case["c_out"],), 3)
        top, left, bottom, right = case["pad"]

        def convolve(x, w, b):
            if case["upsample"]:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if (top, left) == (bottom, right):
                return F.conv2d(x, w, b, stride=stride, padding=(top, left))
            return F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, stride=stride)

        return convolve, [x], [w, bias]
    if kind == "norm":
        gain, offset = 1 + 0.1 * formula((c_in,), 2), 0.1 * formula((c_in,), 3)
        return lambda x, g, o: F.silu(F.group_norm(x, 32, g, o)), [x], [gain, offset]
    if kind == "attention":
        heads = case["heads"]

        def attend(qkv):
            q, k, v = qkv.reshape(batch, heads, c_in // heads, side * side).transpose(2, 3).split(c_in // heads // 3, 3)
            out = F.scaled_dot_product_attention(q, k, v)
            return out.transpose(2, 3).reshape(batch, c_in // 3, side * side)

        return attend, [x.flatten(2).contiguous()], []
    raise ValueError(kind)


class Kernel:
    def __init__(self, job):
        function, inputs, weights = operation(job)
        self.pass_ = job["case"]["pass"]
        of_input = self.pass_ in ("input gradient", "backward")
        of_weights = self.pass_ in ("weight gradient", "backward")
        self.leaves = [x.requires_grad_(of_input) for x in inputs] + [w.requires_grad_(of_weights) for w in weights]
        self.function = function

    def __call__(self):
        if self.pass_ == "forward":
            with torch.no_grad():
                started = clocks()
                y = self.function(*self.leaves)
                return (lambda: [digest(y)]), spent(started)
        y = self.function(*self.leaves)
        dy = torch.ones_like(y)
        started = clocks()
        grads = torch.autograd.grad(y, [leaf for leaf in self.leaves if leaf.requires_grad], dy)
        return (lambda: [digest(grad) for grad in grads]), spent(started)


class BlockWork:
    def __init__(self, job):
        case = job["case"]
        side = case["side"]
        if case["kind"] == "residual":
            self.block = ResBlock(case["c_in"], case["c_out"], case["emb"], "none")
            self.emb = formula((case["batch"], case["emb"]), 2)
        else:
            self.block = AttentionBlock(case["c_in"], case["heads"])
            self.emb = None
        fill(self.block)
        self.block.to(memory_format=layout(job))
        self.backward = case["pass"] == "both"
        self.x = formula((case["batch"], case["c_in"], side, side), 1).to(memory_format=layout(job))
        self.x.requires_grad_(self.backward)

    def __call__(self):
        started = clocks()
        args = (self.x,) if self.emb is None else (self.x, self.emb)
        if not self.backward:
            with torch.no_grad():
                y = self.block(*args)
            return (lambda: [digest(y)]), spent(started)
        y = self.block(*args)
        y.square().mean().backward()
        result = spent(started)
        gradient = self.x.grad
        self.block.zero_grad(set_to_none=True)
        self.x.grad = None
        return (lambda: [digest(gradient)]), result


class Vae:
    """diffusers' AutoencoderKL."""

    def __init__(self, job):
        # A file next to this one has the name of the library.
        here = sys.path.pop(0)
        from diffusers import AutoencoderKL

        sys.path.insert(0, here)
        case = job["case"]
        net = AutoencoderKL.from_config(case["config"]).eval()
        fill(net)
        side = case["side"] // 2 ** (len(case["config"]["block_out_channels"]) - 1)
        if case["part"] == "encode":
            self.call, self.x = lambda x: net.encode(x).latent_dist.mean, formula((1, 3, case["side"], case["side"]), 1)
        else:
            self.call, self.x = lambda z: net.decode(z).sample, formula((1, 4, side, side), 1)

    def __call__(self):
        with torch.no_grad():
            started = clocks()
            y = self.call(self.x)
            return (lambda: [digest(y)]), spent(started)


class Optimizer:
    def __init__(self, job):
        n = job["case"]["elements"]
        self.parameter = torch.nn.Parameter(formula((n,), 1))
        self.parameter.grad = formula((n,), 2)
        self.average = self.parameter.detach().clone()
        self.optimizer = torch.optim.AdamW([self.parameter], lr=1e-2, weight_decay=0.0, fused=True)

    def __call__(self):
        started = clocks()
        self.optimizer.step()
        torch._foreach_lerp_([self.average], [self.parameter.detach()], 0.1)
        return self.moved, spent(started)

    def moved(self):
        before = formula(self.average.shape, 1)
        return [digest(self.parameter.detach() - before), digest(self.average - before)]


# Number of steps in one repetition on a GPU.
GPU_STEPS = 10
DTYPES = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Network:
    def __init__(self, job):
        case = job["case"]
        config = case["config"]
        is_dit = config.get("architecture") == "dit"
        self.device = torch.device(job["device"])
        self.gpu = self.device.type == "cuda"
        order = torch.channels_last if self.gpu else layout(job)
        # On the meta device, so that the weights are in memory once.
        with torch.device("meta"):
            self.net = (DiT if is_dit else UNet)(config)
        weights = read_safetensors(job["weights"])
        self.net.load_state_dict(self.net.named(weights) if is_dit else weights, assign=True)
        # On a CPU, weights stay f32 and operations are cast.
        autocast = not self.gpu and job["precision"] == "bf16"
        dtype = torch.float32 if autocast else DTYPES[job["precision"]]
        self.net.to(device=self.device, dtype=dtype, memory_format=order)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = job["precision"] == "tf32"
        torch.backends.cudnn.benchmark = True
        side = config["sample_size"] if is_dit else config["image_size"]
        self.x = formula((case["batch"], config["in_channels"], side, side), 1).to(device=self.device, memory_format=order)
        self.t = torch.full((case["batch"],), 500, device=self.device)
        runner, threads = job["runner"], job["threads"]
        with torch.no_grad():
            if runner == "openvino":
                self.call = runtimes.openvino(self.net.eval(), (self.x, self.t), job["precision"], threads)
                autocast = False
            elif runner == "onnxruntime":
                self.call = runtimes.onnxruntime(self.net.eval(), (self.x, self.t), threads)
            else:
                self.call = torch.compile(self.net) if runner == "compile" else self.net
        if autocast:
            self.call = torch.autocast("cpu", dtype=torch.bfloat16)(self.call)
        self.trainer = None
        self.sampling = case["pass"] == "sampling"
        if case["pass"] == "step":
            given = read_safetensors(job["inputs"])
            noise = given["noise"].to(self.device)
            steps = [int(t) for t in given["t"]]
            self.trainer = Trainer(self.net, self.call, case["weighting"], steps, noise)
        else:
            self.net.eval()

    def finish(self):
        if self.gpu:
            torch.cuda.synchronize()

    def __call__(self):
        if self.trainer:
            n = GPU_STEPS if self.gpu else 1
            started = clocks()
            losses = [self.trainer.step(self.x) for _ in range(n)]
            self.finish()
            cpu, wall = spent(started)
            loss, norm = losses[0].item(), self.trainer.norm
            return (lambda: [[loss, loss], [norm, norm]]), (cpu / n, wall / n)
        with torch.no_grad():
            self.finish()
            if self.sampling:
                # Both sides compare a prediction, because steps amplify rounding.
                y = self.call(self.x, self.t)
                self.finish()
                started = clocks()
                ddim(self.call, self.x, 10)
            else:
                started = clocks()
                y = self.call(self.x, self.t)
            self.finish()
            result = spent(started)
        return (lambda: [digest(y)]), result


def ddim(net, x, steps):
    """Deterministic DDIM from x_T to images, clipped as guided-diffusion does."""
    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    kept = list(range(0, 1000, 1000 // steps))
    for i, t in reversed(list(enumerate(kept))):
        now, before = bar[t].item(), bar[kept[i - 1]].item() if i > 0 else 1.0
        eps = net(x, torch.full((x.shape[0],), t, device=x.device)).float()[:, : x.shape[1]]
        x0 = ((x - (1 - now) ** 0.5 * eps) / now**0.5).clamp(-1, 1)
        eps = (x - now**0.5 * x0) / (1 - now) ** 0.5
        x = before**0.5 * x0 + (1 - before) ** 0.5 * eps
    return x


def make(job):
    kind = job["case"]["kind"]
    if kind == "network":
        return Network(job)
    if kind in ("residual", "attention block"):
        return BlockWork(job)
    if kind == "vae":
        return Vae(job)
    if kind == "optimizer":
        return Optimizer(job)
    return Kernel(job)


def clocks():
    return time.process_time(), time.perf_counter()


def spent(started):
    return time.process_time() - started[0], time.perf_counter() - started[1]


def repeat(work, times):
    cpu = wall = 0.0
    for _ in range(times):
        _, (c, w) = work()
        cpu, wall = cpu + c, wall + w
    return {"cpu": cpu / times, "wall": wall / times}


def peak_bytes():
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def answer(**fields):
    print(json.dumps(fields), flush=True)


def main():
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    work = make(job)
    value, (cpu, _) = work()
    value = value()
    gpu = job["device"].startswith("cuda")
    # If one run is short, a second one completes the warm-up.
    wall = cpu
    if cpu < 5.0 or gpu:
        _, (cpu, wall) = work()
    times = max(1, int(MIN_SECONDS / max(wall if gpu else cpu, 1e-6)))
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    answer(value=value, version=torch.__version__)
    for line in sys.stdin:
        if line.strip() != "go":
            break
        answer(**repeat(work, times))
    answer(peak=torch.cuda.max_memory_allocated() if gpu else peak_bytes())


if __name__ == "__main__":
    main()
