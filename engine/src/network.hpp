// What networks cost most in: the recurrent layer, the loss, habits and the optimiser, forward and backward.
//
// Arrays are float32, row by row, without gaps. Each function takes the kernels of one instruction set (level 0
// portable, 1 AVX2, 2 AVX-512, -1 the best of this processor) and splits its rows among threads where it says so.
#pragma once

#include "bytes.hpp"

namespace luckyfast {

// c [M, N] = a [M, K] @ b [K, N] + bias [N], where a and b may be stored the other way round.
struct Product {
    size_t M, N, K;
    const float *a, *b;
    const float* bias;  // nullptr for none
    float* c;
    bool a_transposed, b_transposed;
    bool adds;  // c += instead of c =
};

// T steps of B sequences with H units; gates are laid out as input, forget, output, candidate.
struct LstmShape {
    size_t T, B, H;
};

struct LstmForward {
    LstmShape shape;
    const float* packed;  // recurrent weights, as pack_forward leaves them
    float* gates;         // [T, B, 4H]: inputs times their weights plus the bias in, activated gates out
    float* cells;         // [T + 1, B, H]; the first is the state before
    float* outputs;       // [T + 1, B, H]; the same
    bool from_zeros = false;  // whether the first of outputs is 0, which spares a product
};

struct LstmBackward {
    LstmShape shape;
    const float* packed;        // recurrent weights, as pack_backward leaves them
    float* gates;               // [T, B, 4H]: activated gates in, gradients before their activation out
    const float* cells;         // [T + 1, B, H]
    const float* grad_outputs;  // [T, B, H]
    float* grad_h;              // [B, H]: of the last output in, of the state before out, if that is wanted
    float* grad_c;              // [B, H]: of the last cell in, of the state before out
    bool wants_grad_h;
};

// Sum over the labels of -log softmax(logits)[label], each weighed by its row's weight, times `scale`. With smoothing the
// share smoothing[a] of each label is action a instead.
struct SetLoss {
    size_t n, V;
    const float* logits;         // [n, V]
    const int64_t* label_start;  // [n + 1]
    const int64_t* labels;
    const float* weights;  // [n]
    float scale;           // 1 / sum of the weights of all labels of the step, of which these rows may be a part
    float* grad;           // [n, V] written: its gradient; may be the logits' own memory
    const float* smoothing = nullptr;  // [V], if any
    float unsmoothed = 1;              // 1 - sum of smoothing
};

// One step of AdamW and of the running average; gradients are set to 0.
struct AdamStep {
    size_t n;
    float *parameters, *grads, *means, *squares, *average;
    float grad_scale, rate, decay, bias_1, bias_2, keep;
};

// out[b] = sum of the table's rows of bag b / sqrt(size of b), and the gradient of the table from that of out.
struct Bags {
    size_t n, width;
    const int64_t* start;  // [n + 1]
    const int64_t* actions;
};

// Some customers' histories, and the moments for which habits are wanted.
struct HabitHistory {
    size_t n_rows, n_actions, n_contexts;
    const int64_t* first;       // [n_rows] first visit of each customer
    const int64_t* row_start;   // [n_rows + 1]; customer r has the moments row_start[r]:row_start[r + 1]
    const int64_t* moments;     // visits, ascending within a customer
    const int64_t* pair_start;  // [n_moments + 1] running number of (moment, action) pairs
    const int64_t* visit_time;
    const int32_t* action_start;  // [n_visits + 1]
    const int32_t* actions;
    const int32_t* contexts;  // [n_visits, n_contexts]
};

struct HabitFeatures {
    HabitHistory history;
    size_t n_half_lives, n_spans, n_context_values;
    const double *half_lives, *spans, *prior;
    double time_scale;
    int64_t* pair_action;  // [n_pairs] written: in order of first occurrence within a moment
    float* features;       // [n_half_lives + n_spans + 9 + n_contexts, n_pairs] written
};

// score = sum_k (moment_weights[m, k] + per_action[a, k]) f_k + second . gelu(first [f, log popularity_a] + bias)
struct HabitScores {
    size_t n_rows, n_pairs, V, F, hidden;
    const int64_t *row_start, *pair_start, *pair_action;
    const float* features;        // [F, n_pairs]
    const float* moment_weights;  // [n, F]
    const float* per_action;      // [V, F]
    const float* first;           // [F + 1, hidden]: transposed, hidden a multiple of habit_block
    const float* bias;            // [hidden]
    const float* second;          // [hidden]
    const float* log_popularity;  // [V]
    // PERF: what habit_scores leaves for habit_grads: 2 * hidden vectors for each vector of a moment's pairs; or nullptr
    float* units = nullptr;
};

struct HabitGrads {
    float* moment_weights;  // [n, F] written
    float* per_action;      // [V, F] added to, and so are all below
    float* first;           // [hidden, F + 1]
    float* bias;            // [hidden]
    float* second;          // [hidden]
};

// Which of many numbers are set to 0, the others growing by as much: number i is, if a hash of seed and i says so.
struct Dropout {
    double share;  // in [0, 1)
    uint64_t seed;
};

// From what a core remembers at n moments to the loss of their labels:
//   summary = dropout(gelu([memory, calendar] @ summary_weight.T + summary_bias))
//   logits = calendar @ calendar_weight.T + bias + sum_h trend_weights[h] * trend_values[h, trend_rows]
//            + summary @ output.T + scores of habits, whose moment_weights are [calendar, summary] @ gate.T + shared
struct Head {
    size_t n, H, C, E, V, n_trends, n_trend_rows;
    const float* outputs;          // [n_steps, H]
    const int64_t* positions;      // [n] each moment's row of outputs; no two are the same
    const float* calendar;         // [n, C]
    const float* summary_weight;   // [E, H + C]
    const float* summary_bias;     // [E]
    const float* calendar_weight;  // [V, C]
    const float* bias;             // [V]
    const float* output;           // [V, E]
    const float* trend_values;     // [n_trends, n_trend_rows, V]
    const int64_t* trend_rows;     // [n]
    const float* trend_weights;    // [n_trends, V]
    const HabitScores* habits;     // nullptr for none; its moment_weights are not read
    const float* gate;             // [F, C + E]
    const float* shared;           // [F]
    SetLoss loss;                  // its logits and grad are not read
    Dropout dropout;
    size_t block;                  // moments that have their logits at once, in each thread
};

struct HeadGrads {
    float* outputs;  // [n_steps, H] written in the rows of moments, all below added to
    float *summary_weight, *summary_bias, *calendar_weight, *bias, *output, *trend_weights, *gate, *shared;
    HabitGrads habits;  // its moment_weights are not read
};

constexpr size_t habit_block = 16;
constexpr size_t max_habit_columns = 64;  // decays; values of all contexts together

struct NetworkKernels {
    const char* name;
    size_t (*product_scratch)(const Product& call);
    void (*product)(const Product& call, size_t row_start, size_t row_stop, float* scratch);
    size_t (*packed_size)(size_t H);
    void (*pack_forward)(const float* weight, size_t H, float* packed);
    void (*pack_backward)(const float* weight, size_t H, float* packed);
    void (*lstm_forward)(const LstmForward& call, size_t row_start, size_t row_stop);
    void (*lstm_backward)(const LstmBackward& call, size_t row_start, size_t row_stop);
    double (*set_loss)(const SetLoss& call, size_t row_start, size_t row_stop);
    void (*drop)(const Dropout& dropout, size_t first, const float* values, float* out, size_t n);
    void (*activate)(const Dropout& dropout, size_t first, const float* x, float* out, size_t n);
    void (*activate_grad)(const Dropout& dropout, size_t first, const float* x, float* grad, size_t n);
    void (*add_products_of)(float* out, const float* a, const float* b, size_t n);
    double (*square_sum)(const float* values, size_t n);
    void (*adam_step)(const AdamStep& call);
    void (*add_rows)(float* into, const float* row, float factor, size_t n);
    void (*sum_bags)(const Bags& bags, const float* table, float* out, size_t bag_start, size_t bag_stop);
    void (*spread_bags)(const Bags& bags, const float* grad, float* grad_table, size_t column_start, size_t column_stop);
    size_t (*features_scratch)(const HabitFeatures& call);
    void (*habit_features)(const HabitFeatures& call, size_t row_start, size_t row_stop, float* scratch, int32_t* slots);
    size_t (*scores_scratch)(const HabitScores& call);
    void (*habit_scores)(const HabitScores& call, size_t row_start, size_t row_stop, float* logits, float* scratch);
    void (*habit_grads)(const HabitScores& call, size_t row_start, size_t row_stop, const float* grad_logits,
                        const HabitGrads& grads, float* scratch);
};

const NetworkKernels& network_kernels(int level = -1) noexcept;

extern const NetworkKernels portable_network;
#ifdef LUCKYFAST_X86
extern const NetworkKernels avx2_network;
extern const NetworkKernels avx512_network;
#endif

// Rows of c are split among threads.
void product(const Product& call, size_t n_threads, const NetworkKernels& kernels);

// `weight` is [H, 4H]; `packed` is left to the callee, and so is `from_zeros`, which is returned. Sequences are split among
// threads.
bool lstm_forward(LstmForward call, const float* weight, size_t n_threads, const NetworkKernels& kernels);
void lstm_backward(LstmBackward call, const float* weight, size_t n_threads, const NetworkKernels& kernels);

// Returns the sum of the rows' terms times `scale`: the mean, where `scale` is of these rows alone. Rows are split among
// threads.
double set_loss(const SetLoss& call, size_t n_threads, const NetworkKernels& kernels);

// Bags are split among threads in the first, columns in the second.
void sum_bags(const Bags& bags, const float* table, float* out, size_t n_threads, const NetworkKernels& kernels);
void spread_bags(const Bags& bags, const float* grad, float* grad_table, size_t n_threads, const NetworkKernels& kernels);

// Fills history.pair_start.
void count_pairs(const HabitHistory& history, int64_t* pair_start);

// Customers are split among threads, as many pairs for each.
void habit_features(const HabitFeatures& call, size_t n_threads, const NetworkKernels& kernels);
// Adds scores to logits [n, V]; `first` [hidden, F + 1], `bias` and `second` may have any number of hidden units here.
void habit_scores(HabitScores call, float* logits, size_t n_threads, const NetworkKernels& kernels);
void habit_grads(HabitScores call, const float* grad_logits, HabitGrads grads, size_t n_threads, const NetworkKernels& kernels);

// Returns the loss of a head and its gradients. Moments are split among threads, blocks of them go forward and back while
// their logits are in the cache: those of all moments never exist.
double head_loss(const Head& call, const HeadGrads& grads, size_t n_threads, const NetworkKernels& kernels);

}  // namespace luckyfast
