// Lines cut short at every byte, in buffers of exactly their size and the slack, for AddressSanitizer to watch.
#include <cassert>
#include <string>
#include <vector>

#include "json.hpp"

using namespace luckyfast;

namespace {

std::string project(const std::string& text, const std::vector<std::string>& names, size_t capacity) {
    std::vector<uint8_t> data(text.begin(), text.end());
    data.resize(text.size() + 64);
    std::vector<uint32_t> ends, stops, path_stops;
    for (size_t i = 0; i < text.size(); ++i)
        if (text[i] == '\n') ends.push_back(static_cast<uint32_t>(i)), stops.push_back(static_cast<uint32_t>(ends.size()));
    std::string path_text;
    for (const auto& name : names) path_text += name, path_stops.push_back(static_cast<uint32_t>(path_text.size()));
    const JsonPaths paths{reinterpret_cast<const uint8_t*>(path_text.data()), path_stops.data(), names.size()};
    std::vector<uint8_t> out(capacity);
    std::vector<uint32_t> separators(ends.size() * (names.size() + 1)), row_stops(ends.size());
    JsonRows rows{out.data(), out.size(), separators.data(), separators.size(), row_stops.data()};
    const size_t done = project_json(data.data(), 0, ends.data(), stops.data(), 0, ends.size(), paths, rows);
    if (done < ends.size()) return "too small";
    std::string shown;
    size_t first = 0, at = 0;
    for (size_t row = 0; row < ends.size(); ++row) {
        const size_t n = row_stops[row] - first;
        for (size_t i = first; i < row_stops[row]; ++i) {
            // the last field is the line's hash
            if (n == 1 || i + 1 < row_stops[row]) shown.append(out.begin() + at, out.begin() + separators[i]);
            shown += i + 1 == row_stops[row] ? '\n' : '|';
            at = separators[i] + 1;
        }
        first = row_stops[row];
    }
    return shown;
}

}  // namespace

int main() {
    const std::vector<std::string> paths = {"id", "event.type", "x"};
    assert(project("{\"id\":1,\"event\":{\"type\":\"a\\u00e9\\n\"}}\n", paths, 100) == "1|a\xc3\xa9\n||\n");
    assert(project(" { \"event.type\" : null , \"x\" : [1, {\"id\":2}] } \r\n\n{\"id\":\"\\ud83d\\uded2\"}\n{\"id\":}\n", paths, 100) ==
           "||[1, {\"id\":2}]|\n\n\xf0\x9f\x9b\x92|||\n?\n");
    assert(project("{\"id\":1,\"id\":-0.5e+3}\n{\"id\":01}\n{\"id\":tru}\n[1]\n{}x\n{\"id\":1,}\n", paths, 100) ==
           "-0.5e+3|||\n?\n?\n?\n?\n?\n");
    assert(project("{\"id\":\"1234567890\"}\n", paths, 30) == "too small");
    assert(project(std::string(5000, '[') + "\n{\"a\":" + std::string(5000, '[') + "\n", paths, 100) == "?\n?\n");
    const std::string line = "{\"id\":\"a\\\\\\\"b\",\"event\":{\"type\":[1,2,{\"k\":\"v\"}],\"t\":true},\"x\":-1.5e3}";
    for (size_t n = 1; n < line.size(); ++n) assert(project(line.substr(0, n) + "\n", paths, 100) == "?\n");
    assert(project(line + "\n", paths, 100) == "a\\\"b|[1,2,{\"k\":\"v\"}]|-1.5e3|\n");
    // what is known from a line before must not stand for another object's key, nor for another space or order
    assert(project("{\"event\":{\"type\":1}}\n{\"x\":{\"type\":2}}\n{\"event\": {\"type\":3}}\n", {"event.type", "x.type"}, 200) ==
           "1||\n|2|\n3||\n");
    const std::string key(70, 'k');
    assert(project("{\"" + key + "\":1,\"id\":2}\n{\"" + key + "\":3 ,\"id\":4}\n{\"id\":5,\"" + key + "\":6}\n", {key, "id"}, 500) ==
           "1|2|\n3|4|\n6|5|\n");
    return 0;
}
