#include "json.hpp"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace luckyfast {
namespace {

constexpr size_t max_paths = 32;
constexpr int max_depth = 200;
constexpr int32_t max_escaped_key = 256;
constexpr int32_t max_lead = 64;
constexpr int max_members = 64;
constexpr int none = -2;

struct Value {
    const uint8_t* at = nullptr;
    uint32_t size = 0;
    bool is_escaped = false;
};

// Where a path stands: its first `matched` bytes are the keys above, -1 where they differ.
struct Matches {
    int32_t matched[max_paths];
};

// What comes before the value of a line's n-th member, from the end of the value before it (comma, key, colon, blanks),
// and what its key means, where its parent is the member of that number (-1: the line itself).
struct Member {
    uint8_t lead[max_lead] = {};
    int32_t lead_size = 0;
    uint32_t mask = 0;  // of the lead's first 32 bytes
    int parent = none;
    uint32_t leaves = 0;
    bool has_below = false;
    Matches below;
};

inline bool is_blank(uint8_t byte) noexcept { return byte == ' ' || byte == '\t' || byte == '\r'; }
inline bool is_digit(uint8_t byte) noexcept { return byte >= '0' && byte <= '9'; }

// Four hexadecimal digits, or -1.
int32_t read_hex(const uint8_t* at, const uint8_t* end) noexcept {
    if (end - at < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; ++i) {
        const uint8_t low = at[i] | 0x20;
        if (!is_digit(at[i]) && (low < 'a' || low > 'f')) return -1;
        value = value * 16 + (is_digit(at[i]) ? at[i] - '0' : low - 'a' + 10);
    }
    return value;
}

uint8_t* write_utf8(uint8_t* out, uint32_t code) noexcept {
    if (code < 0x80) {
        *out++ = static_cast<uint8_t>(code);
        return out;
    }
    const int n_more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    const uint8_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    *out++ = static_cast<uint8_t>(lead[n_more] | (code >> (6 * n_more)));
    for (int i = n_more - 1; i >= 0; --i) *out++ = static_cast<uint8_t>(0x80 | ((code >> (6 * i)) & 0x3F));
    return out;
}

// The text of an escaped string; null where an escape is none.
uint8_t* unescape(const uint8_t* at, size_t size, uint8_t* out) noexcept {
    const uint8_t* const end = at + size;
    while (at < end) {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        if (++at == end) return nullptr;
        const uint8_t kind = *at++;
        switch (kind) {
            case '"': case '\\': case '/': *out++ = kind; break;
            case 'b': *out++ = '\b'; break;
            case 'f': *out++ = '\f'; break;
            case 'n': *out++ = '\n'; break;
            case 'r': *out++ = '\r'; break;
            case 't': *out++ = '\t'; break;
            case 'u': {
                const int32_t first = read_hex(at, end);
                if (first < 0) return nullptr;
                at += 4;
                uint32_t code = static_cast<uint32_t>(first);
                if (first >= 0xD800 && first < 0xDC00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
                    const int32_t second = read_hex(at + 2, end);
                    if (second >= 0xDC00 && second < 0xE000) {
                        code = 0x10000 + ((code - 0xD800) << 10) + static_cast<uint32_t>(second - 0xDC00);
                        at += 6;
                    }
                }
                out = write_utf8(out, code);
                break;
            }
            default: return nullptr;
        }
    }
    return out;
}

// Tells whole lines apart, of which only some values are projected.
// PERF: four sums that do not wait for each other.
uint64_t hash_line(const uint8_t* from, const uint8_t* to) noexcept {
    while (to > from && is_blank(to[-1])) --to;
    constexpr uint64_t odd = 0x9FB21C651E98DF25ull;
    uint64_t sums[4] = {static_cast<uint64_t>(to - from), 1, 2, 3};
    const auto mix = [](uint64_t sum, uint64_t word) { return ((sum ^ word) * odd) ^ ((sum ^ word) >> 32); };
    for (; to - from >= 32; from += 32)
        for (int i = 0; i < 4; ++i) sums[i] = mix(sums[i], load_u64(from + 8 * i));
    for (; to - from >= 8; from += 8) sums[0] = mix(sums[0], load_u64(from));
    for (; from < to; ++from) sums[1] = mix(sums[1], *from);
    return mix(mix(mix(sums[0], sums[1]), sums[2]), sums[3]);
}

class LineReader {
  public:
    LineReader(const JsonPaths& paths, Value* values) noexcept : paths_(paths), values_(values) {
        for (size_t i = 0; i < paths.n; ++i) {
            starts_[i] = i ? paths.stops[i - 1] : 0;
            sizes_[i] = static_cast<int32_t>(paths.stops[i] - starts_[i]);
            top_.matched[i] = 0;
        }
    }

    bool read(const uint8_t* from, const uint8_t* to) noexcept {
        at_ = from;
        end_ = to;
        skip_blanks();
        n_members_ = 0;
        if (at_ == end_ || *at_ != '{' || !read_object(top_, none + 1, 0)) return false;
        skip_blanks();
        return at_ == end_;
    }

  private:
    void skip_blanks() noexcept {
        // PERF: one blank or none is the rule; what is behind the line is readable.
        if (*at_ > ' ') return;
        while (at_ < end_ && is_blank(*at_)) ++at_;
    }

#ifdef __SSE2__
    // To the first of the bytes that `stops` marks among 16 with 0xFF, or to the line's end.
    // PERF: most values end within 16 bytes; what is behind the line is readable and does no harm.
    template <typename Stops>
    void skip_to(Stops stops) noexcept {
        while (at_ < end_) {
            const int mask = _mm_movemask_epi8(stops(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at_))));
            if (mask) {
                at_ += __builtin_ctz(static_cast<unsigned>(mask));
                break;
            }
            at_ += 16;
        }
        if (at_ > end_) at_ = end_;
    }

    static __m128i are(__m128i bytes, char byte) noexcept { return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte)); }
#endif

    // A number or word that nobody needs: up to what cannot be part of one, so that no structure is passed over.
    bool skip_unneeded() noexcept {
        const uint8_t* const from = at_;
#ifdef __SSE2__
        skip_to([](__m128i bytes) {
            const __m128i low = _mm_cmpeq_epi8(_mm_subs_epu8(bytes, _mm_set1_epi8(',')), _mm_setzero_si128());
            const __m128i small = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
            const __m128i others = _mm_or_si128(_mm_or_si128(are(small, '{'), are(small, '}')), are(bytes, ':'));
            return _mm_or_si128(_mm_andnot_si128(are(bytes, '+'), low), others);
        });
#else
        while (at_ < end_ && (*at_ > ',' || *at_ == '+') && (*at_ | 0x20) != '{' && (*at_ | 0x20) != '}' && *at_ != ':') ++at_;
#endif
        return at_ > from;
    }

    // From behind an opening quote to the closing one; whether there is one on this line.
    bool find_quote(bool& is_escaped) noexcept {
        while (at_ < end_) {
#ifdef __SSE2__
            skip_to([](__m128i bytes) { return _mm_or_si128(are(bytes, '"'), are(bytes, '\\')); });
#else
            while (at_ < end_ && *at_ != '"' && *at_ != '\\') ++at_;
#endif
            if (at_ >= end_) return false;
            if (*at_ == '"') return true;
            is_escaped = true;
            at_ += 2;
        }
        return false;
    }

    bool read_object(const Matches& above, int parent, int depth) noexcept {
        if (depth > max_depth) return false;
        ++at_;
        for (bool is_first = true;; is_first = false) {
            // PERF: lines have their keys in the same order, so that all up to a value is known from the line before.
            const int number = n_members_;
            Member& member = number < max_members ? members_[number] : spare_;
            if (member.parent == parent && is_lead(member)) {
                at_ += member.lead_size;
            } else {
                const uint8_t* const from = at_;
                skip_blanks();
                if (at_ >= end_) return false;
                if (*at_ == '}') return ++at_, true;
                if (!is_first) {
                    if (*at_ != ',') return false;
                    ++at_;
                    skip_blanks();
                }
                if (at_ >= end_ || *at_ != '"') return false;
                ++at_;
                if (!read_key(member, above)) return false;
                skip_blanks();
                if (at_ >= end_ || *at_ != ':') return false;
                ++at_;
                skip_blanks();
                learn_lead(member, from, number < max_members ? parent : none);
                // what was known of the members below was known of another key
                for (int i = number + 1; i < max_members; ++i)
                    if (members_[i].parent == number) members_[i].parent = none;
            }
            ++n_members_;
            skip_blanks();
            if (!read_value(member, number, depth)) return false;
        }
    }

    bool is_lead(const Member& member) const noexcept {
        if (end_ - at_ <= member.lead_size) return false;
#ifdef __SSE2__
        const auto equal = [&](int i) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at_ + i));
            const __m128i lead = _mm_loadu_si128(reinterpret_cast<const __m128i*>(member.lead + i));
            return static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, lead)));
        };
        if (((equal(0) | equal(16) << 16) & member.mask) != member.mask) return false;
        return member.lead_size <= 32 || std::memcmp(at_ + 32, member.lead + 32, static_cast<size_t>(member.lead_size - 32)) == 0;
#else
        return std::memcmp(at_, member.lead, static_cast<size_t>(member.lead_size)) == 0;
#endif
    }

    void learn_lead(Member& member, const uint8_t* from, int parent) noexcept {
        const auto size = static_cast<int32_t>(at_ - from);
        member.parent = size <= max_lead ? parent : none;
        if (member.parent == none) return;
        member.lead_size = size;
        member.mask = size >= 32 ? ~uint32_t{0} : (uint32_t{1} << size) - 1;
        std::memcpy(member.lead, from, static_cast<size_t>(size));
    }

    // A key and what it means.
    bool read_key(Member& member, const Matches& above) noexcept {
        const uint8_t* key = at_;
        bool is_escaped = false;
        if (!find_quote(is_escaped)) return false;
        int32_t size = static_cast<int32_t>(at_ - key);
        ++at_;
        uint8_t plain_key[max_escaped_key];
        if (is_escaped && size <= max_escaped_key) {
            const uint8_t* const stopped = unescape(key, static_cast<size_t>(size), plain_key);
            if (!stopped) return false;
            key = plain_key;
            size = static_cast<int32_t>(stopped - plain_key);
        }
        member.leaves = 0;
        member.has_below = false;
        for (size_t i = 0; i < paths_.n; ++i) {
            const int32_t matched = above.matched[i];
            const int32_t rest = sizes_[i] - matched;
            member.below.matched[i] = -1;
            if (matched < 0 || size > rest) continue;
            const uint8_t* const path = paths_.text + starts_[i] + matched;
            if (std::memcmp(path, key, static_cast<size_t>(size)) != 0) continue;
            if (size == rest) {
                member.leaves |= 1u << i;
            } else if (path[size] == '.') {
                member.below.matched[i] = matched + size + 1;
                member.has_below = true;
            }
        }
        return true;
    }

    bool read_value(const Member& member, int number, int depth) noexcept {
        if (at_ >= end_) return false;
        const uint8_t* const from = at_;
        bool is_escaped = false;
        if (member.has_below && *at_ == '{') {
            // the members below may take the place of this one where there are very many
            const Matches below = member.below;
            const uint32_t leaves = member.leaves;
            if (!read_object(below, number, depth + 1)) return false;
            keep(leaves, from, false);
        } else if (member.leaves == 0 && *from != '"' && *from != '{' && *from != '[') {
            return skip_unneeded();
        } else {
            if (!skip_value(depth + 1, is_escaped)) return false;
            keep(member.leaves, from, is_escaped);
        }
        return true;
    }

    void keep(uint32_t leaves, const uint8_t* from, bool is_escaped) noexcept {
        while (leaves) {
            Value& value = values_[__builtin_ctz(leaves)];
            leaves &= leaves - 1;
            const bool is_text = *from == '"';
            value.at = from + is_text;
            value.size = *from == 'n' ? 0 : static_cast<uint32_t>(at_ - from) - 2 * is_text;
            value.is_escaped = is_escaped;
        }
    }

    bool skip_value(int depth, bool& is_escaped) noexcept {
        if (at_ >= end_ || depth > max_depth) return false;
        bool inner = false;
        switch (*at_) {
            case '"':
                ++at_;
                if (!find_quote(is_escaped)) return false;
                ++at_;
                return true;
            case '{':
                return skip_items<'}'>(depth, inner);
            case '[':
                return skip_items<']'>(depth, inner);
            case 't':
                return skip_word("true", 4);
            case 'f':
                return skip_word("false", 5);
            case 'n':
                return skip_word("null", 4);
            default:
                return skip_number();
        }
    }

    template <char closing>
    bool skip_items(int depth, bool& is_escaped) noexcept {
        ++at_;
        skip_blanks();
        if (at_ < end_ && *at_ == closing) return ++at_, true;
        while (true) {
            if (closing == '}') {
                if (at_ >= end_ || *at_ != '"') return false;
                ++at_;
                if (!find_quote(is_escaped)) return false;
                ++at_;
                skip_blanks();
                if (at_ >= end_ || *at_ != ':') return false;
                ++at_;
                skip_blanks();
            }
            if (!skip_value(depth + 1, is_escaped)) return false;
            skip_blanks();
            if (at_ >= end_) return false;
            if (*at_ == closing) return ++at_, true;
            if (*at_ != ',') return false;
            ++at_;
            skip_blanks();
        }
    }

    bool skip_word(const char* word, size_t size) noexcept {
        if (static_cast<size_t>(end_ - at_) < size || std::memcmp(at_, word, size) != 0) return false;
        at_ += size;
        return true;
    }

    bool skip_digits() noexcept {
        const uint8_t* const from = at_;
#ifdef __SSE2__
        skip_to([](__m128i bytes) {
            const __m128i from_zero = _mm_add_epi8(bytes, _mm_set1_epi8(static_cast<char>(128 - '0')));
            return _mm_cmpgt_epi8(from_zero, _mm_set1_epi8(-128 + 9));
        });
#else
        while (at_ < end_ && is_digit(*at_)) ++at_;
#endif
        return at_ > from;
    }

    bool skip_number() noexcept {
        if (*at_ == '-') ++at_;
        const uint8_t* const from = at_;
        if (!skip_digits() || (*from == '0' && at_ - from > 1)) return false;
        if (at_ < end_ && *at_ == '.') {
            ++at_;
            if (!skip_digits()) return false;
        }
        if (at_ < end_ && (*at_ | 0x20) == 'e') {
            ++at_;
            if (at_ < end_ && (*at_ == '+' || *at_ == '-')) ++at_;
            if (!skip_digits()) return false;
        }
        return true;
    }

    const JsonPaths& paths_;
    Value* values_;
    const uint8_t* at_ = nullptr;
    const uint8_t* end_ = nullptr;
    Matches top_;
    Member members_[max_members];
    Member spare_;
    int n_members_ = 0;
    uint32_t starts_[max_paths];
    int32_t sizes_[max_paths];
};

}  // namespace

size_t project_json(const uint8_t* data, size_t start, const uint32_t* line_ends, const uint32_t* line_stops, size_t first,
                    size_t n_lines, const JsonPaths& paths, JsonRows& rows) noexcept {
    if (paths.n > max_paths) return 0;
    Value values[max_paths];
    LineReader reader(paths, values);
    const auto add = [&](uint8_t byte) {
        rows.separators[rows.n_separators++] = static_cast<uint32_t>(rows.n_out);
        rows.out[rows.n_out++] = byte;
    };
    for (size_t i = 0; i < n_lines; ++i) {
        const size_t stop = line_ends[(line_stops[first + i] & 0x7fffffffu) - 1];
        for (size_t k = 0; k < paths.n; ++k) values[k] = Value{};
        const uint8_t* from = data + start;
        const uint8_t* const to = data + stop;
        while (from < to && is_blank(*from)) ++from;
        const bool is_empty = from == to;
        bool is_good = !is_empty && reader.read(from, to);
        size_t size = paths.n + 3 + sizeof(uint64_t) + 16;
        for (size_t k = 0; k < paths.n; ++k) size += values[k].size;
        if (rows.n_out + size > rows.capacity || rows.n_separators + paths.n + 1 > rows.separator_capacity) return i;
        const size_t row_start = rows.n_out, row_separators = rows.n_separators;
        for (size_t k = 0; is_good && k < paths.n; ++k) {
            const Value& value = values[k];
            if (value.is_escaped) {
                const uint8_t* const stopped = unescape(value.at, value.size, rows.out + rows.n_out);
                is_good = stopped != nullptr;
                if (is_good) rows.n_out = static_cast<size_t>(stopped - rows.out);
            } else {
                // PERF: most values have up to 16 bytes; what is copied too much is written over.
                std::memcpy(rows.out + rows.n_out, value.at ? value.at : from, 16);
                if (value.size > 16) std::memcpy(rows.out + rows.n_out, value.at, value.size);
                rows.n_out += value.size;
            }
            add(0x1f);
        }
        if (!is_good) {
            rows.n_out = row_start;
            rows.n_separators = row_separators;
            if (!is_empty) rows.out[rows.n_out++] = '?';
        } else {
            const uint64_t hash = hash_line(from, to);
            std::memcpy(rows.out + rows.n_out, &hash, sizeof hash);
            rows.n_out += sizeof hash;
        }
        add('\n');
        rows.row_stops[rows.n_rows++] = static_cast<uint32_t>(rows.n_separators);
        start = stop + 1;
    }
    return n_lines;
}

}  // namespace luckyfast
