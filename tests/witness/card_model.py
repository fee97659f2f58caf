#!/usr/bin/env python3
"""The simulated card as the judge of whole models: every access of every wave is looked at while it
computes logits, and the first finding ends the run. What comes out is compared with the pass in
numpy of ref_model.py, made-up models of other shapes and formats included. An answer of 32 tokens,
computed token after token, must have the tokens that the CPU finds, and as few launches as a chain
of dependencies needs.

    card_model.py --nohost build/host/nohost --model FILE [--tokens 32] [--fast]
"""
import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from ref_model import SHAPES, Judge, Model, log_softmax, made_up

PROMPT = "The capital of France is"
POSITIONS = 5  # of a made-up model
BARRIERS_PER_LAYER = 5
SECONDS = 90
KL_MAX = 0.01


def run(nohost, *words):
    done = subprocess.run([nohost, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)[:200]}: exit {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def logits(args, folder, tokens, *options):
    out = os.path.join(folder, "logits")
    said = run(args.nohost, "logits", "--model", args.model, "--tokens",
               ",".join(map(str, tokens)), "--out", out, "--rows", "1", *options)
    return np.fromfile(out, np.float32).reshape(len(tokens), said["vocab"]), said


def children_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def judge_answer(judge, args, folder, device):
    tokens = run(args.nohost, "tokenize", "--model", args.model, "--text", PROMPT)["tokens"]
    while len(tokens) < args.tokens:
        tokens.append(int(logits(args, folder, tokens)[0][-1].argmax()))
    cpu, _ = logits(args, folder, tokens)
    start, used = time.monotonic(), children_s()
    card, said = logits(args, folder, tokens, *device)
    took = min(time.monotonic() - start, children_s() - used)  # others may use the machine too
    same = (cpu.argmax(-1) == card.argmax(-1)).sum()
    judge.expect(same == len(tokens), f"answer: {same} of {len(tokens)} tokens as on the CPU, "
                                      f"largest difference {abs(cpu - card).max():.3f}")
    want, have = log_softmax(Model(args.model).logits(tokens)), log_softmax(card)
    kl = (np.exp(want) * (want - have)).sum(-1).mean()
    judge.expect(kl < KL_MAX, f"answer: mean KL to float32 {kl:.2e} nats, {KL_MAX} allowed")
    judge.expect(took < SECONDS, f"answer: {took:.1f} s, {SECONDS} allowed")
    return said["card"]


def judge_too_large(judge, args):
    """A card with too little memory for the model says how much is missing."""
    done = subprocess.run([args.nohost, "logits", "--model", args.model, "--tokens", "1", "--out",
                           os.devnull, "--device", "sim", "--vram", "192"], capture_output=True,
                          text=True)
    words = re.search(r"needs (\d+) MiB of VRAM.* (\d+) MiB are free, (\d+) are missing",
                      done.stderr)
    judge.expect(done.returncode == 1 and words and
                 int(words[1]) - int(words[2]) == int(words[3]),
                 f"too large: {done.stderr.strip()[-200:]}")


def judge_split(judge, args, folder, device):
    """The layers on two cards, neither of which has room for all."""
    tokens = run(args.nohost, "tokenize", "--model", args.model, "--text", PROMPT)["tokens"]
    card, _ = logits(args, folder, tokens, *device, "--cards", "2", "--vram", "208")
    want, have = log_softmax(Model(args.model).logits(tokens)), log_softmax(card)
    kl = (np.exp(want) * (want - have)).sum(-1).mean()
    judge.expect(kl < KL_MAX, f"two cards: mean KL to float32 {kl:.2e} nats, {KL_MAX} allowed")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--nohost", required=True)
    args.add_argument("--model", required=True)
    args.add_argument("--tokens", type=int, default=32)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--fast", action="store_true", help="the card finds no fault")
    args = args.parse_args()
    device = ["--device", "sim"] + ["--fast"] * args.fast
    np.seterr(over="ignore")
    with tempfile.TemporaryDirectory(prefix="nohost-card-") as folder:
        judge = Judge(args.nohost, folder, device)
        for shape in SHAPES:
            path = os.path.join(folder, "made-up.gguf")
            tokens = made_up(path, args.model, shape, args.seed)[:POSITIONS]
            judge.compare(shape[0], path, Model(path).logits(tokens), tokens)
        judge_too_large(judge, args)
        judge_split(judge, args, folder, device)
        card = judge_answer(judge, args, folder, device)
        layers = Model(args.model).layers
        allowed = args.tokens * (BARRIERS_PER_LAYER * layers + 5)
        judge.expect(card["flushes"] <= allowed,
                     f"answer: {card['flushes'] / args.tokens:.1f} barriers a token, "
                     f"{allowed / args.tokens:.0f} allowed for {layers} layers")
    print(f"{judge.passed} passed, {judge.failed} failed")
    return judge.failed != 0


if __name__ == "__main__":
    sys.exit(main())
