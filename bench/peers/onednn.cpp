// Attention as a graph of oneDNN behind three C functions, for programs.py. All operands dense:
// q [B,Hq,Sq,D], k [B,Hk,Sk,D], v [B,Hk,Sk,Dv], out [B,Hq,Sq,Dv]; grouped heads as a fifth axis.
#include <oneapi/dnnl/dnnl.hpp>
#include <oneapi/dnnl/dnnl_graph.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

using namespace dnnl::graph;
using tensor_t = logical_tensor;

namespace {

std::string failure;

struct Graph {
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    compiled_partition partition;
    std::vector<tensor_t> inputs;
    std::vector<int> source; // of each input: q, k, v, scale, mask
    std::vector<char> scale, mask;
    tensor_t out;
};

void put(std::vector<char> &to, size_t at, float value, bool bf16)
{
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    uint16_t half = (uint16_t)(bits >> 16); // 0, -inf and 1/sqrt(D) rounded toward zero
    if (bf16)
        std::memcpy(&to[at * 2], &half, 2);
    else
        std::memcpy(&to[at * 4], &value, 4);
}

Graph *create(int64_t B, int64_t Hq, int64_t Hk, int64_t Sq, int64_t Sk, int64_t D, int64_t Dv,
              bool bf16, bool causal)
{
    auto type = bf16 ? tensor_t::data_type::bf16 : tensor_t::data_type::f32;
    auto f32 = tensor_t::data_type::f32;
    auto strided = tensor_t::layout_type::strided;
    bool grouped = Hq != Hk;
    auto shape = [&](int64_t heads, int64_t rows, int64_t columns) {
        return grouped ? tensor_t::dims{B, Hk, heads / Hk, rows, columns}
                       : tensor_t::dims{B, heads, rows, columns};
    };
    tensor_t::dims one = grouped ? tensor_t::dims{1, 1, 1, Sq, Sk} : tensor_t::dims{1, 1, Sq, Sk};
    tensor_t in[] = {{0, type, shape(Hq, Sq, D), strided}, {1, type, shape(Hk, Sk, D), strided},
                     {2, type, shape(Hk, Sk, Dv), strided}, {3, type, tensor_t::dims{1}, strided},
                     {4, type, one, strided}};
    tensor_t raw{5, f32, shape(Hq, Sq, Sk), strided}, scaled{6, f32, shape(Hq, Sq, Sk), strided},
        masked{7, f32, shape(Hq, Sq, Sk), strided}, weights{8, type, shape(Hq, Sq, Sk), strided},
        out{9, type, shape(Hq, Sq, Dv), strided};

    op scores(0, op::kind::MatMul, {in[0], in[1]}, {raw}, "scores");
    scores.set_attr<bool>(op::attr::transpose_b, true);
    op multiply(1, op::kind::Multiply, {raw, in[3]}, {scaled}, "scale");
    op add(2, op::kind::Add, {scaled, in[4]}, {masked}, "mask");
    op softmax(3, op::kind::SoftMax, {causal ? masked : scaled}, {weights}, "softmax");
    softmax.set_attr<int64_t>(op::attr::axis, -1);
    softmax.set_attr<std::string>(op::attr::mode, "inf_as_zero");
    op sum(4, op::kind::MatMul, {weights, in[2]}, {out}, "sum");
    graph whole(dnnl::engine::kind::cpu);
    whole.add_op(scores);
    whole.add_op(multiply);
    if (causal)
        whole.add_op(add);
    whole.add_op(softmax);
    whole.add_op(sum);
    whole.finalize();
    auto parts = whole.get_partitions();
    if (parts.size() != 1 || !parts[0].is_supported()) {
        failure = "the graph does not fuse into one partition";
        return nullptr;
    }

    auto made = std::make_unique<Graph>();
    for (auto &port : parts[0].get_input_ports())
        for (int i = 0; i < 5; i++)
            if (port.get_id() == in[i].get_id()) {
                made->inputs.push_back(in[i]);
                made->source.push_back(i);
            }
    made->partition = parts[0].compile(made->inputs, {out}, made->engine);
    made->out = out;
    size_t size = bf16 ? 2 : 4;
    made->scale.resize(64);
    put(made->scale, 0, 1 / std::sqrt((float)D), bf16);
    made->mask.resize(causal ? (size_t)(Sq * Sk) * size : 0);
    for (int64_t at = 0; causal && at < Sq * Sk; at++)
        put(made->mask, (size_t)at, at % Sk <= at / Sk + Sk - Sq ? 0.f : -INFINITY, bf16);
    return made.release();
}

} // namespace

extern "C" const char *peer_error()
{
    return failure.c_str();
}

extern "C" void *peer_create(int B, int Hq, int Hk, int Sq, int Sk, int D, int Dv, int bf16,
                             int causal)
{
    try {
        return create(B, Hq, Hk, Sq, Sk, D, Dv, bf16, causal);
    } catch (const std::exception &error) {
        failure = error.what();
        return nullptr;
    }
}

extern "C" void peer_run(void *at, void *q, void *k, void *v, void *out)
{
    auto *made = (Graph *)at;
    void *from[] = {q, k, v, made->scale.data(), made->mask.data()};
    std::vector<tensor> inputs;
    for (size_t i = 0; i < made->inputs.size(); i++)
        inputs.emplace_back(made->inputs[i], made->engine, from[made->source[i]]);
    made->partition.execute(made->stream, inputs, {tensor(made->out, made->engine, out)});
    made->stream.wait();
}
