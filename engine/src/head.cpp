#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "split.hpp"

namespace luckyfast {
namespace {

// PERF: the hidden units of so many vectors of pairs, a quarter of a megabyte of 16 units, stay in the second-level cache between
// scores and their gradients.
constexpr size_t unit_vectors = 128;
constexpr size_t widest = 16;  // numbers of a vector, at most

// A thread more costs sums of its own as large as the weights: where those are large, so many bytes at most.
constexpr size_t most_sums = size_t{64} << 20;

constexpr size_t n_weights = 12, first_hidden = 9;

// The gradients of all weights, those of the hidden layer last.
std::array<float**, n_weights> weights_of(HeadGrads& grads) noexcept {
    return {&grads.summary_weight, &grads.summary_bias,       &grads.calendar_weight, &grads.bias,        &grads.output,
            &grads.trend_weights,  &grads.gate,               &grads.shared,          &grads.habits.per_action,
            &grads.habits.first,   &grads.habits.bias,        &grads.habits.second};
}

// How many numbers each of them has.
std::array<size_t, n_weights> sizes_of(const Head& call) noexcept {
    const size_t F = call.habits ? call.habits->F : 0, hidden = call.habits ? call.habits->hidden : 0;
    return {call.E * (call.H + call.C), call.E,           call.V * call.C, call.V,           call.V * call.E, call.n_trends * call.V,
            F * (call.C + call.E),      F,                call.V * F,      hidden * (F + 1), hidden,          hidden};
}

// What one thread works with: some moments at a time go forward and back through everything.
class Worker {
public:
    Worker(const Head& call, const NetworkKernels& kernels, size_t n_most)
        : call_(call),
          kernels_(kernels),
          F_(call.habits ? call.habits->F : 0),
          wide_(n_most * (call.H + call.C)),
          grad_wide_(n_most * (call.H + call.C)),
          before_(n_most * call.E),
          summary_(n_most * call.E),
          grad_summary_(n_most * call.E),
          state_(n_most * (call.C + call.E)),
          grad_state_(n_most * (call.C + call.E)),
          moment_weights_(n_most * F_),
          grad_moment_weights_(n_most * F_),
          logits_(n_most * call.V),
          units_(units_of(call, n_most)),
          habit_scratch_(call.habits ? kernels.scores_scratch(*call.habits) : 0) {}

    // Moments start:stop, to be gone through in turn.
    double run(size_t start, size_t stop, const HeadGrads& sums) {
        const size_t n = stop - start, H = call_.H, C = call_.C, E = call_.E, V = call_.V, wide = H + C;
        float *logits = logits_.get(), *summary = summary_.get(), *before = before_.get(), *state = state_.get();
        const float* calendar = call_.calendar + start * C;
        for (size_t m = 0; m < n; ++m) {
            copy(wide_.get() + m * wide, call_.outputs + row_of(start + m) * H, H);
            copy(wide_.get() + m * wide + H, calendar + m * C, C);
        }
        multiply({n, E, wide, wide_.get(), call_.summary_weight, call_.summary_bias, before, false, true, false});
        kernels_.activate(call_.dropout, start * E, before, summary, n * E);
        multiply({n, V, C, calendar, call_.calendar_weight, call_.bias, logits, false, true, false});
        for_columns([&](size_t at, size_t width) {
            for (size_t m = 0; m < n; ++m)
                for (size_t h = 0; h < call_.n_trends; ++h)
                    kernels_.add_products_of(logits + m * V + at, trend(h, start + m) + at, call_.trend_weights + h * V + at, width);
        });
        multiply({n, V, E, summary, call_.output, nullptr, logits, false, true, true});
        if (call_.habits) {
            for (size_t m = 0; m < n; ++m) {
                copy(state + m * (C + E), calendar + m * C, C);
                copy(state + m * (C + E) + C, summary + m * E, E);
            }
            multiply({n, F_, C + E, state, call_.gate, call_.shared, moment_weights_.get(), false, true, false});
        }
        double total = 0;
        for (size_t from = start; from < stop;) {
            const size_t to = call_.habits ? full_at(from, stop) : stop;
            total += lose(from, to, start, sums);
            from = to;
        }

        const float* grad = logits;
        float *grad_summary = grad_summary_.get(), *grad_state = grad_state_.get();
        if (call_.habits) {
            multiply({F_, C + E, n, grad_moment_weights_.get(), state, nullptr, sums.gate, true, false, true});
            multiply({n, C + E, F_, grad_moment_weights_.get(), call_.gate, nullptr, grad_state, false, false, false});
            for (size_t m = 0; m < n; ++m) {
                kernels_.add_rows(sums.shared, grad_moment_weights_.get() + m * F_, 1, F_);
                copy(grad_summary + m * E, grad_state + m * (C + E) + C, E);
            }
        }
        multiply({n, E, V, grad, call_.output, nullptr, grad_summary, false, false, call_.habits != nullptr});
        multiply({V, E, n, grad, summary, nullptr, sums.output, true, false, true});
        multiply({V, C, n, grad, calendar, nullptr, sums.calendar_weight, true, false, true});
        for_columns([&](size_t at, size_t width) {
            for (size_t m = 0; m < n; ++m) {
                const float* own = grad + m * V + at;
                kernels_.add_rows(sums.bias + at, own, 1, width);
                for (size_t h = 0; h < call_.n_trends; ++h)
                    kernels_.add_products_of(sums.trend_weights + h * V + at, trend(h, start + m) + at, own, width);
            }
        });
        kernels_.activate_grad(call_.dropout, start * E, before, grad_summary, n * E);
        multiply({E, wide, n, grad_summary, wide_.get(), nullptr, sums.summary_weight, true, false, true});
        for (size_t m = 0; m < n; ++m) kernels_.add_rows(sums.summary_bias, grad_summary + m * E, 1, E);
        multiply({n, wide, E, grad_summary, call_.summary_weight, nullptr, grad_wide_.get(), false, false, false});
        for (size_t m = 0; m < n; ++m) copy(sums.outputs + row_of(start + m) * H, grad_wide_.get() + m * wide, H);
        return total;
    }

private:
    static void copy(float* to, const float* from, size_t n) noexcept {
        if (n > 0) std::memcpy(to, from, n * sizeof(float));
    }

    // PERF: sums of so many columns stay in the first-level cache.
    template <typename Work>
    void for_columns(Work work) const {
        constexpr size_t width = 1024;
        for (size_t at = 0; at < call_.V; at += width) work(at, std::min(width, call_.V - at));
    }

    size_t row_of(size_t moment) const noexcept { return static_cast<size_t>(call_.positions[moment]); }

    const float* trend(size_t h, size_t moment) const noexcept {
        return call_.trend_values + (h * call_.n_trend_rows + static_cast<size_t>(call_.trend_rows[moment])) * call_.V;
    }

    void multiply(const Product& product) {
        const size_t n = kernels_.product_scratch(product);
        if (n > n_scratch_) scratch_ = std::make_unique<Scratch>(n_scratch_ = n);
        kernels_.product(product, 0, product.M, scratch_->get());
    }

    // Adds the scores of habits to the logits of some moments of the block that begins with `start`, which become their
    // gradients, and adds up those of habits.
    double lose(size_t from, size_t to, size_t start, const HeadGrads& sums) {
        float* logits = logits_.get() + (from - start) * call_.V;
        HabitScores habits{};
        if (call_.habits) {
            habits = part(from, to);
            habits.moment_weights = moment_weights_.get() + (from - start) * F_;
            kernels_.habit_scores(habits, 0, habits.n_rows, logits, habit_scratch_.get());
        }
        SetLoss loss = call_.loss;
        loss.n = to - from, loss.V = call_.V;
        loss.logits = loss.grad = logits;
        loss.label_start += from, loss.weights += from;
        const double total = kernels_.set_loss(loss, 0, loss.n);
        if (call_.habits) {
            HabitGrads own = sums.habits;
            own.moment_weights = grad_moment_weights_.get() + (from - start) * F_;
            kernels_.habit_grads(habits, 0, habits.n_rows, logits, own, habit_scratch_.get());
        }
        return total;
    }

    // How many vectors of pairs a moment has.
    size_t n_vectors(size_t moment) const noexcept {
        const int64_t* pairs = call_.habits->pair_start + moment;
        return (static_cast<size_t>(pairs[1] - pairs[0]) + widest - 1) / widest;
    }

    // Where so many moments have come together as have their hidden units at once.
    size_t full_at(size_t from, size_t stop) const noexcept {
        size_t n = n_vectors(from), to = from + 1;
        while (to < stop && n + n_vectors(to) <= unit_vectors) n += n_vectors(to++);
        return to;
    }

    // Room for the hidden units of as many moments.
    static size_t units_of(const Head& call, size_t n_most) noexcept {
        if (!call.habits || n_most == 0) return 0;
        return 2 * call.habits->hidden * widest * std::max(unit_vectors, (call.V + widest - 1) / widest);
    }

    // The habits of some moments, of customers who may have others before and after.
    HabitScores part(size_t start, size_t stop) {
        HabitScores habits = *call_.habits;
        const int64_t *rows = habits.row_start, *end = rows + habits.n_rows + 1;
        const auto begin = static_cast<int64_t>(start), n = static_cast<int64_t>(stop - start);
        const int64_t* first = std::upper_bound(rows, end, begin) - 1;
        const int64_t* last = std::lower_bound(first, end, begin + n);
        rows_.assign(first, last + 1);
        for (int64_t& row : rows_) row = std::clamp<int64_t>(row - begin, 0, n);
        habits.n_rows = rows_.size() - 1;
        habits.row_start = rows_.data();
        habits.pair_start += start;
        habits.units = units_.get();
        return habits;
    }

    const Head& call_;
    const NetworkKernels& kernels_;
    const size_t F_;
    Scratch wide_, grad_wide_, before_, summary_, grad_summary_, state_, grad_state_, moment_weights_, grad_moment_weights_, logits_,
        units_, habit_scratch_;
    std::unique_ptr<Scratch> scratch_;
    size_t n_scratch_ = 0;
    std::vector<int64_t> rows_;
};

// Operations of the first n moments, about.
double operations_of(const Head& call, size_t n) noexcept {
    const size_t products = call.V * (call.E + call.C) + call.E * (call.H + call.C);
    const double of_moments = static_cast<double>(n) * static_cast<double>(6 * products + 60 * call.V);
    if (!call.habits) return of_moments;
    return of_moments + 4 * score_operations(*call.habits) * static_cast<double>(call.habits->pair_start[n] - call.habits->pair_start[0]);
}

// The first moment of each part, all of as much work.
std::vector<size_t> parts_of(const Head& call, size_t n_parts) {
    const auto cost = [&](size_t m) { return operations_of(call, m); };
    std::vector<size_t> starts(n_parts + 1, call.n);
    starts[0] = 0;
    for (size_t i = 1, m = 0; i < n_parts; ++i) {
        while (m < call.n && cost(m) * static_cast<double>(n_parts) < cost(call.n) * static_cast<double>(i)) ++m;
        starts[i] = m;
    }
    return starts;
}

}  // namespace

double head_loss(const Head& given, const HeadGrads& grads, size_t n_threads, const NetworkKernels& kernels) {
    Head call = given;
    HabitScores habits{};
    std::unique_ptr<HiddenLayer> hidden;
    if (call.habits) {
        habits = *given.habits;
        hidden = std::make_unique<HiddenLayer>(habits);
        call.habits = &habits;
    }
    // Of the hidden layer as it is given, and as it is here, with units that do nothing.
    const std::array<size_t, n_weights> given_sizes = sizes_of(given), sizes = sizes_of(call);
    const size_t total = std::accumulate(sizes.begin(), sizes.end(), size_t{0});
    const size_t most = 1 + most_sums / (total * sizeof(float));
    n_threads = threads_worth(operations_of(call, call.n), operations_per_thread, std::min(n_threads, most));
    const std::vector<size_t> starts = parts_of(call, n_threads);

    // The first thread adds to the gradients themselves, but for those of the hidden layer.
    const size_t n_hidden = std::accumulate(sizes.begin() + first_hidden, sizes.end(), size_t{0});
    std::vector<float> sums((n_threads - 1) * total + n_hidden);
    float* memory = sums.data();
    std::vector<HeadGrads> theirs(n_threads, grads);
    for (size_t i = 0; i < n_threads; ++i) {
        const auto weights = weights_of(theirs[i]);
        for (size_t k = i > 0 ? 0 : first_hidden; k < n_weights; memory += sizes[k++]) *weights[k] = memory;
    }
    std::vector<double> losses(n_threads);
    split_evenly(n_threads, n_threads, [&](size_t i, size_t, size_t) {
        const size_t stop = starts[i + 1], block = call.block;
        Worker worker(call, kernels, std::min(block, stop - starts[i]));
        for (size_t start = starts[i]; start < stop; start += block)
            losses[i] += worker.run(start, std::min(start + block, stop), theirs[i]);
    });
    HeadGrads into = grads;
    for (size_t i = 0; i < n_threads; ++i)
        for (size_t k = i > 0 ? 0 : first_hidden; k < n_weights; ++k)
            kernels.add_rows(*weights_of(into)[k], *weights_of(theirs[i])[k], 1, given_sizes[k]);
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace luckyfast
