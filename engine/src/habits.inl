// Habits: features of every action in a customer's history at every moment, their scores, and the gradients.
//
// PERF: a customer's actions have slots in order of first occurrence. Everything known about them lies in columns by
// slot, so that one instruction works on L actions; a moment has the slots taken so far, and so have its pairs.
#include "lanes.hpp"
#include "network.hpp"

namespace luckyfast {
namespace {

constexpr double rebase_after = 60;  // powers of two

size_t round_up(size_t n) noexcept { return (n + L - 1) / L * L; }

// One decayed count per half-life: sum of 2 ** ((t_u - origin) / half_life), so that only `origin` moves with time.
struct Decay {
    double half_life;
    int64_t origin;
    float* counts;

    // Factor of an event now; where it would grow too large, all counts are brought to a new origin.
    float add_at(int64_t now, size_t n_slots) noexcept {
        const double age = static_cast<double>(now - origin) / half_life;
        if (age <= rebase_after) return static_cast<float>(__builtin_exp2(age));
        const float factor = static_cast<float>(__builtin_exp2(-age));
        for (size_t i = 0; i < n_slots; ++i) {
            const float count = counts[i] * factor;
            counts[i] = count < 1e-25f ? 0.0f : count;  // no denormal numbers
        }
        origin = now;
        return 1.0f;
    }
    float read_at(int64_t now) const noexcept {
        return static_cast<float>(__builtin_exp2(-static_cast<double>(now - origin) / half_life));
    }
};

size_t features_scratch(const HabitFeatures& call) noexcept {
    const size_t n_decays = call.n_half_lives + call.n_spans;
    return (n_decays + 10 + call.history.n_contexts * call.n_context_values) * (round_up(call.history.n_actions) + L);
}

void habit_features(const HabitFeatures& call, size_t row_start, size_t row_stop, float* scratch, int32_t* slots) noexcept {
    const HabitHistory& history = call.history;
    const size_t K = call.n_half_lives, n_decays = K + call.n_spans, J = history.n_contexts, C = call.n_context_values;
    const size_t room = round_up(history.n_actions) + L, n_pairs = static_cast<size_t>(history.pair_start[history.row_start[history.n_rows]]);
    const auto take = [&](size_t n_columns) {
        float* column = scratch;
        scratch += n_columns * room;
        return column;
    };
    double *last_time = reinterpret_cast<double*>(take(2)), *first_time = reinterpret_cast<double*>(take(2));
    float *counts = take(n_decays), *matches = take(J * C), *n_taken = take(1), *odds = take(1);  // odds: 1 / prior
    float *last_index = take(1), *first_index = take(1), *gap_rate = take(1), *span_rate = take(1);
    int32_t *slot_of = slots, *slot_action = slots + history.n_actions;
    Decay decays[max_habit_columns];
    int32_t n_alike[max_habit_columns];
    const double inverse_scale = 1 / call.time_scale;

    for (size_t row = row_start; row < row_stop; ++row) {
        const int64_t begin = history.first[row], start_time = history.visit_time[begin];
        int64_t visit = begin;
        size_t n_slots = 0;
        for (size_t k = 0; k < n_decays; ++k)
            decays[k] = {k < K ? call.half_lives[k] : call.spans[k - K], k < K ? start_time : 0, counts + k * room};
        for (size_t i = 0; i < J * C; ++i) n_alike[i] = 0;
        for (int64_t m = history.row_start[row]; m < history.row_start[row + 1]; ++m) {
            for (; visit < history.moments[m]; ++visit) {
                const int64_t time = history.visit_time[visit], index = visit - begin;
                const double elapsed = static_cast<double>(time - start_time);
                const int32_t* contexts = history.contexts + static_cast<size_t>(visit) * J;
                float weights[max_habit_columns];
                for (size_t k = 0; k < n_decays; ++k) weights[k] = decays[k].add_at(k < K ? time : index, n_slots);
                for (int32_t p = history.action_start[visit]; p < history.action_start[visit + 1]; ++p) {
                    const int32_t action = history.actions[p];
                    const bool is_new = slot_of[action] < 0;
                    const size_t slot = is_new ? n_slots++ : static_cast<size_t>(slot_of[action]);
                    if (is_new) {
                        slot_of[action] = static_cast<int32_t>(slot);
                        slot_action[slot] = action;
                        for (size_t k = 0; k < n_decays; ++k) decays[k].counts[slot] = 0;
                        for (size_t i = 0; i < J * C; ++i) matches[i * room + slot] = 0;
                        n_taken[slot] = 0;
                        odds[slot] = static_cast<float>(1 / call.prior[action]);
                        first_time[slot] = elapsed;
                        first_index[slot] = static_cast<float>(index);
                    }
                    for (size_t k = 0; k < n_decays; ++k) decays[k].counts[slot] += weights[k];
                    const double n_gaps = static_cast<double>(n_taken[slot]);
                    n_taken[slot] += 1;
                    last_time[slot] = elapsed;
                    last_index[slot] = static_cast<float>(index);
                    // of actions taken once these stay finite and are not used
                    const double own_gap = n_gaps > 0 ? (elapsed - first_time[slot]) / n_gaps : 1.0;
                    gap_rate[slot] = static_cast<float>(1 / (own_gap * inverse_scale + 0.01));
                    span_rate[slot] = n_gaps > 0 ? static_cast<float>(n_gaps) / (last_index[slot] - first_index[slot]) : 1.0f;
                    for (size_t j = 0; j < J; ++j) matches[(j * C + static_cast<size_t>(contexts[j])) * room + slot] += 1;
                }
                for (size_t j = 0; j < J; ++j) ++n_alike[j * C + static_cast<size_t>(contexts[j])];
            }
            const int64_t time = history.visit_time[visit], n_before = visit - begin;
            const double elapsed = static_cast<double>(time - start_time);
            const size_t pair = static_cast<size_t>(history.pair_start[m]);
            const int32_t* contexts = history.contexts + static_cast<size_t>(visit) * J;
            const float n_visits = static_cast<float>(n_before);
            float factors[max_habit_columns];
            for (size_t k = 0; k < n_decays; ++k) factors[k] = decays[k].read_at(k < K ? time : n_before - 1);
            for (size_t i = 0; i < n_slots; ++i) call.pair_action[pair + i] = slot_action[i];
            for (size_t at = 0; at < n_slots; at += L) {
                const size_t n = n_slots - at;
                float* out = call.features + pair + at;
                const auto put = [&](Lanes x) {
                    store(out, x, n);
                    out += n_pairs;
                };
                const Lanes taken = load(n_taken + at), own_odds = load(odds + at);
                for (size_t k = 0; k < n_decays; ++k) put(log(1.0f + load(decays[k].counts + at) * (factors[k] * own_odds)));
                float ages[L];
                for (size_t i = 0; i < L; ++i) ages[i] = static_cast<float>((elapsed - last_time[at + i]) * inverse_scale);
                const Lanes since = load(ages), missed = n_visits - 1.0f - load(last_index + at);
                put(log(1.0f + taken * own_odds));
                put(log(1.0f + since));
                put(log(1.0f + missed));
                put(missed == 0.0f ? splat(1) : Lanes{});
                const auto again = taken >= 2.0f;
                put(again ? splat(1) : Lanes{});
                const Lanes ratios[] = {(since + 0.01f) * load(gap_rate + at), (missed + 1.0f) * load(span_rate + at)};
                for (const Lanes ratio : ratios) {
                    const Lanes own = lower(upper(log(ratio), splat(-3)), splat(3));
                    put(again ? own : Lanes{});
                    put(again ? exp(-2.0f * own * own) : Lanes{});
                }
                const Lanes rarity = n_visits / taken;
                for (size_t j = 0; j < J; ++j) {
                    const size_t i = j * C + static_cast<size_t>(contexts[j]);
                    put(log((load(matches + i * room + at) * rarity + 3.0f) * (1.0f / (static_cast<float>(n_alike[i]) + 3.0f))));
                }
            }
        }
        for (size_t i = 0; i < n_slots; ++i) slot_of[slot_action[i]] = -1;
    }
}

constexpr size_t flush_after = 512;

size_t scores_scratch(const HabitScores& call) noexcept {
    const size_t room = round_up(call.V) + L;
    return (2 * call.F + 1) * room + (call.hidden + 1) * (room + flush_after + L) + (call.hidden * (call.F + 3) + call.F) * L;
}

// Units before their activation, of L pairs.
LUCKYFAST_INLINE void hidden_units(const HabitScores& call, const float* features, size_t n, Lanes log_popularity, size_t unit,
                                   Lanes (&acc)[habit_block]) noexcept {
#pragma GCC unroll 16
    for (size_t h = 0; h < habit_block; ++h)
        acc[h] = splat(call.bias[unit + h]) + call.first[call.F * call.hidden + unit + h] * log_popularity;
    for (size_t k = 0; k < call.F; ++k) {
        const Lanes f = load(features + k * call.n_pairs, n);
        const float* weights = call.first + k * call.hidden + unit;
#pragma GCC unroll 16
        for (size_t h = 0; h < habit_block; ++h) acc[h] += weights[h] * f;
    }
}

LUCKYFAST_INLINE Lanes normal_cdf(Lanes x) noexcept { return 0.5f * erf(0.70710678118654752f * x) + 0.5f; }

struct Unit {
    Lanes value, slope;  // gelu and its derivative
};

LUCKYFAST_INLINE Unit activated(Lanes x) noexcept {
    const Lanes cdf = normal_cdf(x), density = 0.39894228040143268f * exp(-0.5f * x * x);
    return {x * cdf, cdf + x * density};
}

// What a customer's slots need: offsets of weights and log popularity, in columns. Returns the number of slots.
LUCKYFAST_INLINE size_t fill_slots(const HabitScores& call, size_t row, size_t room, float* offsets, float* log_popularity) noexcept {
    const int64_t last = call.row_start[row + 1] - 1;
    if (last < call.row_start[row]) return 0;
    const int64_t start = call.pair_start[last];
    const size_t n_slots = static_cast<size_t>(call.pair_start[last + 1] - start);
    for (size_t i = 0; i < n_slots; ++i) {
        const size_t action = static_cast<size_t>(call.pair_action[start + static_cast<int64_t>(i)]);
        for (size_t k = 0; k < call.F; ++k) offsets[k * room + i] = call.per_action[action * call.F + k];
        log_popularity[i] = call.log_popularity[action];
    }
    return n_slots;
}

void habit_scores(const HabitScores& call, size_t row_start, size_t row_stop, float* logits, float* scratch) noexcept {
    const size_t room = round_up(call.V) + L;
    float *offsets = scratch, *log_popularity = scratch + call.F * room, *left = call.units;
    for (size_t row = row_start; row < row_stop; ++row) {
        fill_slots(call, row, room, offsets, log_popularity);
        for (int64_t m = call.row_start[row]; m < call.row_start[row + 1]; ++m) {
            const size_t pair = static_cast<size_t>(call.pair_start[m]);
            const size_t n_here = static_cast<size_t>(call.pair_start[m + 1]) - pair;
            const float* weights = call.moment_weights + static_cast<size_t>(m) * call.F;
            float* out = logits + static_cast<size_t>(m) * call.V;
            for (size_t at = 0; at < n_here; at += L, left += left ? 2 * call.hidden * L : 0) {
                const size_t n = n_here - at;
                const float* features = call.features + pair + at;
                Lanes score{};
                for (size_t k = 0; k < call.F; ++k)
                    score += (weights[k] + load(offsets + k * room + at)) * load(features + k * call.n_pairs, n);
                for (size_t unit = 0; unit < call.hidden; unit += habit_block) {
                    Lanes acc[habit_block];
                    hidden_units(call, features, n, load(log_popularity + at, n), unit, acc);
                    for (size_t h = 0; h < habit_block; ++h) {
                        const Unit own = left ? activated(acc[h]) : Unit{acc[h] * normal_cdf(acc[h]), {}};
                        score += call.second[unit + h] * own.value;
                        if (left) {
                            store(left + 2 * (unit + h) * L, own.value);
                            store(left + (2 * (unit + h) + 1) * L, own.slope);
                        }
                    }
                }
                for (size_t i = 0; i < L && i < n; ++i) out[call.pair_action[pair + at + i]] += score[i];
            }
        }
    }
}

// Sums over pairs of units' gradients times features: the gradient of the first layer, L partial sums for each weight.
template <size_t U, size_t K>
LUCKYFAST_INLINE void add_products(const float* grads, size_t grads_stride, const float* features, size_t stride, size_t n,
                                   float* sums, size_t sums_stride) noexcept {
    Lanes acc[U][K];
    for (size_t u = 0; u < U; ++u)
        for (size_t k = 0; k < K; ++k) acc[u][k] = load(sums + u * sums_stride + k * L);
    for (size_t at = 0; at < n; at += L) {
        Lanes f[K];
        for (size_t k = 0; k < K; ++k) f[k] = load(features + k * stride + at, n - at);
        for (size_t u = 0; u < U; ++u) {
            const Lanes grad = load(grads + u * grads_stride + at, n - at);
            for (size_t k = 0; k < K; ++k) acc[u][k] += grad * f[k];
        }
    }
    for (size_t u = 0; u < U; ++u)
        for (size_t k = 0; k < K; ++k) store(sums + u * sums_stride + k * L, acc[u][k]);
}

void habit_grads(const HabitScores& call, size_t row_start, size_t row_stop, const float* grad_logits, const HabitGrads& grads,
                 float* scratch) noexcept {
    constexpr size_t block = LUCKYFAST_LANES == 16 ? 5 : 2;
    const size_t F = call.F, room = round_up(call.V) + L, buffer_room = room + flush_after + L;
    float *offsets = scratch, *slot_grads = offsets + F * room, *slot_popularity = slot_grads + F * room;
    float *unit_grads = slot_popularity + room, *popularity = unit_grads + call.hidden * buffer_room;
    float *first_sums = popularity + buffer_room, *bias_sums = first_sums + call.hidden * (F + 1) * L;
    float *second_sums = bias_sums + call.hidden * L, *moment_sums = second_sums + call.hidden * L;
    const float* left = call.units;
    std::memset(first_sums, 0, (call.hidden * (F + 3)) * L * sizeof(float));

    for (size_t row = row_start; row < row_stop; ++row) {
        const size_t n_slots = fill_slots(call, row, room, offsets, slot_popularity);
        for (size_t k = 0; k < F; ++k) std::memset(slot_grads + k * room, 0, round_up(n_slots) * sizeof(float));
        size_t flushed = static_cast<size_t>(call.pair_start[call.row_start[row]]);
        for (int64_t m = call.row_start[row]; m < call.row_start[row + 1]; ++m) {
            const size_t pair = static_cast<size_t>(call.pair_start[m]), pair_stop = static_cast<size_t>(call.pair_start[m + 1]);
            const float* grad_row = grad_logits + static_cast<size_t>(m) * call.V;
            std::memset(moment_sums, 0, F * L * sizeof(float));
            for (size_t at = 0; at < pair_stop - pair; at += L, left += left ? 2 * call.hidden * L : 0) {
                const size_t n = pair_stop - pair - at;
                const float* features = call.features + pair + at;
                Lanes grad{};
                for (size_t i = 0; i < L && i < n; ++i) grad[i] = grad_row[call.pair_action[pair + at + i]];
                for (size_t k = 0; k < F; ++k) {
                    const Lanes product = grad * load(features + k * call.n_pairs, n);
                    store(moment_sums + k * L, load(moment_sums + k * L) + product);
                    store(slot_grads + k * room + at, load(slot_grads + k * room + at) + product);
                }
                const Lanes log_popularity = load(slot_popularity + at, n);
                store(popularity + (pair - flushed) + at, log_popularity, n);
                for (size_t unit = 0; unit < call.hidden; unit += habit_block) {
                    Lanes acc[habit_block];
                    if (!left) hidden_units(call, features, n, log_popularity, unit, acc);
                    for (size_t h = 0; h < habit_block; ++h) {
                        const float* own = left + 2 * (unit + h) * L;
                        const Unit found = left ? Unit{load(own), load(own + L)} : activated(acc[h]);
                        const Lanes unit_grad = grad * call.second[unit + h] * found.slope;
                        float *bias_sum = bias_sums + (unit + h) * L, *second_sum = second_sums + (unit + h) * L;
                        store(bias_sum, load(bias_sum) + unit_grad);
                        store(second_sum, load(second_sum) + grad * found.value);
                        store(unit_grads + (unit + h) * buffer_room + (pair - flushed) + at, unit_grad, n);
                    }
                }
            }
            for (size_t k = 0; k < F; ++k) grads.moment_weights[static_cast<size_t>(m) * F + k] = sum(load(moment_sums + k * L));
            if (pair_stop - flushed < flush_after && m + 1 < call.row_start[row + 1]) continue;
            const size_t n = pair_stop - flushed;
            for (size_t unit = 0; unit < call.hidden; unit += 4) {
                const float* units = unit_grads + unit * buffer_room;
                float* sums = first_sums + unit * (F + 1) * L;
                size_t k = 0;
                for (; k + block <= F; k += block)
                    add_products<4, block>(units, buffer_room, call.features + k * call.n_pairs + flushed, call.n_pairs, n,
                                           sums + k * L, (F + 1) * L);
                for (; k < F; ++k)
                    add_products<4, 1>(units, buffer_room, call.features + k * call.n_pairs + flushed, call.n_pairs, n, sums + k * L,
                                       (F + 1) * L);
                add_products<4, 1>(units, buffer_room, popularity, 0, n, sums + F * L, (F + 1) * L);
            }
            flushed = pair_stop;
        }
        if (n_slots == 0) continue;
        const int64_t last = call.pair_start[call.row_start[row + 1] - 1];
        for (size_t i = 0; i < n_slots; ++i) {
            float* own = grads.per_action + static_cast<size_t>(call.pair_action[last + static_cast<int64_t>(i)]) * F;
            for (size_t k = 0; k < F; ++k) own[k] += slot_grads[k * room + i];
        }
    }
    for (size_t h = 0; h < call.hidden; ++h) {
        for (size_t k = 0; k <= F; ++k) grads.first[h * (F + 1) + k] += sum(load(first_sums + (h * (F + 1) + k) * L));
        grads.bias[h] += sum(load(bias_sums + h * L));
        grads.second[h] += sum(load(second_sums + h * L));
    }
}

}  // namespace
}  // namespace luckyfast
