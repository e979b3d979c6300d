"""One training step in plain PyTorch: P2-weighted error of the noise, variational term for the learned variance, AdamW, EMA."""

import math

import torch

STEPS = 1000


def normal_kl(mean1, log1, mean2, log2):
    return 0.5 * (-1.0 + log2 - log1 + torch.exp(log1 - log2) + (mean1 - mean2) ** 2 * torch.exp(-log2))


def cdf(x):
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretized_log_likelihood(x, mean, log_scale):
    centered, inverse = x - mean, torch.exp(-log_scale)
    upper, lower = cdf(inverse * (centered + 1 / 255)), cdf(inverse * (centered - 1 / 255))
    inner = torch.where(x > 0.999, 1 - lower, upper - lower)
    return torch.log(torch.where(x < -0.999, upper, inner).clamp(min=1e-12))


class Trainer:
    """`call` runs the network: `net` itself, or its compiled form.

    A network of half weights gets f32 master weights: gradients are widened to them, the optimiser moves them, and they are rounded back.
    """

    def __init__(self, net, call, weighting, t, noise):
        self.net, self.call = net, call
        device = noise.device
        self.first = (torch.tensor(t, device=device), noise)
        # The norm of the first step's gradient is compared.
        self.norm = None
        betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
        bar = torch.cumprod(1 - betas, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
        posterior = betas * (1 - before) / (1 - bar)
        self.tables = {
            "signal": bar.sqrt(),
            "spread": (1 - bar).sqrt(),
            "recip": (1 / bar).sqrt(),
            "recipm1": (1 / bar - 1).sqrt(),
            "mean0": betas * before.sqrt() / (1 - bar),
            "meant": (1 - before) * (1 - betas).sqrt() / (1 - bar),
            "low": torch.log(torch.cat([posterior[1:2], posterior[1:]])),
            "high": torch.log(betas),
        }
        p2 = 1 / (1 + bar / (1 - bar))
        self.weights = {"p2": p2, "constant": torch.ones_like(p2)}[weighting].to(device)
        self.tables = {name: table.to(device) for name, table in self.tables.items()}
        self.own = list(net.parameters())
        self.half = self.own[0].dtype != torch.float32
        master = [torch.nn.Parameter(p.detach().float()) for p in self.own] if self.half else self.own
        self.master = master
        self.optimizer = torch.optim.AdamW(master, lr=2e-5, weight_decay=0.0, fused=True)
        self.parameters = [p.detach() for p in master]
        self.average = [p.clone() for p in self.parameters]

    def at(self, name, t):
        return self.tables[name][t].float()[:, None, None, None]

    def loss(self, x0, t, noise):
        xt = self.at("signal", t) * x0 + self.at("spread", t) * noise
        out = self.call(xt, t).float()
        eps, logits = out[:, : x0.shape[1]], out[:, x0.shape[1] :]
        error = (noise - eps).square().flatten(1).mean(1) * self.weights[t].float()
        if logits.shape[1] == 0:
            return error.mean()
        low, high = self.at("low", t), self.at("high", t)
        share = (logits + 1) / 2
        log_variance = share * high + (1 - share) * low
        start = self.at("recip", t) * xt - self.at("recipm1", t) * eps.detach()
        mean = self.at("mean0", t) * start + self.at("meant", t) * xt
        truth = self.at("mean0", t) * x0 + self.at("meant", t) * xt
        kl = normal_kl(truth, low, mean, log_variance).flatten(1).mean(1) / math.log(2)
        likelihood = -discretized_log_likelihood(x0, mean, 0.5 * log_variance).flatten(1).mean(1) / math.log(2)
        return (error + torch.where(t == 0, likelihood, kl) * (STEPS / 1000)).mean()

    def step(self, x0):
        if self.first is not None:
            t, noise = self.first
            self.first = None
        else:
            t = torch.randint(0, STEPS, (x0.shape[0],), device=x0.device)
            noise = torch.randn_like(x0)
        loss = self.loss(x0, t, noise)
        loss.backward()
        if self.norm is None:
            self.norm = sum(p.grad.double().square().sum() for p in self.own).sqrt().item()
        if self.half:
            for p, m in zip(self.own, self.master):
                # Fused AdamW needs gradients with the memory layout of their parameters.
                m.grad = torch.empty_like(m).copy_(p.grad)
                p.grad = None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self.average, self.parameters, 1e-4)
        if self.half:
            torch._foreach_copy_([p.detach() for p in self.own], self.parameters)
        return loss.detach()
