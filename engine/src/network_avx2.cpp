#define LUCKYFAST_LANES 8
#include "network_kernels.inl"

namespace luckyfast {
const NetworkKernels avx2_network = LUCKYFAST_NETWORK("avx2");
}
