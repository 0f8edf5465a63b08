// C interface of bi-directional cross-attention. A task is one cloud and range of tokens, with all heads or one.
#include "attention.h"

#include <memory>

#include "level.h"
#include "parallel.h"

namespace {

// Length of a range with streamed tokens, whose heads stay together. A chunk then has enough ranges for a few threads.
constexpr int64_t STREAMED_EACH = 512;

// The order is that of cpu_attention.py.
AttentionProblem problem(void* const* tensors, const int64_t* strides, const int64_t* sizes, float scale,
                         int bfloat16) {
    AttentionProblem p{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], scale, bfloat16,
                       {}, {}, {}, {}, {}, {}, nullptr, {}, {}, {}, {}, {}, {}, sizes[7], sizes[8]};
    Rows* const rows[] = {&p.latent_ref,  &p.latent_val,      &p.token_ref,       &p.token_val,
                          &p.latents,     &p.tokens,          &p.latent_grad,     &p.token_grad,
                          &p.latent_ref_grad, &p.latent_val_grad, &p.token_ref_grad,  &p.token_val_grad};
    for (int i = 0; i < 12; ++i) *rows[i] = {tensors[i], strides[3 * i], strides[3 * i + 1], strides[3 * i + 2]};
    return p;
}

int64_t num_ranges(const AttentionProblem& p) { return (p.num_tokens + p.tokens_each - 1) / p.tokens_each; }

// Call work(cloud, first head, heads, range, index of the first part) for all tasks: with all heads of a range at once
// if that gives the threads equal shares, else with one head. Heads are independent, so results are the same.
template <class Work>
int over_ranges(const AttentionProblem& p, int threads, const Work& work) {
    const int64_t ranges = num_ranges(p), tasks = p.num_clouds * ranges;
    if (p.num_heads == 0) return 0;
    const bool together = tasks % threads == 0 || tasks >= 4 * threads;
    const int64_t heads = together ? p.num_heads : 1, groups = p.num_heads / heads;
    return parallel(tasks * groups, threads, [&](int64_t i) {
        const int64_t task = i / groups, head = i % groups * heads;
        work(task / ranges, head, heads, task % ranges, task * p.num_heads + head);
    });
}

constexpr auto over_all_ranges = [](const auto&... args) { return over_ranges(args...); };

// Each thread has to have at least this many similarities to be worth starting.
int useful_threads(const AttentionProblem& p, int threads) {
    const double similarities = double(p.num_clouds * p.num_heads) * double(p.num_latents * p.num_tokens);
    return std::max(1, int(std::min(double(threads), similarities / 1e4)));
}

// Call pass(problem, kernels, cloud, head, heads, range, parts) for every task of `deal(problem, threads, work)`, with
// `part_size` floats for each head of a range. Then combine these parts with join(problem, kernels, parts, threads).
template <class Deal, class Pass, class Join>
int in_ranges(const AttentionProblem& p, int threads, int level,
              int64_t (*AttentionKernels::*part_size)(const AttentionProblem&), const Deal& deal, const Pass& pass,
              const Join& join) {
    return guarded([&] {
        const AttentionKernels& use = AT_LEVEL(attention, level);
        const int workers = useful_threads(p, threads);
        const int64_t size = (use.*part_size)(p);
        const std::unique_ptr<float[]> parts(new float[size_t(p.num_clouds * p.num_heads * num_ranges(p) * size)]);
        const auto work = [&](int64_t cloud, int64_t head, int64_t heads, int64_t range, int64_t part) {
            pass(p, use, cloud, head, heads, range, &parts[size_t(part * size)]);
        };
        const int failed = deal(p, workers, work);
        return failed ? failed : join(p, use, parts.get(), workers);
    });
}

// Join the contributions of all ranges to the latents of each head.
int join_latents(const AttentionProblem& p, const AttentionKernels& use, const float* parts, int threads) {
    const int64_t step = p.num_heads * use.part_size(p);  // from one range to the next
    return parallel(p.num_clouds * p.num_heads, threads, [&](int64_t i) {
        const int64_t cloud = i / p.num_heads, head = i % p.num_heads;
        use.join(p, cloud, head, parts + cloud * num_ranges(p) * step + head * use.part_size(p), step);
    });
}

}  // namespace

EXPORT int bixt3d_attention(void* const* tensors, const int64_t* strides, const int64_t* sizes, float scale,
                            int bfloat16, float* latent_sums, int threads, int level) {
    AttentionProblem p = problem(tensors, strides, sizes, scale, bfloat16);
    p.latent_sums = latent_sums;
    const auto pass = [](const AttentionProblem& problem, const AttentionKernels& use, auto... rest) {
        use.forward(problem, rest...);
    };
    return in_ranges(p, threads, level, &AttentionKernels::part_size, over_all_ranges, pass, join_latents);
}

// With streamed tokens. `stream` holds x, weight and bias of the norm, weight and bias of the map to references and
// values and of the map of the results, as in torch.nn.Linear, and the memory for the update. Without latent values,
// the last three are not read.
EXPORT int bixt3d_attention_of_stream(void* const* tensors, const int64_t* strides, const int64_t* sizes, float scale,
                                      float* latent_sums, void* const* stream, int64_t channels, float eps, int threads,
                                      int level) {
    return guarded([&] {
        AttentionProblem p = problem(tensors, strides, sizes, scale, false);
        const auto at = [&](int i) { return static_cast<const float*>(stream[i]); };
        const int64_t wide = p.num_heads * p.ref_width;
        const std::unique_ptr<float[]> maps(new float[size_t(3 * wide * channels)]);
        float *const map = maps.get(), *const out_map = map + 2 * wide * channels;
        const AttentionKernels& kernels = AT_LEVEL(attention, level);
        kernels.transpose(at(3), 2 * wide, channels, map);
        if (p.latent_width > 0) kernels.transpose(at(5), channels, wide, out_map);
        const TokenStream tokens{at(0), channels, at(1), at(2),   eps,
                                 map,   at(4),    out_map, at(6), static_cast<float*>(stream[7])};
        p.latent_sums = latent_sums, p.stream = &tokens, p.tokens_each = STREAMED_EACH;
        const auto deal = [](const AttentionProblem& problem, int workers, const auto& work) {
            const int64_t ranges = num_ranges(problem), heads = problem.num_heads;
            return parallel(problem.num_clouds * ranges, workers,
                            [&](int64_t i) { work(i / ranges, 0, heads, i % ranges, i * heads); });
        };
        const auto pass = [](const AttentionProblem& problem, const AttentionKernels& use, int64_t cloud, int64_t,
                             int64_t, int64_t range, float* parts) { use.forward_stream(problem, cloud, range, parts); };
        return in_ranges(p, threads, level, &AttentionKernels::part_size, deal, pass, join_latents);
    });
}

EXPORT int bixt3d_attention_backward(void* const* tensors, const int64_t* strides, const int64_t* sizes, float scale,
                                     int bfloat16, float* latent_sums, int threads, int level) {
    AttentionProblem p = problem(tensors, strides, sizes, scale, bfloat16);
    p.latent_sums = latent_sums;
    const auto pass = [](const AttentionProblem& problem, const AttentionKernels& use, auto... rest) {
        use.backward(problem, rest...);
    };
    const auto join = [](const AttentionProblem& problem, const AttentionKernels& use, const float* parts,
                         int workers) {
        return parallel(problem.num_heads, workers,
                        [&](int64_t head) { use.join_backward(problem, head, parts); });
    };
    return in_ranges(p, threads, level, &AttentionKernels::backward_part_size, over_all_ranges, pass, join);
}
