#!/usr/bin/env python3
"""synthetic.py OUT [--from MODEL] [--shape 7b] [--type q4_0] [--layers 2]: a GGUF file with the
shapes of a known model and weights at random: for what a run costs, not for what it says. The
vocabulary is the beginning of MODEL's.
"""
import argparse

import gguf
import numpy as np

# width, hidden, heads, heads of k and v, vocabulary, layers
SHAPES = {"1b": (2048, 8192, 32, 8, 32000, 16), "7b": (4096, 11008, 32, 32, 32000, 32),
          "8b": (4096, 14336, 32, 8, 32000, 32), "tiny": (256, 512, 8, 4, 2048, 2)}
# columns and bytes of a block; where it has f16 scales
BLOCKS = {"q4_0": (32, 18, (0,)), "q4_1": (32, 20, (0, 2)), "q8_0": (32, 34, (0,)),
          "q4_k": (256, 144, (0, 2)), "q6_k": (256, 210, (208,))}
rng = np.random.default_rng(3)


def blocks(kind, rows, columns, scale=0.002):
    """Codes at random; a small scale, so that 7B's activations stay finite."""
    step, size, places = BLOCKS[kind]
    data = rng.integers(0, 256, (rows * columns // step, size), dtype=np.uint8)
    for n, place in enumerate(places):
        value = np.float16(-7.5 * scale if n and kind == "q4_1" else scale)
        data[:, place:place + 2] = np.frombuffer(value.tobytes(), np.uint8)
    return data.reshape(rows, -1)


def add_tensors(writer, kind, shape, layers):
    width, hidden, heads, kv_heads, vocabulary, _ = shape
    kv_width = width // heads * kv_heads

    def matrix(name, rows, columns, how=kind):
        writer.add_tensor(name + ".weight", blocks(how, rows, columns),
                          raw_dtype=gguf.GGMLQuantizationType[how.upper()])

    def ones(name):
        writer.add_tensor(name + ".weight", np.ones(width, np.float32))
    matrix("token_embd", vocabulary, width)
    ones("output_norm")
    matrix("output", vocabulary, width, "q6_k")
    for n in range(layers):
        at = f"blk.{n}."
        ones(at + "attn_norm")
        ones(at + "ffn_norm")
        matrix(at + "attn_q", width, width)
        matrix(at + "attn_k", kv_width, width)
        matrix(at + "attn_v", kv_width, width)
        matrix(at + "attn_output", width, width)
        matrix(at + "ffn_gate", hidden, width)
        matrix(at + "ffn_up", hidden, width)
        matrix(at + "ffn_down", width, hidden)


def field(model, name):
    return model.fields[name].contents()


def add_tokenizer(writer, model, vocabulary):
    tokens = field(model, "tokenizer.ggml.tokens")[:vocabulary]
    known = set(tokens)
    merges = [merge for merge in field(model, "tokenizer.ggml.merges")
              if merge.replace(" ", "") in known and set(merge.split(" ")) <= known]
    writer.add_tokenizer_model(field(model, "tokenizer.ggml.model"))
    writer.add_tokenizer_pre(field(model, "tokenizer.ggml.pre"))
    writer.add_token_list(tokens)
    writer.add_token_types(field(model, "tokenizer.ggml.token_type")[:vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(field(model, "tokenizer.ggml.bos_token_id"))
    writer.add_eos_token_id(field(model, "tokenizer.ggml.eos_token_id"))
    writer.add_chat_template(field(model, "tokenizer.chat_template"))


def write(path, source, kind, shape, layers):
    width, hidden, heads, kv_heads, vocabulary, _ = shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random {kind}")
    writer.add_block_count(layers)
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocabulary)
    add_tokenizer(writer, gguf.GGUFReader(source), vocabulary)
    add_tensors(writer, kind, shape, layers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out")
    options.add_argument("--from", dest="source",
                         default="build/model/SmolLM2-135M-Instruct.Q4_1.gguf")
    options.add_argument("--shape", choices=SHAPES, default="7b")
    options.add_argument("--type", choices=BLOCKS, default="q4_0")
    options.add_argument("--layers", type=int, default=2)
    options = options.parse_args()
    write(options.out, options.source, options.type, SHAPES[options.shape], options.layers)


if __name__ == "__main__":
    main()
