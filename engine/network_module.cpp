// The part of luckyfast._engine that networks use. Arrays are float32 or int64 unless said otherwise, C-contiguous.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "network.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace luckyfast;

namespace {

template <typename T, size_t n_axes>
using Array = nb::ndarray<T, nb::ndim<n_axes>, nb::c_contig, nb::device::cpu>;
using Ids = Array<const int64_t, 1>;
using Ids32 = Array<const int32_t, 1>;
using Vector = Array<const float, 1>;
using Matrix = Array<const float, 2>;

void require(bool fits, const char* what) {
    if (!fits) throw nb::value_error(what);
}

template <typename A, typename... Lengths>
void require_shape(const A& array, Lengths... lengths) {
    size_t axis = 0;
    require(((array.shape(axis++) == static_cast<size_t>(lengths)) && ...), "arrays of unlike shapes");
}

void require_share(double share) { require(share >= 0 && share < 1, "a share is not in [0, 1)"); }

LstmShape lstm_shape(const Array<float, 3>& gates, const Array<const float, 2>& weight) {
    const size_t H = weight.shape(0);
    require_shape(weight, H, 4 * H);
    require_shape(gates, gates.shape(0), gates.shape(1), 4 * H);
    return {gates.shape(0), gates.shape(1), H};
}

SetLoss loss_call(const Ids& label_start, const Ids& labels, const Vector& weights, float scale, const std::optional<Vector>& smoothing,
                  size_t n, size_t V) {
    require_shape(label_start, n + 1);
    require_shape(weights, n);
    SetLoss call{n, V, nullptr, label_start.data(), labels.data(), weights.data(), scale, nullptr};
    if (smoothing) {
        require_shape(*smoothing, V);
        call.smoothing = smoothing->data();
        call.unsmoothed = static_cast<float>(1 - std::accumulate(call.smoothing, call.smoothing + V, 0.0));
    }
    return call;
}

HabitScores habit_call(const Ids& row_start, const Ids& pair_start, const Ids& pair_action, const Matrix& features,
                       const Matrix& per_action, const Matrix& first, const Vector& bias,
                       const Vector& second, const Vector& log_popularity, size_t n, size_t V) {
    const size_t F = features.shape(0), P = features.shape(1), hidden = first.shape(0);
    require_shape(pair_action, P);
    require_shape(pair_start, n + 1);
    require_shape(per_action, V, F);
    require_shape(first, hidden, F + 1);
    require_shape(bias, hidden);
    require_shape(second, hidden);
    require_shape(log_popularity, V);
    require(row_start.size() > 0 && row_start.data()[row_start.size() - 1] == static_cast<int64_t>(n), "rows do not cover the moments");
    return {row_start.size() - 1,  P,
            V,                     F,
            hidden,                row_start.data(),
            pair_start.data(),     pair_action.data(),
            features.data(),       nullptr,
            per_action.data(),     first.data(),
            bias.data(),           second.data(),
            log_popularity.data()};
}

// values [n_trends, n_rows, V], row of each moment, weights [n_trends, V]
using TrendArrays = std::tuple<Array<const float, 3>, Ids, Matrix>;
// row_start, pair_start, pair_action, features, per_action, first, bias, second, log_popularity; gate [F, C + E], shared [F]
using HabitArrays = std::tuple<Ids, Ids, Ids, Matrix, Matrix, Matrix, Vector, Vector, Vector, Matrix, Vector>;
// per_action, first, bias, second, gate, shared
using HabitGradArrays =
    std::tuple<Array<float, 2>, Array<float, 2>, Array<float, 1>, Array<float, 1>, Array<float, 2>, Array<float, 1>>;
// outputs [n_steps, H], summary_weight, summary_bias, calendar_weight, bias, output
using HeadGradArrays =
    std::tuple<Array<float, 2>, Array<float, 2>, Array<float, 1>, Array<float, 2>, Array<float, 1>, Array<float, 2>>;

template <typename A, typename B>
void require_alike(const A& a, const B& b) {
    for (size_t axis = 0; axis < a.ndim(); ++axis) require(a.shape(axis) == b.shape(axis), "arrays of unlike shapes");
}

}  // namespace

void add_network(nb::module_& m) {
    m.def(
        "product",
        [](Matrix a, Matrix b, Array<float, 2> c, bool a_transposed, bool b_transposed, std::optional<Vector> bias, bool adds,
           size_t n_threads, int level) {
            const size_t M = a.shape(a_transposed), K = a.shape(!a_transposed), N = b.shape(!b_transposed);
            require(b.shape(b_transposed) == K, "arrays of unlike shapes");
            require_shape(c, M, N);
            if (bias) require_shape(*bias, N);
            nb::gil_scoped_release release;
            product({M, N, K, a.data(), b.data(), bias ? bias->data() : nullptr, c.data(), a_transposed, b_transposed, adds}, n_threads,
                    network_kernels(level));
        },
        "a"_a, "b"_a, "c"_a, "a_transposed"_a = false, "b_transposed"_a = false, "bias"_a.none() = nb::none(), "adds"_a = false,
        "n_threads"_a = 1, "level"_a = -1,
        "c = a @ b + bias, or c += it; a [M, K] may be stored as [K, M], b [K, N] as [N, K].");
    m.def(
        "lstm_forward",
        [](Array<float, 3> gates, Array<float, 3> cells, Array<float, 3> outputs, Matrix weight, size_t n_threads, int level) {
            const LstmShape shape = lstm_shape(gates, weight);
            require_shape(cells, shape.T + 1, shape.B, shape.H);
            require_shape(outputs, shape.T + 1, shape.B, shape.H);
            nb::gil_scoped_release release;
            return lstm_forward({shape, nullptr, gates.data(), cells.data(), outputs.data()}, weight.data(), n_threads,
                                network_kernels(level));
        },
        "gates"_a, "cells"_a, "outputs"_a, "weight"_a, "n_threads"_a = 1, "level"_a = -1,
        "Run an LSTM: gates [T, B, 4H] hold projected inputs and become activated gates; cells and outputs [T + 1, B, H] "
        "hold the state in their first row. Returns whether the first of outputs is 0.");
    m.def(
        "lstm_backward",
        [](Array<float, 3> gates, Array<const float, 3> cells, Array<const float, 3> grad_outputs, Array<float, 2> grad_h,
           Array<float, 2> grad_c, Matrix weight, bool wants_grad_h, size_t n_threads, int level) {
            const LstmShape shape = lstm_shape(gates, weight);
            require_shape(cells, shape.T + 1, shape.B, shape.H);
            require_shape(grad_outputs, shape.T, shape.B, shape.H);
            require_shape(grad_h, shape.B, shape.H);
            require_shape(grad_c, shape.B, shape.H);
            nb::gil_scoped_release release;
            lstm_backward({shape, nullptr, gates.data(), cells.data(), grad_outputs.data(), grad_h.data(), grad_c.data(), wants_grad_h},
                          weight.data(), n_threads, network_kernels(level));
        },
        "gates"_a, "cells"_a, "grad_outputs"_a, "grad_h"_a, "grad_c"_a, "weight"_a, "wants_grad_h"_a = true,
        "n_threads"_a = 1, "level"_a = -1,
        "Go back through lstm_forward: gates become the gradients of the projected inputs, grad_h (if wanted) and grad_c "
        "[B, H] those of the state before.");

    m.def(
        "set_loss",
        [](Matrix logits, Ids label_start, Ids labels, Vector weights, float scale, Array<float, 2> grad, size_t n_threads,
           std::optional<Vector> smoothing, int level) {
            const size_t n = logits.shape(0), V = logits.shape(1);
            require_shape(grad, n, V);
            SetLoss call = loss_call(label_start, labels, weights, scale, smoothing, n, V);
            call.logits = logits.data();
            call.grad = grad.data();
            nb::gil_scoped_release release;
            return set_loss(call, n_threads, network_kernels(level));
        },
        "logits"_a, "label_start"_a, "labels"_a, "weights"_a, "scale"_a, "grad"_a, "n_threads"_a = 1,
        "smoothing"_a.none() = nb::none(), "level"_a = -1,
        "Sum over rows and their labels of -log softmax(logits)[label] * weights[row] * scale, with the share smoothing[a] of each "
        "label being action a instead; grad [n, V] becomes its gradient.");
    m.def(
        "drop",
        [](Vector values, Array<float, 1> out, double share, uint64_t seed, int level) {
            require_shape(out, values.size());
            require_share(share);
            nb::gil_scoped_release release;
            network_kernels(level).drop({share, seed}, 0, values.data(), out.data(), values.size());
        },
        "values"_a, "out"_a, "share"_a, "seed"_a, "level"_a = -1,
        "out = values, of which a share is 0 instead and the others are divided by what is left; the seed decides which.");
    m.def(
        "head_loss",
        [](Matrix outputs, Ids positions, Matrix calendar, Matrix summary_weight, Vector summary_bias, Matrix calendar_weight, Vector bias,
           Matrix output, std::optional<TrendArrays> trends, std::optional<HabitArrays> habits, Ids label_start, Ids labels,
           Vector weights, float scale, std::optional<Vector> smoothing, double dropout, uint64_t seed, size_t block, HeadGradArrays grads,
           std::optional<Array<float, 2>> trend_grads, std::optional<HabitGradArrays> habit_grads, size_t n_threads, int level) {
            const size_t n = positions.size(), H = outputs.shape(1), C = calendar.shape(1), E = summary_bias.size(), V = bias.size();
            require_shape(calendar, n, C);
            require_shape(summary_weight, E, H + C);
            require_shape(calendar_weight, V, C);
            require_shape(output, V, E);
            require(V > 0 && E > 0 && H + C > 0, "arrays without columns");
            require_share(dropout);
            Head call{n, H, C, E, V, 0, 0, outputs.data(), positions.data(), calendar.data(), summary_weight.data(), summary_bias.data(),
                      calendar_weight.data(), bias.data(), output.data(), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                      loss_call(label_start, labels, weights, scale, smoothing, n, V), {dropout, seed}, std::max<size_t>(block, 1)};
            auto& [grad_outputs, grad_summary_weight, grad_summary_bias, grad_calendar_weight, grad_bias, grad_output] = grads;
            require_alike(grad_outputs, outputs);
            require_alike(grad_summary_weight, summary_weight);
            require_alike(grad_summary_bias, summary_bias);
            require_alike(grad_calendar_weight, calendar_weight);
            require_alike(grad_bias, bias);
            require_alike(grad_output, output);
            HeadGrads to{grad_outputs.data(), grad_summary_weight.data(), grad_summary_bias.data(), grad_calendar_weight.data(),
                         grad_bias.data(), grad_output.data(), nullptr, nullptr, nullptr, {}};
            require(trends.has_value() == trend_grads.has_value() && habits.has_value() == habit_grads.has_value(),
                    "gradients of what is not there");
            if (trends) {
                const auto& [values, rows, own] = *trends;
                require_shape(values, own.shape(0), values.shape(1), V);
                require_shape(rows, n);
                require_shape(own, own.shape(0), V);
                require_alike(*trend_grads, own);
                call.n_trends = values.shape(0);
                call.n_trend_rows = values.shape(1);
                call.trend_values = values.data();
                call.trend_rows = rows.data();
                call.trend_weights = own.data();
                to.trend_weights = trend_grads->data();
            }
            HabitScores scores{};
            if (habits) {
                const auto& [row_start, pair_start, pair_action, features, per_action, first, hidden_bias, second, log_popularity, gate,
                             shared] = *habits;
                scores = habit_call(row_start, pair_start, pair_action, features, per_action, first, hidden_bias, second, log_popularity,
                                    n, V);
                require_shape(gate, scores.F, C + E);
                require_shape(shared, scores.F);
                call.habits = &scores;
                call.gate = gate.data();
                call.shared = shared.data();
                auto& [grad_per_action, grad_first, grad_hidden_bias, grad_second, grad_gate, grad_shared] = *habit_grads;
                require_alike(grad_per_action, per_action);
                require_alike(grad_first, first);
                require_alike(grad_hidden_bias, hidden_bias);
                require_alike(grad_second, second);
                require_alike(grad_gate, gate);
                require_alike(grad_shared, shared);
                to.gate = grad_gate.data();
                to.shared = grad_shared.data();
                to.habits = {nullptr, grad_per_action.data(), grad_first.data(), grad_hidden_bias.data(), grad_second.data()};
            }
            nb::gil_scoped_release release;
            return head_loss(call, to, n_threads, network_kernels(level));
        },
        "outputs"_a, "positions"_a, "calendar"_a, "summary_weight"_a, "summary_bias"_a, "calendar_weight"_a, "bias"_a, "output"_a,
        "trends"_a.none(), "habits"_a.none(), "label_start"_a, "labels"_a, "weights"_a, "scale"_a, "smoothing"_a.none(), "dropout"_a,
        "seed"_a, "block"_a, "grads"_a, "trend_grads"_a.none(), "habit_grads"_a.none(), "n_threads"_a = 1, "level"_a = -1,
        "The loss of a network's head, as in network.hpp; gradients are added to, but for that of outputs [n_steps, H], which is "
        "written in the rows of moments.");

    m.def(
        "square_sum",
        [](Vector values, int level) {
            nb::gil_scoped_release release;
            return network_kernels(level).square_sum(values.data(), values.size());
        },
        "values"_a, "level"_a = -1, "Sum of squares.");
    m.def(
        "adam_step",
        [](Array<float, 1> parameters, Array<float, 1> grads, Array<float, 1> means, Array<float, 1> squares, Array<float, 1> average,
           float grad_scale, float rate, float decay, int n_steps, float keep, int level) {
            const size_t n = parameters.size();
            for (const auto* array : {&grads, &means, &squares, &average}) require_shape(*array, n);
            nb::gil_scoped_release release;
            const float bias_1 = static_cast<float>(1 - std::pow(0.9, n_steps)), bias_2 = static_cast<float>(1 - std::pow(0.999, n_steps));
            network_kernels(level).adam_step({n, parameters.data(), grads.data(), means.data(), squares.data(), average.data(), grad_scale,
                                              rate, decay, bias_1, bias_2, keep});
        },
        "parameters"_a, "grads"_a, "means"_a, "squares"_a, "average"_a, "grad_scale"_a, "rate"_a, "decay"_a, "n_steps"_a, "keep"_a,
        "level"_a = -1,
        "Step number n_steps of AdamW (betas 0.9 and 0.999, epsilon 1e-8) and of average = keep * average + (1 - keep) * parameters; "
        "grads become 0.");

    m.def(
        "sum_bags",
        [](Ids start, Ids actions, Matrix table, Array<float, 2> out, size_t n_threads, int level) {
            const size_t n = start.size() - 1, width = table.shape(1);
            require_shape(out, n, width);
            nb::gil_scoped_release release;
            sum_bags({n, width, start.data(), actions.data()}, table.data(), out.data(), n_threads, network_kernels(level));
        },
        "start"_a, "actions"_a, "table"_a, "out"_a, "n_threads"_a = 1, "level"_a = -1, "out[b] = sum of the table's rows of bag b / sqrt(size of b).");
    m.def(
        "spread_bags",
        [](Ids start, Ids actions, Matrix grad, Array<float, 2> grad_table, size_t n_threads, int level) {
            const size_t n = start.size() - 1, width = grad_table.shape(1);
            require_shape(grad, n, width);
            nb::gil_scoped_release release;
            spread_bags({n, width, start.data(), actions.data()}, grad.data(), grad_table.data(), n_threads, network_kernels(level));
        },
        "start"_a, "actions"_a, "grad"_a, "grad_table"_a, "n_threads"_a = 1, "level"_a = -1, "Add the gradient of sum_bags to that of the table.");

    m.def(
        "count_pairs",
        [](Ids first, Ids row_start, Ids moments, Ids32 action_start, Ids32 actions, size_t n_actions, Array<int64_t, 1> pair_start) {
            require_shape(row_start, first.size() + 1);
            require_shape(pair_start, moments.size() + 1);
            nb::gil_scoped_release release;
            HabitHistory history{};
            history.n_rows = first.size();
            history.n_actions = n_actions;
            history.first = first.data();
            history.row_start = row_start.data();
            history.moments = moments.data();
            history.action_start = action_start.data();
            history.actions = actions.data();
            count_pairs(history, pair_start.data());
        },
        "first"_a, "row_start"_a, "moments"_a, "action_start"_a, "actions"_a, "n_actions"_a, "pair_start"_a,
        "Count the distinct actions before each moment: pair_start [n_moments + 1] becomes their running number. Customer r begins "
        "with visit first[r] and has the moments (visits, ascending) row_start[r]:row_start[r + 1].");
    m.def(
        "habit_features",
        [](Ids first, Ids row_start, Ids moments, Ids pair_start, Ids visit_time, Ids32 action_start, Ids32 actions,
           Array<const int32_t, 2> contexts, Array<const double, 1> prior, Array<const double, 1> half_lives,
           Array<const double, 1> spans, double time_scale, size_t n_context_values, Array<int64_t, 1> pair_action,
           Array<float, 2> features, size_t n_threads, int level) {
            const size_t n_contexts = contexts.shape(1), n_decays = half_lives.size() + spans.size();
            require_shape(row_start, first.size() + 1);
            require_shape(pair_start, moments.size() + 1);
            require_shape(features, n_decays + 9 + n_contexts, pair_action.size());
            require(n_decays <= max_habit_columns && n_contexts * n_context_values <= max_habit_columns, "too many half-lives or contexts");
            nb::gil_scoped_release release;
            const HabitHistory history{first.size(),      prior.size(),      n_contexts,        first.data(),        row_start.data(),
                                       moments.data(),    pair_start.data(), visit_time.data(), action_start.data(), actions.data(),
                                       contexts.data()};
            habit_features({history, half_lives.size(), spans.size(), n_context_values, half_lives.data(), spans.data(), prior.data(),
                            time_scale, pair_action.data(), features.data()},
                           n_threads, network_kernels(level));
        },
        "first"_a, "row_start"_a, "moments"_a, "pair_start"_a, "visit_time"_a, "action_start"_a, "actions"_a, "contexts"_a, "prior"_a,
        "half_lives"_a, "spans"_a, "time_scale"_a, "n_context_values"_a, "pair_action"_a, "features"_a, "n_threads"_a = 1,
        "level"_a = -1, "Compute the habits of every action before each moment, in columns: features [n_habits, n_pairs].");
    m.def(
        "habit_scores",
        [](Ids row_start, Ids pair_start, Ids pair_action, Matrix features, Matrix moment_weights, Matrix per_action, Matrix first,
           Vector bias, Vector second, Vector log_popularity, Array<float, 2> logits, size_t n_threads, int level) {
            HabitScores call = habit_call(row_start, pair_start, pair_action, features, per_action, first, bias, second, log_popularity,
                                          logits.shape(0), logits.shape(1));
            require_shape(moment_weights, logits.shape(0), call.F);
            call.moment_weights = moment_weights.data();
            nb::gil_scoped_release release;
            habit_scores(call, logits.data(), n_threads, network_kernels(level));
        },
        "row_start"_a, "pair_start"_a, "pair_action"_a, "features"_a, "moment_weights"_a, "per_action"_a, "first"_a, "bias"_a,
        "second"_a, "log_popularity"_a, "logits"_a, "n_threads"_a = 1, "level"_a = -1, "Add the scores of habits to logits [n, V].");
    m.def(
        "habit_grads",
        [](Ids row_start, Ids pair_start, Ids pair_action, Matrix features, Matrix moment_weights, Matrix per_action, Matrix first,
           Vector bias, Vector second, Vector log_popularity, Matrix grad_logits, Array<float, 2> grad_moment_weights,
           Array<float, 2> grad_per_action, Array<float, 2> grad_first, Array<float, 1> grad_bias, Array<float, 1> grad_second,
           size_t n_threads, int level) {
            HabitScores call = habit_call(row_start, pair_start, pair_action, features, per_action, first, bias, second, log_popularity,
                                          grad_logits.shape(0), grad_logits.shape(1));
            require_shape(moment_weights, grad_logits.shape(0), call.F);
            call.moment_weights = moment_weights.data();
            require_shape(grad_moment_weights, grad_logits.shape(0), call.F);
            require_shape(grad_per_action, call.V, call.F);
            require_shape(grad_first, call.hidden, call.F + 1);
            require_shape(grad_bias, call.hidden);
            require_shape(grad_second, call.hidden);
            nb::gil_scoped_release release;
            habit_grads(call, grad_logits.data(),
                        {grad_moment_weights.data(), grad_per_action.data(), grad_first.data(), grad_bias.data(), grad_second.data()},
                        n_threads, network_kernels(level));
        },
        "row_start"_a, "pair_start"_a, "pair_action"_a, "features"_a, "moment_weights"_a, "per_action"_a, "first"_a, "bias"_a,
        "second"_a, "log_popularity"_a, "grad_logits"_a, "grad_moment_weights"_a, "grad_per_action"_a, "grad_first"_a, "grad_bias"_a,
        "grad_second"_a, "n_threads"_a = 1, "level"_a = -1,
        "The gradients of habit_scores: that of moment_weights is written, the others are added to.");
}
