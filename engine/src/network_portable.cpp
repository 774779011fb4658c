#define LUCKYFAST_LANES 4
#include "network_kernels.inl"

namespace luckyfast {
const NetworkKernels portable_network = LUCKYFAST_NETWORK("portable");
}
