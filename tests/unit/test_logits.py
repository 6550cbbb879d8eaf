"""Logits against an independent forward pass in float64.

    test_logits.py LOGITS_DUMP DEFAULT_MODEL

Random f32 models of the Llama architecture are written here, read back here, and run here, all in numpy and with nothing of
Fovea's; the program gives Fovea's logits for the same tokens, all of them as a prompt and all of them as generated tokens.
The default model is run as well: its weights are quantised, so it is held to what bf16 products of a prompt allow.
Exit status 77 (skipped) without numpy.
"""
import os
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("no numpy: skipped")
    sys.exit(77)

TOKENS = 320
BOUND = 2e-3

# ---- a GGUF file, written ----

KINDS = {"u32": (4, "<I"), "f32": (6, "<f"), "bool": (7, "<?")}


def text(s):
    s = s.encode()
    return struct.pack("<Q", len(s)) + s


def entry(key, kind, value):
    head = text(key)
    if kind == "string":
        return head + struct.pack("<I", 8) + text(value)
    if kind == "strings":
        return head + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(s) for s in value)
    number, form = KINDS[kind]
    return head + struct.pack("<I", number) + struct.pack(form, value)


def write_gguf(path, metadata, tensors):
    body, directory = b"", b""
    for name, array in tensors.items():
        body += b"\0" * (-len(body) % 32)
        shape = array.shape[::-1]
        directory += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        directory += struct.pack("<IQ", 0, len(body))
        body += array.astype("<f4").tobytes()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(entry(*m) for m in metadata) + directory
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32) + body)


def random_model(path, rng, layers, d, ffn, h_q, h_kv, d_k, d_v, vocab, tied=True, half_split=False, rotated=None,
                 base=10000.0, linear=None, factors=False):
    rotated = rotated or d_k
    p = "llama."
    metadata = [
        ("general.architecture", "string", "llama"),
        (p + "block_count", "u32", layers), (p + "context_length", "u32", 4096), (p + "embedding_length", "u32", d),
        (p + "feed_forward_length", "u32", ffn), (p + "attention.head_count", "u32", h_q),
        (p + "attention.head_count_kv", "u32", h_kv), (p + "attention.key_length", "u32", d_k),
        (p + "attention.value_length", "u32", d_v), (p + "attention.layer_norm_rms_epsilon", "f32", 1e-5),
        (p + "rope.freq_base", "f32", base), (p + "rope.dimension_count", "u32", rotated),
        ("fovea.rope.half_split", "bool", half_split),
        ("tokenizer.ggml.model", "string", "gpt2"), ("tokenizer.ggml.pre", "string", "gpt-2"),
        ("tokenizer.ggml.tokens", "strings", ["t%d" % i for i in range(vocab)]), ("tokenizer.ggml.merges", "strings", []),
        ("tokenizer.ggml.bos_token_id", "u32", 0), ("tokenizer.ggml.eos_token_id", "u32", 1),
    ]
    if linear:
        metadata += [(p + "rope.scaling.type", "string", "linear"), (p + "rope.scaling.factor", "f32", linear)]

    def matrix(n_out, n_in, gain):
        return rng.standard_normal((n_out, n_in)) * gain / np.sqrt(n_in)

    def norm():
        return 1 + 0.1 * rng.standard_normal(d)

    t = {"token_embd.weight": rng.standard_normal((vocab, d)) * 0.4, "output_norm.weight": norm()}
    for i in range(layers):
        b = "blk.%d." % i
        t[b + "attn_norm.weight"], t[b + "ffn_norm.weight"] = norm(), norm()
        t[b + "attn_q.weight"], t[b + "attn_k.weight"] = matrix(h_q * d_k, d, 1.6), matrix(h_kv * d_k, d, 1.6)
        t[b + "attn_v.weight"], t[b + "attn_output.weight"] = matrix(h_kv * d_v, d, 1), matrix(d, h_q * d_v, 1)
        t[b + "ffn_gate.weight"], t[b + "ffn_up.weight"] = matrix(ffn, d, 1), matrix(ffn, d, 1)
        t[b + "ffn_down.weight"] = matrix(d, ffn, 1)
    if not tied:
        t["output.weight"] = rng.standard_normal((vocab, d)) * 0.3
    if factors:
        t["rope_freqs.weight"] = rng.uniform(1, 8, rotated // 2)
    write_gguf(path, metadata, t)


# ---- a GGUF file, read ----

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        value = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return value

    def string(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            element, n = self.take("I"), self.take("Q")
            return [self.value(element) for _ in range(n)]
        return self.take(SCALARS[kind])


def dequantise(raw, kind, count):
    if kind == 0:
        return np.frombuffer(raw, "<f4", count).astype(np.float64)
    if kind == 1:
        return np.frombuffer(raw, "<f2", count).astype(np.float64)
    if kind == 8:
        block = np.frombuffer(raw, np.dtype([("d", "<f2"), ("q", "i1", 32)]), count // 32)
        return (block["d"].astype(np.float64)[:, None] * block["q"]).reshape(-1)
    raise SystemExit("tensor type %d is not read here" % kind)


def read_gguf(path):
    r = Reader(open(path, "rb").read())
    assert r.data[:4] == b"GGUF"
    r.at = 8
    n_tensors, n_metadata = r.take("Q"), r.take("Q")
    metadata = {}
    for _ in range(n_metadata):
        key = r.string()
        metadata[key] = r.value(r.take("I"))
    rows = []
    for _ in range(n_tensors):
        name = r.string()
        shape = [r.take("Q") for _ in range(r.take("I"))][::-1]
        rows.append((name, shape, r.take("I"), r.take("Q")))
    alignment = metadata.get("general.alignment", 32)
    start = r.at + -r.at % alignment
    return metadata, {name: dequantise(r.data[start + offset:], kind, int(np.prod(shape))).reshape(shape)
                      for name, shape, kind, offset in rows}


# ---- the forward pass ----

def rmsnorm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, angle, half_split):
    """x (n, h, d); angle (n, rotated / 2)."""
    x = x.copy()
    half = angle.shape[1]
    a, b = (slice(0, half), slice(half, 2 * half)) if half_split else (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
    c, s = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    x[..., a], x[..., b] = x[..., a] * c - x[..., b] * s, x[..., a] * s + x[..., b] * c
    return x


def forward(path, ids):
    m, w = read_gguf(path)
    get = lambda key, default=None: m.get("llama." + key, default)
    d, h_q = get("embedding_length"), get("attention.head_count")
    h_kv = get("attention.head_count_kv", h_q)
    d_k, d_v = get("attention.key_length", d // h_q), get("attention.value_length", d // h_q)
    eps, rotated = get("attention.layer_norm_rms_epsilon"), get("rope.dimension_count", d_k)
    half_split = m.get("fovea.rope.half_split", False)
    n = len(ids)
    frequency = get("rope.freq_base", 10000.0) ** (-2.0 * np.arange(rotated // 2) / rotated) / get("rope.scaling.factor", 1.0)
    if "rope_freqs.weight" in w:
        frequency = frequency / w["rope_freqs.weight"]
    angle = np.arange(n)[:, None] * frequency
    hidden = np.triu(np.ones((n, n), bool), 1)
    x = w["token_embd.weight"][ids]
    for i in range(get("block_count")):
        b = lambda name: w["blk.%d.%s.weight" % (i, name)]
        a = rmsnorm(x, b("attn_norm"), eps)
        q = rotate((a @ b("attn_q").T).reshape(n, h_q, d_k), angle, half_split)
        k = rotate((a @ b("attn_k").T).reshape(n, h_kv, d_k), angle, half_split)
        v = (a @ b("attn_v").T).reshape(n, h_kv, d_v)
        mix = np.empty((n, h_q, d_v))
        for h in range(h_q):
            g = h // (h_q // h_kv)
            score = q[:, h] @ k[:, g].T / np.sqrt(d_k)
            score[hidden] = -np.inf
            weight = np.exp(score - score.max(1, keepdims=True))
            mix[:, h] = weight / weight.sum(1, keepdims=True) @ v[:, g]
        x = x + mix.reshape(n, h_q * d_v) @ b("attn_output").T
        a = rmsnorm(x, b("ffn_norm"), eps)
        gate = a @ b("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (a @ b("ffn_up").T)) @ b("ffn_down").T
    return rmsnorm(x, w["output_norm.weight"], eps) @ w.get("output.weight", w["token_embd.weight"]).T


# ---- the comparison ----

def fovea_logits(program, model, ids, prompt, folder):
    ids_path, out_path = os.path.join(folder, "ids"), os.path.join(folder, "logits")
    np.array(ids, "<i4").tofile(ids_path)
    subprocess.run([program, model, ids_path, str(prompt), out_path], check=True)
    return np.fromfile(out_path, "<f4").astype(np.float64).reshape(len(ids), -1)


def check(name, program, model, ids, folder, bound):
    expected = forward(model, ids)
    good = expected.std() >= 1
    line = "%-34s deviation %.2f" % (name, expected.std())
    for what, prompt in (("prompt", len(ids)), ("generation", 1), ("both", 150)):
        got = fovea_logits(program, model, ids, prompt, folder)
        error = np.abs(got - expected).max()
        line += ", %s %.2e" % (what, error)
        good = good and error <= bound
    print(line + ("" if good else "  FAILED"))
    return good


CASES = {
    "interleaved, 6 over 2 heads": dict(layers=3, d=96, ffn=160, h_q=6, h_kv=2, d_k=16, d_v=16, vocab=211),
    "half-split, MQA, partly rotated": dict(layers=3, d=80, ffn=144, h_q=4, h_kv=1, d_k=24, d_v=40, vocab=150, tied=False,
                                            half_split=True, rotated=16, base=500000.0),
    "interleaved, MHA, scaled": dict(layers=2, d=128, ffn=200, h_q=2, h_kv=2, d_k=64, d_v=64, vocab=97, linear=4.0,
                                     factors=True),
    "half-split, 8 over 2 heads": dict(layers=4, d=128, ffn=352, h_q=8, h_kv=2, d_k=32, d_v=32, vocab=300, tied=False,
                                       half_split=True),
}


def main():
    program, default_model = sys.argv[1:3]
    seed = int(os.environ.get("FOVEA_SEED", "7"))
    rng = np.random.default_rng(seed)
    good = True
    print("seed %d, %d tokens, bound %g" % (seed, TOKENS, BOUND))
    with tempfile.TemporaryDirectory() as folder:
        for name, sizes in CASES.items():
            path = os.path.join(folder, "random.gguf")
            random_model(path, rng, **sizes)
            good &= check(name, program, path, rng.integers(0, sizes["vocab"], TOKENS), folder, BOUND)
        if os.path.exists(default_model):
            good &= check("default model", program, default_model, rng.integers(2, 8192, TOKENS), folder, 0.4)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
