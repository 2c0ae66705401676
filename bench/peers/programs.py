"""The other programs, a generator of Variants each: name(problem, data, options). Inputs are ready
before run(), outputs are [B,H,S,D]. Each is called in the way that suits it best."""

import ctypes
import math
import os

from common import Skip, Variant

MOST_SCORES = 4e8  # bytes of all scores that unfused variants may hold


def held(name, call, result=lambda out: out):
    """A Variant that keeps the last output of call()."""
    last = [None]

    def run():
        last[0] = call()
    return Variant(name, run, lambda: result(last[0]))


def mask_of(p, data):
    """An additive mask where a program cannot be told of a window, and its causal flag."""
    if not p.windowed:
        return None, bool(p.masked)
    hidden = ~p.visible(data.torch)
    return data.torch.zeros(p.sq, p.sk, dtype=data.dtype).masked_fill_(hidden, -math.inf), False


def layouts(p):
    return dict.fromkeys(["bhsd", "bshd" if p.layout == "bhsd" else p.layout])


# ---- PyTorch -------------------------------------------------------------------------------------

def torch(p, data, options):
    """Its flash kernel, not by way of the dispatcher; grouped heads through the public call, for
    one query also as query rows of one head, which copies nothing; the plain composition."""
    ops = data.torch.ops.aten
    sdpa = data.torch.nn.functional.scaled_dot_product_attention
    mask, causal = mask_of(p, data)
    for layout in layouts(p):
        q, k, v = data.view(layout)
        if p.group == 1:
            yield held(f"flash.{layout}", lambda q=q, k=k, v=v:
                       ops._scaled_dot_product_flash_attention_for_cpu(
                           q, k, v, 0.0, causal, attn_mask=mask, scale=p.scale)[0])
            continue
        yield held(f"flash.{layout}.gqa", lambda q=q, k=k, v=v: sdpa(
            q, k, v, attn_mask=mask, is_causal=causal, scale=p.scale, enable_gqa=True))
        if p.decode:
            yield held(f"flash.{layout}.fold", lambda q=q, k=k, v=v:
                       ops._scaled_dot_product_flash_attention_for_cpu(
                           q.reshape(p.b, p.hk, p.group, p.d), k, v, 0.0, False, attn_mask=None,
                           scale=p.scale)[0].reshape(p.b, p.hq, 1, p.dv))
    if p.group == 1 and p.score_bytes <= MOST_SCORES:
        q, k, v = data.view("bhsd")
        yield held("math.bhsd", lambda: ops._scaled_dot_product_attention_math(
            q, k, v, mask, 0.0, causal, scale=p.scale)[0])


def flex(p, data, options):
    """Compiled FlexAttention, which takes half a minute to compile for each problem, so only where
    it may win: masks that it skips by blocks, grouped heads, long decode."""
    if p.dtype == "f16" or not (p.sq >= 1024 and (p.masked or p.group > 1) or p.sk >= 16384):
        raise Skip("compiled only for masked or grouped prefill from 1024 queries and long decode")
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    left = p.window[0] if p.window[0] >= 0 else p.sk
    right = 0 if p.causal else p.window[1] if p.window[1] >= 0 else p.sk
    block, offset = None, p.sk - p.sq
    if p.masked:
        block = create_block_mask(
            lambda b, h, i, j: (i + offset - j <= left) & (j - i - offset <= right), None, None,
            p.sq, p.sk, device="cpu")
    data.torch._dynamo.reset()
    compiled = data.torch.compile(flex_attention, dynamic=False)
    q, k, v = data.view("bhsd")
    yield held("compiled", lambda: compiled(q, k, v, block_mask=block, scale=p.scale,
                                            enable_gqa=p.group > 1))


def zentorch(p, data, options):
    """AMD's operator; it takes no grouped heads, so for one query the group becomes query rows."""
    import zentorch as _
    if p.group > 1 and not p.decode:
        raise Skip("zentorch_sdpa takes no grouped heads")
    mask, causal = mask_of(p, data)
    for layout in layouts(p):
        q, k, v = data.view(layout)
        yield held(f"sdpa.{layout}", lambda q=q, k=k, v=v: data.torch.ops.zentorch.zentorch_sdpa(
            q.reshape(p.b, p.hk, p.group * p.sq, p.d), k, v, 0.0, causal, attn_mask=mask,
            scale=p.scale)[0].reshape(p.b, p.hq, p.sq, p.dv))


# ---- ONNX Runtime --------------------------------------------------------------------------------

def ort_variant(name, nodes, feeds, outputs, options, result, shared=None):
    """Inputs and outputs bound to buffers of their own; `shared` maps an output to the input whose
    buffer it writes."""
    import numpy
    import onnxruntime as runtime
    from onnx import TensorProto, helper
    types = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16,
             "int32": TensorProto.INT32}
    kind = str(feeds["q"].dtype)
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, types[str(a.dtype)], a.shape) for n, a in feeds.items()],
        [helper.make_tensor_value_info(n, types[kind], shape) for n, shape in outputs.items()])
    model = helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)])
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
    session = runtime.InferenceSession(model.SerializeToString(), settings,
                                       providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    values = {n: runtime.OrtValue.ortvalue_from_numpy(a) for n, a in feeds.items()}
    for n, value in values.items():
        binding.bind_ortvalue_input(n, value)
    for n, shape in outputs.items():
        own = (shared or {}).get(n)
        values[n] = values[own] if own else runtime.OrtValue.ortvalue_from_numpy(
            numpy.zeros(shape, kind))
        binding.bind_ortvalue_output(n, values[n])
    first = next(iter(outputs))
    return Variant(name, lambda: session.run_with_iobinding(binding),
                   lambda: result(values[first].numpy()))


def ort(p, data, options):
    """Its four ways: MultiHeadAttention and GroupQueryAttention of the extensions, the standard
    operator, and matrix products around a softmax."""
    import numpy
    from onnx import helper
    if p.dtype == "bf16":
        raise Skip("its attention operators have no bf16 kernel on the CPU")
    tensor = data.torch.from_numpy
    heads = [x.contiguous().numpy() for x in (data.q, data.k, data.v)]
    rows = [x.transpose(1, 2).flatten(2).contiguous().numpy() for x in (data.q, data.k, data.v)]
    by_row, by_head = (p.b, p.sq, p.hq * p.dv), (p.b, p.hq, p.sq, p.dv)

    def back(out):
        return tensor(out).unflatten(2, (p.hq, p.dv)).transpose(1, 2)
    qkv = ["q", "k", "v"]
    if p.dtype == "f32" and p.group == 1 and not p.windowed:
        node = helper.make_node("MultiHeadAttention", qkv, ["o"], domain="com.microsoft",
                                num_heads=p.hq, scale=p.scale, unidirectional=int(p.masked))
        yield ort_variant("mha", [node], dict(zip(qkv, rows)), {"o": by_row}, options, back)
        if not p.masked:  # keys and values as they lie in a cache
            yield ort_variant("mha.kv-bhsd", [node], dict(zip(qkv, [rows[0], *heads[1:]])),
                              {"o": by_row}, options, back)
    if p.decode or p.sq == p.sk and p.causal and p.window[1] <= 0:
        yield ort_grouped(p, heads, rows, by_row, options, back)
    if not p.windowed and p.score_bytes <= MOST_SCORES:
        node = helper.make_node("Attention", qkv, ["o"], scale=p.scale, is_causal=int(p.masked))
        yield ort_variant("attention", [node], dict(zip(qkv, heads)), {"o": by_head}, options,
                          tensor)
    if p.dtype == "f32" and not p.masked and p.group == 1 and p.score_bytes <= MOST_SCORES:
        nodes = [helper.make_node("FusedMatMul", ["q", "k"], ["s"], domain="com.microsoft",
                                  transB=1, alpha=p.scale),
                 helper.make_node("Softmax", ["s"], ["w"], axis=-1),
                 helper.make_node("MatMul", ["w", "v"], ["o"])]
        yield ort_variant("unfused", nodes, dict(zip(qkv, heads)), {"o": by_head}, options, tensor)


def ort_grouped(p, heads, rows, shape, options, back):
    """GroupQueryAttention is always causal and appends the new keys to a cache, which is in and out
    on one buffer; that copy is part of its time."""
    import numpy
    from onnx import helper
    extra = {"local_window_size": p.window[0] + 1} if p.windowed else {}
    node = helper.make_node("GroupQueryAttention", ["q", "k", "v", "pk", "pv", "last", "total"],
                            ["o", "nk", "nv"], domain="com.microsoft", num_heads=p.hq,
                            kv_num_heads=p.hk, scale=p.scale, **extra)
    new = p.sk - p.sq
    feeds = dict(q=rows[0], k=numpy.ascontiguousarray(rows[1][:, new:]),
                 v=numpy.ascontiguousarray(rows[2][:, new:]), pk=heads[1].copy(),
                 pv=heads[2].copy(), last=numpy.full((p.b,), p.sk - 1, numpy.int32),
                 total=numpy.array([p.sk], numpy.int32))
    return ort_variant("gqa", [node], feeds,
                       {"o": shape, "nk": heads[1].shape, "nv": heads[2].shape}, options, back,
                       {"nk": "pk", "nv": "pv"})


# ---- OpenVINO ------------------------------------------------------------------------------------

def openvino(p, data, options):
    """ScaledDotProductAttention alone, static shapes, on the caller's memory. It has no grouped
    heads: for one query they become query rows, else K and V are repeated in the graph."""
    import numpy
    import openvino as ov
    from openvino import opset13 as op
    if p.dtype == "f16":
        raise Skip("it computes f16 on this kind of CPU in another type")
    kind = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}[p.dtype]
    folded = p.decode and p.group > 1
    q_shape = [p.b, p.hk, p.group, p.d] if folded else list(data.q.shape)
    inputs = [op.parameter(s, kind) for s in (q_shape, list(data.k.shape), list(data.v.shape))]
    q, k, v = inputs
    if p.group > 1 and not folded:
        def repeat(x, d):
            wide = op.broadcast(op.unsqueeze(x, op.constant(2, ov.Type.i64)),
                                op.constant([p.b, p.hk, p.group, p.sk, d], ov.Type.i64))
            return op.reshape(wide, op.constant([p.b, p.hq, p.sk, d], ov.Type.i64), False)
        k, v = repeat(k, p.d), repeat(v, p.dv)
    extra = {}
    if p.windowed:
        bias = numpy.where(p.visible(data.torch).numpy(), 0.0, -numpy.inf).astype(numpy.float32)
        extra["attention_mask"] = op.constant(bias[None, None], kind)
    node = op.scaled_dot_product_attention(q, k, v, scale=op.constant(p.scale, kind),
                                           causal=p.masked and not p.windowed, **extra)
    request = ov.Core().compile_model(
        ov.Model([op.result(node)], inputs, "sdpa"), "CPU",
        {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": "NO",
         "INFERENCE_NUM_THREADS": str(options.threads), "INFERENCE_PRECISION_HINT": p.dtype,
         "KV_CACHE_PRECISION": p.dtype}).create_infer_request()
    kept = []

    def wrap(x):
        x = x.contiguous()
        kept.append(x)
        if kind == ov.Type.f32:
            return ov.Tensor(x.numpy(), shared_memory=True)
        return ov.Tensor(x.view(data.torch.int16).numpy(), list(x.shape), kind)
    for at, x in enumerate((data.q.reshape(q_shape), data.k, data.v)):
        request.set_input_tensor(at, wrap(x))
    out = data.torch.zeros(p.b, p.hq, p.sq, p.dv, dtype=data.dtype)
    request.set_output_tensor(0, wrap(out.view(q_shape[:3] + [p.dv])))

    def run(kept=kept):
        request.start_async()
        request.wait()
    yield Variant("sdpa", run, lambda: out)


# ---- OpenBLAS, as numpy brings it ----------------------------------------------------------------

def openblas(p, data, options):
    """Two products around a softmax in blocks of queries whose scores stay in the second cache, of
    the visible keys alone; heads over threads, the library itself in one."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy
    if p.dtype != "f32" or p.windowed and not p.causal:
        raise Skip("the composite is of f32, full or causal")
    q, k, v = (x.contiguous().numpy() for x in (data.q, data.k, data.v))
    block = min(p.sq, max(32, (1 << 17) // p.sk // 16 * 16))
    out = numpy.empty((p.b, p.hq, p.sq, p.dv), numpy.float32)
    offset, left = p.sk - p.sq, p.window[0] if p.window[0] >= 0 else p.sk

    def attend(rows, b, h, low, high, hidden):
        s = (rows * numpy.float32(p.scale)) @ k[b, h, low:high].T
        if hidden is not None:
            s[hidden] = -numpy.inf
        s -= s.max(1, keepdims=True)
        numpy.exp(s, out=s)
        return (s @ v[b, h, low:high]) / s.sum(1, keepdims=True)

    def key_head(at):
        b, h = divmod(at, p.hk)
        group = slice(h * p.group, (h + 1) * p.group)
        if p.decode:
            out[b, group, 0] = attend(q[b, group, 0], b, h, 0, p.sk, None)
            return
        for head in range(group.start, group.stop):
            for first in range(0, p.sq, block):
                last = min(p.sq, first + block)
                low, high, hidden = 0, p.sk, None
                if p.causal:
                    low, high = max(0, first + offset - left), last + offset
                    i = numpy.arange(first, last)[:, None] + offset
                    j = numpy.arange(low, high)[None]
                    hidden = (j > i) | (i - j > left)
                out[b, head, first:last] = attend(q[b, head, first:last], b, h, low, high, hidden)
    pool = ThreadPoolExecutor(options.threads)
    every = range(p.b * p.hk)
    run = (lambda: [key_head(at) for at in every]) if options.threads == 1 else (
        lambda: list(pool.map(key_head, every)))
    yield Variant("blocks", run, lambda: data.torch.from_numpy(out))


# ---- ggml ----------------------------------------------------------------------------------------

def ggml(p, data, options):
    """flash_attn_ext with keys and values in the problem's type, a graph and its work made once."""
    import ggml as g
    types = {"f32": g.GGML_TYPE_F32, "bf16": g.GGML_TYPE_BF16, "f16": g.GGML_TYPE_F16}
    cells = sum(x.numel() for x in (data.q, data.k, data.v)) + p.b * p.hq * p.sq * p.dv
    memory = cells * 4 + (p.sq + 64) * p.sk * 2 + (16 << 20)
    context = g.ggml_init(g.ggml_init_params(mem_size=memory, mem_buffer=None, no_alloc=False))

    def new(x, kind):
        at = g.ggml_new_tensor_4d(context, types[kind], *reversed(x.shape))
        x = x.to(data.torch.float32 if kind == "f32" else
                 data.torch.float16 if kind == "f16" else data.torch.bfloat16).contiguous()
        ctypes.memmove(g.ggml_get_data(at), x.data_ptr(), x.numel() * x.element_size())
        return at
    q, k, v, mask = new(data.q, "f32"), new(data.k, p.dtype), new(data.v, p.dtype), None
    if p.masked:
        bias = data.torch.zeros(p.sq, p.sk).masked_fill_(~p.visible(data.torch), -math.inf)
        mask = new(bias[None, None], "f16")
    node = g.ggml_flash_attn_ext(context, q, k, v, mask, p.scale, 0.0, 0.0)
    graph = g.ggml_new_graph(context)
    g.ggml_build_forward_expand(graph, node)
    plan = g.ggml_graph_plan(graph, options.threads, None)
    room = (ctypes.c_uint8 * max(1, plan.work_size))()
    plan.work_data = ctypes.cast(room, ctypes.POINTER(ctypes.c_uint8))
    count = p.b * p.hq * p.sq * p.dv
    raw = (ctypes.c_float * count).from_address(g.ggml_get_data(node))

    def run(room=room):
        g.ggml_graph_compute(graph, ctypes.byref(plan))
    run.freed = Freed(g, context)
    yield Variant(f"flash_attn_ext.{p.dtype}", run, lambda: data.torch.frombuffer(
        raw, dtype=data.torch.float32).view(p.b, p.sq, p.hq, p.dv).transpose(1, 2))


class Freed:
    """Frees a context of ggml with itself."""

    def __init__(self, library, context):
        self.library, self.context = library, context

    def __del__(self):
        self.library.ggml_free(self.context)


# ---- oneDNN --------------------------------------------------------------------------------------

def onednn(p, data, options):
    """Its graph for attention, fused into one partition (onednn.cpp, built here on the first call);
    causal needs a mask of its own."""
    import subprocess
    if not options.onednn:
        raise OSError("--onednn names no prefix")
    if p.dtype == "f16" or p.windowed or p.masked and p.score_bytes > MOST_SCORES:
        raise Skip("not f16, no windows, no large mask")
    here = os.path.dirname(os.path.abspath(__file__))
    library = os.path.join(options.build, "heed_onednn.so")
    if not os.path.exists(library):
        prefix = options.onednn
        subprocess.run(["g++", "-O2", "-std=c++17", "-shared", "-fPIC", f"-I{prefix}/include",
                        os.path.join(here, "onednn.cpp"), "-o", library, f"-L{prefix}/lib",
                        "-ldnnl", f"-Wl,-rpath,{prefix}/lib", "-Wl,--allow-shlib-undefined"],
                       check=True)
    lib = ctypes.CDLL(os.path.abspath(library))
    lib.peer_create.restype = ctypes.c_void_p
    lib.peer_error.restype = ctypes.c_char_p
    lib.peer_run.argtypes = [ctypes.c_void_p] * 5
    sizes = (p.b, p.hq, p.hk, p.sq, p.sk, p.d, p.dv, p.dtype == "bf16", p.masked)
    graph = lib.peer_create(*[int(x) for x in sizes])
    if not graph:
        raise Skip(lib.peer_error().decode())
    q, k, v = (x.contiguous() for x in (data.q, data.k, data.v))
    out = data.torch.zeros(p.b, p.hq, p.sq, p.dv, dtype=data.dtype)

    def run(kept=(q, k, v)):
        lib.peer_run(graph, q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr())
    yield Variant("graph", run, lambda: out)
