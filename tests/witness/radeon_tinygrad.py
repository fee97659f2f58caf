#!/usr/bin/env python3
"""A driver, a compiler and a training loop that nobody here wrote run on the simulated card.

tinygrad 0.14.0 (its AM driver, its LLVM back end with Debian's libLLVM) reaches the card through
`radeon serve --tcp` in strict mode: cold start, compute and SDMA queues, tensor programs held
against numpy, an MLP that learns as numpy's does, a warm start, faults and recovery. Nothing of
tinygrad is changed but where firmware comes from: build/firmware instead of the network. Its list
of sha256 names files of another date than Debian's (4 of 6 differ): that one check is left out.

    radeon_tinygrad.py [--radeon build/host/radeon] [--seed N] [--verbose] [CASE...]
"""
import argparse, json, os, re, signal, subprocess, sys, tempfile, time
import numpy as np

FIRMWARE = "build/firmware"
LLVM = "/usr/lib/llvm-19/lib/libLLVM.so.1"
CASE_MAX_S = 150


# ---- the server, and clients as processes of their own ----

class Server:
    def __init__(self, args, *options):
        self.log = tempfile.TemporaryFile("w+")
        self.ledger = tempfile.NamedTemporaryFile("r", suffix=".json")
        self.process = subprocess.Popen(
            [args.radeon, "serve", "--tcp", "127.0.0.1:0", "--seed", str(args.seed),
             "--ledger", self.ledger.name, *options],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.address = json.loads(self.process.stdout.readline())["tcp"]

    def stop(self):
        """(exit status, what it said, the first card's ledger)"""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        self.log.seek(0)
        lines = self.ledger.read().splitlines()
        return status, self.log.read(), json.loads(lines[0]) if lines else {}


def client(address, case, args, more):
    """Runs one case in a new process, as a user's program would be; returns what it printed."""
    cache = tempfile.TemporaryDirectory()
    env = {"PATH": os.environ["PATH"], "REMOTE": address, "DEV": "PCI+AMD:LLVM", "LLVM_PATH": LLVM,
           "CACHEDB": cache.name + "/cache.db", "XDG_CACHE_HOME": cache.name, "HOME": cache.name,
           "HCQDEV_WAIT_TIMEOUT_MS": "20000", "DEBUG": "2" if args.verbose else "0", **more}
    done = subprocess.run([sys.executable, __file__, "--inside", case], env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CASE_MAX_S)
    if args.verbose:
        print(done.stdout)
    return done.returncode, done.stdout


# ---- cases: what runs inside a client ----

def firmware_from_debian():
    import tinygrad.helpers
    tinygrad.helpers.fetch_fw = lambda path, name, sha256: open(f"{FIRMWARE}/{name}", "rb").read()


def close(name, got, want, limit=2e-5):
    want = np.asarray(want)
    scale = max(1.0, float(np.abs(want).max()))
    error = float(np.abs(np.asarray(got, np.float64) - want).max()) / scale
    assert got.shape == want.shape and error <= limit, f"{name}: error {error:.3g}, {got.shape}"


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def programs():
    """(name, inputs, what tinygrad does, what numpy does)"""
    rng = np.random.default_rng(7)

    def f32(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def i32(high, *shape):
        return rng.integers(0, high, shape).astype(np.int32)

    yield "add", [f32(1000), f32(1000)], lambda a, b: a + b, lambda a, b: a + b
    yield "expression", [f32(33, 17)], lambda a: (a * 3 - 1).relu() / 2, \
        lambda a: np.maximum(a * 3 - 1, 0) / 2
    yield "exp log sqrt", [f32(513)], lambda a: (a.exp() + 1).log() + a.abs().sqrt(), \
        lambda a: np.log(np.exp(a) + 1) + np.sqrt(np.abs(a))
    yield "sin", [f32(257)], lambda a: a.sin(), np.sin
    yield "sum rows", [f32(64, 100)], lambda a: a.sum(1), lambda a: a.astype(np.float64).sum(1)
    yield "sum all", [f32(10000)], lambda a: (a * a).sum(), lambda a: (a.astype(float) ** 2).sum()
    yield "max argmax", [f32(31, 40)], lambda a: a.max(0) + a.argmax(0), \
        lambda a: a.max(0) + a.argmax(0)
    yield "matmul", [f32(48, 70), f32(70, 40)], lambda a, b: a @ b, \
        lambda a, b: a.astype(np.float64) @ b
    yield "softmax", [f32(20, 77)], lambda a: a.softmax(), softmax
    yield "layer norm", [f32(16, 64)], lambda a: a.layernorm(), \
        lambda a: (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
    yield "gather", [f32(50, 8), i32(50, 23)], lambda a, i: a[i], lambda a, i: a[i]
    yield "transpose pad", [f32(9, 13)], lambda a: a.T.pad(((1, 2), (0, 3))), \
        lambda a: np.pad(a.T, ((1, 2), (0, 3)))
    yield "cumsum", [f32(300)], lambda a: a.cumsum(), lambda a: np.cumsum(a.astype(np.float64))
    yield "integers", [i32(1 << 20, 500), i32(97, 500)], lambda a, b: (a * 7 + b) % (b + 1) ^ a, \
        lambda a, b: (a * 7 + b) % (b + 1) ^ a
    yield "where", [f32(100), f32(100)], lambda a, b: (a > b).where(a, -b), \
        lambda a, b: np.where(a > b, a, -b)
    yield "half", [f32(40, 40), f32(40, 40)], lambda a, b: (a.half() @ b.half()).float() / 64, \
        lambda a, b: (a.astype(np.float16).astype(np.float64) @ b.astype(np.float16)) / 64
    yield "conv", [f32(2, 3, 12, 12), f32(4, 3, 3, 3)], lambda a, w: a.conv2d(w, padding=1), conv
    yield "sort", [f32(64)], lambda a: a.sort()[0], np.sort


def conv(a, w):
    a = np.pad(a.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(a, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, w)


def case_programs():
    from tinygrad import Tensor
    for name, inputs, ours, numpys in programs():
        start = time.monotonic()
        got = ours(*(Tensor(x) for x in inputs)).numpy()
        close(name, got, numpys(*inputs), 2e-3 if name == "half" else 2e-5)
        print(f"ok {name} ({time.monotonic() - start:.2f} s)", flush=True)
    big = np.random.default_rng(1).integers(0, 256, 9 << 20, dtype=np.uint8)  # SDMA, many pages
    assert (Tensor(big).contiguous().realize().numpy() == big).all()
    print("ok large copy")


def case_mlp():
    """Cross entropy of a two-layer MLP, SGD with momentum, replayed by the JIT from the third step
    on (indirect buffers), against the same in numpy."""
    from tinygrad import Context, Tensor, TinyJit, nn
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((32, 24)).astype(np.float32), rng.integers(0, 5, 32)
    w = [(rng.standard_normal(s) / np.sqrt(s[0])).astype(np.float32) for s in ((24, 32), (32, 5))]
    ours = [Tensor(a.copy()) for a in w]
    sgd = nn.optim.SGD(ours, lr=0.2, momentum=0.9)
    tx, ty = Tensor(x), Tensor(labels.astype(np.int32))

    @TinyJit
    def step():
        sgd.zero_grad()
        loss = (tx @ ours[0]).relu().matmul(ours[1]).sparse_categorical_crossentropy(ty).backward()
        return loss.realize(*sgd.schedule_step())

    with Context(TRAINING=1):
        got = [float(step().numpy()) for _ in range(8)]
    want = train_numpy(x, labels, [a.astype(np.float64) for a in w], 8)
    print("losses", [round(v, 4) for v in got])
    close("losses", np.array(got), np.array(want), 1e-4)
    assert got[-1] < got[0] / 3, "it does not learn"
    for mine, theirs in zip(ours, train_numpy.weights):
        close("weights", mine.numpy(), theirs, 1e-4)
    print("ok mlp")


def train_numpy(x, labels, w, steps):
    speed, losses, rows = [np.zeros_like(a) for a in w], [], np.arange(len(labels))
    for _ in range(steps):
        hidden = np.maximum(x @ w[0], 0)
        p = softmax(hidden @ w[1])
        losses.append(-np.log(p[rows, labels]).mean())
        p[rows, labels] -= 1
        p /= len(labels)
        grads = [x.T @ ((p @ w[1].T) * (hidden > 0)), hidden.T @ p]
        for a, v, g in zip(w, speed, grads):
            v[:] = 0.9 * v + g
            a -= 0.2 * v
    train_numpy.weights = w
    return losses


FAULTS = {
    "load unmapped": "v_mov_b32 v0, 0xbeef0000\nv_mov_b32 v1, 0xdead\n"
                     "global_load_b32 v2, v[0:1], off\ns_waitcnt vmcnt(0)",
    "store unmapped": "v_mov_b32 v0, 0xbeef0000\nv_mov_b32 v1, 0xdead\nv_mov_b32 v2, 1\n"
                      "global_store_b32 v[0:1], v2, off",
    "null pointer": "v_mov_b32 v0, 0\nv_mov_b32 v1, 0\nglobal_load_b32 v2, v[0:1], off\n"
                    "s_waitcnt vmcnt(0)",
    "scalar load unmapped": "s_mov_b32 s2, 0xbeef0000\ns_mov_b32 s3, 0xdead\n"
                            "s_load_b32 s4, s[2:3], null\ns_waitcnt lgkmcnt(0)",
    "illegal instruction": ".long 0xffffffff",
}


def assemble(body):
    """A code object with one kernel, by Debian's LLVM 19."""
    text = (".text\n.globl test\n.p2align 8\n.type test,@function\ntest:\n" + body +
            "\ns_endpgm\n.rodata\n.p2align 6\n.amdhsa_kernel test\n.amdhsa_next_free_vgpr 8\n"
            ".amdhsa_next_free_sgpr 8\n.amdhsa_wavefront_size32 1\n"
            ".amdhsa_user_sgpr_kernarg_segment_ptr 1\n.amdhsa_kernarg_size 8\n"
            ".end_amdhsa_kernel\n")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["llvm-mc-19", "-triple=amdgcn-amd-amdhsa", "-mcpu=gfx1100", "-filetype=obj",
                        "-o", folder + "/o"], input=text, text=True, check=True)
        subprocess.run(["ld.lld-19", "-shared", "-o", folder + "/so", folder + "/o"], check=True)
        return open(folder + "/so", "rb").read()


def case_faults():
    """Each fault is noticed as an error of the device; then the same process goes on with it."""
    from tinygrad import Device, Tensor
    from tinygrad.device import TinyELF
    from tinygrad.helpers import Target
    device = Device[Device.DEFAULT]
    for name, body in FAULTS.items():
        kernel = TinyELF(assemble(body), "test", Target("AMD", arch=device.arch), ())
        program, buffer = device.runtime(kernel), device.allocator.alloc(64)
        start = time.monotonic()
        try:
            program(buffer, global_size=(1, 1, 1), local_size=(1, 1, 1), wait=True)
            raise AssertionError(f"{name}: nothing was noticed")
        except RuntimeError as problem:
            noticed = f"{problem}, {time.monotonic() - start:.1f} s"
        assert (Tensor([1.0, 2.0]) + 1).numpy().tolist() == [2.0, 3.0], f"{name}: no recovery"
        print(f"ok {name}: {noticed}", flush=True)


def case_warm():
    from tinygrad import Tensor
    x = np.arange(1000, dtype=np.float32).reshape(40, 25)
    close("warm", (Tensor(x) * 2).sum(0).numpy(), (x * 2).sum(0))
    print("ok warm")


def case_peers():
    """Two cards: a copy from VRAM to VRAM, and a tensor that lies half on each."""
    from tinygrad import Tensor
    x = np.random.default_rng(1).standard_normal((64, 300)).astype(np.float32)
    there = Tensor(x, device="AMD:0").realize().to("AMD:1").realize()
    close("moved", (there * 2).numpy(), x * 2)
    halves = Tensor(x).shard(("AMD:0", "AMD:1"), axis=0)
    close("sharded", (halves * 3).sum(0).numpy(), (x.astype(np.float64) * 3).sum(0), 1e-4)
    print("ok peers")


CASES = {"programs": case_programs, "mlp": case_mlp, "warm": case_warm, "faults": case_faults,
         "peers": case_peers}


# ---- the judge ----

class Verdict:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, good, what, said=""):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAILED {what}\n{said[-6000:]}", flush=True)


def run_cases(args, verdict, names, *options):
    """The cases one after the other on one card: the first starts it cold, the others warm, but
    the last by a mode 1 reset. tinygrad clears its root page table before that and not after, so
    VRAM has to survive: odd seeds keep it."""
    server = Server(args, *options)
    for i, name in enumerate(names):
        reset = i > 0 and i == len(names) - 1 and args.seed % 2
        try:
            status, said = client(server.address, name, args, {"AM_RESET": "1"} if reset else {})
        except subprocess.TimeoutExpired as problem:
            status, said = -1, (problem.stdout or b"").decode(errors="replace")
        verdict.check(status == 0, f"case {name}", said)
        verdict.passed += len(re.findall("^ok ", said, re.M))
    return server.stop()


def judge(args):
    verdict, start = Verdict(), time.monotonic()
    chosen = args.cases or list(CASES)
    calm = [name for name in ("programs", "mlp", "warm") if name in chosen]
    if calm:
        status, log, ledger = run_cases(args, verdict, [*calm, "warm"])
        verdict.check(status == 0, "the card found fault with the driver", log)
        verdict.check(ledger.get("dispatches", 0) > 5 and ledger["sdma"]["copies"] > 5,
                      "the ledger counts", json.dumps(ledger))
    if "faults" in chosen:
        _, log, _ = run_cases(args, verdict, ["faults", "warm"])
        for name in ("vm-fault", "illegal-instruction"):
            verdict.check(name in log, f"the card says {name}", log)
    if "peers" in chosen:
        status, log, _ = run_cases(args, verdict, ["peers"], "--cards", "2")
        verdict.check(status == 0, "a card found fault with the driver", log)
    print(f"{time.monotonic() - start:.0f} s")
    print(f"{verdict.passed} passed, {verdict.failed} failed")
    return verdict.failed != 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--radeon", default="build/host/radeon")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--inside", choices=CASES)
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    if args.inside:
        firmware_from_debian()
        return CASES[args.inside]()
    return judge(args)


if __name__ == "__main__":
    sys.exit(main())
