#!/usr/bin/env python3
"""Compares `nohost tokenize` with Hugging Face's `tokenizers` on random and multilingual text.

The reference is built from the vocabulary and merges of the same GGUF, and from the split
expressions that the models' public tokenizer.json files state. Every pre-tokenizer is judged on
two vocabularies: the model's, and one that is trained here without any pre-tokenizer, whose
merges cross every border and so show each word that is cut wrongly. Both go into headers without
tensors. The texts must tell the pre-tokenizers apart, or the comparison proves nothing.

    tokenizer.py [--nohost build/host/nohost] [--model MODEL.gguf] [--count N] [--seed S]
"""

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unicodedata

from gguf import GGUFReader, GGUFWriter
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

MODEL = "build/model/SmolLM2-135M-Instruct.Q4_1.gguf"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(expression):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


FAMILIES = {  # tokenizer.ggml.pre: (pre-tokenizer, ignore_merges)
    "smollm": (
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        ),
        False,
    ),
    "gpt-2": (split(GPT2), False),
    "llama-bpe": (split(LLAMA3), True),
    "qwen2": (split(QWEN2), False),
    "qwen35": (split(QWEN35), False),
}

WORDS = """the of and to in don't I'll we've They're it's CAN'T you'D x'S 'ſ 'tis def main():
return x+=1; </div> http://a.b/c?d=e&f über naïve Straße ÇA 東京都 漢字かな交じり文 한국어 문장 русский язык
ελληνικά עברית العربية हिन्दी भाषा ไทย Tiếng Việt e\u0301 o\u0308 ą́ 👩‍👩‍👧‍👦 🇩🇪 ½ ² Ⅷ ٣٤٥ १२३
12345678 3.14159 1,000,000 0x7f -- ... !!!?? @#$% “quoted” ‘x’ — – \u00ad <|im_start|> <|im_end|>
<|endoftext|> <|im_ <| |> aaaaaaaaaaaaaaaa abababab \x04 \x06 \x13 \x7f \u200b \ufeff \u3000
\u2028 \x85""".replace(
    "\n", " "
).split(" ")
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", " " * 8, "", "", ""]
SPACES += ["\u00a0", "\u3000", "\u2003"]
RUNS = ["a" * 5000, " " * 3000, "\n" * 999, "ab" * 2000, "1" * 500, "the" * 1500, "!?" * 700]
RUNS += ["漢" * 400]


def known():
    """Code points of whose class the reference's Unicode version and Python's say the same."""
    absent = ("Cn", "Cs", "Co")
    codes = [c for c in range(1, 0x110000) if unicodedata.category(chr(c)) not in absent]
    every = "".join(map(chr, codes))
    agreed = set(every)
    for name in "LNM":
        split = pre_tokenizers.Split(Regex(rf"\p{{{name}}}"), behavior="removed")
        others = set("".join(piece for piece, _ in split.pre_tokenize_str(every)))
        agreed -= {c for c in every if (c in others) == (unicodedata.category(c)[0] == name)}
    print(f"{len(agreed)} of {len(codes)} code points have the same class in both Unicode versions")
    assert len(agreed) > 0.95 * len(codes)
    return sorted(map(ord, agreed))


def texts(count, rng):
    letters = known()
    low = [c for c in letters if c < 0x3000]
    for i in range(count):
        kind = i % 5
        if kind == 0:
            yield "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(rng.randint(1, 20)))
        elif kind == 1:
            yield "".join(chr(rng.choice(low)) for _ in range(rng.randint(1, 40)))
        elif kind == 2:
            yield "".join(chr(rng.choice(letters)) for _ in range(rng.randint(1, 30)))
        elif kind == 3:
            yield "".join(
                rng.choice("ab'sSlL \n\r\t1 2.!<|>é\u0301中") for _ in range(rng.randint(1, 40))
            )
        else:
            yield "".join(rng.choice("etaoinshrdlu ETA") for _ in range(rng.randint(1, 400)))
    for run in RUNS:
        yield run
        yield run + " x" + run


def contents(model):
    fields = GGUFReader(model).fields
    return {name: fields[name].contents() for name in fields if name.startswith("tokenizer.")}


def trained(batch):
    """Vocabulary and merges learnt from the texts themselves, as the same GGUF fields."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.train_from_iterator(
        batch,
        trainers.BpeTrainer(
            vocab_size=6000,
            max_token_length=60,
            special_tokens=["<|im_start|>", "<|im_end|>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
    }


def reference(meta, family, special):
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    pre, ignore_merges = FAMILIES[family]
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        models.BPE(dict((t, i) for i, t in enumerate(tokens)), merges, ignore_merges=ignore_merges)
    )
    tokenizer.pre_tokenizer = pre
    if special:
        tokenizer.add_special_tokens(
            [
                AddedToken(t, special=True, normalized=False)
                for t, kind in zip(tokens, kinds)
                if kind == 3
            ]
        )
    return tokenizer


def header_with(meta, family, folder):
    """A GGUF of the same vocabulary, another pre-tokenizer and no tensors."""
    path = os.path.join(folder, family + ".gguf")
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(family)
    writer.add_token_list(meta["tokenizer.ggml.tokens"])
    writer.add_token_types(meta["tokenizer.ggml.token_type"])
    writer.add_token_merges(meta["tokenizer.ggml.merges"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def ours(nohost, model, batch, special):
    command = [nohost, "tokenize", "--model", model, "--batch"] + (["--special"] if special else [])
    data = b"".join(text.encode() + b"\0" for text in batch)
    out = subprocess.run(command, input=data, capture_output=True)
    if out.returncode:
        sys.exit(f"{' '.join(command)}: {out.stderr.decode()}")
    return [json.loads(line)["tokens"] for line in out.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nohost", default="build/host/nohost")
    parser.add_argument("--model", default=os.environ.get("MODEL") or MODEL)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    batch = [t for t in texts(options.count, random.Random(options.seed)) if t and "\0" not in t]
    wrong, folder = 0, tempfile.mkdtemp()
    for name, meta in ("model", contents(options.model)), ("trained", trained(batch)):
        answers = {}
        for family, special in itertools.product(FAMILIES, (False, True)):
            want = [e.ids for e in reference(meta, family, special).encode_batch(batch)]
            seen = ours(options.nohost, header_with(meta, family, folder), batch, special)
            bad = [i for i in range(len(batch)) if want[i] != seen[i]]
            answers[family, special] = want
            print(
                f"{name:8} {family:10} special={special!s:5} {len(batch)} texts, "
                f"{sum(map(len, want))} tokens, {len(bad)} differ"
            )
            for i in bad[:3]:
                print(f"  {batch[i][:60]!r}\n    want {want[i][:30]}\n    saw  {seen[i][:30]}")
            wrong += len(bad)
    same = [
        pair for pair in itertools.combinations(answers, 2) if answers[pair[0]] == answers[pair[1]]
    ]
    print(f"pairs of references that the texts do not tell apart: {same}")
    wrong += len(same)
    shutil.rmtree(folder)
    sys.exit(1 if wrong else 0)


main()
