#!/usr/bin/env python3
"""Holds `nohost logits` and `nohost perplexity` against a plain float32 forward pass in numpy.

Weights come from the GGUF through the PyPI package `gguf`, which also undoes the quantisation; the
pass follows the llama architecture as published: RMS norm, rotary embedding of neighbouring pairs
(with rope_freqs when the file has them), grouped heads, SwiGLU, tied or own output matrix. Judged:

  plain float32 mode: every log-probability within 1e-3;
  8-bit activations: mean KL below 0.01 nats, the same argmax wherever the float32 gap of the top
  two is over 0.35, perplexity within 0.8 % (chunks of 512 tokens, the second half of each scored).

The same is done on made-up models of other shapes and formats, which a real one does not cover.

    ref_model.py --nohost build/host/nohost --model FILE [--chunks 4]
    ref_model.py ... --device sim [--fast] [--positions 32]  on the simulated card: the made-up
                                                             models, and so much of the real one
    ref_model.py --model FILE --tokens 1,2,3 --out FILE      only writes the logits, as nohost does
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

CTX = 512
KL_MAX, GAP, PPL_WITHIN, F32_WITHIN = 0.01, 0.35, 0.008, 1e-3


class Model:
    def __init__(self, path):
        self.reader = GGUFReader(path)
        self.raw = {t.name: t for t in self.reader.tensors}
        self.held = {}
        key = self.key
        self.layers, self.heads = key("block_count"), key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.embed = key("embedding_length")
        self.head_dim = key("attention.key_length", self.embed // self.heads)
        self.rope_dim = key("rope.dimension_count", self.head_dim)
        self.eps = key("attention.layer_norm_rms_epsilon")
        self.base = key("rope.freq_base", 10000.0)

    def key(self, name, otherwise=None):
        field = self.reader.fields.get("llama." + name)
        return field.contents() if field else otherwise

    def weight(self, name):
        """float32, rows as the file names them; None when there is none."""
        if name not in self.held:
            t = self.raw.get(name)
            self.held[name] = None if t is None else quants.dequantize(
                t.data, t.tensor_type).astype(np.float32).reshape([int(n) for n in t.shape[::-1]])
        return self.held[name]

    def norm(self, x, name):
        scale = 1 / np.sqrt(np.mean(np.square(x, dtype=np.float64), -1, keepdims=True) + self.eps)
        return (x * scale.astype(np.float32)) * self.weight(name)

    def angles(self, count):
        freqs = self.base ** (-np.arange(0, self.rope_dim, 2, dtype=np.float64) / self.rope_dim)
        factors = self.weight("rope_freqs.weight")
        if factors is not None:
            freqs = freqs / factors.reshape(-1)
        return np.outer(np.arange(count), freqs)

    def rotate(self, x, angle):
        """x (token, head, dim): pairs (2i, 2i + 1) of the first rope_dim turn."""
        c, s = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        out = x.copy()
        even, odd = x[..., 0:self.rope_dim:2], x[..., 1:self.rope_dim:2]
        out[..., 0:self.rope_dim:2] = even * c[:, None] - odd * s[:, None]
        out[..., 1:self.rope_dim:2] = even * s[:, None] + odd * c[:, None]
        return out

    def attention(self, x, layer, angle):
        """x (token, embed)"""
        n, name = len(x), f"blk.{layer}.attn_"
        q = (x @ self.weight(name + "q.weight").T).reshape(n, self.heads, self.head_dim)
        k = (x @ self.weight(name + "k.weight").T).reshape(n, self.kv_heads, self.head_dim)
        v = (x @ self.weight(name + "v.weight").T).reshape(n, self.kv_heads, self.head_dim)
        q, k = self.rotate(q, angle), self.rotate(k, angle)
        each = self.heads // self.kv_heads
        k, v = np.repeat(k, each, 1), np.repeat(v, each, 1)
        scores = np.einsum("qhd,khd->hqk", q, k, optimize=True) / np.float32(
            np.sqrt(self.head_dim))
        scores += np.triu(np.full((n, n), -np.inf, np.float32), 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", scores, v, optimize=True).reshape(n, -1)
        return mixed @ self.weight(name + "output.weight").T

    def logits(self, tokens):
        x, angle = self.weight("token_embd.weight")[tokens], self.angles(len(tokens))
        for layer in range(self.layers):
            name = f"blk.{layer}."
            x = x + self.attention(self.norm(x, name + "attn_norm.weight"), layer, angle)
            h = self.norm(x, name + "ffn_norm.weight")
            gate = h @ self.weight(name + "ffn_gate.weight").T
            gate = gate / (1 + np.exp(-gate))
            h = (gate * (h @ self.weight(name + "ffn_up.weight").T))
            x = x + h @ self.weight(name + "ffn_down.weight").T
        out = self.weight("output.weight")
        out = self.weight("token_embd.weight") if out is None else out
        return self.norm(x, "output_norm.weight") @ out.T


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# ---- judging ----

class Judge:
    def __init__(self, nohost, folder, device):
        self.nohost, self.folder, self.passed, self.failed = nohost, folder, 0, 0
        self.device = device

    def expect(self, good, what):
        print(("ok      " if good else "FAILED  ") + what, flush=True)
        self.passed += bool(good)
        self.failed += not good

    def run(self, *words):
        done = subprocess.run([self.nohost, *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)[:200]}: exit {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def logits(self, model, tokens, *options):
        listed, out = os.path.join(self.folder, "tokens"), os.path.join(self.folder, "logits")
        with open(listed, "w") as file:
            file.write(",".join(map(str, tokens)))
        said = self.run("logits", "--model", model, "--tokens", "@" + listed, "--out", out,
                        *options, *self.device)
        return np.fromfile(out, np.float32).reshape(len(tokens), said["vocab"])

    def compare(self, name, path, reference, tokens, kl_max=KL_MAX):
        want = log_softmax(reference)
        have = log_softmax(self.logits(path, tokens, "--f32"))
        off = abs(have - want).max()
        self.expect(off <= F32_WITHIN, f"{name}: float32 log-probabilities differ by {off:.2e}, "
                                       f"{F32_WITHIN} allowed")
        have = log_softmax(self.logits(path, tokens))
        kl = (np.exp(want) * (want - have)).sum(-1)
        self.expect(kl.mean() < kl_max, f"{name}: 8-bit activations: mean KL {kl.mean():.2e} nats "
                                        f"over {len(tokens)} positions, {kl_max} allowed")
        top = np.sort(want, -1)[:, -2:]
        clear = top[:, 1] - top[:, 0] > GAP
        same = have.argmax(-1) == want.argmax(-1)
        self.expect(same[clear].all(), f"{name}: argmax is the same at {same.sum()} of {len(same)} "
                                       f"positions, and at all {clear.sum()} with a clear winner")


def prose(letters):
    """English that every Python carries."""
    from pydoc_data import topics
    return "\n\n".join(topics.topics[name] for name in sorted(topics.topics))[5000:5000 + letters]


def judge_real(judge, path, chunks):
    model, text = Model(path), os.path.join(judge.folder, "text")
    with open(text, "w") as file:
        file.write(prose(6 * CTX * chunks))
    tokens = judge.run("tokenize", "--model", path, "--file", text)["tokens"]
    nll, count, first = 0.0, 0, None
    for start in range(0, CTX * chunks, CTX):
        part = tokens[start:start + CTX]
        logits = model.logits(part)
        first = logits if first is None else first
        score = log_softmax(logits[CTX // 2:-1])
        nll -= score[np.arange(len(score)), part[CTX // 2 + 1:]].sum()
        count += len(score)
    judge.compare("model", path, first, tokens[:CTX])
    want = np.exp(nll / count)
    for options, within in (([], PPL_WITHIN), (["--f32"], 1e-4)):
        have = judge.run("perplexity", "--model", path, "--file", text, "--ctx", str(CTX),
                         "--chunks", str(chunks), *options)["ppl"]
        judge.expect(abs(have / want - 1) <= within,
                     f"model: perplexity {have:.4f}{' '.join([''] + options)}, float32 {want:.4f}: "
                     f"{100 * (have / want - 1):+.3f} %, {100 * within} % allowed")


def judge_start(judge, path, positions):
    """The first positions of a text alone: a simulated card takes its time."""
    words = prose(16 * positions)
    tokens = judge.run("tokenize", "--model", path, "--text", words)["tokens"][:positions]
    judge.compare("model", path, Model(path).logits(tokens), tokens)


# ---- made-up models ----

# name, embed, heads, kv heads, head dim, ffn, layers, format, tied, freqs
SHAPES = [
    ("mha q8_0 untied", 128, 4, 4, 32, 224, 2, "Q8_0", False, False),
    ("gqa q4_0 rope_freqs", 192, 6, 2, 32, 320, 2, "Q4_0", True, True),
    ("mqa q5_1", 96, 3, 1, 32, 160, 3, "Q5_1", True, False),
    ("q5_0 wide heads", 128, 2, 1, 64, 96, 1, "Q5_0", False, True),
    ("f16", 64, 2, 2, 32, 96, 2, "F16", True, False),
    ("bf16", 80, 5, 5, 16, 112, 2, "BF16", False, False),
    ("heads of half a tile", 96, 12, 4, 8, 96, 2, "Q8_0", True, False),
    ("heads of a tile and a half", 96, 4, 2, 24, 96, 2, "F16", True, False),
]


def made_up(path, source, shape, seed):
    """A random model with the tokenizer of `source` cut to its single bytes."""
    _, embed, heads, kv_heads, head_dim, ffn, layers, kind, tied, freqs = shape
    rng = np.random.default_rng(seed)
    q = GGMLQuantizationType[kind]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(embed)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    letters = [chr(c) for c in list(range(33, 127)) + list(range(161, 173)) +
               list(range(174, 256)) + list(range(256, 324))]
    tokens = ["<end>"] + letters + ["ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)

    def matrix(name, rows, columns, size=1.0):
        w = (rng.standard_normal((rows, columns)) * size / np.sqrt(columns)).astype(np.float32)
        writer.add_tensor(name, quants.quantize(w, q), raw_dtype=q)

    def vector(name, count):
        writer.add_tensor(name, (1 + 0.1 * rng.standard_normal(count)).astype(np.float32))

    vocab = len(tokens)
    matrix("token_embd.weight", vocab, embed, 4.0)
    if not tied:
        matrix("output.weight", vocab, embed, 3.0)
    vector("output_norm.weight", embed)
    if freqs:
        writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, head_dim // 2, dtype=np.float32))
    for layer in range(layers):
        name = f"blk.{layer}."
        vector(name + "attn_norm.weight", embed)
        vector(name + "ffn_norm.weight", embed)
        matrix(name + "attn_q.weight", heads * head_dim, embed)
        matrix(name + "attn_k.weight", kv_heads * head_dim, embed)
        matrix(name + "attn_v.weight", kv_heads * head_dim, embed)
        matrix(name + "attn_output.weight", embed, heads * head_dim)
        matrix(name + "ffn_gate.weight", ffn, embed)
        matrix(name + "ffn_up.weight", ffn, embed)
        matrix(name + "ffn_down.weight", embed, ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return rng.integers(0, vocab, 150).tolist()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--nohost")
    args.add_argument("--model", required=True)
    args.add_argument("--tokens")
    args.add_argument("--out")
    args.add_argument("--chunks", type=int, default=4)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--device", default="cpu", choices=("cpu", "sim"))
    args.add_argument("--fast", action="store_true", help="the card finds no fault")
    args.add_argument("--positions", type=int, default=32)
    args = args.parse_args()
    device = ["--device", args.device] + ["--fast"] * args.fast
    np.seterr(over="ignore")
    if args.tokens:
        Model(args.model).logits([int(t) for t in args.tokens.split(",")]).tofile(args.out)
        return 0
    with tempfile.TemporaryDirectory(prefix="nohost-ref-") as folder:
        judge = Judge(args.nohost, folder, device)
        for shape in SHAPES:
            path = os.path.join(folder, "made-up.gguf")
            tokens = made_up(path, args.model, shape, args.seed)
            if args.device == "sim":
                tokens = tokens[:args.positions]
            judge.compare(shape[0], path, Model(path).logits(tokens), tokens)
        if args.device == "sim":
            judge_start(judge, args.model, args.positions)
        else:
            judge_real(judge, args.model, args.chunks)
    print(f"{judge.passed} passed, {judge.failed} failed")
    return judge.failed != 0


if __name__ == "__main__":
    sys.exit(main())
