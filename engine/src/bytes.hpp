// Unaligned loads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace luckyfast {

inline uint64_t load_u64(const uint8_t* p) noexcept {
    uint64_t word;
    std::memcpy(&word, p, 8);
    return word;
}

}  // namespace luckyfast
