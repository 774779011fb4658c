#include "network.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "split.hpp"

namespace luckyfast {
namespace {

// The same with as many pairs in each part.
template <typename Work>
void split_pairs(size_t n_rows, const int64_t* row_start, const int64_t* pair_start, size_t n_threads, Work work) {
    const auto row_at = [&](size_t i) {
        const int64_t wanted = pair_start[row_start[n_rows]] * static_cast<int64_t>(i) / static_cast<int64_t>(n_threads);
        size_t row = 0;
        while (row < n_rows && pair_start[row_start[row]] < wanted) ++row;
        return i == n_threads ? n_rows : row;
    };
    split_evenly(n_threads, n_threads, [&](size_t i, size_t, size_t) { work(i, row_at(i), row_at(i + 1)); });
}

// Of the features of a pair, and of its score, about: logarithms and error functions take dozens.
constexpr double feature_operations = 1000;

}  // namespace

const NetworkKernels& network_kernels(int level) noexcept {
#ifdef LUCKYFAST_X86
    __builtin_cpu_init();
    static const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    static const bool middle = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (wide && (level < 0 || level == 2)) return avx512_network;
    if (middle && level != 0) return avx2_network;
#else
    static_cast<void>(level);
#endif
    return portable_network;
}

void product(const Product& call, size_t n_threads, const NetworkKernels& kernels) {
    split_rows(call.M, 2.0 * static_cast<double>(call.N * call.K), n_threads, [&](size_t, size_t start, size_t stop) {
        const Scratch scratch(kernels.product_scratch(call));
        kernels.product(call, start, stop, scratch.get());
    });
}

// Of one sequence.
double step_operations(const LstmShape& shape) noexcept {
    return 8.0 * static_cast<double>(shape.T * shape.H) * static_cast<double>(shape.H + 32);
}

bool lstm_forward(LstmForward call, const float* weight, size_t n_threads, const NetworkKernels& kernels) {
    const Scratch packed(kernels.packed_size(call.shape.H));
    kernels.pack_forward(weight, call.shape.H, packed.get());
    call.packed = packed.get();
    call.from_zeros = std::all_of(call.outputs, call.outputs + call.shape.B * call.shape.H, [](float h) { return h == 0; });
    split_rows(call.shape.B, step_operations(call.shape), n_threads, [&](size_t, size_t start, size_t stop) { kernels.lstm_forward(call, start, stop); });
    return call.from_zeros;
}

void lstm_backward(LstmBackward call, const float* weight, size_t n_threads, const NetworkKernels& kernels) {
    const Scratch packed(kernels.packed_size(call.shape.H));
    kernels.pack_backward(weight, call.shape.H, packed.get());
    call.packed = packed.get();
    split_rows(call.shape.B, step_operations(call.shape), n_threads, [&](size_t, size_t start, size_t stop) { kernels.lstm_backward(call, start, stop); });
}

double set_loss(const SetLoss& call, size_t n_threads, const NetworkKernels& kernels) {
    std::vector<double> losses(std::max<size_t>(n_threads, 1));
    split_rows(call.n, 50.0 * static_cast<double>(call.V), n_threads, [&](size_t i, size_t start, size_t stop) { losses[i] = kernels.set_loss(call, start, stop); });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

void sum_bags(const Bags& bags, const float* table, float* out, size_t n_threads, const NetworkKernels& kernels) {
    split_rows(bags.n, 10.0 * static_cast<double>(bags.width), n_threads,
               [&](size_t, size_t start, size_t stop) { kernels.sum_bags(bags, table, out, start, stop); });
}

void spread_bags(const Bags& bags, const float* grad, float* grad_table, size_t n_threads, const NetworkKernels& kernels) {
    // Columns are split, as bags may meet in a row; whole lines of the cache each.
    const size_t line = 16, n_lines = (bags.width + line - 1) / line;
    split_rows(n_lines, 10.0 * static_cast<double>(bags.n * line), n_threads, [&](size_t, size_t start, size_t stop) {
        kernels.spread_bags(bags, grad, grad_table, start * line, std::min(stop * line, bags.width));
    });
}

void count_pairs(const HabitHistory& history, int64_t* pair_start) {
    std::vector<int64_t> seen(history.n_actions, -1);
    pair_start[0] = 0;
    for (size_t row = 0; row < history.n_rows; ++row) {
        int64_t visit = history.first[row], n = 0;
        for (int64_t m = history.row_start[row]; m < history.row_start[row + 1]; ++m) {
            for (; visit < history.moments[m]; ++visit)
                for (int32_t p = history.action_start[visit]; p < history.action_start[visit + 1]; ++p) {
                    int64_t& last_row = seen[static_cast<size_t>(history.actions[p])];
                    n += last_row != static_cast<int64_t>(row);
                    last_row = static_cast<int64_t>(row);
                }
            pair_start[m + 1] = pair_start[m] + n;
        }
    }
}

void habit_features(const HabitFeatures& call, size_t n_threads, const NetworkKernels& kernels) {
    const HabitHistory& history = call.history;
    const auto n_pairs = static_cast<double>(history.pair_start[history.row_start[history.n_rows]]);
    n_threads = threads_worth(n_pairs * feature_operations, operations_per_thread, n_threads);
    split_pairs(history.n_rows, history.row_start, history.pair_start, n_threads, [&](size_t, size_t start, size_t stop) {
        const Scratch scratch(kernels.features_scratch(call));
        std::vector<int32_t> slots(2 * history.n_actions, -1);
        kernels.habit_features(call, start, stop, scratch.get(), slots.data());
    });
}

void habit_scores(HabitScores call, float* logits, size_t n_threads, const NetworkKernels& kernels) {
    const HiddenLayer hidden(call);
    n_threads = threads_worth(static_cast<double>(call.n_pairs) * score_operations(call), operations_per_thread, n_threads);
    split_pairs(call.n_rows, call.row_start, call.pair_start, n_threads, [&](size_t, size_t start, size_t stop) {
        const Scratch scratch(kernels.scores_scratch(call));
        kernels.habit_scores(call, start, stop, logits, scratch.get());
    });
}

void habit_grads(HabitScores call, const float* grad_logits, HabitGrads grads, size_t n_threads, const NetworkKernels& kernels) {
    const size_t n_hidden = call.hidden, n_wide = call.F + 1;
    const HiddenLayer hidden(call);
    // PERF: a thread more costs another sum of per_action, which is large where there are many actions.
    const double operations = 3 * static_cast<double>(call.n_pairs) * score_operations(call);
    n_threads = threads_worth(operations, operations_per_thread + 4.0 * static_cast<double>(call.V * call.F), n_threads);
    // A thread's own sums: first, bias and second, and of all but the first thread per_action.
    const size_t n_small = call.hidden * (n_wide + 2), n_large = call.V * call.F;
    std::vector<float> small(n_threads * n_small), large((n_threads - 1) * n_large);
    split_pairs(call.n_rows, call.row_start, call.pair_start, n_threads, [&](size_t i, size_t start, size_t stop) {
        const Scratch scratch(kernels.scores_scratch(call));
        float* own = small.data() + i * n_small;
        float* per_action = i == 0 ? grads.per_action : large.data() + (i - 1) * n_large;
        kernels.habit_grads(call, start, stop, grad_logits,
                            {grads.moment_weights, per_action, own, own + call.hidden * n_wide, own + call.hidden * (n_wide + 1)},
                            scratch.get());
    });
    for (size_t i = 0; i < n_threads; ++i) {
        const float* own = small.data() + i * n_small;
        kernels.add_rows(grads.first, own, 1, n_hidden * n_wide);
        kernels.add_rows(grads.bias, own + call.hidden * n_wide, 1, n_hidden);
        kernels.add_rows(grads.second, own + call.hidden * (n_wide + 1), 1, n_hidden);
        if (i > 0) kernels.add_rows(grads.per_action, large.data() + (i - 1) * n_large, 1, n_large);
    }
}

}  // namespace luckyfast
