// Everything that is built once per instruction set.
#include "bags.inl"
#include "habits.inl"
#include "head.inl"
#include "loss.inl"
#include "lstm.inl"
#include "product.inl"

#define LUCKYFAST_NETWORK(name)                                                                                       \
    {name,          product_scratch, product,       packed_size,     pack_forward, pack_backward,   lstm_forward,     \
     lstm_backward, set_loss,        drop,          activate,        activate_grad, add_products_of, square_sum,      \
     adam_step,     add_rows,        sum_bags,      spread_bags,     features_scratch, habit_features, scores_scratch, \
     habit_scores,  habit_grads}
