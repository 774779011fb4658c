// Every kernel against sums written down as they are defined, at every level and with several threads.
#include <cassert>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "network.hpp"

using namespace luckyfast;

// What kernels use as scratch memory is no number until it is written, so that nothing can be read before.
void* operator new(std::size_t size, std::align_val_t alignment) {
    const auto line = static_cast<std::size_t>(alignment);
    void* memory = std::aligned_alloc(line, (size + line - 1) / line * line + line);
    if (!memory) throw std::bad_alloc();
    return std::memset(memory, 0xff, size);
}
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using Floats = std::vector<float>;
using Ids = std::vector<int64_t>;

std::mt19937 generator(1);

Floats random_floats(size_t n, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    Floats values(n);
    for (float& value : values) value = normal(generator);
    return values;
}

void check_close(const Floats& found, const Floats& expected, double tolerance, const char* what) {
    assert(found.size() == expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
        const double gap = std::abs(static_cast<double>(found[i]) - expected[i]);
        if (!(gap <= tolerance * (1 + std::abs(static_cast<double>(expected[i]))))) {
            std::printf("%s[%zu]: %g, %g was expected\n", what, i, static_cast<double>(found[i]), static_cast<double>(expected[i]));
            assert(false);
        }
    }
}

void test_product(size_t M, size_t N, size_t K, int level, size_t n_threads) {
    for (const int variant : {0, 1, 2, 3, 4, 8, 12}) {
        const bool a_transposed = variant & 1, b_transposed = variant & 2, adds = variant & 4, has_bias = variant & 8;
        const Floats a = random_floats(M * K), b = random_floats(K * N), bias = random_floats(N);
        Floats c = random_floats(M * N), expected(M * N);
        for (size_t m = 0; m < M; ++m)
            for (size_t n = 0; n < N; ++n) {
                double total = (adds ? static_cast<double>(c[m * N + n]) : 0.0) + (has_bias ? static_cast<double>(bias[n]) : 0.0);
                for (size_t k = 0; k < K; ++k)
                    total += static_cast<double>(a[a_transposed ? k * M + m : m * K + k]) * static_cast<double>(b[b_transposed ? n * K + k : k * N + n]);
                expected[m * N + n] = static_cast<float>(total);
            }
        product({M, N, K, a.data(), b.data(), has_bias ? bias.data() : nullptr, c.data(), a_transposed, b_transposed, adds}, n_threads,
                network_kernels(level));
        check_close(c, expected, 1e-4, "product");
    }
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// An LSTM whose gradients are found by going forward again with a changed input.
struct NaiveLstm {
    LstmShape shape;
    std::vector<double> projected, weight, h, c;

    double run(const Floats& grad_outputs, const Floats& grad_h, const Floats& grad_c, Floats* outputs = nullptr) const {
        const auto [T, B, H] = shape;
        double total = 0;
        for (size_t b = 0; b < B; ++b) {
            std::vector<double> state(h.begin() + static_cast<std::ptrdiff_t>(b * H), h.begin() + static_cast<std::ptrdiff_t>((b + 1) * H));
            std::vector<double> cell(c.begin() + static_cast<std::ptrdiff_t>(b * H), c.begin() + static_cast<std::ptrdiff_t>((b + 1) * H));
            for (size_t t = 0; t < T; ++t) {
                std::vector<double> sums(4 * H);
                for (size_t j = 0; j < 4 * H; ++j) {
                    sums[j] = projected[(t * B + b) * 4 * H + j];
                    for (size_t k = 0; k < H; ++k) sums[j] += state[k] * weight[k * 4 * H + j];
                }
                for (size_t u = 0; u < H; ++u) {
                    cell[u] = sigmoid(sums[H + u]) * cell[u] + sigmoid(sums[u]) * std::tanh(sums[3 * H + u]);
                    state[u] = sigmoid(sums[2 * H + u]) * std::tanh(cell[u]);
                    total += state[u] * grad_outputs[(t * B + b) * H + u];
                    if (outputs) (*outputs)[(t * B + b) * H + u] = static_cast<float>(state[u]);
                }
            }
            for (size_t u = 0; u < H; ++u) total += state[u] * grad_h[b * H + u] + cell[u] * grad_c[b * H + u];
        }
        return total;
    }
};

void test_lstm(LstmShape shape, int level, size_t n_threads, bool from_zeros) {
    const auto [T, B, H] = shape;
    const NetworkKernels& kernels = network_kernels(level);
    const Floats projected = random_floats(T * B * 4 * H), weight = random_floats(H * 4 * H, 0.5f), h = from_zeros ? Floats(B * H) : random_floats(B * H),
                 c = random_floats(B * H), grad_outputs = random_floats(T * B * H);
    Floats grad_h = random_floats(B * H), grad_c = random_floats(B * H);
    const auto wide = [](const Floats& values) { return std::vector<double>(values.begin(), values.end()); };
    NaiveLstm naive{shape, wide(projected), wide(weight), wide(h), wide(c)};
    Floats expected(T * B * H), numeric(T * B * 4 * H), numeric_h(B * H), numeric_c(B * H);
    naive.run(grad_outputs, grad_h, grad_c, &expected);
    const auto differentiate = [&](std::vector<double>& inputs, Floats& grads) {
        for (size_t i = 0; i < inputs.size(); ++i) {
            const double before = inputs[i], step = 1e-5;
            inputs[i] = before + step;
            const double above = naive.run(grad_outputs, grad_h, grad_c);
            inputs[i] = before - step;
            grads[i] = static_cast<float>((above - naive.run(grad_outputs, grad_h, grad_c)) / (2 * step));
            inputs[i] = before;
        }
    };
    differentiate(naive.projected, numeric);
    differentiate(naive.h, numeric_h);
    differentiate(naive.c, numeric_c);

    Floats gates = projected, cells((T + 1) * B * H), outputs((T + 1) * B * H);
    std::copy(h.begin(), h.end(), outputs.begin());
    std::copy(c.begin(), c.end(), cells.begin());
    const bool began_with_zeros =
        lstm_forward({shape, nullptr, gates.data(), cells.data(), outputs.data()}, weight.data(), n_threads, kernels);
    assert(began_with_zeros == from_zeros);
    check_close(Floats(outputs.begin() + static_cast<std::ptrdiff_t>(B * H), outputs.end()), expected, 1e-5, "outputs");
    Floats own_gates = gates, own_grad_h = grad_h, own_grad_c = grad_c;
    lstm_backward({shape, nullptr, own_gates.data(), cells.data(), grad_outputs.data(), own_grad_h.data(), own_grad_c.data(), false},
                  weight.data(), n_threads, kernels);
    lstm_backward({shape, nullptr, gates.data(), cells.data(), grad_outputs.data(), grad_h.data(), grad_c.data(), true}, weight.data(),
                  n_threads, kernels);
    assert(own_gates == gates && own_grad_c == grad_c);
    check_close(gates, numeric, 2e-4, "gradient of gates");
    check_close(grad_h, numeric_h, 2e-4, "gradient of h");
    check_close(grad_c, numeric_c, 2e-4, "gradient of c");
}

void test_loss(size_t n, size_t V, float scale, int level, size_t n_threads) {
    const Floats logits = random_floats(n * V, scale);
    Ids start{0}, labels;
    Floats weights(n), expected(n * V), grad(n * V);
    double total = 0, loss = 0;
    for (size_t row = 0; row < n; ++row) {
        for (size_t i = generator() % 4; i > 0; --i) labels.push_back(static_cast<int64_t>(generator() % V));
        start.push_back(static_cast<int64_t>(labels.size()));
        weights[row] = 0.5f + static_cast<float>(generator() % 8);
        total += static_cast<double>(weights[row]) * static_cast<double>(start[row + 1] - start[row]);
    }
    for (size_t row = 0; row < n; ++row) {
        double top = -1e30, sum = 0;
        for (size_t v = 0; v < V; ++v) top = std::max(top, static_cast<double>(logits[row * V + v]));
        for (size_t v = 0; v < V; ++v) sum += std::exp(static_cast<double>(logits[row * V + v]) - top);
        for (int64_t i = start[row]; i < start[row + 1]; ++i) {
            const double weight = static_cast<double>(weights[row]) / total;
            for (size_t v = 0; v < V; ++v)
                expected[row * V + v] += static_cast<float>(weight * (std::exp(static_cast<double>(logits[row * V + v]) - top) / sum -
                                                                      (v == static_cast<size_t>(labels[static_cast<size_t>(i)]))));
            loss += weight * (top + std::log(sum) - static_cast<double>(logits[row * V + static_cast<size_t>(labels[static_cast<size_t>(i)])]));
        }
    }
    const double found = set_loss({n, V, logits.data(), start.data(), labels.data(), weights.data(),
                                   total > 0 ? static_cast<float>(1 / total) : 0.0f, grad.data()},
                                  n_threads, network_kernels(level));
    check_close({static_cast<float>(found)}, {static_cast<float>(loss)}, 1e-5, "loss");
    check_close(grad, expected, 1e-5, "gradient of the loss");
}

// A random log of some customers, with every second moment wanted.
struct Log {
    size_t n_actions, n_contexts = 2, n_context_values = 3;
    Ids first, row_start{0}, moments, visit_time, pair_start, pair_action;
    std::vector<int32_t> action_start{0}, actions, contexts;
    std::vector<double> prior, half_lives{3.0, 50.0}, spans{2.0};

    Log(size_t n_customers, size_t n_visits, size_t n_actions_, int64_t gap) : n_actions(n_actions_) {
        for (size_t customer = 0; customer < n_customers; ++customer) {
            first.push_back(static_cast<int64_t>(visit_time.size()));
            int64_t time = 7;
            for (size_t visit = 0; visit < n_visits; ++visit) {
                if (generator() % 2) moments.push_back(static_cast<int64_t>(visit_time.size()));
                visit_time.push_back(time += static_cast<int64_t>(generator() % static_cast<unsigned>(gap)));
                for (size_t action = generator() % 5; action < n_actions; action += 1 + generator() % 7)
                    actions.push_back(static_cast<int32_t>(action));
                action_start.push_back(static_cast<int32_t>(actions.size()));
                for (size_t j = 0; j < n_contexts; ++j) contexts.push_back(static_cast<int32_t>(generator() % n_context_values));
            }
            row_start.push_back(static_cast<int64_t>(moments.size()));
        }
        for (size_t action = 0; action < n_actions; ++action) prior.push_back(0.1 + static_cast<double>(action % 9));
        pair_start.resize(moments.size() + 1);
        count_pairs(history(), pair_start.data());
        pair_action.resize(static_cast<size_t>(pair_start.back()));
    }
    size_t n_habits() const { return half_lives.size() + spans.size() + 9 + n_contexts; }
    HabitHistory history() const {
        return {first.size(),      n_actions,         n_contexts,        first.data(),        row_start.data(), moments.data(),
                pair_start.data(), visit_time.data(), action_start.data(), actions.data(), contexts.data()};
    }
    Floats features(int level, size_t n_threads) {
        Floats values(n_habits() * pair_action.size());
        habit_features({history(), half_lives.size(), spans.size(), n_context_values, half_lives.data(), spans.data(), prior.data(), 5.0,
                        pair_action.data(), values.data()},
                       n_threads, network_kernels(level));
        return values;
    }
};

// Decayed counts and presence by their definition; the Python tests hold all columns against another twin.
void test_features(int level, size_t n_threads, int64_t gap) {
    Log log(5, 60, 40, gap);
    const Floats features = log.features(level, n_threads), portable = log.features(0, 1);
    check_close(features, portable, 4e-6, "features");
    for (size_t row = 0; row < log.first.size(); ++row)
        for (int64_t m = log.row_start[row]; m < log.row_start[row + 1]; ++m)
            for (int64_t pair = log.pair_start[m]; pair < log.pair_start[m + 1]; ++pair) {
                const int64_t now = log.moments[m], action = log.pair_action[pair];
                std::vector<double> decayed(3);
                int64_t last = -1;
                for (int64_t visit = log.first[row]; visit < now; ++visit)
                    for (int32_t p = log.action_start[visit]; p < log.action_start[visit + 1]; ++p)
                        if (log.actions[p] == action) {
                            const double age = static_cast<double>(log.visit_time[now] - log.visit_time[visit]);
                            decayed[0] += std::exp2(-age / 3), decayed[1] += std::exp2(-age / 50);
                            decayed[2] += std::exp2(-static_cast<double>(now - 1 - visit) / 2);
                            last = visit;
                        }
                assert(last >= 0);
                Floats expected, found;
                for (size_t k = 0; k < 3; ++k) expected.push_back(static_cast<float>(std::log1p(decayed[k] / log.prior[action])));
                expected.push_back(last == now - 1);
                for (const size_t k : {0u, 1u, 2u, 6u}) found.push_back(features[k * log.pair_action.size() + static_cast<size_t>(pair)]);
                check_close(found, expected, 4e-6, "decayed counts");
            }
}

struct HabitCase {
    Log log{4, 50, 70, 9};
    size_t hidden, n, P, F, V;
    Floats features, moment_weights, per_action, first, bias, second, log_popularity, grad_logits;

    explicit HabitCase(size_t hidden_)
        : hidden(hidden_), n(log.moments.size()), P(log.pair_action.size()), F(log.n_habits()), V(log.n_actions), features(log.features(0, 1)),
          moment_weights(random_floats(n * F)), per_action(random_floats(V * F)), first(random_floats(hidden * (F + 1), 0.2f)),
          bias(random_floats(hidden)), second(random_floats(hidden)), log_popularity(random_floats(V)), grad_logits(random_floats(n * V)) {}

    HabitScores call() const {
        return {log.first.size(),     P,
                V,                    F,
                hidden,               log.row_start.data(),
                log.pair_start.data(), log.pair_action.data(),
                features.data(),      moment_weights.data(),
                per_action.data(),    first.data(),
                bias.data(),          second.data(),
                log_popularity.data()};
    }
};

void test_scores(size_t hidden, int level, size_t n_threads) {
    const HabitCase input(hidden);
    const size_t F = input.F, V = input.V;
    Floats expected(input.n * V), moment(input.n * F), per_action(V * F), first(hidden * (F + 1)), bias(hidden), second(hidden);
    for (size_t m = 0; m < input.n; ++m)
        for (size_t pair = static_cast<size_t>(input.log.pair_start[m]); pair < static_cast<size_t>(input.log.pair_start[m + 1]); ++pair) {
            const size_t action = static_cast<size_t>(input.log.pair_action[pair]);
            const float grad = input.grad_logits[m * V + action];
            double score = 0;
            const auto feature = [&](size_t k) { return k < F ? input.features[k * input.P + pair] : input.log_popularity[action]; };
            for (size_t k = 0; k < F; ++k) {
                score += static_cast<double>((input.moment_weights[m * F + k] + input.per_action[action * F + k]) * feature(k));
                moment[m * F + k] += grad * feature(k);
                per_action[action * F + k] += grad * feature(k);
            }
            for (size_t h = 0; h < hidden; ++h) {
                double x = static_cast<double>(input.bias[h]);
                for (size_t k = 0; k <= F; ++k) x += static_cast<double>(input.first[h * (F + 1) + k] * feature(k));
                const double cdf = 0.5 * (1 + std::erf(x / std::sqrt(2.0))), density = std::exp(-x * x / 2) / std::sqrt(2 * 3.14159265358979);
                score += static_cast<double>(input.second[h]) * x * cdf;
                second[h] += grad * static_cast<float>(x * cdf);
                const float own = grad * input.second[h] * static_cast<float>(cdf + x * density);
                bias[h] += own;
                for (size_t k = 0; k <= F; ++k) first[h * (F + 1) + k] += own * feature(k);
            }
            expected[m * V + action] += static_cast<float>(score);
        }
    Floats logits(input.n * V), own_moment(input.n * F), own_per_action(V * F), own_first(hidden * (F + 1)), own_bias(hidden), own_second(hidden);
    habit_scores(input.call(), logits.data(), n_threads, network_kernels(level));
    check_close(logits, expected, 1e-4, "scores");
    habit_grads(input.call(), input.grad_logits.data(),
                {own_moment.data(), own_per_action.data(), own_first.data(), own_bias.data(), own_second.data()}, n_threads,
                network_kernels(level));
    check_close(own_moment, moment, 1e-3, "gradient of moment weights");
    check_close(own_per_action, per_action, 1e-3, "gradient of per-action weights");
    check_close(own_first, first, 2e-3, "gradient of the first layer");
    check_close(own_bias, bias, 2e-3, "gradient of the bias");
    check_close(own_second, second, 2e-3, "gradient of the second layer");
}

// All of a head against its parts: products, scores, loss and their gradients one by one, over all moments at once.
void test_head(size_t hidden, size_t block, bool with_habits, int level, size_t n_threads) {
    const NetworkKernels& kernels = network_kernels(level);
    const HabitCase input(hidden);
    const size_t n = input.n, V = input.V, F = with_habits ? input.F : 0, H = 11, C = 5, E = 9, n_trends = 2, n_rows = 6, n_steps = n + 4;
    const Floats outputs = random_floats(n_steps * H), calendar = random_floats(n * C), trend_values = random_floats(n_trends * n_rows * V);
    const Floats summary_weight = random_floats(E * (H + C), 0.3f), summary_bias = random_floats(E), calendar_weight = random_floats(V * C);
    const Floats bias = random_floats(V), output = random_floats(V * E), trend_weights = random_floats(n_trends * V);
    const Floats gate = random_floats(F * (C + E)), shared = random_floats(F), weights = random_floats(n);
    Ids positions, trend_rows, label_start{0}, labels;
    for (size_t m = 0; m < n; ++m) {
        positions.push_back(static_cast<int64_t>((3 * m + 2) % n_steps));
        trend_rows.push_back(static_cast<int64_t>(generator() % n_rows));
        for (size_t i = generator() % 3; i > 0; --i) labels.push_back(static_cast<int64_t>(generator() % V));
        label_start.push_back(static_cast<int64_t>(labels.size()));
    }
    if (n_steps % 3 == 0)  // else no two are the same
        for (size_t m = 0; m < n; ++m) positions[m] = static_cast<int64_t>(m);

    // The parts.
    Floats wide(n * (H + C)), before(n * E), summary(n * E), state(n * (C + E)), logits(n * V), moment_weights(n * F);
    for (size_t m = 0; m < n; ++m) {
        for (size_t k = 0; k < H; ++k) wide[m * (H + C) + k] = outputs[static_cast<size_t>(positions[m]) * H + k];
        for (size_t k = 0; k < C; ++k) wide[m * (H + C) + H + k] = state[m * (C + E) + k] = calendar[m * C + k];
    }
    product({n, E, H + C, wide.data(), summary_weight.data(), summary_bias.data(), before.data(), false, true, false}, 1, kernels);
    const auto cdf = [](float x) { return 0.5 * (1 + std::erf(static_cast<double>(x) / std::sqrt(2.0))); };
    for (size_t i = 0; i < n * E; ++i)
        summary[i] = state[i / E * (C + E) + C + i % E] = static_cast<float>(static_cast<double>(before[i]) * cdf(before[i]));
    product({n, V, C, calendar.data(), calendar_weight.data(), bias.data(), logits.data(), false, true, false}, 1, kernels);
    product({n, V, E, summary.data(), output.data(), nullptr, logits.data(), false, true, true}, 1, kernels);
    const auto trend = [&](size_t h, size_t m) { return trend_values.data() + (h * n_rows + static_cast<size_t>(trend_rows[m])) * V; };
    for (size_t m = 0; m < n; ++m)
        for (size_t h = 0; h < n_trends; ++h)
            for (size_t a = 0; a < V; ++a) logits[m * V + a] += trend(h, m)[a] * trend_weights[h * V + a];
    HabitScores scores = input.call();
    scores.moment_weights = moment_weights.data();
    if (with_habits) {
        product({n, F, C + E, state.data(), gate.data(), shared.data(), moment_weights.data(), false, true, false}, 1, kernels);
        habit_scores(scores, logits.data(), 1, kernels);
    }
    SetLoss loss{n, V, logits.data(), label_start.data(), labels.data(), weights.data(), 0.5f, logits.data()};
    const double expected_loss = set_loss(loss, 1, kernels);
    Floats grad_state(n * (C + E)), grad_summary(n * E), grad_moment(n * F), grad_outputs(n_steps * H);
    std::vector<Floats> expected;  // in the order of HeadGrads
    for (const size_t size : {E * (H + C), E, V * C, V, V * E, n_trends * V, F * (C + E), F, V * F, hidden * (F + 1), hidden, hidden})
        expected.emplace_back(with_habits || expected.size() < 6 ? size : 0);
    if (with_habits) {
        habit_grads(scores, logits.data(), {grad_moment.data(), expected[8].data(), expected[9].data(), expected[10].data(), expected[11].data()},
                    1, kernels);
        product({F, C + E, n, grad_moment.data(), state.data(), nullptr, expected[6].data(), true, false, false}, 1, kernels);
        product({n, C + E, F, grad_moment.data(), gate.data(), nullptr, grad_state.data(), false, false, false}, 1, kernels);
    }
    product({n, E, V, logits.data(), output.data(), nullptr, grad_summary.data(), false, false, false}, 1, kernels);
    product({V, E, n, logits.data(), summary.data(), nullptr, expected[4].data(), true, false, false}, 1, kernels);
    product({V, C, n, logits.data(), calendar.data(), nullptr, expected[2].data(), true, false, false}, 1, kernels);
    for (size_t m = 0; m < n; ++m) {
        for (size_t k = 0; k < F; ++k) expected[7][k] += grad_moment[m * F + k];
        for (size_t a = 0; a < V; ++a) {
            expected[3][a] += logits[m * V + a];
            for (size_t h = 0; h < n_trends; ++h) expected[5][h * V + a] += trend(h, m)[a] * logits[m * V + a];
        }
        for (size_t k = 0; k < E; ++k) {
            const double x = static_cast<double>(before[m * E + k]), density = std::exp(-x * x / 2) / std::sqrt(2 * 3.14159265358979);
            float& own = grad_summary[m * E + k];
            own = static_cast<float>(static_cast<double>(own + grad_state[m * (C + E) + C + k]) * (cdf(before[m * E + k]) + x * density));
            expected[1][k] += own;
        }
    }
    product({E, H + C, n, grad_summary.data(), wide.data(), nullptr, expected[0].data(), true, false, false}, 1, kernels);
    Floats grad_wide(n * (H + C));
    product({n, H + C, E, grad_summary.data(), summary_weight.data(), nullptr, grad_wide.data(), false, false, false}, 1, kernels);
    for (size_t m = 0; m < n; ++m)
        for (size_t k = 0; k < H; ++k) grad_outputs[static_cast<size_t>(positions[m]) * H + k] = grad_wide[m * (H + C) + k];

    // All at once; gradients are added to what is there.
    std::vector<Floats> found;
    for (const Floats& one : expected) found.emplace_back(one.size(), 1.0f);
    Floats found_outputs(n_steps * H);
    const HabitScores given = input.call();
    Head head{n, H, C, E, V, n_trends, n_rows, outputs.data(), positions.data(), calendar.data(), summary_weight.data(), summary_bias.data(),
              calendar_weight.data(), bias.data(), output.data(), trend_values.data(), trend_rows.data(), trend_weights.data(),
              with_habits ? &given : nullptr, gate.data(), shared.data(), loss, {0.0, 0}, block};
    const double found_loss =
        head_loss(head,
                  {found_outputs.data(), found[0].data(), found[1].data(), found[2].data(), found[3].data(), found[4].data(), found[5].data(),
                   found[6].data(), found[7].data(), {nullptr, found[8].data(), found[9].data(), found[10].data(), found[11].data()}},
                  n_threads, kernels);
    check_close({static_cast<float>(found_loss)}, {static_cast<float>(expected_loss)}, 1e-4, "loss of a head");
    check_close(found_outputs, grad_outputs, 1e-3, "gradient of a core's outputs");
    for (size_t i = 0; i < expected.size(); ++i) {
        for (float& value : expected[i]) value += 1;
        check_close(found[i], expected[i], 2e-3, "gradient of a head's weights");
    }
}

void test_step(size_t n, int level) {
    Floats p = random_floats(n), g = random_floats(n), m = random_floats(n), v(n, 0.5f), average = random_floats(n);
    Floats expected_p(n), expected_average(n), expected_m(n), expected_v(n);
    double squares = 0;
    for (size_t i = 0; i < n; ++i) {
        squares += static_cast<double>(g[i]) * static_cast<double>(g[i]);
        const double grad = 0.5 * static_cast<double>(g[i]), mean = 0.9 * static_cast<double>(m[i]) + 0.1 * grad;
        const double square = 0.999 * static_cast<double>(v[i]) + 0.001 * grad * grad;
        const double moved = static_cast<double>(p[i]) * (1 - 0.01 * 0.1) - 0.01 / 0.19 * mean / (std::sqrt(square / 0.3) + 1e-8);
        expected_p[i] = static_cast<float>(moved), expected_m[i] = static_cast<float>(mean), expected_v[i] = static_cast<float>(square);
        expected_average[i] = static_cast<float>(0.9 * static_cast<double>(average[i]) + 0.1 * moved);
    }
    const NetworkKernels& kernels = network_kernels(level);
    check_close({static_cast<float>(kernels.square_sum(g.data(), n))}, {static_cast<float>(squares)}, 1e-5, "square sum");
    kernels.adam_step({n, p.data(), g.data(), m.data(), v.data(), average.data(), 0.5f, 0.01f, 0.1f, 0.19f, 0.3f, 0.9f});
    check_close(p, expected_p, 1e-5, "parameters");
    check_close(m, expected_m, 1e-5, "means");
    check_close(v, expected_v, 1e-5, "squares");
    check_close(average, expected_average, 1e-5, "average");
    for (const float grad : g) assert(grad == 0);
}

void test_bags(size_t width, int level) {
    const Ids start{0, 3, 3, 4}, actions{1, 4, 1, 0};
    const Floats table = random_floats(5 * width), grad = random_floats(3 * width);
    Floats out(3 * width), expected(3 * width), grad_table(5 * width), expected_table(5 * width);
    for (size_t bag = 0; bag < 3; ++bag)
        for (int64_t i = start[bag]; i < start[bag + 1]; ++i)
            for (size_t k = 0; k < width; ++k) {
                const size_t action = static_cast<size_t>(actions[static_cast<size_t>(i)]);
                const float factor = 1 / std::sqrt(static_cast<float>(start[bag + 1] - start[bag]));
                expected[bag * width + k] += factor * table[action * width + k];
                expected_table[action * width + k] += factor * grad[bag * width + k];
            }
    sum_bags({3, width, start.data(), actions.data()}, table.data(), out.data(), 1, network_kernels(level));
    spread_bags({3, width, start.data(), actions.data()}, grad.data(), grad_table.data(), 1, network_kernels(level));
    check_close(out, expected, 1e-6, "bags");
    check_close(grad_table, expected_table, 1e-6, "gradient of bags");
}

auto count_threads() {
    const std::filesystem::directory_iterator threads("/proc/self/task");
    return std::distance(begin(threads), end(threads));
}

// Enough work for several threads to be begun: they must do what one does, bit by bit.
void test_threads(int level) {
    const NetworkKernels& kernels = network_kernels(level);
    const size_t M = 160, N = 200, K = 420;
    const LstmShape shape{20, 50, 48};
    const auto [T, B, H] = shape;
    const Floats a = random_floats(M * K), b = random_floats(K * N), weight = random_floats(H * 4 * H), projected = random_floats(T * B * 4 * H),
                 grad_outputs = random_floats(T * B * H), logits = random_floats(M * 2000), table = random_floats(50 * N), ones(M, 1.0f);
    Ids start, labels;
    for (size_t i = 0; i <= 8000; ++i) {
        start.push_back(static_cast<int64_t>(i));
        labels.push_back(static_cast<int64_t>(generator() % 50));
    }
    std::vector<Floats> found;
    Floats first(M * N);
    product({M, N, K, a.data(), b.data(), nullptr, first.data(), false, false, false}, 3, kernels);
    const auto n_before = count_threads();
    for (const size_t n_threads : {1u, 3u}) {
        Floats c(M * N), transposed(M * N), gates = projected, cells((T + 1) * B * H), outputs((T + 1) * B * H), grad_h(B * H, 1.0f);
        Floats grad_c(B * H, 1.0f), grad(M * 2000), bags(8000 * N), grad_table(50 * N);
        product({M, N, K, a.data(), b.data(), nullptr, c.data(), false, false, false}, n_threads, kernels);
        product({M, N, K, a.data(), b.data(), nullptr, transposed.data(), true, true, false}, n_threads, kernels);
        lstm_forward({shape, nullptr, gates.data(), cells.data(), outputs.data()}, weight.data(), n_threads, kernels);
        lstm_backward({shape, nullptr, gates.data(), cells.data(), grad_outputs.data(), grad_h.data(), grad_c.data(), true},
                      weight.data(), n_threads, kernels);
        set_loss({M, 2000, logits.data(), start.data(), labels.data(), ones.data(), 0.01f, grad.data()}, n_threads, kernels);
        sum_bags({8000, N, start.data(), labels.data()}, table.data(), bags.data(), n_threads, kernels);
        spread_bags({8000, N, start.data(), labels.data()}, bags.data(), grad_table.data(), n_threads, kernels);
        for (const Floats& values : {c, transposed, gates, cells, outputs, grad_h, grad_c, grad, bags, grad_table})
            found.push_back(values);
    }
    for (size_t i = 0; i < 10; ++i) assert(found[i] == found[i + 10]);

    assert(count_threads() == n_before);  // the same threads for products, the LSTM, losses and bags

    // Rounds for some of them and for all, one after the other: who has no part in a round is not waited for.
    for (size_t i = 0; i < 200; ++i) {
        Floats c(M * N);
        product({M, N, K, a.data(), b.data(), nullptr, c.data(), false, false, false}, 2 + i % 2, kernels);
        assert(c == found[0]);
    }

    // Callers at the same time: all but one do without the pool.
    std::vector<Floats> products(4, Floats(M * N));
    std::vector<std::thread> callers;
    for (Floats& c : products)
        callers.emplace_back([&] {
            for (int i = 0; i < 20; ++i)
                product({M, N, K, a.data(), b.data(), nullptr, c.data(), false, false, false}, 3, kernels);
        });
    for (std::thread& caller : callers) caller.join();
    for (const Floats& c : products) assert(c == found[0]);
}

}  // namespace

int main() {
    for (int level = 0; level <= 2; ++level) {
        for (const size_t n_threads : {1, 2}) {
            test_product(7, 5, 3, level, n_threads);
            test_product(1, 130, 800, level, n_threads);
            test_product(23, 90, 17, level, n_threads);
            test_product(3, 5, 0, level, n_threads);
            test_product(50, 700, 400, level, n_threads);  // more columns and terms than are packed at once
            for (const bool from_zeros : {false, true}) {
                test_lstm({3, 5, 4}, level, n_threads, from_zeros);
                test_lstm({2, 14, 17}, level, n_threads, from_zeros);
                test_lstm({1, 1, 1}, level, n_threads, from_zeros);
            }
            test_loss(9, 70, 2, level, n_threads);
            test_loss(5, 16, 60, level, n_threads);
            test_loss(3, 2, 1, level, n_threads);
            test_features(level, n_threads, 4);
            test_features(level, n_threads, 4000);  // counts are brought to a new origin at nearly every visit
            test_scores(1, level, n_threads);
            test_scores(16, level, n_threads);
            test_scores(21, level, n_threads);
            test_head(16, 1000, true, level, n_threads);
            test_head(21, 13, true, level, n_threads);
            test_head(3, 1000, false, level, n_threads);
        }
        test_threads(level);
        for (const size_t n : {1u, 16u, 5001u}) test_step(n, level);
        for (const size_t width : {1u, 16u, 37u, 130u}) test_bags(width, level);
        std::printf("%s\n", network_kernels(level).name);
    }
}
