#define LUCKYFAST_LANES 16
#include "network_kernels.inl"

namespace luckyfast {
const NetworkKernels avx512_network = LUCKYFAST_NETWORK("avx512");
}
