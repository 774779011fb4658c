// Softmax, the loss of sets of labels and its gradient while a row of logits is in the cache; and the optimiser.
#include "lanes.hpp"
#include "network.hpp"

namespace luckyfast {
namespace {

double set_loss(const SetLoss& call, size_t row_start, size_t row_stop) noexcept {
    const size_t V = call.V;
    const Lanes lowest = splat(-1e30f);
    Bits lane{};
    for (size_t i = 0; i < L; ++i) lane[i] = static_cast<int32_t>(i);
    const auto logits_at = [&](const float* row, size_t at) {
        return V - at >= L ? load(row + at) : lane < static_cast<int32_t>(V - at) ? load(row + at, V - at) : lowest;
    };
    double loss = 0;
    for (size_t row = row_start; row < row_stop; ++row) {
        const float* logits = call.logits + row * V;
        float* grad = call.grad + row * V;
        const int64_t label_start = call.label_start[row], label_stop = call.label_start[row + 1];
        if (label_start == label_stop) {
            std::memset(grad, 0, V * sizeof(float));
            continue;
        }
        double own = 0;  // before logits make room for their gradient
        for (int64_t i = label_start; i < label_stop; ++i) own -= static_cast<double>(logits[call.labels[i]]);
        const float n_labels = static_cast<float>(label_stop - label_start), weight = call.weights[row] * call.scale;
        if (call.smoothing) {
            Lanes shared{};
            for (size_t at = 0; at < V; at += L) shared += load(call.smoothing + at, V - at) * load(logits + at, V - at);
            own = static_cast<double>(call.unsmoothed) * own - static_cast<double>(n_labels * sum(shared));
        }
        Lanes high = lowest;
        for (size_t at = 0; at < V; at += L) high = upper(high, logits_at(logits, at));
        float top = high[0];
        for (size_t i = 1; i < L; ++i) top = high[i] > top ? high[i] : top;
        Lanes total{};
        for (size_t at = 0; at < V; at += L) {
            const Lanes x = exp(logits_at(logits, at) - top);
            total += x;
            store(grad + at, x, V - at);
        }
        const float denominator = sum(total);
        const Lanes factor = splat(weight * n_labels / denominator);
        for (size_t at = 0; at < V; at += L) {
            const Lanes own_grad = load(grad + at, V - at) * factor;
            store(grad + at, call.smoothing ? own_grad - weight * n_labels * load(call.smoothing + at, V - at) : own_grad, V - at);
        }
        const double log_total = static_cast<double>(top) + __builtin_log(static_cast<double>(denominator));
        for (int64_t i = label_start; i < label_stop; ++i) grad[call.labels[i]] -= weight * call.unsmoothed;
        loss += static_cast<double>(weight) * (own + static_cast<double>(n_labels) * log_total);
    }
    return loss;
}

double square_sum(const float* values, size_t n) noexcept {
    double total = 0;
    for (size_t start = 0; start < n; start += 4096) {
        const size_t stop = n - start < 4096 ? n : start + 4096;
        Lanes partial{};
        for (size_t i = start; i < stop; i += L) {
            const Lanes x = load(values + i, stop - i);
            partial += x * x;
        }
        total += static_cast<double>(sum(partial));
    }
    return total;
}

void adam_step(const AdamStep& call) noexcept {
    constexpr float new_mean = 0.1f, new_square = 0.001f, epsilon = 1e-8f;  // 1 - beta
    const auto [n, parameters, grads, means, squares, averages, grad_scale, rate, decay, bias_1, bias_2, keep] = call;
    const float shrink = 1 - rate * decay, step = rate / bias_1, root = 1 / __builtin_sqrtf(bias_2), fresh = 1 - keep;
    for (size_t i = 0; i < n; i += L) {
        const size_t left = n - i;
        const Lanes grad = load(grads + i, left) * grad_scale, average = load(averages + i, left);
        Lanes mean = load(means + i, left), square = load(squares + i, left), parameter = load(parameters + i, left);
        mean += new_mean * (grad - mean);
        square = 0.999f * square + new_square * grad * grad;
        parameter = parameter * shrink - divide(step * mean, square_root(square) * root + epsilon);
        store(means + i, mean, left);
        store(squares + i, square, left);
        store(parameters + i, parameter, left);
        store(averages + i, average + fresh * (parameter - average), left);
        store(grads + i, Lanes{}, left);
    }
}

}  // namespace
}  // namespace luckyfast
