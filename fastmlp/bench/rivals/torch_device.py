"""PyTorch on a GPU: eager, compiled, and steps captured as CUDA graphs by hand.

Data, batches and the order of rows are on the device before the clock, which is the device's own, starts. Products are
those of float32, not of TF32. On the device "cpu" all of it runs too, the captured steps without their capture: so it
is tested where no GPU is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from fastmlp.bench import timing
from fastmlp.bench.rivals import pytorch
from fastmlp.bench.workloads import BETA_1, BETA_2, EPSILON, Task

T = TypeVar("T")

GROUP = 16  # steps in one graph: the launch of a graph of one step is a sixth of its time
WARM_UP = 3  # steps before a capture, as PyTorch's documentation has them
LATE = 100_000  # a step from which 1 - beta ** step is 1 for both betas


def timed(device: str, call: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that the device takes for a call, and its answer."""
    if device != "cuda":
        return timing.timed(call)
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    answer = call()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end), answer


def full_float32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


class Eager(pytorch.Trainer):
    """The trainer of `train` with everything on the device."""

    seconds: float

    def __init__(self, task: Task, name: str, device: str = "cuda") -> None:
        full_float32()
        super().__init__(task, "pytorch")
        self.device = device
        self.model = self.model.to(device)
        self.X, self.y = self.X.to(device), self.y.to(device)

    def prepare(self, epochs: int) -> None:
        super().prepare(epochs)
        self.orders = [[rows.to(self.device) for rows in order] for order in self.orders]
        self.sizes = self.sizes.to(self.device)

    def train(self, epochs: int, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        self.seconds, losses = timed(self.device, partial(self.all_steps, epochs, optimizer))
        return losses

    def all_steps(self, epochs: int, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        return super().train(epochs, optimizer)


class Compiled(Eager):
    """Forward, loss and backward compiled, and replayed as CUDA graphs that PyTorch captures."""

    def __init__(self, task: Task, name: str, device: str = "cuda") -> None:
        super().__init__(task, name, device)
        self.loss = torch.compile(self.batch_loss, mode="reduce-overhead", dynamic=False)

    def kept(self, loss: torch.Tensor) -> torch.Tensor:
        """Return a copy: the next replay writes its loss to the same place."""
        return loss.detach().clone()


def groups(steps: int) -> list[int]:
    """Return the steps of each launch of an epoch: as many whole groups as there are, then single steps."""
    return [GROUP] * (steps // GROUP) + [1] * (steps % GROUP)


class Captured(Eager):
    """Sixteen steps as one launch: gather, forward, loss, backward and Adam of each, captured as a CUDA graph.

    The steps that remain of an epoch are launches of a second graph, of one step. A replay reads and writes the memory
    that the capture saw, so all of it is kept: the order of the epoch's rows, which step comes next, its learning rate,
    the sum of losses, weights, and Adam's state.

    PyTorch adds epsilon to the corrected sqrt(v), scikit-learn to the uncorrected one. An epsilon that makes up for
    that would change from step to step, and a captured one cannot. So Adam counts from a step at which its corrections
    are 1, and both of them go into the learning rate, as in scikit-learn.
    """

    def __init__(self, task: Task, name: str, device: str = "cuda") -> None:
        super().__init__(task, name, device)
        size, steps = task.workload.batch_size, len(task.batches)
        if len(task.X) != steps * size or steps < WARM_UP:
            raise NotImplementedError("a captured step needs whole batches, and some of them")
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}  # by number of steps
        self.order = torch.zeros((steps, size), dtype=torch.int64, device=device)
        self.rates = torch.zeros(steps, device=device)
        self.k = torch.zeros(1, dtype=torch.int64, device=device)  # of the coming step
        self.rate = torch.zeros(1, device=device)  # its learning rate
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.adam = torch.optim.Adam(
            self.model.parameters(),
            lr=self.rate,
            betas=(BETA_1, BETA_2),
            eps=EPSILON,
            fused=True,
            capturable=device == "cuda",
        )
        self.ready = False  # until the first fit

    def prepare(self, epochs: int) -> None:
        super().prepare(epochs)
        self.matrices = [torch.stack(order) for order in self.orders]  # (steps, batch) each
        steps = len(self.rates)
        rates = self.task.learning_rates(0, epochs * steps).reshape(epochs, steps)
        self.rate_rows = torch.from_numpy(rates).float().to(self.device)

    def step(self) -> None:
        """Train one step. Gradients are None before it, so that backward writes them and need not add."""
        self.adam.zero_grad(set_to_none=True)
        torch.index_select(self.rates, 0, self.k, out=self.rate)
        rows = self.order.index_select(0, self.k).view(-1)
        loss = self.batch_loss(self.X.index_select(0, rows), self.y.index_select(0, rows))
        loss.backward()
        self.adam.step()
        self.total.add_(loss.detach())
        self.k.add_(1)

    def capture(self) -> None:
        """Capture as in "CUDA semantics" of PyTorch's documentation: warm up on a side stream, then capture.

        The first steps are forgotten: they make Adam's state, and what libraries allocate at first use.
        """
        side = torch.cuda.Stream() if self.device == "cuda" else None
        if side is not None:
            side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # nothing for None
            self.begin(0)
            for _ in range(WARM_UP):
                self.step()
        if side is not None:
            torch.cuda.current_stream().wait_stream(side)
            for steps in set(groups(len(self.rates))):
                self.graphs[steps] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graphs[steps]):
                    for _ in range(steps):
                        self.step()

    def replay(self, steps: int) -> None:
        """Train steps that a graph holds, by one launch; on the CPU one after the other."""
        if steps in self.graphs:
            self.graphs[steps].replay()
        else:
            for _ in range(steps):
                self.step()

    def begin(self, epoch: int) -> None:
        """Put an epoch's order of rows and learning rates where the steps look for them."""
        self.order.copy_(self.matrices[epoch])
        self.rates.copy_(self.rate_rows[epoch])
        self.k.zero_()
        self.total.zero_()

    def all_steps(self, epochs: int, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        losses = []
        for epoch in range(epochs):
            self.begin(epoch)
            for steps in groups(len(self.rates)):
                self.replay(steps)
            losses.append(self.total / len(self.rates))
        return losses

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the captured Adam, without moments, in place."""
        for state in self.adam.state.values():
            state["exp_avg"].zero_()
            state["exp_avg_sq"].zero_()
            state["step"].fill_(LATE)
        return self.adam

    def fit(self, epochs: int) -> list[float]:
        if not self.ready:
            self.capture()
            self.ready = True
        return super().fit(epochs)


TRAINERS = {"torch gpu": Eager, "torch.compile gpu": Compiled, "torch graph": Captured}


def trainer(task: Task, name: str, device: str = "cuda") -> Eager:
    return TRAINERS[name](task, name, device)


def device_name() -> str:
    if not torch.cuda.is_available():
        raise RuntimeError("this PyTorch sees no CUDA device")
    return torch.cuda.get_device_name()


def peak(device: str, seconds: float) -> dict[str, float]:
    """Return the FLOP/s of a large float32 product and the bytes/s of a large copy (reads and writes)."""
    full_float32()
    n, numbers = (8192, 1 << 28) if device == "cuda" else (512, 1 << 20)
    A, B = (torch.randn((n, n), device=device) for _ in range(2))
    C, x = torch.empty_like(A), torch.zeros(numbers, device=device)
    y = torch.empty_like(x)

    def least(call: Callable[[], object]) -> float:
        call()
        return min(timing.repeat(lambda: timed(device, call)[0], seconds / 2))

    product, copy = least(lambda: torch.mm(A, B, out=C)), least(lambda: y.copy_(x))
    return {"flops": 2 * n**3 / product, "bytes": 2 * numbers * x.element_size() / copy}
